"""Documents that the model writes teach it to obey, and the guide to read (layer: inference).

Hu et al. 2017 (arXiv:1703.00955): beside its bound on real text, a generator is taught that what it writes from
attributes c and the rest z can be told from the text again, by a guide that stays as it is meanwhile; and the guide's
discriminators learn from what the generator writes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch, TextBatch
from pyro_nlp.inference.auxiliary import Auxiliary
from pyro_nlp.inference.dreams import as_batch, draw_prior, dream, evaluating
from pyro_nlp.inference.schedules import Schedule, at
from pyro_nlp.inference.sites import Scope, Site
from pyro_nlp.inference.terms import Terms, trace_guide

if TYPE_CHECKING:
    from pyro_nlp.inference.strategy import Objective


@dataclass(frozen=True)
class Control(Auxiliary):
    """The model learns to write what the guide can read:  -sum_s weight_s E_{p(z, c)} log q(s | G_T(z, c)).

    Hu et al. 2017, eq. 6 for an attribute and eq. 7, the constraint of independence, for z. G_T is the model's text as
    points of the simplex, softmax(logits / T) word by word, each read by the next, to which gradients reach; the guide
    reads them and stays as it is.

    Args:
        weights: by site; a site that is not named is not asked for.
        temperature: T; the paper lowers it towards 0.
        hard: straight-through: the text is made of words, the gradient is that of the points.
        longest: words of a text at most, its end counted.
    """

    weights: dict[str, float | Schedule]
    temperature: float | Schedule = 1.0
    hard: bool = False
    longest: int = 16
    phase = "sleep"

    def __post_init__(self) -> None:
        for site, weight in self.weights.items():
            _refuse_number(self, f"the weight of '{site}'", weight, "at least 0", min(_ends(weight)) >= 0)
        _refuse_number(self, "temperature", self.temperature, "above 0 to its end", min(_ends(self.temperature)) > 0)
        _refuse_number(self, "longest", self.longest, "at least 1", self.longest >= 1)

    def refuse(self, objective: Objective, terms: Terms, batch: Batch) -> str | None:
        if not hasattr(objective.model, "write_softly"):
            return (
                f"{type(objective.model).__name__} cannot write softly: give it write_softly(), as ControlledSentence"
            )
        if reason := _refuse_sites(self.weights, objective, terms, batch):
            return reason
        model: Any = objective.model
        try:
            with torch.no_grad(), evaluating(model):
                model.write_softly(draw_prior(model, batch), 1.0, 2)
        except (TypeError, RuntimeError, IndexError):
            return "the model's decoder does not read points of the simplex: use a recurrent one, as GRUDecoder"
        return None

    def loss(self, objective: Objective, terms: Terms, batch: Batch, state: nn.Module | None) -> Tensor:
        weights = {site: objective.at(weight) for site, weight in self.weights.items()}
        assert isinstance(batch, TextBatch) and objective.guide is not None
        if not any(weights.values()):
            return batch.mask.new_zeros((), dtype=torch.float32)
        model: Any = objective.model
        latents = draw_prior(model, batch)
        # cuDNN's recurrent networks have no gradient in evaluation mode
        native = torch.backends.cudnn.flags(enabled=False)
        with native, evaluating(model), evaluating(objective.guide), frozen(objective.guide):
            words, mask = model.write_softly(latents, objective.at(self.temperature), self.longest, self.hard)
            sites, scope = _read(objective.guide, as_batch(words, mask, batch), latents, objective.plates)
            found = [weights[name] * scope.log_prob(sites[name]) for name in weights]
        return -sum(found, torch.zeros((), device=mask.device)).mean()


@dataclass(frozen=True)
class Dreams(Auxiliary):
    """The guide learns to read what the model writes:  -weight E_{p(z, c, x)} [log q(c | x) - entropy H(q(c | x))].

    Hu et al. 2017, eq. 10: labels for nothing, and what is doubtful is to be decided one way (minimum entropy,
    Grandvalet and Bengio 2004). The texts are drawn word by word, and the model stays as it is.

    Args:
        sites: the attributes.
        weight: of the loss.
        entropy: of the entropy within it; the paper's beta.
        longest: words of a text at most, its end counted.
    """

    sites: tuple[str, ...]
    weight: float | Schedule = 0.1
    entropy: float = 0.1
    longest: int = 16
    phase = "sleep"

    def __post_init__(self) -> None:
        _refuse_number(self, "weight", self.weight, "at least 0", min(_ends(self.weight)) >= 0)
        _refuse_number(self, "entropy", self.entropy, "at least 0", self.entropy >= 0)
        _refuse_number(self, "longest", self.longest, "at least 1", self.longest >= 1)

    def refuse(self, objective: Objective, terms: Terms, batch: Batch) -> str | None:
        if isinstance(self.sites, str):  # type: ignore[unreachable]
            return f"sites is a list of sites: ['{self.sites}']"  # type: ignore[unreachable]
        return _refuse_sites(self.sites, objective, terms, batch)

    def loss(self, objective: Objective, terms: Terms, batch: Batch, state: nn.Module | None) -> Tensor:
        weight = objective.at(self.weight)
        assert isinstance(batch, TextBatch) and objective.guide is not None
        if not weight:
            return batch.mask.new_zeros((), dtype=torch.float32)
        latents, written = dream(objective.model, batch, self.longest)
        assert isinstance(written, TextBatch)
        sites, scope = _read(objective.guide, written, latents, objective.plates)
        found = torch.zeros((), device=batch.mask.device)
        for name in self.sites:
            doubt = scope.per_document(sites[name]["fn"].entropy(), sites[name])
            found = found - scope.log_prob(sites[name]) + self.entropy * doubt
        return weight * found.mean()


def _ends(value: float | Schedule) -> tuple[float, float]:
    """What a number is at the first step and at the last."""
    return at(value, 0, 1), at(value, sys.maxsize, 1)


def _refuse_number(owner: Auxiliary, name: str, found: object, wanted: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{type(owner).__name__}: {name} is {wanted}, not {found}")


def _refuse_sites(names: Any, objective: Objective, terms: Terms, batch: Batch) -> str | None:
    if not names:
        return "it names no site: give those whose values are to be read"
    unknown = next((name for name in names if name not in terms.sites), None)
    if unknown is not None:
        return f"it reads the site '{unknown}'; the latents are {', '.join(map(repr, terms.sites)) or 'none'}"
    if objective.guide is None or not isinstance(batch, TextBatch) or not hasattr(objective.model, "generate"):
        return "it wants a model that writes text, and a guide that reads it"
    return None


def _read(guide: Any, batch: TextBatch, latents: dict[str, Tensor], plates: int) -> tuple[dict[str, Site], Scope]:
    """What the guide says of the latents that a text was written from."""
    scope = Scope(1, len(batch), batch.population, plates)
    trace = trace_guide(guide, batch, scope, {name: value[None] for name, value in latents.items()})
    return dict(trace.nodes), scope


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Gradients go through a module and stop at none of its parameters."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
