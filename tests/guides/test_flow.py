"""Flows against numerical Jacobians, at their own draws and at values from elsewhere."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_nlp.distributions import Flow
from pyro_nlp.evaluation import importance_nll, mutual_information, posteriors
from pyro_nlp.guides.flow import FlowGuide
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.inference import Pathwise, ScoreFunction, Strategy, terms
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn.flows import _Plane, conditional_flow
from tests.tiny import LATENT, VOCABULARY, WIDTH, decoder, encoder, gradients, sharpen, text, whole

KINDS: list[Any] = ["iaf", "planar"]
kinds = pytest.mark.parametrize("kind", KINDS)


def flow(kind: Any, size: int = 4, documents: int = 3, layers: int = 3, dtype: torch.dtype = torch.float32) -> Flow:
    """Posteriors of three documents."""
    steps = [sharpen(step).to(dtype) for step in conditional_flow(kind, size, WIDTH, layers, 16)]
    features = torch.randn(documents, WIDTH, dtype=dtype)
    base = dist.Normal(torch.randn(documents, size, dtype=dtype), torch.rand(documents, size, dtype=dtype) + 0.3)
    return Flow(base.to_event(1), [step.condition(features) for step in steps])


def guided(kind: Any, **options: Any) -> tuple[SentenceVAE, FlowGuide]:
    model = sharpen(SentenceVAE(VOCABULARY, LATENT, decoder))
    return model, sharpen(FlowGuide(VOCABULARY, LATENT, encoder, flow=kind, hidden=WIDTH, **options))


def through(q: Flow, u: Tensor) -> Tensor:
    for step in q.transforms:
        u = step(u)
    return u


@kinds
def test_the_density_of_a_draw_is_the_base_less_a_numerical_jacobian(kind: Any) -> None:
    q, size, step = flow(kind, dtype=torch.float64), 4, 1e-5
    u = q.base_dist.sample()
    z = through(q, u)
    found = q.log_prob(z)
    differences = [through(q, u + e) - through(q, u - e) for e in step * torch.eye(size, dtype=torch.float64)]
    jacobian = torch.stack(differences, -1) / (2 * step)
    wanted = q.base_dist.log_prob(u) - jacobian.slogdet().logabsdet
    # central differences: step squared of truncation and 1e-16 / step of rounding, times the inverse of the Jacobian
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@kinds
def test_a_value_from_elsewhere_has_the_density_of_the_draw_it_copies(kind: Any) -> None:
    q = flow(kind).expand([5, 3])
    z = q.rsample()
    # inverted by recursion or bisection in float32, through scales down to e^-5
    torch.testing.assert_close(q.log_prob(z.clone()), q.log_prob(z), rtol=1e-3, atol=1e-3)


@kinds
def test_the_density_of_a_draw_without_gradient_still_has_one(kind: Any) -> None:
    """A flow's memory of how the draw came about was made without gradient."""
    features, steps = torch.randn(3, WIDTH), [sharpen(step) for step in conditional_flow(kind, 4, WIDTH, 2, 16)]
    found = []
    for copied in (False, True):
        base = dist.Normal(torch.zeros(3, 4), 1.0).to_event(1)
        q = Flow(base, [step.condition(features) for step in steps])
        torch.manual_seed(0)
        drawn = ScoreFunction().draw(q, float)  # type: ignore[arg-type]
        assert drawn is not None and not drawn.value.requires_grad
        log_q = q.log_prob(drawn.value.clone() if copied else drawn.value)
        parameters = [p for step in steps for p in step.parameters()]
        found.append(torch.autograd.grad(log_q.sum(), parameters, allow_unused=True))
    for ours, wanted in zip(*found, strict=True):
        assert ours is not None and ours.any()
        assert torch.equal(ours, wanted)


@kinds
def test_the_density_over_a_box_adds_up_to_the_share_of_draws_in_it(kind: Any) -> None:
    q, line, count = flow(kind, size=2, documents=1, layers=2), torch.linspace(-4, 4, 1001), 20_000
    grid = torch.cartesian_prod(line, line)[:, None]
    with torch.no_grad():
        mass = float(q.log_prob(grid).exp().sum() * (line[1] - line[0]) ** 2)
    share = float((q.sample((count,)).abs() < 4).all(-1).float().mean())
    assert share > 0.05
    # the standard error of a share, and a cell more or less on each side of the box
    assert abs(mass - share) < 5 * (share * (1 - share) / count) ** 0.5 + 0.01


def test_the_inverse_of_a_plane_is_exact_and_has_the_gradient_of_finite_differences() -> None:
    bias, u, w, y = (torch.randn(shape, dtype=torch.float64) for shape in ((5,), (5, 3), (5, 3), (5, 3)))

    def inverse(*inputs: Tensor) -> Tensor:
        return _Plane(*inputs[:3])._inverse(inputs[3])

    torch.testing.assert_close(_Plane(bias, u, w)._call(inverse(bias, u, w, y)), y)
    assert torch.autograd.gradcheck(inverse, tuple(x.requires_grad_() for x in (bias, u, w, y)))


@kinds
def test_the_mean_of_a_flow_is_that_of_its_draws(kind: Any) -> None:
    q = flow(kind)
    draws = q.sample((20_000,))
    error = draws.std(0) / 20_000**0.5
    # 128 points of a scrambled net stand for more than 128 draws
    assert ((q.mean - draws.mean(0)).abs() < 5 * error + 5 * draws.std(0) / 128).all()
    assert torch.equal(q.mean, q.mean) and q.expand([2, 3]).mean.shape == (2, 3, 4)


def test_an_iaf_starts_as_its_base() -> None:
    guide = FlowGuide(VOCABULARY, LATENT, encoder, hidden=WIDTH)
    q: Any = guide.posterior_of(torch.randn(3, WIDTH))
    z = torch.randn(3, LATENT)
    torch.testing.assert_close(q.log_prob(z), q.base_dist.log_prob(z))


def test_all_dimensions_depend_on_all_others_after_two_layers() -> None:
    q = flow("iaf", layers=2, documents=1)
    jacobians = [torch.autograd.functional.jacobian(lambda u: through(q, u), torch.randn(1, 4)) for _ in range(50)]
    assert torch.stack(jacobians).any(0).all()


@kinds
def test_a_flow_and_a_gaussian_find_the_same_evidence(kind: Any) -> None:
    split = text(5)
    torch.manual_seed(0)
    model = sharpen(SentenceVAE(VOCABULARY, LATENT, decoder))
    guides = [
        FlowGuide(VOCABULARY, LATENT, encoder, flow=kind, hidden=WIDTH),
        GaussianGuide(VOCABULARY, LATENT, encoder),
    ]
    with torch.no_grad():
        for step in guides[0].flow:
            for parameter in step.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    one, other = (importance_nll(model, guide, split, 2000) for guide in guides)
    error = (one.standard_error**2 + other.standard_error**2) ** 0.5
    assert (abs(one.nll - other.nll) < 5 * error).all()
    # in chunks the draws are the same, one after the other
    parts = importance_nll(model, guides[0], split, 500, chunk=35)
    assert (abs(parts.nll - one.nll) < 5 * (parts.standard_error**2 + one.standard_error**2) ** 0.5).all()


@kinds
def test_sticking_the_landing_takes_the_score_of_a_detached_draw_out(kind: Any) -> None:
    model, guide = guided(kind)
    batch, found = whole(text(4)), []
    for gradient in ("plain", "stl"):
        objective = Strategy(continuous=Pathwise(gradient)).compile(model, guide, batch)  # type: ignore[arg-type]
        torch.manual_seed(0)
        loss = objective(batch)
        loss.backward()
        found.append((float(loss.detach()), gradients(model, guide)))
    (plain, d_plain), (stl, d_stl) = found
    assert plain == pytest.approx(stl, rel=1e-4)  # the same draw, inverted in one case
    torch.testing.assert_close(d_plain["0.head.weight"], d_stl["0.head.weight"], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(d_plain["1.posterior.loc.weight"], d_stl["1.posterior.loc.weight"], rtol=1e-2)


def test_a_flow_has_active_units_and_no_mutual_information() -> None:
    model, guide = guided("iaf")
    found = posteriors(model, guide, text(6))["z"]
    assert found.mean.shape == (6, LATENT) and found.scale is None and mutual_information(found) is None


@kinds
def test_a_flow_works_in_float32_under_autocast(kind: Any) -> None:
    _, guide = guided(kind)
    features, found = torch.randn(3, WIDTH), []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            q = guide.posterior_of(features)
            z = q.rsample()
            found.append((z, q.log_prob(z), q.log_prob(z.clone())))
    for a, b in zip(*found, strict=True):
        assert b.dtype == torch.float32 and torch.equal(a, b)


def test_its_kl_is_the_difference_of_densities_at_the_draw() -> None:
    model, guide = guided("iaf")
    site = terms(model, guide, whole(text(4)), particles=2).sites["z"]
    assert site.closed_form is None and torch.equal(site.kl, site.log_q - site.log_p)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flow": "maf"}, "flow is 'iaf' or 'planar', not 'maf'"),
        ({"layers": 0}, "at least 1 layer, not 0"),
        ({"hidden": 2}, "no fewer hidden units than dimensions, not 3 and 2"),
        ({"latent": 1}, "at least 2 dimensions"),
    ],
)
def test_a_flow_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowGuide(VOCABULARY, **{"latent": LATENT, "encoder": encoder, **options})
