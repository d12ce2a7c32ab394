"""The distribution of a variable carried through bijections (layer: distributions)."""

from __future__ import annotations

import torch
from pyro.distributions import TransformedDistribution
from torch import Tensor


class Flow(TransformedDistribution):
    """z = T(u), u ~ base:  log q(z) = log base(u) - log |det dT/du|         Rezende and Mohamed 2015 (arXiv:1505.05770)

    A `TransformedDistribution` of a diagonal Gaussian with a mean. The density of its own latest draw comes from the
    transforms' caches; that of any other value by inverting them.
    """

    @property
    @torch.no_grad()
    def mean(self) -> Tensor:
        """E[z] by the same 128 quasi-random u (scrambled Sobol) in every call and for every document, `[..., D]`.

        No closed form exists. The noise is shared, so that what differs between documents is not the noise.
        """
        base = self.base_dist.base_dist
        dimension = self.event_shape[0]
        points = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=0).draw(128).clamp(1e-4, 1 - 1e-4)
        normal = torch.special.ndtri(points).to(base.loc)
        z = base.loc + base.scale * normal.view(-1, *[1] * len(self.batch_shape), dimension)
        for transform in self.transforms:
            z = transform(z)
        return z.mean(0)
