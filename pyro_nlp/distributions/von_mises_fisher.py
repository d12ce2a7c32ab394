"""Distributions on the unit sphere (layer: distributions).

Densities are against the surface measure of the sphere: comparable with each other, not with those of a Gaussian.
Normalisers, draws and divergences are worked out in float64, whatever the parameters come in.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions import Beta, Independent, register_kl

from pyro_nlp.distributions.bessel import bessel_ratio, log_series

_NODES = 64
"""Of the quadrature behind a draw's derivative in the concentration."""


def log_area(dimension: int) -> float:
    """log of the surface of the unit sphere in `dimension` dimensions, log(2 pi^(D/2) / Gamma(D/2))."""
    return math.log(2) + 0.5 * dimension * math.log(math.pi) - math.lgamma(0.5 * dimension)


class VonMisesFisher(TorchDistribution):
    """p(z) = C_D(kappa) exp(kappa mu' z), |z| = 1:  the Gaussian of the sphere        Mardia and Jupp 2000, section 9.3

    C_D(kappa) = kappa^(D/2 - 1) / ((2 pi)^(D/2) I_{D/2 - 1}(kappa)). Its mean is A(kappa) mu with
    A = I_{D/2} / I_{D/2 - 1}. Draws follow Wood 1994 (Communications in Statistics 23): the coordinate along mu by
    rejection, the rest uniformly. They are reparameterised: in loc by the rotation that takes the draw along with it;
    in the concentration, where that needs a gradient, implicitly, dw/dkappa = -(dF/dkappa) / f(w)
    (Figurnov et al. 2018, arXiv:1805.08498). Accurate for D from 2 to 256 and kappa from 1e-3 to 1e4.

    Shapes: loc `[..., D]`, concentration anything that broadcasts with `[...]`; batch shape `[...]`, event `[D]`.

    Args:
        loc: mean direction mu, of length 1.
        concentration: kappa, above 0.

    Raises:
        ValueError: fewer than two dimensions, a concentration that is not positive, or a loc off the sphere; the last
            two only where arguments are validated, as by default.
    """

    arg_constraints = {"loc": constraints.sphere, "concentration": constraints.positive}  # noqa: RUF012 (torch's own)
    support = constraints.sphere
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        concentration: Tensor | float,
        validate_args: bool | None = None,
        batch_shape: torch.Size | None = None,
    ) -> None:
        size = loc.shape[-1] if loc.dim() else 1
        _refuse_flat("VonMisesFisher", size)
        self.loc = loc
        self.concentration = concentration if isinstance(concentration, Tensor) else loc.new_tensor(concentration)
        shape = torch.broadcast_shapes(loc.shape[:-1], self.concentration.shape) if batch_shape is None else batch_shape
        super().__init__(shape, torch.Size([size]), validate_args=False)
        self._validate_args = type(self)._validate_args if validate_args is None else validate_args
        if self._validate_args and batch_shape is None:
            if not bool(((self.concentration > 0) & self.concentration.isfinite()).all()):
                found = float(self.concentration.detach().min())
                raise ValueError(f"VonMisesFisher: found a concentration of {found:.4g}, expected a number above 0")
            _refuse_off_sphere("VonMisesFisher: loc", loc, "normalise it, with torch.nn.functional.normalize")

    @property
    def order(self) -> float:
        """D/2 - 1, of the Bessel function."""
        return 0.5 * self.event_shape[0] - 1

    def expand(self, batch_shape: Any, _instance: Any = None) -> VonMisesFisher:
        # Nothing is copied: what is computed by parameters is computed at their own shape, and expanded.
        return VonMisesFisher(self.loc, self.concentration, self._validate_args, torch.Size(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, against the surface measure, `[...]`."""
        if self._validate_args:
            _refuse_off_sphere("VonMisesFisher: value", value, "a vMF posterior wants a prior on the sphere, and so on")
        along = (self.loc.double() * value.double()).sum(-1)
        found = (self._kappa * along + self.log_normaliser).to(value.dtype)
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))

    @property
    def _kappa(self) -> Tensor:
        return self.concentration.double()

    @property
    def log_normaliser(self) -> Tensor:
        """log C_D(kappa), of the concentration's shape, in float64."""
        return -log_series(self.order, self._kappa) - log_area(self.event_shape[0])

    @property
    def mean_length(self) -> Tensor:
        """A(kappa), the length of the mean, of the concentration's shape, in float64."""
        return bessel_ratio(self.order, self._kappa)

    @property
    def mean(self) -> Tensor:
        """A(kappa) mu, a point inside the sphere, `[..., D]`."""
        return (self.mean_length[..., None] * self.loc).to(self.loc.dtype).expand(*self.batch_shape, -1)

    def entropy(self) -> Tensor:
        """-log C_D(kappa) - kappa A(kappa), in nats, `[...]`."""
        found = -self.log_normaliser - self._kappa * self.mean_length
        return found.to(self.loc.dtype).expand(self.batch_shape)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        loc = F.normalize(self.loc.double(), dim=-1)
        along = self._along(shape[:-1])[..., None]
        there = loc.detach()
        tangent = torch.randn(shape, dtype=there.dtype, device=there.device)
        tangent = F.normalize(tangent - (tangent * there).sum(-1, keepdim=True) * there, dim=-1)
        if loc.requires_grad:  # the smallest rotation that takes `there`, where loc is, to loc: the tangent goes along
            turn = (tangent * loc).sum(-1, keepdim=True) / (1 + (there * loc).sum(-1, keepdim=True))
            tangent = tangent - turn * (there + loc)
        across = (1 - along.square()).clamp(min=0).sqrt() if not along.requires_grad else _across(along)
        return (along * loc + across * tangent).to(self.loc.dtype)

    def _along(self, shape: torch.Size) -> Tensor:
        """w = mu' z of draws, float64, of the given shape."""
        kappa = self._kappa
        with torch.no_grad():
            w = _wood(kappa.expand(shape), self.event_shape[0])
        if not kappa.requires_grad:
            return w
        slope = _slope(w, kappa.detach().expand(shape), self.event_shape[0])
        return w + slope * (kappa - kappa.detach())


def _across(along: Tensor) -> Tensor:
    """sqrt(1 - w^2), with a gradient that stays finite at the poles."""
    return (1 - along.square()).clamp(min=1e-30).sqrt()


def _wood(kappa: Tensor, dimension: int) -> Tensor:
    """Draws of w with density proportional to exp(kappa w) (1 - w^2)^((D-3)/2), by Wood 1994, algorithm VM*.

    The envelope is the law of (1 - (1+b) e) / (1 - (1-b) e) for e ~ Beta((D-1)/2, (D-1)/2); two thirds or more are
    accepted. What is not is drawn again, alone, until nothing is left.
    """
    rest = dimension - 1
    half = torch.tensor(0.5 * rest, dtype=kappa.dtype, device=kappa.device)
    envelope = Beta(half, half, validate_args=False)
    flat = kappa.reshape(-1)
    found, pending = torch.empty_like(flat), torch.arange(len(flat), device=flat.device)
    while len(pending):
        k = flat[pending]
        b = rest / (2 * k + (4 * k.square() + rest**2).sqrt())
        centre = (1 - b) / (1 + b)
        e = envelope.sample(k.shape)
        w = (1 - (1 + b) * e) / (1 - (1 - b) * e)
        height = k * (w - centre) + rest * ((1 - centre * w).log() - (1 - centre.square()).log())
        found[pending] = w
        pending = pending[height < torch.rand_like(k).log()]  # NaN is kept as NaN, not drawn for ever
    return found.view(kappa.shape)


@cache
def _legendre() -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return torch.from_numpy(0.5 * (nodes + 1)), torch.from_numpy(0.5 * weights)


@torch.no_grad()
def _slope(w: Tensor, kappa: Tensor, dimension: int) -> Tensor:
    """dw/dkappa at a fixed quantile, = -(1/f(w)) int_{-1}^w (t - A) f(t) dt, of w's shape.

    As the integral from -1 to 1 is 0 it may be taken on either side of w: on the one without A, where all of it has one
    sign. With w = cos(angle) the density has no singularity, also in two dimensions, and falls at least as fast as a
    Gaussian away from its mode; what lies 16 of its standard deviations beyond w is left out.
    """
    angle = w.clamp(-1, 1).acos()
    ratio = bessel_ratio(0.5 * dimension - 1, kappa)
    upper = w >= ratio
    reach = 16 / (kappa * ratio + dimension - 2).sqrt()
    end = torch.where(upper, (angle - reach).clamp(min=0), (angle + reach).clamp(max=math.pi))
    nodes, weights = (x.to(w.device) for x in _legendre())
    t = angle[..., None] + (end - angle)[..., None] * nodes
    density = kappa[..., None] * (t.cos() - w[..., None])
    if dimension > 2:
        density = density + (dimension - 2) * (t.sin().log() - angle.sin().log()[..., None])
    integrand = (t.cos() - ratio[..., None]).abs() * density.exp()
    return (integrand * weights).sum(-1) * (end - angle).abs() * angle.sin()


class HypersphericalUniform(TorchDistribution):
    """The uniform distribution on the unit sphere in D dimensions.

    Shapes: batch shape (), event `[D]`.

    Args:
        dimension: D, at least 2.
        like: a tensor of the wanted type and on the wanted device; float32 on the CPU without it.

    Raises:
        ValueError: fewer than two dimensions; a value off the sphere, where values are validated, as by default.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    support = constraints.sphere
    has_rsample = True

    def __init__(
        self,
        dimension: int,
        like: Tensor | None = None,
        validate_args: bool | None = None,
        batch_shape: torch.Size = torch.Size(),
    ) -> None:
        _refuse_flat("HypersphericalUniform", dimension)
        self.like = torch.zeros(()) if like is None else like
        super().__init__(batch_shape, torch.Size([dimension]), validate_args=False)
        self._validate_args = type(self)._validate_args if validate_args is None else validate_args

    def expand(self, batch_shape: Any, _instance: Any = None) -> HypersphericalUniform:
        return HypersphericalUniform(self.event_shape[0], self.like, self._validate_args, torch.Size(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Minus log of the sphere's surface, `[...]`."""
        if self._validate_args:
            _refuse_off_sphere(
                "HypersphericalUniform: value", value, "UniformSphere is the prior of a VonMisesFisherGuide"
            )
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full((), -log_area(self.event_shape[0])).expand(shape)

    @property
    def mean(self) -> Tensor:
        """The centre, `[..., D]`."""
        return self.like.new_zeros(self.batch_shape + self.event_shape)

    def entropy(self) -> Tensor:
        """log of the sphere's surface, `[...]`."""
        return self.like.new_full(self.batch_shape, log_area(self.event_shape[0]))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        normal = torch.randn(shape, dtype=torch.float64, device=self.like.device)
        return F.normalize(normal, dim=-1).to(self.like.dtype)


def _refuse_flat(name: str, dimension: int) -> None:
    if dimension < 2:
        raise ValueError(
            f"{name}: found {dimension} dimension(s), expected at least 2: a sphere has a direction to turn"
        )


def _refuse_off_sphere(what: str, value: Tensor, cure: str) -> None:
    length = torch.linalg.vector_norm(value.detach().double(), dim=-1)
    worst = (length - 1).abs().nan_to_num(0.0)  # NaN is for Pyro to report
    if worst.numel() and float(worst.max()) > 1e-3:
        found = float(length.flatten()[worst.argmax()])
        raise ValueError(f"{what} has length {found:.4g}, expected 1, a point on the sphere: {cure}")


def pairwise_log_density(value: Tensor, loc: Tensor, concentration: Tensor) -> Tensor:
    """log vMF(z_i; mu_j, kappa_j), `[N, M]`, as one matrix product: z `[N, D]`, mu `[M, D]`, kappa `[M]`; float64."""
    q = VonMisesFisher(loc.double(), concentration.double(), validate_args=False)
    return value.double() @ (q.loc * q.concentration[:, None]).T + q.log_normaliser


@register_kl(VonMisesFisher, HypersphericalUniform)
def _kl_uniform(q: VonMisesFisher, p: HypersphericalUniform) -> Tensor:
    """kappa A(kappa) - log S(kappa): it depends on nothing but the concentration and the dimension."""
    found = q._kappa * q.mean_length - log_series(q.order, q._kappa)
    return found.to(q.loc.dtype).expand(torch.broadcast_shapes(q.batch_shape, p.batch_shape))


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_von_mises_fisher(q: VonMisesFisher, p: VonMisesFisher) -> Tensor:
    cosine = (q.loc.double() * p.loc.double()).sum(-1)
    found = q.mean_length * (q._kappa - p._kappa * cosine) + q.log_normaliser - p.log_normaliser
    return found.to(q.loc.dtype).expand(torch.broadcast_shapes(q.batch_shape, p.batch_shape))


@register_kl(VonMisesFisher, Independent)
def _kl_off_sphere(q: VonMisesFisher, p: Independent[Any]) -> NoReturn:
    raise ValueError(
        f"a posterior on the sphere (VonMisesFisher) has no density against a prior of {type(p.base_dist).__name__} "
        "variables: give the model prior=UniformSphere"
    )
