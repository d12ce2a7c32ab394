"""Sentences, corpora and networks small enough to enumerate; used by the tests of several packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from pyro_nlp.data import Corpus, TextBatch
from pyro_nlp.data.batches import PAD
from pyro_nlp.data.splits import Split, TextSplit, VectorSplit
from pyro_nlp.guides.categorical import CategoricalGuide
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.multi_categorical import MultiCategoricalGuide
from pyro_nlp.guides.point import PointGuide
from pyro_nlp.guides.stacked import StackedGuide
from pyro_nlp.guides.styled import StyledGuide
from pyro_nlp.guides.vector import VectorGuide
from pyro_nlp.models.discrete_sentence import DiscreteSentence
from pyro_nlp.models.ring import Ring
from pyro_nlp.models.sentence_autoencoder import SentenceAutoencoder
from pyro_nlp.models.sentence_lm import SentenceLM
from pyro_nlp.models.sentence_mixture import SentenceMixture
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.models.stacked_sentence import StackedSentence
from pyro_nlp.models.styled_sentence import StyledSentence
from pyro_nlp.nn import Decoder, LSTMDecoder, LSTMEncoder

torch.set_num_threads(1)  # networks this small are slower on two, and much slower beside another job
torch.optim.SGD([torch.zeros(1)])  # PyTorch's first optimiser sets an environment variable; no test is to blame

VOCABULARY, LATENT, WIDTH = 30, 3, 8

decoder = partial(LSTMDecoder, embedding=WIDTH, width=WIDTH)
encoder = partial(LSTMEncoder, embedding=WIDTH, width=WIDTH)


def sentences(count: int, seed: int = 0, longest: int = 6, vocabulary: int = VOCABULARY) -> list[np.ndarray]:
    """Random sentences of 0 to `longest` words, one of them empty."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, longest + 1, count)
    sizes[count // 2] = 0
    return [rng.integers(4, vocabulary, n) for n in sizes]


def text(count: int, seed: int = 0, longest: int = 6, vocabulary: int = VOCABULARY) -> TextSplit:
    return TextSplit.from_sentences(sentences(count, seed, longest, vocabulary))


def whole(split: Split) -> Any:
    """All of a split as one batch."""
    return split.batch(np.arange(len(split)))


def padded(batch: TextBatch, extra: int) -> TextBatch:
    """The same sentences with `extra` more columns of padding."""
    columns = torch.full((len(batch), extra), PAD)
    return batch.replace(
        inputs=torch.cat([batch.inputs, columns], 1),
        targets=torch.cat([batch.targets, columns], 1),
        mask=torch.cat([batch.mask, columns.bool()], 1),
    )


class Sentences(Corpus):
    """A corpus of random sentences with something to learn: words repeat their neighbours."""

    def __init__(self, train: int = 40, valid: int = 12, test: int = 10, seed: int = 0) -> None:
        self.name, self.reference = "random sentences", "made up"
        rng = np.random.default_rng(seed)
        self.train, self.valid, self.test = (
            TextSplit.from_sentences(
                [
                    np.repeat(rng.integers(4, VOCABULARY), n) + rng.integers(0, 2, n) * (rng.random() < 0.3)
                    for n in rng.integers(1, 7, size)
                ]
            )
            for size in (train, valid, test)
        )
        for split in (self.train, self.valid, self.test):
            np.clip(split._tokens, 4, VOCABULARY - 1, out=split._tokens)


class Vectors(Corpus):
    """Given real vectors as train, valid and test split alike."""

    def __init__(self, values: torch.Tensor) -> None:
        self.name, self.reference = "vectors", "made up"
        self.train = self.valid = self.test = VectorSplit(values)


def lm(seed: int = 0, factory: Callable[[int, int], Decoder] = decoder) -> SentenceLM:
    torch.manual_seed(seed)
    return sharpen(SentenceLM(VOCABULARY, factory))


def vae(seed: int = 0, **options: Any) -> tuple[SentenceVAE, GaussianGuide]:
    torch.manual_seed(seed)
    model = sharpen(SentenceVAE(VOCABULARY, LATENT, options.get("decoder", decoder)))
    return model, sharpen(GaussianGuide(VOCABULARY, LATENT, options.get("encoder", encoder)))


def autoencoder(seed: int = 0) -> tuple[SentenceAutoencoder, PointGuide]:
    torch.manual_seed(seed)
    model = sharpen(SentenceAutoencoder(VOCABULARY, LATENT, decoder))
    return model, sharpen(PointGuide(VOCABULARY, LATENT, encoder))


def ring(seed: int = 0, noise: float = 0.3, diagonal: bool = True, learn: bool = True) -> tuple[Ring, VectorGuide]:
    torch.manual_seed(seed)
    return Ring(noise, learn_noise=learn), VectorGuide(width=WIDTH, diagonal=diagonal)


Module = Any


def sharpen(module: Module) -> Module:
    """Weights away from their start, where many gradients and differences are nearly zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def gradients(*modules: nn.Module | None) -> dict[str, torch.Tensor]:
    """A copy of every gradient, by position and name; cleared afterwards."""
    found = {}
    for i, module in enumerate(modules):
        for name, parameter in module.named_parameters() if module is not None else ():
            if parameter.grad is not None:
                found[f"{i}.{name}"] = parameter.grad.clone()
                parameter.grad = None
    return found


def parameters(*modules: nn.Module | None) -> dict[str, torch.Tensor]:
    """A copy of everything in the state dicts, by position and name."""
    return {
        f"{i}.{name}": value.clone()
        for i, module in enumerate(modules)
        if module is not None
        for name, value in module.state_dict().items()
    }


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two dictionaries of tensors are equal to the last bit."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def all_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], tolerance: float) -> None:
    """Assert that no element differs by more than `tolerance` times the largest element of all."""
    assert first.keys() == second.keys()
    scale = max(float(value.abs().max()) for value in second.values())
    assert scale > 0
    for name in first:
        worst = float((first[name] - second[name]).abs().max())
        assert worst <= tolerance * max(scale, 1.0), f"{name} differs by {worst:.2e}, scale {scale:.2e}"


def without_time(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of metrics but for what depends on the clock."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "words_per_second")} for row in rows]


CLASSES, VARIABLES, CODE = 3, 2, 4


def mixture(seed: int = 0, **options: Any) -> tuple[SentenceMixture, CategoricalGuide]:
    """A mixture and its guide; options are the guide's."""
    torch.manual_seed(seed)
    model = sharpen(SentenceMixture(VOCABULARY, CLASSES, CODE, decoder))
    return model, sharpen(CategoricalGuide(VOCABULARY, CLASSES, encoder, **options))


def discrete(seed: int = 0) -> tuple[DiscreteSentence, MultiCategoricalGuide]:
    torch.manual_seed(seed)
    model = sharpen(DiscreteSentence(VOCABULARY, VARIABLES, CLASSES, CODE, decoder))
    return model, sharpen(MultiCategoricalGuide(VOCABULARY, VARIABLES, CLASSES, encoder))


def styled(seed: int = 0, **options: Any) -> tuple[StyledSentence, StyledGuide]:
    """A styled sentence model and its guide; options are the guide's."""
    torch.manual_seed(seed)
    model = sharpen(StyledSentence(VOCABULARY, LATENT, CLASSES, CODE, decoder))
    return model, sharpen(StyledGuide(VOCABULARY, LATENT, CLASSES, encoder, **options))


STYLE = 2


def stacked(seed: int = 0, **options: Any) -> tuple[StackedSentence, StackedGuide]:
    """A stacked sentence model and its guide; options are the guide's."""
    torch.manual_seed(seed)
    model = sharpen(StackedSentence(VOCABULARY, LATENT, CLASSES, STYLE, WIDTH, decoder))
    return model, sharpen(StackedGuide(VOCABULARY, LATENT, CLASSES, STYLE, WIDTH, encoder, **options))
