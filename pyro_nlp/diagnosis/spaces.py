"""What the latent space of a diagnosis is like: where documents lie, what the decoder hears, what is told apart
(layer: recipe)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyro.distributions import Dirichlet, Normal, TorchDistribution

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.diagnosis.subject import LeftOut, Subject, asked
from pyro_nlp.diagnosis.written import LONGEST, middling
from pyro_nlp.evaluation import posteriors
from pyro_nlp.evaluation.latent import (
    Aggregate,
    MeanSpace,
    Probe,
    aggregate,
    linear_probe,
    mean_space,
    neighbours,
    sensitivity,
    traverse,
)
from pyro_nlp.inference.support import base

PROBED, DIRECTIONS, STARTS, STEPS, REACH, NEAREST = 2000, 4, 3, 7, 3.0, 3
"""Training documents of a probe; dimensions and documents of the traversals, their steps and reach; neighbours."""
MEANS, GRID = 200, 200
"""Documents of the mean space, and points of a grid along a dimension."""


def aggregates(subject: Subject) -> dict[str, Aggregate]:
    """The aggregate posterior beside the prior, of every Gaussian site."""
    _ = subject.dense_guide
    gaussian = {name: p for name, p in subject.posteriors.items() if p.scale is not None}
    if not gaussian:
        raise LeftOut("no latent has a diagonal Gaussian posterior")
    found = {name: aggregate(p) for name, p in gaussian.items() if not _of_its_own(subject.priors.get(name))}
    if not found:
        raise LeftOut(f"the prior of {', '.join(gaussian)} is no standard normal distribution to be compared with")
    return found


def _of_its_own(prior: TorchDistribution | None) -> bool:
    """Whether a prior is a normal distribution with other moments than 0 and 1."""
    if prior is None or not isinstance(fn := base(prior), Normal):
        return False
    return not (bool((fn.loc == 0).all()) and bool((fn.scale == 1).all()))


def means(subject: Subject) -> MeanSpace:
    """The model's posterior means beside the guide's: by a grid where one is cheap, else by weighted draws."""
    guide, model, protocol = subject.dense_guide, subject.model, subject.protocol
    widths = {name: posterior.mean.shape[1] for name, posterior in subject.posteriors.items()}
    vectors = not isinstance(subject.split, TextSplit)
    few = subject.few(MEANS).split
    if set(widths.values()) == {1} or (vectors and set(widths.values()) == {2}):
        try:
            return mean_space(model, guide, few, GRID)
        except ValueError:
            pass  # a posterior too narrow or too far out for this grid; what nothing can be said of is refused below
    return asked(lambda: mean_space(model, guide, few, draws=protocol.draws, seed=protocol.seed))


@dataclass(frozen=True)
class Sensitivity:
    """Mean square over documents of d log p(x | z) / dz, `[D]`, of one site."""

    site: str
    mean_square: np.ndarray


def heard(subject: Subject) -> Sensitivity:
    """How much the decoder listens to each dimension."""
    guide, seed = subject.own_guide, subject.protocol.seed
    sites = [name for name, posterior in subject.posteriors.items() if posterior.classes is None]
    shares = [name for name in sites if isinstance(base(subject.priors[name]), Dirichlet)]
    if shares:
        raise LeftOut(f"{', '.join(shares)} sums to one: no dimension can be moved alone")
    if len(sites) != 1:
        raise LeftOut(f"the decoder's sensitivity is to one continuous latent, and there are {len(sites)}")
    gradients = asked(lambda: sensitivity(subject.model, guide, subject.split, seed=seed))
    return Sensitivity(sites[0], (gradients**2).mean(0))


def probes(subject: Subject) -> dict[str, Probe]:
    """Whether a line through the latent space tells the labels: fitted to training documents."""
    guide, train = subject.own_guide, subject.run.corpus.train
    if isinstance(train, PairSplit) and train.labels is not None and subject.run.corpus.labels:
        raise LeftOut("the label of a pair is what is modelled, and its posterior has seen it")
    if subject.labels is None or not isinstance(train, TextSplit | CountSplit) or train.labels is None:
        raise LeftOut("the corpus has no labels")
    rows = np.random.default_rng(subject.protocol.seed).permutation(len(train))[:PROBED]
    part = train.take(np.sort(rows))
    fitted = posteriors(subject.model, guide, part, seed=subject.protocol.seed, marginal=subject.marginal)
    labels, given = part.labels, subject.labels
    assert labels is not None and given is not None
    found = {}
    for name, posterior in fitted.items():
        test = subject.posteriors[name].mean
        found[name] = asked(lambda p=posterior, t=test: linear_probe(p.mean, labels, t, given))  # type: ignore[misc]
    return found


@dataclass(frozen=True)
class Traversal:
    """What is written while one dimension of a document's code is moved from -reach to reach."""

    dimension: int
    text: str
    written: list[str]


def traversals(subject: Subject) -> list[Traversal]:
    """The dearest dimensions, from a few documents each."""
    guide, model, split = subject.own_guide, subject.writer, subject.texts
    sites = [name for name, posterior in subject.posteriors.items() if posterior.classes is None]
    if not sites:
        raise LeftOut("no latent is a vector to move along")
    site = sites[0]
    cost = subject.terms.kl_per_dimension.get(site) if subject.likelihood is not None else None
    worth = subject.posteriors[site].mean.var(0) if cost is None else cost.mean(0)
    part = split.take(middling(split, subject.protocol.seed)[:STARTS])
    batch, texts = part.batch(np.arange(len(part))), subject.lines([part.words(i) for i in range(len(part))])
    found = []
    for dimension in np.argsort(-worth, kind="stable")[:DIRECTIONS]:
        written = asked(
            lambda d=int(dimension): traverse(model, guide, batch, d, site, REACH, STEPS, max_length=LONGEST)  # type: ignore[misc]
        )
        found += [Traversal(int(dimension), text, subject.lines(written[i])) for i, text in enumerate(texts)]
    return found


def nearest(subject: Subject) -> np.ndarray:
    """Rows of the documents whose posterior means are nearest to each, `[N, 3]`, all sites side by side."""
    _ = subject.own_guide
    if not subject.posteriors:
        raise LeftOut("no latent is a vector")
    together = np.concatenate([posterior.mean for posterior in subject.posteriors.values()], 1)
    return asked(lambda: neighbours(together, count=NEAREST))[0]
