"""Why a decoder that can do without z does: the exact optimum of a VAE small enough to enumerate.

Protocol: texts of two words from a vocabulary of two, the second a copy of the first with probability 0.9, so that all
four can be summed over; z is one standard Normal number and q(z | x) a Normal for each of the four, so that every
expectation is a Gauss-Hermite sum of 64 points. -ELBO is minimised by L-BFGS in float64 from 20 random starts, freely
and with the KL held at some values by a quadratic penalty (weight 1e4); the best is reported, as nats above the entropy
of the texts, which no -ELBO can be below. Two decoders:

    autoregressive   p(x_1 | z) p(x_2 | x_1, z)      can give every word its probability without z
    independent      p(x_1 | z) p(x_2 | z)           needs z to make the second word follow the first

Chen et al. 2017 (arXiv:1611.02731), section 2: what the decoder can model by itself is not put into z, because a q that
is not exactly the posterior costs KL(q || p(z | x)) and brings nothing. A logistic decoder that listens to z has no
Normal posterior, so with the first decoder the optimum is not merely allowed to ignore z: it has to. No annealing or
luck can be told from this optimum; what can be changed is the decoder, or the objective.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import Row, environment, row, save

COPY = 0.9
TEXTS = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
SHARE = torch.tensor([COPY, 1 - COPY, 1 - COPY, COPY], dtype=torch.float64) / 2
NODES, WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(64))
WEIGHTS = WEIGHTS / WEIGHTS.sum()

HELD = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)

Decoder = Literal["autoregressive", "independent"]


def terms(parameters: Tensor, decoder: Decoder) -> tuple[Tensor, Tensor]:
    """-E_q[log p(x | z)] and KL(q || p), averaged over the texts; nats."""
    loc, log_scale, (slope_1, bias_1, slope_2, bias_2, copy) = parameters[:4], parameters[4:8], parameters[8:]
    z = loc[:, None] + log_scale.exp()[:, None] * NODES
    follows = (2.0 * TEXTS[:, :1] - 1) * copy if decoder == "autoregressive" else 0.0
    logits = torch.stack([slope_1 * z + bias_1, slope_2 * z + bias_2 + follows], -1)
    sign = (2.0 * TEXTS - 1)[:, None]
    log_likelihood = torch.nn.functional.logsigmoid(sign * logits).sum(-1) @ WEIGHTS
    kl = 0.5 * (loc.square() + (2 * log_scale).exp() - 1) - log_scale
    return -(SHARE * log_likelihood).sum(), (SHARE * kl).sum()


def optimum(decoder: Decoder, held: float | None = None, starts: int = 20, seed: int = 0) -> dict[str, float]:
    """The smallest -ELBO found, freely or with the KL held at a value, and what it is made of."""
    found: list[dict[str, float]] = []
    generator = torch.Generator().manual_seed(seed)
    for _ in range(starts):
        parameters = torch.randn(13, dtype=torch.float64, generator=generator).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [parameters], max_iter=2000, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )

        def loss(parameters: Any = parameters, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            reconstruction, kl = terms(parameters, decoder)
            total = reconstruction + kl + (0.0 if held is None else 1e4 * (kl - held).square())
            total.backward()
            return total

        optimizer.step(loss)
        reconstruction, kl = (float(part) for part in terms(parameters.detach(), decoder))
        found.append({"-ELBO": reconstruction + kl, "reconstruction": reconstruction, "KL": kl})
    if held is not None:
        found = [one for one in found if abs(one["KL"] - held) < 1e-3]
    return min(found, key=lambda one: one["-ELBO"])


def entropy() -> float:
    """Of the texts, in nats: no -ELBO can be lower."""
    return -sum(p * math.log(p) for p in SHARE.tolist())


def main() -> None:
    """Write results/preference.json."""
    described = environment()
    rows: list[Row] = [row("entropy of the texts", round(entropy(), 6), "nats", environment=described)]
    for decoder in ("autoregressive", "independent"):
        best = optimum(decoder)
        above = round(best["-ELBO"] - entropy(), 5)
        rows.append(row(f"{decoder}: -ELBO above the entropy, at its optimum", above, "nats", environment=described))
        rows.append(row(f"{decoder}: KL at the optimum", round(best["KL"], 2), "nats", environment=described))
        for held in HELD:
            above = round(optimum(decoder, held)["-ELBO"] - entropy(), 5)
            what = f"{decoder}: -ELBO above the entropy, with the KL held at {held:g} nats"
            rows.append(row(what, above, "nats", environment=described))
    save("preference", rows)


if __name__ == "__main__":
    main()
