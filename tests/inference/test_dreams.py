"""Documents that a model writes to sleep on: of the right length, of the model's words, with the exact gradient."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from scipy import stats
from torch import Tensor, nn

from pyro_nlp.data.batches import CountBatch
from pyro_nlp.data.counts import CountSplit
from pyro_nlp.distributions import BagOfWords
from pyro_nlp.guides.dirichlet import DirichletGuide
from pyro_nlp.inference import StructureError, WakeSleep
from pyro_nlp.inference.dreams import dream, dreamt_log_q
from pyro_nlp.inference.fit import fit
from pyro_nlp.inference.strategy import Strategy
from pyro_nlp.inference.training import Adam, Training
from pyro_nlp.models.lda import LDA, EnumeratedLDA
from tests.bags import MODELS, TOPICS, VOCABULARY, Bags, bags, encoder, make, some
from tests.tiny import gradients, sharpen

LEVEL = 1e-4
"""At which a right answer fails."""

MIXTURES = [name for name in MODELS if not name.startswith(("NVDM", "ProdLDA"))]
ALPHA = torch.tensor([0.6, 1.5, 0.9])


@pytest.mark.parametrize("name", MODELS)
def test_a_dreamt_bag_is_as_long_as_the_document_in_whose_place_it_is(name: str) -> None:
    model, _, corpus = make(name)
    batch = some(corpus).replace(labels=torch.zeros(4))
    drawn, dreamt = dream(model, batch)
    assert torch.equal(dreamt.counts.sum(-1), batch.counts.sum(-1)) and 0 in dreamt.counts.sum(-1)
    assert dreamt.counts.shape == batch.counts.shape and not torch.equal(dreamt.counts, batch.counts)
    assert torch.equal(dreamt.index, batch.index) and dreamt.population == batch.population
    assert dreamt.labels is None
    assert [(site, value.shape) for site, value in drawn.items()] == [
        ("theta" if name == "LDA" or "Dirichlet" in name else "z", (4, TOPICS))
    ]


@pytest.mark.parametrize("name", MIXTURES)
def test_its_words_are_those_of_its_topics(name: str) -> None:
    """Of every word: its count over all documents, standardised by the binomials that it is a sum of."""
    torch.manual_seed(0)
    model, _, _ = make(name)
    sizes = torch.arange(4000) % 9
    drawn, dreamt = dream(model, bags(torch.eye(VOCABULARY)[0] * sizes[:, None]))
    assert isinstance(dreamt, CountBatch)
    words = (model.proportions(drawn) @ model.topics()).detach().double()
    expected = sizes[:, None] * words
    distance = (dreamt.counts - expected).sum(0) / (expected * (1 - words)).sum(0).sqrt()
    assert distance.abs().max() < stats.norm.isf(LEVEL / 2 / VOCABULARY)


def test_a_model_in_training_writes_as_it_is_judged_and_stays_as_it_was() -> None:
    model, _, corpus = make("ProdLDA")
    before = model.norm.running_mean.clone()
    written = []
    for training in (True, False):
        model.train(training)
        model.dropout.eval()  # a part that a user keeps from training
        torch.manual_seed(0)
        written.append(dream(model, some(corpus))[1].counts)
        assert (model.training, model.norm.training, model.dropout.training) == (training, training, False)
    assert torch.equal(*written) and torch.equal(model.norm.running_mean, before)


class Coin(PyroModule):
    """p(c) prod_t p(w_t | c), two classes and two words."""

    def __init__(self) -> None:
        super().__init__()
        self.prior = nn.Parameter(torch.tensor([0.4, -0.2]))
        self.words = nn.Parameter(torch.tensor([[1.0, -0.5], [-0.7, 0.3]]))

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
            pyro.sample("x", BagOfWords(c @ self.words, batch.counts.sum(-1)), obs=batch.counts)


class CoinGuide(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(2, 2)

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            pyro.sample("c", dist.OneHotCategorical(logits=self.network(batch.counts)))


def test_the_gradient_of_sleep_is_that_of_all_that_could_be_dreamt() -> None:
    """sum_c p(c) sum_x p(x | c) grad log q(c | x) over the eight texts of three words."""
    torch.manual_seed(0)
    model, guide, words = Coin(), CoinGuide(), 3
    total: Any = 0.0
    for c, text in itertools.product(range(2), itertools.product(range(2), repeat=words)):
        p = model.prior.softmax(-1)[c] * model.words.softmax(-1)[c, list(text)].prod()
        counts = torch.tensor(text).bincount(minlength=2).float()
        total = total + p.detach() * guide.network(counts).log_softmax(-1)[c]
    exact = torch.autograd.grad(total, list(guide.parameters()))
    copies, repeats = 200, 100
    batch = bags(torch.tensor([[words, 0.0]]).expand(copies, 2))
    found: list[Tensor] = []
    for _ in range(repeats):
        loss = dreamt_log_q(model, guide, batch)
        assert loss.shape == (1, copies)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss.mean(), list(guide.parameters()))]))
    estimates = torch.stack(found).double()
    wanted = torch.cat([g.flatten() for g in exact]).double()
    t = (estimates.mean(0) - wanted) / (estimates.std(0) / math.sqrt(repeats))
    assert t.abs().max() < stats.t.isf(LEVEL / 2 / len(wanted), repeats - 1)
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_asleep_a_guide_of_counts_learns_the_exact_posterior() -> None:
    """Topics that are single words: p(theta | x) = Dirichlet(a + counts), which a linear map of the counts can say."""
    torch.manual_seed(0)
    model, guide = identity(), Linear()
    batch = bags(torch.tensor([[4.0, 0.0, 0.0]]).expand(500, 3))
    optimiser = torch.optim.Adam(guide.parameters(), 0.05)
    for step in range(400):
        if step == 200:
            optimiser.param_groups[0]["lr"] = 0.005
        optimiser.zero_grad()
        (-dreamt_log_q(model, guide, batch).mean()).backward()
        optimiser.step()
    # the information about each entry in the documents of the last steps leaves it uncertain by some hundredths
    torch.testing.assert_close(guide.log_weight.exp(), torch.ones(()), rtol=0, atol=0.1)
    torch.testing.assert_close(guide.log_bias.exp(), ALPHA, rtol=0, atol=0.1)


def identity() -> LDA:
    """LDA whose topics are single words."""
    model = LDA(3, 3)
    with torch.no_grad():
        model.log_concentration.copy_(ALPHA.log())
        model.weights.copy_(60 * torch.eye(3))
    return model


class Linear(PyroModule):
    """Dirichlet(bias + weight counts)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_bias, self.log_weight = nn.Parameter(torch.full((3,), -1.0)), nn.Parameter(torch.tensor(-1.0))

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            pyro.sample("theta", dist.Dirichlet(self.log_bias.exp() + self.log_weight.exp() * batch.counts))


@pytest.mark.parametrize("learns", ["sleep", "both"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_bags_can_be_slept_on(name: str, learns: Any) -> None:
    model, guide, corpus = make(name)
    model.train(), guide.train()
    objective = Strategy(bound=WakeSleep(2, learns)).compile(model, guide, some(corpus))
    loss = objective(some(corpus))
    loss.backward()
    found = gradients(model, guide)
    assert loss.isfinite() and all(g.isfinite().all() for g in found.values())
    assert {n for n, p in guide.named_parameters() if p.requires_grad} <= {n.partition(".")[2] for n in found}
    training = Training(epochs=1, batch_size=20, device="cpu", optimizer=Adam(0.01))
    run = fit(model, guide, corpus, Strategy(bound=WakeSleep(2, learns)), training)
    assert math.isfinite(run.history[-1]["valid.loss"])


def test_words_that_are_sites_of_their_own_cannot_be_dreamt() -> None:
    model = sharpen(EnumeratedLDA(VOCABULARY, TOPICS))
    message = (
        r"EnumeratedLDA cannot write a CountBatch to sleep on: observe counts \[V\] at one site alone, or use Wake"
    )
    with pytest.raises(StructureError, match=message):
        dream(model, some(Bags()))


class Labelled(PyroModule):
    """A class that is observed beside the words."""

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            pyro.sample("y", dist.Bernoulli(torch.tensor(0.5)), obs=torch.zeros(len(batch)))
            pyro.sample("x", BagOfWords(torch.zeros(VOCABULARY), batch.counts.sum(-1)), obs=batch.counts)


def test_a_second_observation_is_not_dreamt_away() -> None:
    with pytest.raises(StructureError, match="Labelled cannot write a CountBatch"):
        dream(Labelled(), some(Bags()))


def test_dreams_need_a_number_of_words() -> None:
    class Endless(PyroModule):
        def forward(self, batch: CountBatch) -> None:
            with batch.documents():
                pyro.sample("x", BagOfWords(torch.zeros(len(batch), VOCABULARY)), obs=batch.counts)

    with pytest.raises(ValueError, match="how many words are to be drawn"):
        dream(Endless(), some(Bags()))


def test_a_split_of_empty_documents_is_dreamt_empty() -> None:
    split = CountSplit.from_pairs(np.zeros(0, int), np.zeros(0, int), None, 3, VOCABULARY)
    model, guide = sharpen(LDA(VOCABULARY, TOPICS)), DirichletGuide(VOCABULARY, TOPICS, encoder)
    batch = split.batch(np.arange(3))
    assert not dream(model, batch)[1].counts.any()
    assert dreamt_log_q(model, guide, batch).isfinite().all()
