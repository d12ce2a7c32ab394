"""Every model with every guide it meets: adding a model is adding a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.data import Corpus
from pyro_nlp.data.batches import EOS
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.toy import Ring as RingCorpus
from pyro_nlp.evaluation import evaluate
from pyro_nlp.guides.flow import FlowGuide
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.mean_field import MeanFieldGuide
from pyro_nlp.guides.point import PointGuide
from pyro_nlp.guides.vector import VectorGuide
from pyro_nlp.guides.von_mises_fisher import VonMisesFisherGuide
from pyro_nlp.inference import ELBO, KL, Adam, Enumerate, FreeBits, PyroELBO, Strategy, Training, fit, terms
from pyro_nlp.models.class_language_model import ClassLanguageModel
from pyro_nlp.models.compound_pcfg import CompoundPCFG, NeuralPCFG
from pyro_nlp.models.hmm import HMM
from pyro_nlp.models.naive_bayes import NaiveBayes
from pyro_nlp.models.neural_hmm import NeuralHMM
from pyro_nlp.models.ring import Ring
from pyro_nlp.models.sentence_autoencoder import SentenceAutoencoder
from pyro_nlp.models.sentence_lm import SentenceLM
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import (
    AutoregressivePrior,
    BatchNormHead,
    CommittedHead,
    DilatedCNNDecoder,
    GRUDecoder,
    GRUEncoder,
    InputlessDecoder,
    LowRankTransitions,
    LSTMDecoder,
    LSTMEncoder,
    LSTMTransitions,
    MixturePrior,
    SecondOrderTransitions,
    StateTransitions,
    TransformerDecoder,
    UniformSphere,
    VampPrior,
    WordEmissions,
)
from tests.inference.test_control import Attributed, made
from tests.tiny import (
    LATENT,
    VOCABULARY,
    WIDTH,
    Sentences,
    discrete,
    gradients,
    mixture,
    padded,
    sharpen,
    stacked,
    styled,
)

# without dropout: several tests compare two passes
DECODERS: dict[str, Any] = {
    **{
        kind.__name__: partial(kind, embedding=WIDTH, width=WIDTH)
        for kind in (LSTMDecoder, GRUDecoder, InputlessDecoder)
    },
    "DilatedCNNDecoder": partial(DilatedCNNDecoder, embedding=WIDTH, width=WIDTH, size="small"),
    "TransformerDecoder": partial(
        TransformerDecoder, embedding=WIDTH, width=WIDTH, layers=2, heads=2, feedforward=2 * WIDTH, dropout=0.0
    ),
}
TRANSITIONS: dict[str, Any] = {
    "states": partial(StateTransitions, width=WIDTH),
    "LSTM": partial(LSTMTransitions, reader=DECODERS["LSTMDecoder"]),
    "low rank": partial(LowRankTransitions, rank=2, width=WIDTH),
    "second order": SecondOrderTransitions,
}
ENCODERS: dict[str, Any] = {
    "last": partial(LSTMEncoder, embedding=WIDTH, width=WIDTH),
    "mean": partial(GRUEncoder, embedding=WIDTH, width=WIDTH, pooling="mean"),
    "max": partial(LSTMEncoder, embedding=WIDTH, width=WIDTH, pooling="max"),
}


@dataclass(frozen=True)
class Entry:
    """A model, the guides it meets, and the corpus both are tried on."""

    corpus: Callable[[], Corpus]
    model: Callable[[], nn.Module]
    guides: dict[str, Callable[[Corpus], nn.Module | None]]
    density: bool = True


def nobody(corpus: Corpus) -> None:
    return None


GAUSSIAN: dict[str, Callable[[Corpus], nn.Module | None]] = {
    f"gaussian, {name}": (lambda e: lambda corpus: GaussianGuide(VOCABULARY, LATENT, e))(encoder)
    for name, encoder in ENCODERS.items()
}
FREE: dict[str, Callable[[Corpus], nn.Module | None]] = {
    "mean field": lambda corpus: MeanFieldGuide(len(corpus.train), LATENT)
}
POINT: dict[str, Callable[[Corpus], nn.Module | None]] = {
    "point": lambda corpus: PointGuide(VOCABULARY, LATENT, ENCODERS["last"])
}

COMMITTED: dict[str, Callable[[Corpus], nn.Module | None]] = {
    "batch norm": lambda corpus: GaussianGuide(VOCABULARY, LATENT, ENCODERS["last"], BatchNormHead),
    "committed": lambda corpus: GaussianGuide(VOCABULARY, LATENT, ENCODERS["last"], CommittedHead),
}
FLOWS: dict[str, Callable[[Corpus], nn.Module | None]] = {
    "IAF": lambda corpus: FlowGuide(VOCABULARY, LATENT, ENCODERS["last"], hidden=WIDTH),
    "planar flow": lambda corpus: FlowGuide(VOCABULARY, LATENT, ENCODERS["last"], flow="planar", hidden=WIDTH),
}
SPHERE: dict[str, Callable[[Corpus], nn.Module | None]] = {
    "vMF": lambda corpus: VonMisesFisherGuide(VOCABULARY, LATENT, ENCODERS["last"]),
    "vMF, learnt": lambda corpus: VonMisesFisherGuide(VOCABULARY, LATENT, ENCODERS["last"], learn_concentration=True),
}
LAST = {"gaussian, last": GAUSSIAN["gaussian, last"]}
PRIORS: dict[str, tuple[Any, dict[str, Callable[[Corpus], nn.Module | None]]]] = {
    "mixture prior": (partial(MixturePrior, components=5), {**LAST, "IAF": FLOWS["IAF"]}),
    "autoregressive prior": (AutoregressivePrior, LAST),
    "VampPrior": (
        partial(VampPrior, components=5, length=4, embedding=WIDTH),
        {**LAST, "committed": COMMITTED["committed"], "planar flow": FLOWS["planar flow"]},
    ),
    "uniform on the sphere": (UniformSphere, SPHERE),
    "VampPrior on the sphere": (partial(VampPrior, components=5, length=4, embedding=WIDTH), SPHERE),
}


class Classed(Sentences):
    """The same sentences with a class each, in turn."""

    labels = ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__()
        for split in (self.train, self.valid, self.test):
            assert isinstance(split, TextSplit)
            split.labels = np.arange(len(split)) % len(self.labels)


ZOO: dict[str, Entry] = {
    **{
        f"sentence LM, {name}": Entry(Sentences, partial(SentenceLM, VOCABULARY, decoder), {"no guide": nobody})
        for name, decoder in DECODERS.items()
    },
    **{
        f"sentence VAE, {name}": Entry(
            Sentences, partial(SentenceVAE, VOCABULARY, LATENT, decoder), {**GAUSSIAN, **FREE, **POINT}
        )
        for name, decoder in DECODERS.items()
    },
    "sentence VAE": Entry(
        Sentences, partial(SentenceVAE, VOCABULARY, LATENT, DECODERS["GRUDecoder"]), {**COMMITTED, **FLOWS}
    ),
    **{
        f"sentence VAE, {name}": Entry(
            Sentences, partial(SentenceVAE, VOCABULARY, LATENT, DECODERS["LSTMDecoder"], prior), guides
        )
        for name, (prior, guides) in PRIORS.items()
    },
    "sentence autoencoder": Entry(
        Sentences, partial(SentenceAutoencoder, VOCABULARY, LATENT, DECODERS["LSTMDecoder"]), POINT, density=False
    ),
    "mixture": Entry(Sentences, lambda: mixture()[0], {"categorical": lambda corpus: mixture()[1]}),
    "discrete sentence": Entry(Sentences, lambda: discrete()[0], {"categoricals": lambda corpus: discrete()[1]}),
    "styled sentence": Entry(
        Sentences,
        lambda: styled()[0],
        {
            "z given c": lambda corpus: styled()[1],
            "z and c apart": lambda corpus: styled(joint=False)[1],
        },
    ),
    "controlled sentence": Entry(
        partial(Attributed, 40), lambda: made()[0], {"controlled": lambda corpus: made(0.0, dropout=0.0)[1]}
    ),
    "stacked sentence": Entry(Sentences, lambda: stacked()[0], {"stacked": lambda corpus: stacked()[1]}),
    "class language model": Entry(
        Sentences,
        partial(ClassLanguageModel, VOCABULARY, 3, 4, DECODERS["LSTMDecoder"], supervision=0.0),
        {"no guide": nobody},
    ),
    "naive Bayes": Entry(Classed, partial(NaiveBayes, VOCABULARY, 3), {"no guide": nobody}),
    "HMM": Entry(Sentences, partial(HMM, VOCABULARY, 3), {"no guide": nobody}),
    **{
        f"neural HMM, {name}": Entry(
            Sentences,
            partial(NeuralHMM, VOCABULARY, 3, partial(WordEmissions, width=WIDTH), moves),
            {"no guide": nobody},
        )
        for name, moves in TRANSITIONS.items()
    },
    "neural PCFG": Entry(
        Sentences, partial(NeuralPCFG, VOCABULARY, 3, 4, WIDTH, single_words=True), {"no guide": nobody}
    ),
    "compound PCFG": Entry(
        Sentences, partial(CompoundPCFG, VOCABULARY, LATENT, 3, 4, WIDTH, single_words=True), {**LAST, **FREE}
    ),
    "ring": Entry(
        partial(RingCorpus, 30, 0.3),
        partial(Ring, 0.3, learn_noise=True),
        {
            "full covariance": lambda corpus: VectorGuide(width=WIDTH),
            "diagonal": lambda corpus: VectorGuide(width=WIDTH, diagonal=True),
            "mean field": lambda corpus: MeanFieldGuide(len(corpus.train), 2),
        },
    ),
}
PAIRS = [(name, guide) for name, entry in ZOO.items() for guide in entry.guides]
EXACT = Strategy(discrete=Enumerate())
pairs = pytest.mark.parametrize(("name", "guide_name"), PAIRS, ids=[f"{m} x {g}" for m, g in PAIRS])


def make(name: str, guide_name: str) -> tuple[Any, Any, Corpus]:
    entry = ZOO[name]
    corpus = entry.corpus()
    torch.manual_seed(0)
    guide = entry.guides[guide_name](corpus)
    model, guide = sharpen(entry.model()), guide and sharpen(guide)
    if hasattr(model, "meet"):
        model.meet(guide)
    return model, guide, corpus


def some(corpus: Corpus, rows: tuple[int, ...] = (3, 0, 7, 9)) -> Any:
    return corpus.train.batch(np.array(rows))


@pairs
def test_it_compiles_and_every_parameter_gets_a_gradient(name: str, guide_name: str) -> None:
    model, guide, corpus = make(name, guide_name)
    objective = EXACT.compile(model, guide, some(corpus))
    loss = objective(some(corpus))
    loss.backward()
    assert loss.dim() == 0 and loss.isfinite()
    trainable = {
        f"{i}.{n}" for i, m in enumerate((model, guide)) if m for n, p in m.named_parameters() if p.requires_grad
    }
    found = gradients(model, guide)
    assert found.keys() == trainable
    assert all(g.isfinite().all() for g in found.values())
    unused = [n for n, g in found.items() if not g.any()]
    assert unused == []


@pairs
def test_particles_are_one_more_dimension_on_the_left(name: str, guide_name: str) -> None:
    model, guide, corpus = make(name, guide_name)
    batch = some(corpus)
    found = terms(model, guide, batch, particles=3)
    assert found.log_likelihood.shape == found.log_weight.shape == (3, 4)
    assert all(site.value.shape[:2] == (3, 4) for site in found.sites.values())
    for s in range(3):  # each particle is what it is alone
        alone = terms(model, guide, batch, given={name: site.value[s : s + 1] for name, site in found.sites.items()})
        torch.testing.assert_close(alone.log_likelihood[0], found.log_likelihood[s], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.log_weight[0], found.log_weight[s], rtol=1e-5, atol=1e-5)
    assert replace(EXACT, bound=ELBO(3)).compile(model, guide, batch)(batch).isfinite()


@pairs
def test_a_document_is_judged_alone_as_among_others(name: str, guide_name: str) -> None:
    model, guide, corpus = make(name, guide_name)
    for module in (model, guide):
        if module is not None:
            module.eval()  # in training a document is normalised among the others of its batch, where that is asked for
    together = terms(model, guide, some(corpus))
    given = {n: s.value for n, s in together.sites.items()}
    for i, row in enumerate((3, 0, 7, 9)):
        alone = terms(model, guide, some(corpus, (row,)), given={n: v[:, i : i + 1] for n, v in given.items()})
        torch.testing.assert_close(alone.log_likelihood[0, 0], together.log_likelihood[0, i], rtol=1e-5, atol=1e-5)
        for site, kl in together.kl.items():
            torch.testing.assert_close(alone.kl[site][0, 0], kl[0, i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in ZOO if n != "ring"])
def test_padding_changes_nothing(name: str) -> None:
    model, guide, corpus = make(name, next(iter(ZOO[name].guides)))
    batch = some(corpus)
    found = []
    for each in (batch, padded(batch, 5)):
        torch.manual_seed(0)
        found.append(terms(model, guide, each).log_weight)
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


@pairs
def test_two_epochs_of_training_and_an_evaluation_run_through(name: str, guide_name: str) -> None:
    model, guide, corpus = make(name, guide_name)
    if guide_name == "mean field":  # it has no posterior for other documents
        corpus.valid = corpus.test = corpus.train  # type: ignore[misc]
    strategy = replace(EXACT, bound=ELBO(2), kl=KL(0.5) if guide_name != "diagonal" else KL(shape=FreeBits(1.0)))
    with torch.no_grad():
        before = float(EXACT.compile(model, guide, some(corpus))(corpus.train.batch(np.arange(20))))
    run = fit(model, guide, corpus, strategy, Training(epochs=2, batch_size=10, device="cpu", optimizer=Adam(0.02)))
    assert run.history[-1]["valid.loss"] < before
    found = evaluate(model, guide, corpus.test, samples=5)
    assert (found.likelihood is not None) == (guide_name != "point")
    assert (found.shuffled_rise is None) == (guide is None)
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize("bound", ["Trace_ELBO", "TraceMeanField_ELBO"])
@pytest.mark.parametrize("name", ["sentence LM, LSTMDecoder", "sentence VAE, GRUDecoder", "ring"])
def test_pyros_own_objectives_take_it_too(name: str, bound: Any) -> None:
    model, guide, corpus = make(name, next(iter(ZOO[name].guides)))
    objective = Strategy(bound=PyroELBO(bound, 2)).compile(model, guide, some(corpus))
    objective(some(corpus)).backward()
    assert gradients(model, guide)


@pytest.mark.parametrize("name", [n for n in ZOO if n != "ring"])
@pytest.mark.parametrize("method", ["ancestral", "greedy", "beam"])
def test_it_writes_by_every_method(name: str, method: str) -> None:
    model, _, _ = make(name, next(iter(ZOO[name].guides)))
    drawn = terms(*make(name, next(iter(ZOO[name].guides)))[:2], Sentences().train.batch(np.arange(5)))
    latents = {name: site.value[0] for name, site in drawn.sites.items()}
    count = {} if latents else {"count": 5}
    written = model.generate(latents, method=method, max_length=7, beam=3, **count)
    assert written.shape[0] == 5 and written.shape[1] <= 7
    assert ((written >= 0) & (written < VOCABULARY)).all()
    assert all(EOS in row for row in written)


@pytest.mark.parametrize("name", ZOO)
def test_it_is_a_pyro_module_that_names_its_plates_and_draws_from_its_prior(name: str) -> None:
    model, _, corpus = make(name, next(iter(ZOO[name].guides)))
    assert isinstance(model, PyroModule) and model.plates == 1
    trace = pyro.poutine.trace(pyro.poutine.uncondition(model)).get_trace(some(corpus))
    assert trace.nodes["x"]["value"].shape[0] == 4 and not trace.nodes["x"]["is_observed"]
    assert len(list(type(model).__doc__.splitlines())) > 5  # the formula, the sites, the plates


def test_a_mean_field_guide_of_another_corpus_is_refused_with_the_cure() -> None:
    model, _, corpus = make("sentence VAE, LSTMDecoder", "mean field")
    with pytest.raises(ValueError, match=r"made for 5 documents, given a corpus of 40\. Make MeanFieldGuide\(40, "):
        Strategy().compile(model, MeanFieldGuide(5, LATENT), some(corpus))


def test_a_mean_field_guide_learns_the_documents_of_the_batch_only() -> None:
    model, guide, corpus = make("sentence VAE, LSTMDecoder", "mean field")
    Strategy().compile(model, guide, some(corpus))(some(corpus)).backward()
    touched = guide.loc.grad.abs().sum(-1).nonzero().flatten().tolist()
    assert touched == [0, 3, 7, 9]


def test_an_autoencoder_has_neither_prior_nor_noise_in_its_loss() -> None:
    model, guide, corpus = make("sentence autoencoder", "point")
    found = terms(model, guide, some(corpus))
    assert not found.kl["z"].any() and torch.equal(found.log_weight, found.log_likelihood)
    assert torch.equal(found.log_likelihood, terms(model, guide, some(corpus)).log_likelihood)


def test_an_inputless_decoder_without_z_gives_every_sentence_of_a_length_one_state() -> None:
    model, _, corpus = make("sentence LM, InputlessDecoder", "no guide")
    batch = some(corpus)
    states = model.decoder(torch.zeros(4, 0), batch.inputs)
    assert torch.equal(states[0], states[3])
