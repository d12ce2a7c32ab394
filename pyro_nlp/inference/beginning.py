"""What parameters begin with, where they are not to begin at random (layer: inference)."""

from __future__ import annotations

from torch import nn

from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.vectors import read_vectors
from pyro_nlp.data.vocabulary import Vocabulary
from pyro_nlp.inference.folder import RunFolder
from pyro_nlp.inference.sites import StructureError
from pyro_nlp.inference.training import Training
from pyro_nlp.nn.language_model import LanguageModel
from pyro_nlp.nn.words import use_vectors


def begin(model: nn.Module, guide: nn.Module | None, corpus: Corpus, training: Training, resume: bool) -> None:
    """Put word vectors and parts of other runs in their places, and hold fixed what is not to be trained.

    A resumed run has its own state put over them, and does not ask for the runs it once began with.

    Raises:
        StructureError: a part that is not there, or a run whose vocabulary or parameters are not those of the part.
        RunError: a folder that is no run.
    """
    if training.vectors is not None:
        _begin_with_vectors(model, guide, corpus, training)
    for part, run in ({} if resume else training.start).items():
        _begin_with_run(_part(part, model, guide), part, RunFolder.open(run), corpus)
    for part in training.fixed:
        _part(part, model, guide).requires_grad_(False)
    both = [module for module in (model, guide) if isinstance(module, nn.Module)]
    if training.fixed and not any(p.requires_grad for module in both for p in module.parameters()):
        raise StructureError(f"with {', '.join(training.fixed)} fixed nothing is left to train: fix less")


def _begin_with_vectors(model: nn.Module, guide: nn.Module | None, corpus: Corpus, training: Training) -> None:
    if corpus.vocabulary is None:
        raise StructureError(f"{corpus.name} has no words to give vectors: leave out --training.vectors")
    assert training.vectors is not None
    vectors = read_vectors(training.vectors, corpus.vocabulary)
    both = nn.ModuleList([module for module in (model, guide) if module is not None])
    for name in use_vectors(both, vectors):
        if training.keep_vectors:
            both.get_submodule(name).requires_grad_(False)


def _part(name: str, model: nn.Module, guide: nn.Module | None) -> nn.Module:
    """The module that `model.prior` or `guide.encoder` names."""
    owner, _, path = name.partition(".")
    module = {"model": model, "guide": guide}.get(owner)
    if owner == "guide" and guide is None:
        raise StructureError(f"'{name}': there is no guide")
    if not isinstance(module, nn.Module):
        raise StructureError(f"'{name}' names no part: give model or guide, a dot and the part, as in model.prior")
    try:
        return module.get_submodule(path)
    except AttributeError:
        known = ", ".join(f"{owner}.{child}" for child, _ in module.named_children())
        raise StructureError(f"'{name}' is no part of {type(module).__name__}; it has {known}") from None


def _begin_with_run(part: nn.Module, name: str, folder: RunFolder, corpus: Corpus) -> None:
    """Load the model or the guide of a run into a part that has the same parameters, and the same words."""
    weights = folder.load_weights("model")
    if weights.keys() != part.state_dict().keys() and folder.has("guide.safetensors"):
        guide = folder.load_weights("guide")
        weights = guide if guide.keys() == part.state_dict().keys() else weights
    if folder.has("vocabulary.json") and corpus.vocabulary is not None:
        theirs = Vocabulary.from_json(folder.read_text("vocabulary.json"))
        ours = corpus.vocabulary.words
        if theirs.words != ours:
            other = next((i for i, (a, b) in enumerate(zip(theirs.words, ours, strict=False)) if a != b), None)
            where = "" if other is None else f"; word {other} is {theirs.words[other]!r} there and {ours[other]!r} here"
            raise StructureError(
                f"'{name}' cannot start from {folder.path}, which has another vocabulary ({len(theirs.words):,} words, "
                f"here {len(ours):,}{where}): train it on the same corpus"
            )
    if weights.keys() != part.state_dict().keys():
        what = type(part).__name__
        cure = "SentenceLM" if isinstance(part, LanguageModel) else "a model or guide with the same"
        raise StructureError(
            f"'{name}' cannot start from {folder.path}, whose parts are not those of a {what}: give a run of {cure}"
        )
    try:
        part.load_state_dict(weights)
    except RuntimeError as error:
        reason = (str(error).splitlines()[1:2] or [str(error)])[0].strip()
        raise StructureError(
            f"'{name}' cannot start from {folder.path}, whose model has other parameters ({reason}): give both the "
            "same sizes"
        ) from None
