"""A heavier hand for the tags that are seen (layer: inference)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from pyro_nlp.data.batches import Batch, TextBatch
from pyro_nlp.distributions.hidden_markov import HiddenMarkov
from pyro_nlp.inference.auxiliary import Auxiliary
from pyro_nlp.inference.schedules import Schedule
from pyro_nlp.inference.support import base
from pyro_nlp.inference.terms import Terms

if TYPE_CHECKING:
    from pyro_nlp.inference.strategy import Objective


@dataclass(frozen=True)
class KnownTags(Auxiliary):
    """Sentences whose tags are seen count for more:  -weight log p(x, seen tags), of those sentences alone.

    They count once in the bound and `weight` times more here. Without this the words of the other sentences outvote a
    few tags, and states settle on classes of their own. The loss is a mean over all sentences: a weight of about
    1 / (share that is seen) lets the tagged sentences say as much as the others together. Where few batches hold one,
    their gradients are the largest by far: clipping (`Training(clip=...)`, 5 by default) would take the weight back,
    so set it to None.

    Validation adds weight times share times -log p(x, tags) of its sentences, all of them tagged: what the loss would
    be there on average. A split without tags adds nothing, and a weight that a schedule moves counts as 1.

    Args:
        weight: of the loss.
        site: the words, a `HiddenMarkov` whose model has a `supervision` above 0 (`HMM`, `NeuralHMM`).
    """

    weight: float | Schedule = 1.0
    site: str = "x"

    def refuse(self, objective: Objective, terms: Terms, batch: Batch) -> str | None:
        if self._chain(terms) is None:
            known = ", ".join(f"'{n}'" for n in terms.likelihoods) or "none"
            return f"'{self.site}' is no HiddenMarkov of the model, which observes {known}: use HMM or NeuralHMM"
        if not getattr(objective.model, "supervision", 1.0):
            return "no tag is seen: set the model's supervision above 0"
        return None

    def loss(self, objective: Objective, terms: Terms, batch: Batch, state: nn.Module | None) -> Tensor:
        x = self._chain(terms)
        if x is None or x.tags is None:  # in evaluation mode no tag is seen
            return terms.log_likelihood.new_zeros(())
        joint = terms.scope.expect(terms.observed[self.site])
        return -objective.at(self.weight) * (joint * (x.tags >= 0).any(-1)).mean()

    def judge(self, objective: Objective, terms: Terms, batch: Batch) -> Tensor | None:
        x = self._chain(terms)
        if x is None or not isinstance(batch, TextBatch) or batch.tags is None:
            return None
        tagged = HiddenMarkov(x.initial, x.transition, x.emission, batch.mask, batch.tags)
        joint = tagged.log_prob(batch.targets) * (batch.tags >= 0).any(-1)
        weight = 1.0 if isinstance(self.weight, Schedule) else self.weight
        return -weight * getattr(objective.model, "supervision", 1.0) * joint.mean()

    def _chain(self, terms: Terms) -> HiddenMarkov | None:
        found = base(terms.likelihoods[self.site]) if self.site in terms.likelihoods else None
        return found if isinstance(found, HiddenMarkov) else None
