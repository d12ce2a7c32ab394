"""Every estimator against the exact gradient, on every model that it serves."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.evaluation import gradient_check
from pyro_nlp.evaluation.gradients import exact_gradient
from pyro_nlp.inference import (
    ELBO,
    IWAE,
    KL,
    Drawn,
    Enumerate,
    LeaveOneOut,
    Marginalize,
    Pathwise,
    Relax,
    ScoreFunction,
    Signal,
    Strategy,
    StructureError,
    Subset,
    WakeSleep,
    fit,
    terms,
)
from pyro_nlp.recipe import load
from tests.inference.programs import (
    CONTINUOUS,
    DISCRETE,
    FLOWS,
    LEVEL,
    MODELS,
    OF_WORDS,
    ON_CONTINUOUS,
    ON_DISCRETE,
    Flat,
    FlatGuide,
    Words,
    WordsGuide,
    many_classes,
    of_continuous,
    of_discrete,
    sentences,
    tiny,
    vectors,
)
from tests.tiny import (
    CLASSES,
    styled,
    text,
)

# ---- the table -------------------------------------------------------------------------------------------------

TABLE = [
    (m, e) for models, rows in ((DISCRETE, ON_DISCRETE), (CONTINUOUS, ON_CONTINUOUS)) for m in models for e in rows
]


def strategy_of(model: str, name: str) -> Strategy:
    return (ON_DISCRETE if model in DISCRETE else ON_CONTINUOUS)[name]


ELSEWHERE: dict[str, tuple[tuple[str, ...], str]] = {
    "DisARM": (tuple(m for m in DISCRETE if m != "bits"), "DisARM is for Bernoulli sites"),
    "LocalExpectation": (("bits", "index"), "is not one-hot, which LocalExpectation needs"),
    "REBAR": (("bits", "index"), "REBAR needs a OneHotCategorical"),
    "Marginalize": (
        ("styled", *OF_WORDS),
        "of the guide depends on 'c', which is summed out|'c' and 'w' stand in different plates and are both summed",
    ),
    "TraceEnum_ELBO": (("discrete", "bits"), "which Pyro does not enumerate"),
    "TraceEnum_ELBO, Marginalize": (("styled",), "site 'z' of the guide depends on 'c', which is summed out"),
    "Two at random": (("chain", *OF_WORDS), "site '[bc]': Subset.k=2. of 2 values leaves none to sample"),
    "dreg": (CONTINUOUS, "the doubly reparameterised gradient is one of IWAE"),
    "TraceGraph_ELBO, ScoreFunction": (CONTINUOUS, "TraceGraph_ELBO reparameterises a"),
}
"""By the beginning of an estimator's name: the models that it is not for, and what it says of them."""
MIXED = ("ScoreFunction, IWAE", "RunningMean, IWAE", "Neural, IWAE", "VIMCO", "VIMCO, KL weight 0.5", "wake")
"""Without a reference where a class meets a code, or stands in a plate of its own: see the tests below."""


def refusal(model: str, name: str) -> str | None:
    for start, (models, message) in ELSEWHERE.items():
        if name.startswith(start) and model in models and name not in ("dreg, IWAE",):
            return message
    return None


def costly(model: str, name: str) -> bool:
    """Variations of a row, where a check takes long: the reference is drawn as well."""
    variation = any(word in name for word in ("weight", "particles", "RunningMean", "Neural", "TraceGraph"))
    return variation and model in ("styled", "styled, z apart from c", "sentence VAE", "ring, full covariance", *FLOWS)


REFUSED = [(m, e) for m, e in TABLE if refusal(m, e)]
CHECKED = [(m, e) for m, e in TABLE if not refusal(m, e) and not (("styled" in m or m in OF_WORDS) and e in MIXED)]


@pytest.mark.parametrize(("model", "name"), REFUSED)
def test_an_estimator_refuses_a_model_it_is_not_for(model: str, name: str) -> None:
    with pytest.raises(StructureError, match=refusal(model, name)) as raised:
        strategy_of(model, name).compile(*MODELS[model]())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "name"), [pytest.param(*r, marks=pytest.mark.slow) if costly(*r) else r for r in CHECKED]
)
def test_the_mean_gradient_is_the_exact_one(model: str, name: str) -> None:
    exact = model in ("mixture", "discrete", "bits", "index", "chain", *OF_WORDS)  # else a reference is drawn too
    found = gradient_check(*MODELS[model](), strategy_of(model, name), draws=2000 if exact else 1000, copies=50)
    assert found.p_value > LEVEL / len(CHECKED), found
    assert found.exact == exact


@pytest.mark.slow
@pytest.mark.parametrize(("model", "name"), CHECKED)
def test_the_mean_of_many_gradients_is_the_exact_one(model: str, name: str) -> None:
    assert gradient_check(*MODELS[model](), strategy_of(model, name), draws=20_000, seed=1).p_value > LEVEL / len(
        CHECKED
    )


MANY = [n for n in ON_DISCRETE if not refusal("mixture", n)]


@pytest.mark.slow
@pytest.mark.parametrize("name", MANY)
def test_the_mean_gradient_of_sixteen_classes_is_the_exact_one(name: str) -> None:
    strategy = ON_DISCRETE[name]
    if strategy.bound.particles == 3 and isinstance(strategy.bound, IWAE | WakeSleep):
        strategy = replace(strategy, bound=replace(strategy.bound, particles=2))
    found = gradient_check(*many_classes(), sentences(), strategy, draws=20_000)
    assert found.p_value > LEVEL / len(MANY), found


@dataclass(frozen=True)
class NoScore(ScoreFunction):
    """A draw that nobody answers for."""

    def surrogate(self, log_q: Tensor, signal: Signal, state: nn.Module | None, batch: Any) -> Tensor:
        return 0.0 * log_q


BIASED: dict[str, tuple[str, Strategy]] = {
    "Relax": ("mixture", of_discrete(Relax(0.5))),
    "Relax, hard": ("mixture", of_discrete(Relax(0.5, hard=True))),
    "Relax, relaxed KL": ("mixture", of_discrete(Relax(0.5, kl="relaxed"))),
    "Relax, hard, relaxed KL": ("mixture", of_discrete(Relax(0.5, hard=True, kl="relaxed"))),
    "Relax, IWAE": ("mixture", of_discrete(Relax(0.5, kl="relaxed"), IWAE(3))),
    "Relax, several variables": ("discrete", of_discrete(Relax(0.5))),
    "Subset at random, renormalised": ("mixture", of_discrete(Subset(2, "random"))),
    "stl, IWAE": ("sentence VAE", of_continuous(Pathwise("stl"), IWAE(3))),
    "no score": ("mixture", of_discrete(NoScore())),
}


@pytest.mark.parametrize("name", BIASED)
def test_a_biased_estimator_is_seen_to_be_biased(name: str) -> None:
    model, strategy = BIASED[name]
    found = gradient_check(*MODELS[model](), strategy, draws=2000, copies=50)
    assert found.p_value < LEVEL and found.bias > 3 * found.noise, found


@pytest.mark.parametrize("name", [n for n in MANY if "Marginalize" not in n])
def test_the_guides_gradient_alone_is_exact_too(name: str) -> None:
    """The model's is larger, and hides it."""
    model, guide, batch = MODELS["mixture"]()
    model.requires_grad_(False)
    found = gradient_check(model, guide, batch, ON_DISCRETE[name], draws=2000, copies=50, seed=1)
    assert found.p_value > LEVEL / len(MANY), found


# ---- a class and a code under many-particle bounds -------------------------------------------------------------


def by_pairs_of_classes(model: Any, guide: Any, batch: TextBatch, wake: bool, weight: float) -> Tensor:
    """The loss of two particles, summed over the classes of both at one draw of the noise of their codes."""
    seed, every = int(torch.randint(2**31, ())), []
    for k in range(CLASSES):
        torch.manual_seed(seed)
        draws: dict[str, Any] = {"c": lambda q, k=k: Drawn(torch.eye(CLASSES)[k].expand(q.shape()))}
        if wake:
            draws["z"] = lambda q: Drawn(q.sample())
        every.append(terms(model, guide, batch, particles=2, draws=draws))
    total: Any = 0.0
    for pair in product(range(CLASSES), repeat=2):
        rows = [every[k] for k in pair]
        log_q_c = torch.stack([r.sites["c"].log_q[i] for i, r in enumerate(rows)])
        log_p, log_q, log_x = (
            torch.stack([value(r)[i] for i, r in enumerate(rows)])
            for value in (
                lambda r: r.sites["c"].log_p + r.sites["z"].log_p,
                lambda r: r.sites["c"].log_q + r.sites["z"].log_q,
                lambda r: r.log_likelihood,
            )
        )
        tempered = log_x + weight * (log_p - log_q)
        if wake:
            share = tempered.softmax(0).detach()
            total = total - log_q_c.sum(0).exp().detach() * (share * (log_x + log_p + log_q)).sum(0)
        else:
            total = total - log_q_c.sum(0).exp() * (tempered.logsumexp(0) - math.log(2))
    return total.mean()


def flat_gradients(loss: Callable[[], Tensor], *modules: nn.Module, draws: int = 25) -> Tensor:
    """Gradients of every parameter at `draws` draws, `[draws, P]`."""
    torch.manual_seed(0)
    parameters = [p for m in modules for p in m.parameters()]
    found = []
    for _ in range(draws):
        taken = torch.autograd.grad(loss(), parameters, allow_unused=True)
        both = zip(taken, parameters, strict=True)
        found.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten().double() for g, p in both]))
    return torch.stack(found)


@cache
def gradients_by_pairs(joint: bool, wake: bool, weight: float) -> Tensor:
    model, guide = styled(joint=joint)
    batch = text(3, seed=1, longest=4).batch(np.tile(np.arange(3), 30))
    return flat_gradients(partial(by_pairs_of_classes, model, guide, batch, wake, weight), model, guide)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("name", MIXED)
def test_iwae_of_a_class_and_a_code_has_the_gradient_of_all_pairs_of_classes(name: str, joint: bool) -> None:
    model, guide = styled(joint=joint)
    batch = text(3, seed=1, longest=4).batch(np.tile(np.arange(3), 30))
    strategy = ON_DISCRETE[name]
    bound: Any = strategy.bound
    strategy = replace(strategy, bound=replace(bound, particles=2))
    objective = strategy.compile(model, guide, batch)
    ours = flat_gradients(lambda: objective(batch), model, guide)
    exact = gradients_by_pairs(joint, name == "wake", objective.weight("c"))
    models = sum(p.numel() for p in model.parameters())
    mean = exact.mean(0)
    of_model = torch.arange(len(mean)) < models
    directions = torch.stack([mean, mean * of_model, mean * ~of_model])
    assert (directions.norm(dim=1) > 0).all()
    along = [run @ directions.T for run in (ours, exact)]
    error = sum(run.var(0) / len(run) for run in along) ** 0.5
    # Welch's t with 24 degrees of freedom or more: beyond 6.5 with probability 1e-6, in one of 36
    assert ((along[0].mean(0) - along[1].mean(0)).abs() < 6.5 * error).all()


# ---- sites in a plate inside the document ----------------------------------------------------------------------


def of_all_words(joint: bool, strategy: Strategy, batch: Any) -> tuple[Tensor, Tensor]:
    """Loss and gradient of a strategy on the twin whose words are one site."""
    model, guide = tiny(Flat, partial(FlatGuide, joint))
    objective = strategy.compile(model, guide, batch).eval()
    exact = exact_gradient(model, guide, batch, strategy)
    assert exact is not None
    return objective(batch).detach(), exact


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize(
    "strategy",
    [
        of_discrete(Enumerate()),
        of_discrete(Enumerate(), ELBO(2)),
        of_discrete(Enumerate(), kl=KL(0.3)),
        of_discrete(Enumerate(), sites={"w": Marginalize()}),
    ],
    ids=["ELBO", "two particles", "KL weight", "marginalised"],
)
def test_a_sum_over_each_word_is_that_over_all_combinations(strategy: Strategy, joint: bool) -> None:
    model, guide = tiny(Words, partial(WordsGuide, joint))
    batch = vectors()
    objective = strategy.compile(model, guide, batch).eval()
    loss, gradient = of_all_words(joint, strategy, batch)
    torch.testing.assert_close(objective(batch).detach(), loss, rtol=1e-5, atol=1e-5)
    ours = exact_gradient(model, guide, batch, strategy)
    assert objective.rows == {"c": 2, "w": 3}
    torch.testing.assert_close(ours, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("name", MIXED)
def test_many_particles_of_words_have_the_gradient_of_all_combinations(name: str, joint: bool) -> None:
    model, guide = tiny(Words, partial(WordsGuide, joint))
    strategy, rows = ON_DISCRETE[name], np.tile(np.arange(3), 30)
    strategy = replace(strategy, bound=replace(strategy.bound, particles=2))
    with pytest.raises(StructureError, match="site 'w' stands in a plate inside the document, and has no reference"):
        gradient_check(model, guide, vectors(), strategy, draws=10)
    one = vectors()
    batch = one.replace(index=one.index[rows], values=one.values[rows], population=90)
    _, exact = of_all_words(joint, strategy, one)
    objective = strategy.compile(model, guide, batch)
    of_model = torch.arange(len(exact)) < sum(p.numel() for p in model.parameters())
    directions = torch.stack([exact, exact * of_model, exact * ~of_model])
    if "Neural" in name or "RunningMean" in name:
        objective.eval()  # a baseline that moves with the draws it is for
    along = flat_gradients(lambda: objective(batch), model, guide) @ directions.T
    error = (along.var(0) / len(along)).sqrt()
    # Student's t with 24 degrees of freedom: beyond 6.5 with probability 1e-6, in one of 36
    assert ((along.mean(0) - directions @ exact).abs() < 6.5 * error).all()


class Outside(Words):
    """What is observed is one number a document, by all of its words."""

    def forward(self, batch: Any) -> None:
        with batch.documents():
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
            with pyro.plate("words", 2, dim=-2):
                w = pyro.sample("w", dist.OneHotCategorical(logits=c @ self.step))
            mean = c @ self.of_c + (w @ self.of_w).sum(-2, keepdim=True)
            pyro.sample("x", dist.Normal(mean, 0.7), obs=batch.values[:, 0])


class OutsideGuide(WordsGuide):
    def forward(self, batch: Any) -> None:
        with batch.documents():
            pyro.sample("c", dist.OneHotCategorical(logits=self.first(batch.values)))
            with pyro.plate("words", 2, dim=-2):
                pyro.sample("w", dist.OneHotCategorical(logits=self.each(batch.values.T[..., None])))


class OutsideFlat(Words):
    plates = 1

    def forward(self, batch: Any) -> None:
        with batch.documents():
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
            logits = (c @ self.step)[..., None, :].expand(*torch.broadcast_shapes(c.shape[:-1], (len(batch),)), 2, 3)
            w = pyro.sample("w", dist.OneHotCategorical(logits=logits).to_event(1))
            mean = c @ self.of_c + (w @ self.of_w).sum(-1)
            pyro.sample("x", dist.Normal(mean, 0.7), obs=batch.values[:, 0])


class OutsideFlatGuide(WordsGuide):
    def forward(self, batch: Any) -> None:
        with batch.documents():
            pyro.sample("c", dist.OneHotCategorical(logits=self.first(batch.values)))
            pyro.sample("w", dist.OneHotCategorical(logits=self.each(batch.values[..., None])).to_event(1))


def test_something_outside_the_plate_that_depends_on_what_is_inside_cannot_be_summed_word_by_word() -> None:
    for estimator in (Enumerate(), Marginalize()):
        strategy = Strategy(discrete=Enumerate(), sites={"w": estimator})
        with pytest.raises(StructureError, match="outside the plate of 'w'.* depends on it"):
            strategy.compile(*tiny(Outside, OutsideGuide), vectors())


def test_a_draw_answers_for_what_is_outside_its_plate() -> None:
    one, rows = vectors(), np.tile(np.arange(3), 30)
    exact = exact_gradient(*tiny(OutsideFlat, OutsideFlatGuide), one, of_discrete(Enumerate()))
    batch = one.replace(index=one.index[rows], values=one.values[rows], population=90)
    model, guide = tiny(Outside, OutsideGuide)
    objective = Strategy(discrete=ScoreFunction(LeaveOneOut()), bound=ELBO(3)).compile(model, guide, batch)
    assert exact is not None
    of_model = torch.arange(len(exact)) < sum(p.numel() for p in model.parameters())
    directions = torch.stack([exact, exact * ~of_model])
    along = flat_gradients(lambda: objective(batch), model, guide) @ directions.T
    error = (along.var(0) / len(along)).sqrt()
    assert ((along.mean(0) - directions @ exact).abs() < 6.5 * error).all()


@pytest.mark.parametrize("name", ["LeaveOneOut", "ScoreFunction", "Subset of the likeliest", "REBAR"])
def test_a_scale_counts_once(name: str) -> None:
    model, guide = tiny(partial(scaled, Words), partial(scaled, WordsGuide))
    found = gradient_check(model, guide, vectors(), ON_DISCRETE[name], draws=2000, copies=50)
    assert found.exact and found.p_value > LEVEL / 4, found


def scaled(kind: type) -> Any:
    """A program whose every site counts three times."""

    class Scaled(kind):  # type: ignore[misc]
        def forward(self, batch: Any) -> None:
            with poutine.scale(scale=3.0):
                super().forward(batch)

    return Scaled()


def test_what_is_summed_out_is_scaled_after_its_sum() -> None:
    strategy = of_discrete(Enumerate(), sites={"w": Marginalize()})
    plain, thrice = (
        strategy.compile(*tiny(partial(make, Words), partial(make, WordsGuide)), vectors()).eval()
        for make in (lambda kind: kind(), scaled)
    )
    assert thrice(vectors()).item() == pytest.approx(3 * plain(vectors()).item(), rel=1e-5)


def test_a_class_of_the_document_is_not_summed_out_around_a_table_of_its_words() -> None:
    strategy = of_discrete(Enumerate(), sites={"c": Marginalize()})

    class Apart(Words):
        def forward(self, batch: Any) -> None:
            with batch.documents():
                c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
                with pyro.plate("words", 2, dim=-2):
                    w = pyro.sample("w", dist.OneHotCategorical(logits=self.step[0]))
                    pyro.sample("x", dist.Normal(c @ self.of_c + w @ self.of_w, 0.7), obs=batch.values.T)

    with pytest.raises(StructureError, match="'c' and 'w' stand in different plates, and the first is summed out"):
        strategy.compile(*tiny(Apart, OutsideGuide), vectors())


# ---- one of the user's own -------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "estimators.md"
RECIPE = """
model: {class_path: SentenceMixture, init_args: {classes: 3, code: 4, decoder: DECODER}}
guide: {class_path: CategoricalGuide, init_args: {classes: 3, encoder: ENCODER}}
corpus: {class_path: TextFile, init_args: {path: PATH, min_count: 1}}
strategy: {discrete: {class_path: my_estimators.Pairs, init_args: {scale: 0.5}}}
training: {epochs: 2, batch_size: 16, device: cpu, optimizer: {class_path: Adam, init_args: {learning_rate: 0.02}}}
"""


def test_the_estimator_of_the_documentation_trains_a_recipe_by_its_dotted_path_and_is_unbiased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.S)
    (tmp_path / "my_estimators.py").write_text(code, "utf-8")
    (tmp_path / "my.txt").write_text("\n".join(f"the {w} of a {w}" for w in "abcdefghij" * 12) + "\n", "utf-8")
    recipe = RECIPE.replace("PATH", str(tmp_path / "my.txt"))
    for part in ("Decoder", "Encoder"):
        made = f"{{class_path: LSTM{part}, init_args: {{embedding: 8, width: 8}}}}"
        recipe = recipe.replace(part.upper(), made)
    (tmp_path / "mine.yaml").write_text(recipe, "utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_estimators", raising=False)
    made_of = load(str(tmp_path / "mine.yaml"))
    run = fit(made_of.model, made_of.guide, made_of.corpus, made_of.strategy, made_of.training, progress=False)
    losses = [row["valid.loss"] for row in run.history if "valid.loss" in row]
    assert losses[-1] < losses[0]
    pairs: Any = made_of.strategy.discrete
    assert type(pairs).__module__ == "my_estimators" and pairs.scale == 0.5
    for model in ("mixture", "discrete", "bits", "index"):
        found = gradient_check(*MODELS[model](), of_discrete(type(pairs)()), draws=2000, copies=50)
        assert found.exact and found.p_value > LEVEL / 4, model
    sys.modules.pop("my_estimators")
