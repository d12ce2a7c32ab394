"""The mutual information that He et al. 2019 watch while they train (layer: inference)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pyro_nlp.data.batches import Batch

if TYPE_CHECKING:
    from pyro_nlp.inference.strategy import Objective


def minibatch_information(objective: Objective, batches: Iterable[Batch]) -> float:
    """I(x; z) under q inside minibatches, averaged over them, in nats; at most the log of their size.

    -H(q(z | x)) in closed form where there is one, minus log q(z) of one draw against the documents of its minibatch
    (Hoffman and Johnson 2016, as coded by He et al. 2019). Latents of one document count as independent under q.
    """
    found = []
    for batch in batches:
        sites = objective.plain_terms(batch).sites.values()
        log_q = sum(_between(site.q, site.value[0]) for site in sites)  # [the draw's document, the posterior's]
        assert isinstance(log_q, Tensor)
        own = sum(_negative_entropy(site.q, site.log_q).mean() for site in sites)
        found.append(float(own - (log_q.logsumexp(-1) - math.log(len(batch))).mean()))
    return sum(found) / max(1, len(found))


def _between(q: Any, value: Tensor) -> Tensor:
    """log q(z_i | x_j), `[i, j]`."""
    return q.log_prob(value[:, None].expand(-1, len(value), *value.shape[1:]))


def _negative_entropy(q: Any, log_q: Tensor) -> Tensor:
    try:
        return -q.entropy()
    except NotImplementedError:
        return log_q
