"""VonMisesFisher against quadrature over the angle, and its draws against its density."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_nlp.distributions import HypersphericalUniform, VonMisesFisher
from pyro_nlp.distributions.von_mises_fisher import _slope, log_area, pairwise_log_density

GRID = [(d, k) for d in (2, 3, 4, 17, 64, 256) for k in (1e-3, 0.5, 20.0, 400.0, 1e4)]
grid = pytest.mark.parametrize(("dimension", "kappa"), GRID)


def direction(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return F.normalize(torch.randn(shape, dtype=dtype), dim=-1)


@cache
def _nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(count)


class Angle:
    """The law of the angle t between z and mu, exp(kappa cos t) sin(t)^(D-2), by quadrature on [0, pi]."""

    def __init__(self, dimension: int, kappa: float) -> None:
        points, weights = _nodes(1000)
        self.t = 0.5 * math.pi * (points + 1)
        exponent = kappa * np.cos(self.t) + (dimension - 2) * np.log(np.sin(self.t))
        self.peak = exponent.max()
        mass = 0.5 * math.pi * weights * np.exp(exponent - self.peak)
        self.log_total = self.peak + math.log(mass.sum())
        self.log_normaliser = -self.log_total - log_area(dimension - 1)
        self.p = mass / mass.sum()
        self.dimension, self.kappa = dimension, kappa

    def expect(self, function: Any) -> float:
        return float((self.p * function(np.cos(self.t))).sum())

    def tail(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mass below and above each angle, each by a quadrature of its own."""
        points, weights = _nodes(400)

        def between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
            s = low[:, None] + (high - low)[:, None] * 0.5 * (points + 1)
            exponent = self.kappa * np.cos(s) + (self.dimension - 2) * np.log(np.maximum(np.sin(s), 1e-300))
            return 0.5 * (high - low) * (np.exp(exponent - self.log_total) * weights).sum(1)

        return between(np.zeros_like(t), t), between(t, np.full_like(t, math.pi))


def test_the_area_of_the_sphere_is_the_known_one() -> None:
    assert [log_area(d) for d in (2, 3, 4)] == pytest.approx(np.log([2 * math.pi, 4 * math.pi, 2 * math.pi**2]))


@grid
def test_normaliser_entropy_mean_and_divergence_equal_quadrature(dimension: int, kappa: float) -> None:
    q, angle = VonMisesFisher(direction(dimension), kappa), Angle(dimension, kappa)
    log_c = angle.log_normaliser
    # exponents up to 1e4 are added and subtracted in float64
    tolerance = {"rel": 1e-11, "abs": 1e-11}
    assert float(q.log_normaliser) == pytest.approx(log_c, **tolerance)
    length = angle.expect(lambda w: w)
    assert float(q.mean_length) == pytest.approx(length, **tolerance)
    torch.testing.assert_close(q.mean, length * q.loc)
    entropy = -log_c - kappa * length
    assert float(q.entropy()) == pytest.approx(entropy, rel=1e-10, abs=1e-9)
    found = float(kl_divergence(q, HypersphericalUniform(dimension)))
    assert found == pytest.approx(log_area(dimension) - entropy, rel=1e-10, abs=1e-9)
    assert found > 0
    along = torch.linspace(-1, 1, 5, dtype=torch.float64)
    across = direction(dimension)
    across = F.normalize(across - (across @ q.loc) * q.loc, dim=-1)
    points = along[:, None] * q.loc + (1 - along.square()).sqrt()[:, None] * across
    torch.testing.assert_close(q.log_prob(points), log_c + kappa * along, rtol=1e-10, atol=1e-9)


def test_a_small_concentration_costs_kappa_squared_over_twice_the_dimension() -> None:
    found = kl_divergence(VonMisesFisher(direction(32), 1e-3), HypersphericalUniform(32))
    assert float(found) == pytest.approx(1e-6 / 64, rel=1e-6)  # the next term is kappa^2 / D of it


def test_the_divergence_to_the_uniform_depends_on_concentration_and_dimension_alone() -> None:
    q = VonMisesFisher(direction(6, 10, dtype=torch.float32), 20.0)
    found = kl_divergence(q, HypersphericalUniform(10))
    assert found.shape == (6,) and (found == found[0]).all() and not found.requires_grad


def test_the_divergence_of_two_equals_the_mean_difference_of_densities() -> None:
    q, p = VonMisesFisher(direction(5), 12.0), VonMisesFisher(direction(5), 3.0)
    z = q.sample((20_000,))
    difference = q.log_prob(z) - p.log_prob(z)
    error = float(difference.std()) / 20_000**0.5
    assert abs(float(kl_divergence(q, p)) - float(difference.mean())) < 5 * error
    assert float(kl_divergence(q, q)) == pytest.approx(0.0, abs=1e-12)


# ---- draws ---------------------------------------------------------------------------------------------------------


@grid
def test_draws_have_the_law_of_the_angle(dimension: int, kappa: float) -> None:
    """Kolmogorov and Smirnov: sqrt(n) times the largest distance exceeds 2.7 with a probability of 2 e^-14.6 < 1e-6."""
    q, count = VonMisesFisher(direction(dimension), kappa), 3000
    z = q.sample((count,))
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(count, dtype=torch.float64))
    w = (z @ q.loc).clamp(-1, 1).sort(descending=True).values
    below, _ = Angle(dimension, kappa).tail(w.acos().numpy())
    steps = np.arange(count)
    distance = np.maximum(below - steps / count, (steps + 1) / count - below).max()
    assert math.sqrt(count) * distance < 2.7


def test_around_the_mean_direction_draws_are_uniform() -> None:
    q = VonMisesFisher(direction(4), 5.0)
    z = q.sample((20_000,))
    tangent = F.normalize(z - (z @ q.loc)[:, None] * q.loc, dim=-1)
    # uniform on a sphere of 3 dimensions: second moments 1/3 of the projection, with a standard error below 1/sqrt(n)
    wanted = (torch.eye(4, dtype=torch.float64) - q.loc[:, None] * q.loc) / 3
    torch.testing.assert_close(tangent.T @ tangent / 20_000, wanted, rtol=0, atol=5 / 20_000**0.5)
    torch.testing.assert_close(tangent.mean(0), torch.zeros(4).double(), rtol=0, atol=5 / 20_000**0.5)


def test_float32_draws_lie_on_the_sphere_and_are_drawn_at_the_mean_direction_itself() -> None:
    loc = torch.eye(7)  # the first coordinate axis is where a reflection would divide by zero
    q = VonMisesFisher(loc, torch.tensor(1e4))
    z = q.sample((100,))
    assert z.dtype == torch.float32 and dist.constraints.sphere.check(z).all()
    assert ((z * loc).sum(-1) > 0.99).all()


def test_uniform_draws_have_no_direction() -> None:
    p, count = HypersphericalUniform(6), 20_000
    z = p.sample((count,))
    torch.testing.assert_close(z.T @ z / count, torch.eye(6) / 6, rtol=0, atol=5 * (1 / 24 / count) ** 0.5 + 1e-6)
    assert float(p.log_prob(z[0])) == pytest.approx(-float(p.entropy())) == pytest.approx(-log_area(6))
    assert not p.mean.any()


def test_two_states_of_the_generator_give_the_same_draws() -> None:
    q, found = VonMisesFisher(direction(5, 3), torch.tensor([1.0, 5.0, 10.0, 50.0, 1e3])), []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(q.sample((2,)))
    assert torch.equal(*found)


# ---- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimension", [2, 3, 8, 100])
def test_the_gradient_in_loc_is_that_of_the_expectation(dimension: int) -> None:
    """E[a' z] = A(kappa) a' mu for mu = normalised x; every component within 5 standard errors."""
    x, a, count = 1.5 * direction(dimension), direction(dimension), 4000
    copies = x.expand(count, -1).clone().requires_grad_()
    q = VonMisesFisher(F.normalize(copies, dim=-1), 10.0)
    (each,) = torch.autograd.grad((q.rsample() @ a).sum(), copies)
    x.requires_grad_()
    (wanted,) = torch.autograd.grad(q.mean_length * (F.normalize(x, dim=-1) @ a), x)
    error = each.std(0) / count**0.5
    assert ((each.mean(0) - wanted).abs() <= 5 * error + 1e-9).all()


def test_a_draw_turns_with_loc_to_first_order() -> None:
    loc, count = direction(3), 2000
    around = direction(3)
    around = F.normalize(around - (around @ loc) * loc, dim=-1)

    def draw(angle: Tensor) -> Tensor:
        torch.manual_seed(0)
        turned = angle.cos() * loc + angle.sin() * around
        return VonMisesFisher(turned, 5.0).rsample((count,))

    zero = torch.zeros((), dtype=torch.float64)
    moved = torch.autograd.functional.jvp(draw, zero, torch.ones_like(zero))[1]
    plane = torch.stack([loc, around])
    u, v = (draw(zero) @ plane.T).unbind(-1)
    # the rotation in the plane of loc and the way it moves: (u, v) goes to (-v, u), and what is across stays
    torch.testing.assert_close(moved, torch.stack([-v, u], -1) @ plane)


@pytest.mark.parametrize("dimension", [2, 3, 4, 32, 256])
@pytest.mark.parametrize("kappa", [1e-3, 0.5, 20.0, 400.0, 1e4])
def test_the_slope_of_a_draw_in_the_concentration_is_that_of_its_quantile(dimension: int, kappa: float) -> None:
    """Mass between -1 and w(kappa) is constant: a step along the slope changes it by the second order of the step."""
    t = np.array(
        [float(np.interp(q, np.cumsum(a.p), a.t)) for a in [Angle(dimension, kappa)] for q in (0.05, 0.4, 0.8)]
    )
    slope = _slope(torch.from_numpy(np.cos(t)), torch.full((3,), kappa, dtype=torch.float64), dimension).numpy()
    step = 1e-4 * kappa
    mass = []
    for sign in (-1, 1):
        at = np.arccos(np.clip(np.cos(t) + sign * step * slope, -1, 1))
        mass.append(Angle(dimension, kappa + sign * step).tail(at)[0])
    without = [Angle(dimension, kappa + sign * step).tail(t)[0] for sign in (-1, 1)]
    moved, still = np.abs(mass[1] - mass[0]), np.abs(without[1] - without[0])
    # central differences leave 1e-8 of what a draw that stays would change, and masses are float64 sums
    assert (moved < 1e-5 * still + 1e-12).all()


def test_the_gradient_in_the_concentration_is_that_of_the_expectation() -> None:
    loc, count = direction(12), 4000
    kappa = torch.full((count,), 15.0, dtype=torch.float64, requires_grad=True)
    (each,) = torch.autograd.grad((VonMisesFisher(loc, kappa).rsample() @ loc).sum(), kappa)
    one = torch.tensor(15.0, dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(VonMisesFisher(loc, one).mean_length, one)
    assert abs(float(each.mean() - wanted)) < 5 * float(each.std()) / count**0.5


def test_density_entropy_and_divergence_have_the_gradients_of_finite_differences() -> None:
    x, kappa, z = direction(4, 6), torch.tensor([0.3, 2.0, 15.0, 90.0], dtype=torch.float64), direction(4, 6)

    def values(x: Tensor, kappa: Tensor) -> tuple[Tensor, ...]:
        q = VonMisesFisher(F.normalize(x, dim=-1), kappa, validate_args=False)
        return q.log_prob(z), q.entropy(), kl_divergence(q, HypersphericalUniform(6)), q.mean

    assert torch.autograd.gradcheck(values, (x.requires_grad_(), kappa.requires_grad_()), rtol=1e-5, atol=1e-7)


# ---- as a Pyro distribution ----------------------------------------------------------------------------------------


def test_it_expands_masks_and_stands_in_plates() -> None:
    q = VonMisesFisher(direction(4, 5, dtype=torch.float32), torch.tensor(7.0))
    wide = q.expand([3, 4])
    z = wide.sample((2,))
    assert (wide.batch_shape, wide.event_shape, z.shape) == ((3, 4), (5,), (2, 3, 4, 5))
    assert torch.equal(wide.log_prob(z[0]), q.log_prob(z[0])) and wide.mean.shape == (3, 4, 5)
    assert wide.log_prob(z[0, 0]).shape == wide.entropy().shape == (3, 4)
    assert q.mask(torch.tensor([True, False, True, True])).log_prob(z[0])[:, 1].eq(0).all()

    def model() -> None:
        with pyro.plate("particles", 3, dim=-2), pyro.plate("documents", 4, dim=-1):
            pyro.sample("z", q)
            pyro.sample("u", HypersphericalUniform(5))

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    for site in ("z", "u"):
        assert trace.nodes[site]["value"].shape == (3, 4, 5) and trace.nodes[site]["log_prob"].shape == (3, 4)


def test_densities_of_all_points_under_all_documents_are_those_of_a_double_loop() -> None:
    z, loc, kappa = direction(3, 4), direction(5, 4), torch.rand(5, dtype=torch.float64) + 0.5
    found = pairwise_log_density(z, loc, kappa)
    wanted = [[VonMisesFisher(loc[j], kappa[j]).log_prob(z[i]) for j in range(5)] for i in range(3)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VonMisesFisher(torch.ones(1), 1.0), r"VonMisesFisher: found 1 dimension\(s\), expected at least 2"),
        (lambda: HypersphericalUniform(1), r"HypersphericalUniform: found 1 dimension\(s\), expected at least 2"),
        (lambda: VonMisesFisher(direction(3), 0.0), "found a concentration of 0, expected a number above 0"),
        (lambda: VonMisesFisher(direction(2, 3), torch.tensor([1.0, -2.5])), "found a concentration of -2.5"),
        (lambda: VonMisesFisher(torch.ones(4), 1.0), "loc has length 2, expected 1"),
        (lambda: VonMisesFisher(direction(3), 1.0).log_prob(torch.ones(3)), "value has length 1.732, expected 1"),
        (lambda: HypersphericalUniform(3).log_prob(torch.ones(3)), "is the prior of a VonMisesFisherGuide"),
        (
            lambda: kl_divergence(VonMisesFisher(direction(3), 1.0), dist.Normal(torch.zeros(3), 1.0).to_event(1)),
            "no density against a prior of Normal variables: give the model prior=UniformSphere",
        ),
    ],
)
def test_what_is_no_point_or_no_distribution_on_the_sphere_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_concentration_that_is_not_a_number_ends_in_one_and_not_in_an_endless_loop() -> None:
    q = VonMisesFisher(direction(2, 3), torch.tensor([torch.nan, 1.0]), validate_args=False)
    drawn = q.sample()
    assert drawn[0].isnan().all() and drawn[1].isfinite().all()
