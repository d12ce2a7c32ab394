"""Doersch's toy: a Gaussian bent into a ring. Small enough to know every answer exactly."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_nlp.data.batches import VectorBatch


class Ring(PyroModule):
    """p(z) N(x | g(z), noise^2 I), z ~ N(0, I_2), g(z) = z/10 + z/|z|      Doersch 2016 (arXiv:1606.05908), figure 2

    Nothing is learnt unless asked: with two dimensions every integral over z is a sum over a grid (`quadrature`).

    Sites    z  Normal(0, 1), event [2]
             x  Normal, event [2]
    Plates   documents (dim -1)

    Args:
        noise: standard deviation of x around the ring.
        learn_noise: make it a parameter.
    """

    plates = 1

    def __init__(self, noise: float = 0.1, learn_noise: bool = False) -> None:
        super().__init__()
        log_noise = torch.tensor(float(noise)).log()
        self.log_noise = torch.nn.Parameter(log_noise, requires_grad=learn_noise)
        self.register_buffer("zero", torch.zeros(2))

    @staticmethod
    def bend(z: Tensor) -> Tensor:
        """g(z), `[..., 2]` to `[..., 2]`."""
        return z / 10 + z / z.norm(dim=-1, keepdim=True).clamp(min=1e-12)

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            z = pyro.sample("z", dist.Normal(self.zero, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.bend(z), self.log_noise.exp()).to_event(1), obs=batch.values)

    def quadrature(self, values: Tensor, points: int = 400, reach: float = 6.0) -> tuple[Tensor, Tensor, Tensor]:
        """Exact answers for documents `values` `[B, 2]`, by the midpoint rule on a `points` x `points` grid.

        Returns log p(x) `[B]`, E[z | x] `[B, 2]` and Cov[z | x] `[B, 2, 2]`.
        """
        width = 2 * reach / points
        axis = torch.linspace(-reach + width / 2, reach - width / 2, points, dtype=torch.float64)
        z = torch.cartesian_prod(axis, axis)
        noise = self.log_noise.detach().double().exp()
        log_joint = dist.Normal(z.new_zeros(2), 1.0).to_event(1).log_prob(z) + dist.Normal(
            self.bend(z), noise
        ).to_event(1).log_prob(values.double()[:, None])
        log_evidence = log_joint.logsumexp(-1) + 2 * torch.tensor(width).double().log()
        posterior = log_joint.softmax(-1)
        mean = posterior @ z
        second = torch.einsum("bg,gi,gj->bij", posterior, z, z)
        return log_evidence, mean, second - mean[:, :, None] * mean[:, None, :]
