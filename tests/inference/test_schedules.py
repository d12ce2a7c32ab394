"""Schedules: the formula, every edge, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pyro_nlp.inference import KL, Constant, Cyclical, Exponential, FreeBits, Join, Linear, Logistic, Relax, Strategy
from pyro_nlp.inference.schedules import at, schedules

# a handful of float64 operations
exactly = lambda value: pytest.approx(value, rel=1e-12, abs=1e-12)  # noqa: E731

FORMULAS = [
    (Constant(0.3), {0: 0.3, 10**9: 0.3}),
    (Linear(0.0, 1.0, steps=10), {0: 0.0, 1: 0.1, 5: 0.5, 10: 1.0, 11: 1.0, 10**9: 1.0}),
    (Linear(2.0, -2.0, steps=4), {0: 2.0, 1: 1.0, 4: -2.0, 5: -2.0}),
    (Linear(0.5, 0.5, steps=1), {0: 0.5, 1: 0.5}),
    (Logistic(0.5, 10), {10: 0.5, 12: 1 / (1 + math.exp(-1)), 8: 1 / (1 + math.exp(1))}),
    (Logistic(100.0, 10), {0: 0.0, 10: 0.5, 20: 1.0, 10**9: 1.0}),
    (Cyclical(0, 1, rise=0.5, steps=8), {0: 0, 1: 0.25, 4: 1, 7: 1, 8: 0, 10: 0.5, 80: 0, 82: 0.5}),
    (Cyclical(0, 1, rise=1.0, steps=4, cycles=2), {0: 0, 3: 0.75, 4: 0, 7: 0.75, 8: 1, 9: 1, 100: 1}),
    (Exponential(1.0, 0.01, steps=10), {0: 1.0, 5: 0.1, 10: 0.01, 99: 0.01}),
    (Exponential(0.5, 2.0, steps=2), {0: 0.5, 1: 1.0, 2: 2.0, 3: 2.0}),
    (Join([Constant(0.0), Linear(0, 1, steps=2)], [5]), {0: 0, 4: 0, 5: 0, 6: 0.5, 7: 1, 8: 1}),
    (Join([Constant(1), Constant(2), Constant(3)], [2, 4]), {1: 1, 2: 2, 3: 2, 4: 3}),
    (Join([Constant(7)], []), {0: 7, 5: 7}),
    (Cyclical(steps=8, flat=0.25), {0: 0, 2: 0, 3: 0.25, 4: 0.5, 6: 1, 7: 1, 8: 0, 12: 0.5}),
    (Cyclical(steps=8, form="cosine"), {0: 0, 1: 0.5 - 0.5 * math.cos(math.pi / 4), 2: 0.5, 4: 1, 7: 1, 8: 0}),
    (Cyclical(steps=8, form="sigmoid"), {0: 0, 1: 1 / (1 + math.exp(3)), 2: 0.5, 4: 1, 8: 0}),
]


@pytest.mark.parametrize(("schedule", "values"), FORMULAS, ids=[repr(s) for s, _ in FORMULAS])
def test_a_schedule_has_the_value_of_its_formula(schedule: Any, values: dict[int, float]) -> None:
    assert {step: schedule(step) for step in values} == exactly(values)


@pytest.mark.parametrize("kind", [Linear, Cyclical, Exponential])
def test_epochs_become_steps_when_their_length_is_known(kind: Any) -> None:
    by_epochs, by_steps = kind(0.2, 0.7, epochs=1.5), kind(0.2, 0.7, steps=30)
    for step in (0, 1, 14, 29, 30, 31, 45, 60):
        assert by_epochs(step, 20) == exactly(by_steps(step)) == exactly(by_steps(step, 20))


def test_a_join_hands_the_length_of_an_epoch_to_its_parts() -> None:
    assert Join([Constant(0), Linear(0, 1, epochs=2)], [10])(15, 5) == exactly(0.5)


@pytest.mark.parametrize("kind", [Linear, Cyclical, Exponential])
def test_epochs_of_unknown_length_are_an_error_that_says_what_to_give(kind: Any) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__}.*epochs=3.*give steps"):
        kind(0.1, 1.0, epochs=3)(7)


@pytest.mark.parametrize("kind", [Linear, Cyclical, Exponential])
@pytest.mark.parametrize("lengths", [{}, {"steps": 3, "epochs": 3}])
def test_either_steps_or_epochs_are_wanted(kind: Any, lengths: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__} wants either steps or epochs"):
        kind(**lengths)


@pytest.mark.parametrize("kind", [Linear, Cyclical, Exponential])
@pytest.mark.parametrize("lengths", [{"steps": 0}, {"epochs": -1}])
def test_a_length_is_positive(kind: Any, lengths: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a length must be positive"):
        kind(**lengths)


@pytest.mark.parametrize("rise", [0.0, 1.1, -0.5])
def test_the_rise_of_a_cycle_is_a_part_of_it(rise: float) -> None:
    with pytest.raises(ValueError, match=r"in \(0, 1\], not"):
        Cyclical(rise=rise, steps=3)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (-1.0, -2.0)])
def test_a_geometric_decay_is_between_positive_numbers(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="start and end must be positive"):
        Exponential(*ends, steps=3)


@pytest.mark.parametrize(
    ("parts", "boundaries"), [([Constant()], [3]), ([Constant(), Constant()], []), ([Constant()] * 3, [5, 2])]
)
def test_a_join_wants_a_rising_boundary_between_every_two_parts(parts: list[Any], boundaries: list[int]) -> None:
    with pytest.raises(ValueError, match="one rising boundary between every two parts"):
        Join(parts, boundaries)


@pytest.mark.parametrize(
    ("by_epochs", "by_steps"),
    [
        (Logistic(1.5, 2.0, "epochs"), Logistic(0.15, 20.0)),
        (Join([Constant(0), Constant(1)], [1.5], "epochs"), Join([Constant(0), Constant(1)], [15])),
    ],
    ids=["Logistic", "Join"],
)
def test_places_and_slopes_can_be_given_in_epochs(by_epochs: Any, by_steps: Any) -> None:
    for step in (0, 7, 14, 15, 20, 33):
        assert by_epochs(step, 10) == exactly(by_steps(step))
    with pytest.raises(ValueError, match="give steps"):
        by_epochs(3)


@pytest.mark.parametrize(
    ("schedule", "length"),
    [
        (Constant(3), 0),
        (Linear(steps=7), 7),
        (Exponential(epochs=2), 20),
        (Cyclical(epochs=2, cycles=4), 80),
        (Cyclical(epochs=2), 20),
        (Join([Constant(0), Linear(epochs=1)], [2], "epochs"), 30),
        (Join([Constant(0)], []), 0),
    ],
    ids=repr,
)
def test_a_schedule_is_as_long_as_it_changes(schedule: Any, length: float) -> None:
    assert schedule.length(10) == length


def test_a_logistic_is_over_where_it_comes_within_one_percent_of_its_end() -> None:
    schedule = Logistic(0.1, 50)
    assert schedule(round(schedule.length(10))) == pytest.approx(0.99, abs=0.001)


def test_the_schedules_of_a_strategy_are_found_with_their_places() -> None:
    weight, nats = Linear(steps=3), Linear(steps=4)
    strategy = Strategy(kl={"z": KL(weight, FreeBits(nats))}, discrete=Relax(Exponential(steps=5)))
    found = dict(schedules(strategy, "strategy"))
    assert found == {
        "strategy.discrete.temperature": Exponential(steps=5),
        "strategy.kl.z.weight": weight,
        "strategy.kl.z.shape.nats": nats,
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cyclical(steps=3, rise=0.7, flat=0.4), "flat and rise share one cycle"),
        (lambda: Cyclical(steps=3, form="square"), "form is 'linear', 'cosine' or 'sigmoid', not 'square'"),
        (lambda: Logistic(unit="hours"), "unit is 'steps' or 'epochs', not 'hours'"),
        (lambda: Join([Constant()], [], unit="hours"), "unit is 'steps' or 'epochs', not 'hours'"),
    ],
)
def test_what_no_schedule_means_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_number_stands_for_itself() -> None:
    assert at(0.3, 10**6) == 0.3
    assert isinstance(at(1, 0), float)
    assert at(Linear(0, 1, epochs=1), 5, 10) == 0.5


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in FORMULAS], ids=repr)
def test_a_schedule_is_a_value(schedule: Any) -> None:
    namespace = {k: v for k, v in globals().items() if isinstance(v, type)}
    assert eval(repr(schedule), namespace) == schedule
    with pytest.raises(AttributeError):
        schedule.steps = 3
