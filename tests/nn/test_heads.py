"""Heads: what they guarantee about the KL, by construction and not by training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_nlp.nn import BatchNormHead, CommittedHead, GaussianHead, Head
from pyro_nlp.recipe import load
from tests.tiny import WIDTH, sharpen

SIZE = 4
HEADS: dict[str, Any] = {"gaussian": GaussianHead, "batch norm": BatchNormHead, "committed": CommittedHead}


def kl(loc: Tensor, scale: Tensor) -> Tensor:
    """From N(0, 1), by dimension, in float64."""
    loc, scale = loc.double(), scale.double()
    variance = scale.square()
    return 0.5 * (loc.square() + (variance - 1) - variance.log())


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("left", [(), (5,), (2, 3, 5)])
def test_a_head_takes_any_left_dimensions(name: str, left: tuple[int, ...]) -> None:
    head: Head = sharpen(HEADS[name](WIDTH, SIZE))
    loc, scale = head(torch.randn(*left, WIDTH))
    assert loc.shape == scale.shape == (*left, SIZE) and (scale > 0).all()


@pytest.mark.parametrize("name", HEADS)
def test_a_head_works_in_float32_under_autocast(name: str) -> None:
    head, features = sharpen(HEADS[name](WIDTH, SIZE)).eval(), torch.randn(6, WIDTH)
    wanted = head(features)
    with torch.autocast("cpu", torch.bfloat16):
        found, rounded = head(features), head(features.bfloat16())
    for a, b, c in zip(found, wanted, rounded, strict=True):
        assert torch.equal(a, b) and c.dtype == torch.float32


# ---- batch normalisation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("gamma", [0.3, 0.7])
def test_the_mean_kl_of_a_batch_has_the_floor_of_the_paper_whatever_the_features(gamma: float, spread: float) -> None:
    head = BatchNormHead(WIDTH, SIZE, gamma)
    with torch.no_grad():
        head.bias.normal_()
        head.log_variance.bias.normal_()
        features = spread * torch.randn(7, WIDTH)
        loc, scale = head(features)
    squares = gamma**2 + head.bias.double().square()
    torch.testing.assert_close(loc.double().square().mean(0), squares, rtol=1e-3, atol=0)  # float32, also of variance
    assert kl(loc, scale).mean(0).sum() >= 0.5 * squares.sum() * (1 - 1e-3)


def test_a_collapsed_scale_and_bias_leave_exactly_the_floor() -> None:
    loc, scale = BatchNormHead(WIDTH, SIZE, 0.6)(torch.randn(50, WIDTH))  # at the start the scale is 1 and the bias 0
    torch.testing.assert_close(kl(loc, scale).mean(0).sum().item(), SIZE * 0.6**2 / 2, rtol=1e-5, atol=0)


def test_a_document_in_training_alone_is_normalised_by_the_running_statistics() -> None:
    head, features = sharpen(BatchNormHead(WIDTH, SIZE)), torch.randn(40, WIDTH)
    for _ in range(5):
        head(features)
    before = head.running_mean.clone()
    alone = head(features[:1])[0]
    assert torch.equal(head.running_mean, before)
    torch.testing.assert_close(alone, head.eval()(features)[0][:1], rtol=0, atol=1e-6)


def test_running_statistics_follow_training_and_nothing_else() -> None:
    head, features = BatchNormHead(WIDTH, SIZE, momentum=0.25), torch.randn(9, WIDTH) + 1
    with torch.no_grad():
        looked = head(features)[0]  # a dry run
        mean = head.loc(features).mean(0)
    assert not head.running_mean.any() and (head.running_variance == 1).all()
    assert torch.equal(head(features)[0], looked)
    torch.testing.assert_close(head.running_mean, 0.25 * mean)
    after = {name: value.clone() for name, value in head.state_dict().items()}
    head.eval()(features)
    assert all(torch.equal(value, after[name]) for name, value in head.state_dict().items())


def test_gamma_is_saved_and_not_trained() -> None:
    head = BatchNormHead(WIDTH, SIZE, 0.5)
    assert {name for name, _ in head.named_parameters()} == {
        "bias",
        "loc.weight",
        "log_variance.weight",
        "log_variance.bias",
    }
    assert {"weight", "running_mean", "running_variance"} < head.state_dict().keys()


# ---- a committed rate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [1e-4, 0.1, 1.0, 20.0])
@pytest.mark.parametrize("spread", [0.0, 1.0, 1e3])
def test_every_dimension_of_every_document_costs_delta_or_more(delta: float, spread: float) -> None:
    head = sharpen(CommittedHead(WIDTH, SIZE, delta))
    with torch.no_grad():
        head.loc.bias.zero_()
        loc, scale = head(spread * torch.randn(500, WIDTH))
    kept = scale > 0  # a scale below 1e-45 is 0 in float32, and its KL infinite
    assert (kl(loc, scale)[kept] >= delta).all()


@pytest.mark.parametrize("delta", [1e-4, 0.1, 1.0, 20.0])
def test_delta_is_the_least_that_can_be_reached(delta: float) -> None:
    head = CommittedHead(WIDTH, SIZE, delta)
    with torch.no_grad():
        head.loc.bias.zero_()
        head.narrowing.bias.fill_(-200.0)
        found = kl(*head(torch.zeros(1, WIDTH)))
    # the root is shrunk by 2e-6 of itself, and the scale is a float32: 1e-7 of it, in units of the KL's slope
    variance = torch.tensor(2.0 * head.largest).exp()
    assert (found >= delta).all()
    torch.testing.assert_close(
        found, torch.full_like(found, delta), rtol=0, atol=float(1e-5 * -head.largest * (1 + variance))
    )


def test_the_committed_mean_takes_either_sign() -> None:
    loc, _ = sharpen(CommittedHead(WIDTH, SIZE))(torch.randn(100, WIDTH))
    assert (loc > 0).any() and (loc < 0).any()


# ---- refused, and read from recipes --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_floor_that_is_not_positive_is_refused(value: float) -> None:
    for head, name in ((BatchNormHead, "gamma"), (CommittedHead, "delta")):
        with pytest.raises(ValueError, match=rf"^{head.__name__}: {name} is .*, above 0, not {value}$"):
            partial(head, WIDTH, SIZE)(value)


def test_a_recipe_names_the_head_of_a_guide_and_the_prior_of_a_model(tmp_path: Path) -> None:
    recipe = tmp_path / "committed.yaml"
    recipe.write_text(
        "model: {class_path: SentenceVAE, init_args: {latent: 3, prior: {class_path: AutoregressivePrior, "
        "init_args: {alpha: 0.3}}}}\n"
        "guide: {class_path: GaussianGuide, init_args: {head: {class_path: BatchNormHead, init_args: {gamma: 0.7}}}}\n"
        f"corpus: {{class_path: TextFile, init_args: {{path: {tmp_path / 'corpus.txt'}}}}}\n",
        encoding="utf-8",
    )
    (tmp_path / "corpus.txt").write_text("\n".join(f"word{i % 7} word{i % 5}" for i in range(400)), encoding="utf-8")
    found: Any = load(str(recipe))
    head = found.guide.posterior
    assert isinstance(head, BatchNormHead) and head.weight.tolist() == pytest.approx([0.7] * 3)
    assert found.model.prior.alpha == 0.3
