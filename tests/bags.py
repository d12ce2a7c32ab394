"""Bags of words, topic models and their guides, small enough to loop over; used by the tests of topic models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from pyro_nlp.data import Corpus, CountBatch
from pyro_nlp.data.counts import CountSplit
from pyro_nlp.guides.dirichlet import DirichletGuide, MeanFieldDirichletGuide
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.mean_field import MeanFieldGuide
from pyro_nlp.models.etm import ETM
from pyro_nlp.models.gsm import GSB, GSM, RSB
from pyro_nlp.models.lda import LDA
from pyro_nlp.models.nvdm import NVDM
from pyro_nlp.models.prodlda import NVLDA, ProdLDA
from pyro_nlp.nn import CountEncoder, MixturePrior, NormalisedHead
from tests.tiny import sharpen

VOCABULARY, TOPICS, WIDTH = 7, 3, 8
# float32 sums of some ten words of size 5
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}

MODELS: dict[str, Callable[[], Any]] = {
    "NVDM": partial(NVDM, VOCABULARY, TOPICS),
    "NVDM, mixture prior": partial(NVDM, VOCABULARY, TOPICS, partial(MixturePrior, components=2)),
    "GSM": partial(GSM, VOCABULARY, TOPICS, embedding=4),
    "GSB": partial(GSB, VOCABULARY, TOPICS, embedding=4),
    "RSB": partial(RSB, VOCABULARY, TOPICS, embedding=4),
    "ProdLDA": partial(ProdLDA, VOCABULARY, TOPICS),
    "NVLDA": partial(NVLDA, VOCABULARY, TOPICS, dropout=0.3),
    "ETM": partial(ETM, VOCABULARY, TOPICS, embedding=4),
    "LDA": partial(LDA, VOCABULARY, TOPICS, 0.5, learn_concentration=True),
    "ProdLDA, Dirichlet": partial(ProdLDA, VOCABULARY, TOPICS, 0.7, "dirichlet"),
    "NVLDA, Dirichlet": partial(NVLDA, VOCABULARY, TOPICS, 0.7, "dirichlet"),
}
encoder = partial(CountEncoder, width=WIDTH)
NORMAL: dict[str, Callable[[int], nn.Module]] = {
    "gaussian": lambda population: GaussianGuide(VOCABULARY, TOPICS, encoder),
    "normalised": lambda population: GaussianGuide(
        VOCABULARY, TOPICS, partial(encoder, batch_norm=True), NormalisedHead
    ),
    "mean field": lambda population: MeanFieldGuide(population, TOPICS),
}
SIMPLEX: dict[str, Callable[[int], nn.Module]] = {
    "dirichlet": lambda population: DirichletGuide(VOCABULARY, TOPICS, encoder),
    "mean field": lambda population: MeanFieldDirichletGuide(population, TOPICS),
}
GUIDES = {name: SIMPLEX if name == "LDA" or "Dirichlet" in name else NORMAL for name in MODELS}


class Bags(Corpus):
    """Bags of words with something to learn: half the documents use the first words, half the last."""

    def __init__(self, train: int = 40, valid: int = 12, test: int = 10) -> None:
        self.name, self.reference = "random bags", "made up"
        rng = np.random.default_rng(0)

        def split(size: int) -> CountSplit:
            documents = np.repeat(np.arange(size), 6)
            words = np.minimum(rng.geometric(0.5, 6 * size) - 1, VOCABULARY - 1)
            words = np.where(documents % 2, words, VOCABULARY - 1 - words)
            kept = documents != size - 1  # the last is empty
            return CountSplit.from_pairs(documents[kept], words[kept], None, size, VOCABULARY)

        self.train, self.valid, self.test = split(train), split(valid), split(test)


def make(name: str, guide_name: str | None = None) -> tuple[Any, Any, Bags]:
    """A model and a guide, trained for nothing but away from their start, in evaluation mode."""
    corpus = Bags()
    guide = GUIDES[name][guide_name or next(iter(GUIDES[name]))](len(corpus.train))
    model = sharpen(MODELS[name]())
    for module in (*model.modules(), *guide.modules()):
        if hasattr(module, "running_variance"):  # moments that are not those of nothing
            module.running_variance.uniform_(0.5, 2.0)
            module.running_mean.normal_(0, 0.3)
    return model.eval(), sharpen(guide).eval(), corpus


def some(corpus: Corpus, rows: tuple[int, ...] = (3, 0, 39, 9)) -> Any:
    return corpus.train.batch(np.array(rows))


def bags(counts: Any) -> CountBatch:
    counts = torch.as_tensor(counts, dtype=torch.float32)
    return CountBatch(index=torch.arange(len(counts)), population=len(counts), counts=counts)


def latents(model: Any, *left: int) -> dict[str, Tensor]:
    """Values of the model's latent, `[*left, K]`."""
    if isinstance(model, LDA) or getattr(model, "exact", False):
        return {"theta": torch.randn(*left, TOPICS).softmax(-1)}
    return {"z": torch.randn(*left, TOPICS)}


def likelihood(model: Any, batch: CountBatch, values: dict[str, Tensor]) -> Tensor:
    """log p(x | latents), `[..., B]`."""
    with pyro.plate("particles", next(iter(values.values())).shape[0], dim=-2):
        trace = pyro.poutine.trace(pyro.condition(model, data=values)).get_trace(batch)
    site = trace.nodes["x"]
    return site["fn"].log_prob(site["value"]).detach()
