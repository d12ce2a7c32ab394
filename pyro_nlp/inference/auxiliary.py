"""Losses beside the bound that training adds and no evaluation sees (layer: inference)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pyro
import torch
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, Batch, PairBatch, TextBatch, drop_words
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import Split
from pyro_nlp.distributions import WordSequence, Written
from pyro_nlp.distributions.labelled import Pinned
from pyro_nlp.distributions.written import given_sequences
from pyro_nlp.inference.bounds import ELBO
from pyro_nlp.inference.schedules import Schedule
from pyro_nlp.inference.terms import Terms, terms

if TYPE_CHECKING:
    from pyro_nlp.inference.strategy import Objective


class Auxiliary(ABC):
    """A loss to be added to the bound's, and the network it needs, if any.

    Attributes:
        phase: `wake`, of the corpus's documents, whose terms it reads; or `sleep`, of ones that the model writes, and
            it is asked when there are no terms too (`WakeSleepPhases`).
    """

    phase: str = "wake"

    def refuse(self, objective: Objective, terms: Terms, batch: Batch) -> str | None:
        """Why it cannot be used, or None."""
        return None

    def state(self, model: nn.Module, terms: Terms, batch: Batch) -> nn.Module | None:
        """A network of its own, trained and saved with the rest; its gradients step with the model's."""
        return None

    @abstractmethod
    def loss(self, objective: Objective, terms: Terms, batch: Batch, state: nn.Module | None) -> Tensor:
        """The loss per document, a scalar."""

    def judge(self, objective: Objective, terms: Terms, batch: Batch) -> Tensor | None:
        """What validation adds to the bound to choose the best parameters by, a scalar; None for nothing.

        For losses of what training sees and a user wants (labels, known sequences), not for those that only help.
        """
        return None

    def judges(self, train: Split) -> bool:
        """Whether `judge` is asked, by what training sees."""
        return type(self).judge is not Auxiliary.judge


def called(auxiliary: Sequence[Auxiliary]) -> list[str]:
    """Names of losses for reports: that of the class, and of the site where there are several of a class."""
    kinds = [type(one).__name__ for one in auxiliary]
    several = {kind for kind in kinds if kinds.count(kind) > 1}
    sites = [str(getattr(one, "site", place)) for place, one in enumerate(auxiliary)]
    return [f"{kind}.{site}" if kind in several else kind for kind, site in zip(kinds, sites, strict=True)]


@dataclass(frozen=True)
class BagOfWords(Auxiliary):
    """z alone has to foretell which words a text has, in any order:  -weight E_q[sum_t log p(x_t | z)].

    Zhao et al. 2017 (arXiv:1703.10960), eq. 7: one distribution over the vocabulary for all positions, by a hidden
    layer of tanh. Ends of sentence do not count.

    Args:
        weight: of the loss.
        width: of the hidden layer.
        site: the latent, a vector for each document.
    """

    weight: float | Schedule = 1.0
    width: int = 400
    site: str = "z"

    def refuse(self, objective: Objective, terms: Terms, batch: Batch) -> str | None:
        if self.site not in terms.sites:
            known = ", ".join(f"'{n}'" for n in terms.sites) or "none"
            return f"it reads the site '{self.site}'; the latents are {known}"
        if not isinstance(batch, TextBatch):
            return f"it foretells the words of a TextBatch, and this is a {type(batch).__name__}"
        if _vocabulary(terms) is None:
            return "the model has no WordSequence that says how many words there are"
        return None

    def state(self, model: nn.Module, terms: Terms, batch: Batch) -> nn.Module:
        vocabulary = _vocabulary(terms)
        assert vocabulary is not None
        latent = terms.sites[self.site].value.shape[-1]
        return nn.Sequential(nn.Linear(latent, self.width), nn.Tanh(), nn.Linear(self.width, vocabulary))

    def loss(self, objective: Objective, terms: Terms, batch: Batch, state: nn.Module | None) -> Tensor:
        assert isinstance(batch, TextBatch) and state is not None
        log_p = state(terms.sites[self.site].value).float().log_softmax(-1)  # [..., particles, documents, words]
        words = batch.mask & (torch.arange(batch.mask.shape[1], device=batch.mask.device) < batch.lengths[:, None] - 1)
        left = (*log_p.shape[:-2], len(batch))  # a table of classes is the same for all documents
        found = log_p.expand(*left, -1).gather(-1, batch.targets.expand(*left, -1))
        return -objective.at(self.weight) * terms.scope.expect((found * words).sum(-1)).mean()


@dataclass(frozen=True)
class KnownSequences(Auxiliary):
    """A guide learns to write the sequences that are known:  -weight log q(c | x), of those documents alone.

    The bound teaches it nothing there, as the latent is pinned; this is the alpha log q(y | x) of Kingma et al. 2014b
    (arXiv:1406.5298), eq. 9, and the supervised part of Miao and Blunsom 2016b (arXiv:1609.07317).

    Args:
        weight: of the loss.
        site: the latent, a `Written`.
    """

    weight: float | Schedule = 1.0
    site: str = "c"

    def refuse(self, objective: Objective, terms: Terms, batch: Batch) -> str | None:
        if self.site not in terms.sites:
            known = ", ".join(f"'{n}'" for n in terms.sites) or "none"
            return f"it reads the site '{self.site}'; the latents are {known}"
        if not isinstance(terms.sites[self.site].q, Written):
            return f"'{self.site}' is no sequence of words in the guide (Written)"
        return None

    def loss(self, objective: Objective, terms: Terms, batch: Batch, state: nn.Module | None) -> Tensor:
        q = terms.sites[self.site].q
        assert isinstance(q, Written)
        return -objective.at(self.weight) * q.log_known().mean()

    def judge(self, objective: Objective, terms: Terms, batch: Batch) -> Tensor | None:
        """-weight log q(c | x) of the second texts of a validation split, which are all known; a weight that a schedule
        moves counts as 1, as epochs are compared."""
        q = terms.sites[self.site].q
        if not isinstance(q, Written) or not isinstance(batch, PairBatch):
            return None
        lengths = batch.second.lengths - 1
        longest = max(q.longest, int(lengths.max()))
        everything = torch.ones_like(lengths, dtype=torch.bool)
        known = given_sequences(batch, longest, everything)
        most = None if q.most is None else q.most.maximum(lengths)
        fresh = Written(q.writer, q.batch, longest, None if q.lengths is None else lengths, known, most=most)
        weight = 1.0 if isinstance(self.weight, Schedule) else self.weight
        return -weight * fresh.log_known().mean()

    def judges(self, train: Split) -> bool:
        """Where no sequence is known in training, those of validation have no say either."""
        return not isinstance(train, PairSplit) or train.labels is None or bool((train.labels == 1).any())


@dataclass(frozen=True)
class KnownLabels(Auxiliary):
    """A guide learns to classify from the labels that are seen:  -weight log q(c | x), of those documents alone.

    The alpha log q(y | x) of Kingma et al. 2014b (arXiv:1406.5298), eq. 9. The loss is a mean over all documents, so
    that of the paper, alpha = 0.1 N for the mean over the labelled ones, is a weight of 0.1 / (share that is labelled).

    Args:
        weight: of the loss.
        site: the class, whose guide is pinned where a label is seen (`StyledGuide`, `CategoricalGuide`).
    """

    weight: float | Schedule = 1.0
    site: str = "c"

    def refuse(self, objective: Objective, terms: Terms, batch: Batch) -> str | None:
        if self.site in objective.marginal:
            return f"'{self.site}' is summed out in the model, and the guide learns nothing of it: use Enumerate()"
        if self.site not in terms.sites:
            known = ", ".join(f"'{n}'" for n in terms.sites) or "none"
            return f"it reads the site '{self.site}'; the latents are {known}"
        if not isinstance(terms.sites[self.site].q, Pinned):
            return (
                f"no label of '{self.site}' is seen: set the guide's supervision above 0, if the corpus has labels, or "
                "leave this loss out (--strategy.auxiliary '[]')"
            )
        return None

    def loss(self, objective: Objective, terms: Terms, batch: Batch, state: nn.Module | None) -> Tensor:
        q = terms.sites[self.site].q
        if not isinstance(q, Pinned):  # in evaluation mode no label is seen
            return terms.log_likelihood.new_zeros(())
        log_q = q.inferred.gather(-1, q.known.clamp(min=0)[..., None])[..., 0]
        return -objective.at(self.weight) * torch.where(q.known >= 0, log_q, 0.0).mean()


@dataclass(frozen=True)
class Fraternal(Auxiliary):
    """The decoder reads the same z twice, each time with other words and units dropped, and is to say the same.

    Petit and Corro 2021 after Zolna et al. 2018: the loss becomes the mean of both readings', and the squared distance
    of their states, averaged over positions and units, is added. The first reading is that of the bound.

    Args:
        weight: of the distance.
        word_dropout: of the second reading's words; the first has that of the training.
    """

    weight: float | Schedule = 1.0
    word_dropout: float | Schedule = 0.0

    def refuse(self, objective: Objective, terms: Terms, batch: Batch) -> str | None:
        if not isinstance(batch, TextBatch) or _words(terms) is None:
            return "it compares the states of a WordSequence, and the model has none"
        if not isinstance(objective.strategy.bound, ELBO):
            return "it takes the mean of two readings, which is that of the ELBO alone: use bound=ELBO()"
        if max(objective.rows.values(), default=1) > 1 or objective.marginal:
            return "it reads one draw of the latents twice, and this strategy draws tables: use Pathwise()"
        return None

    def loss(self, objective: Objective, terms: Terms, batch: Batch, state: nn.Module | None) -> Tensor:
        assert isinstance(batch, TextBatch)
        again = self._again(objective, terms, batch)
        first, second = _words(terms), _words(again)
        assert first is not None and second is not None
        apart = (first.states.float() - second.states.float()).square().mean(-1)
        apart = (apart * batch.mask).sum() / batch.mask.sum() / (apart.numel() / batch.mask.numel())
        readings = 0.5 * (terms.log_likelihood - again.log_likelihood).mean()
        return readings + objective.at(self.weight) * apart

    def _again(self, objective: Objective, found: Terms, batch: TextBatch) -> Terms:
        """The model's second reading: the latents are those of the first, and the guide is not asked again."""
        inputs = torch.cat([torch.full_like(batch.targets[:, :1], BOS), batch.targets[:, :-1]], 1)
        batch = drop_words(batch.replace(inputs=inputs), objective.at(self.word_dropout))
        given = {name: site.value for name, site in found.sites.items()}
        guide = partial(_stand_in, found=found)
        return terms(objective.model, guide, batch, particles=found.scope.particles, given=given)


def _stand_in(batch: TextBatch, found: Terms) -> None:
    """A guide that remembers its answers."""
    with batch.documents():
        for name, site in found.sites.items():
            pyro.sample(name, site.q)


def _words(found: Terms) -> WordSequence | None:
    return next((fn for fn in found.likelihoods.values() if isinstance(fn, WordSequence)), None)


def _vocabulary(found: Terms) -> int | None:
    words = _words(found)
    return None if words is None else words.head.out_features
