"""Strategies by name: shipped files, the user's own, what check says of them, and what is refused."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser

from pyro_nlp import recipe as recipes
from pyro_nlp.costs import activations, model_evaluations, saved_bytes
from pyro_nlp.inference import ELBO, Aggressive, SemiAmortized, Strategy, StructureError
from pyro_nlp.recipe import Recipe
from pyro_nlp.recipe_strategies import read_strategy, shipped_strategies
from tests.cli.commands import CommandLine, contents, sentences
from tests.cli.conftest import recipe
from tests.cli.test_cli_zoo import rows

ENCODER = "{class_path: LSTMEncoder, init_args: {embedding: 8, width: 16}}"
MIXTURE = f"""
# A small mixture.
model:
  class_path: SentenceMixture
  init_args: {{classes: 3, code: 4, decoder: {{class_path: LSTMDecoder, init_args: {{embedding: 8, width: 16}}}}}}
guide: {{class_path: CategoricalGuide, init_args: {{encoder: {ENCODER}}}}}
corpus: {{class_path: TextFile, init_args: {{path: my.txt}}}}
strategy: {{discrete: Enumerate}}
training:
  epochs: 2
  optimizer: {{class_path: Adam, init_args: {{learning_rate: 0.03}}}}
"""
DISCRETE = (
    "enumerate",
    "marginalize",
    "reinforce",
    "reinforce_mean",
    "nvil",
    "rloo",
    "vimco",
    "subset",
    "subset_random",
)
DISCRETE += (
    "subset_unbiased",
    "local",
    "relax",
    "relax_concrete",
    "straight_through",
    "rebar",
    "wake_sleep",
    "pyro_enum",
)
CONTINUOUS = ("elbo", "stl", "iwae", "dreg")
EITHER = ("pyro_trace",)
BINARY = ("disarm",)
BESIDE = ("aggressive", "alternating", "bag_of_words", "cyclical", "free_bits", "semi_amortized")
"""Of a vector; they leave bound and estimators as the recipe has them."""


@pytest.fixture
def mixture(work: Path) -> Path:
    (work / "mixture.yaml").write_text(MIXTURE, "utf-8")
    return work


# ---- the files ------------------------------------------------------------------------------------------------


def test_the_shipped_strategies_are_these() -> None:
    assert set(shipped_strategies()) == {*DISCRETE, *CONTINUOUS, *EITHER, *BINARY, *BESIDE}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recipe]:
    """A model with a class of five values, and one with a vector."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "my.txt").write_text(sentences(60), "utf-8")
    texts = {"class": MIXTURE.replace("classes: 3", "classes: 5"), "vector": recipe("SentenceVAE", "GaussianGuide")}
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text.replace("my.txt", str(folder / "my.txt")), "utf-8")
    return {name: recipes.load(str(folder / f"{name}.yaml")) for name in texts}


@pytest.mark.parametrize("name", sorted({*DISCRETE, *CONTINUOUS, *EITHER, *BINARY, *BESIDE}))
def test_a_shipped_strategy_sets_its_bound_and_fits_the_models_it_is_for(name: str, models: dict[str, Recipe]) -> None:
    assert shipped_strategies()[name].read_text("utf-8").startswith("# ")
    content = read_strategy(name)
    assert name in BESIDE or ("bound" in content and {"discrete", "continuous"} & set(content))
    parser = ArgumentParser(exit_on_error=False)  # of recipes, but for the seconds that the rest of one takes
    parser.add_class_arguments(Strategy, "strategy")
    strategy = parser.instantiate(parser.parse_object({"strategy": content})).strategy
    for kind in ("class",) * (name in DISCRETE + EITHER + BINARY) + ("vector",) * (
        name in CONTINUOUS + EITHER + BESIDE
    ):
        loaded = models[kind]
        batch = loaded.corpus.train.batch(np.arange(4))
        refused = pytest.raises(StructureError, match="is for Bernoulli sites") if name in BINARY else nullcontext()
        with refused:
            assert len(strategy.compile(loaded.model, loaded.guide, batch).latents) == 1


# ---- train and check ------------------------------------------------------------------------------------------


def test_a_strategy_takes_the_place_of_the_recipes_and_options_that_of_the_strategys(
    cli: CommandLine, mixture: Path
) -> None:
    text = (mixture / "mixture.yaml").read_text("utf-8")
    annealed = "strategy: {discrete: Enumerate, kl: {weight: 0.5}, bound: {class_path: IWAE}}"
    (mixture / "annealed.yaml").write_text(text.replace("strategy: {discrete: Enumerate}", annealed), "utf-8")

    def strategy(*options: str) -> Any:
        printed = cli("check", "annealed.yaml", "--print_config", *options, cwd=mixture).worked()
        return yaml.safe_load(printed)["strategy"]

    named = strategy("--strategy", "rloo")
    assert named["discrete"]["class_path"] == "pyro_nlp.ScoreFunction"
    assert named["bound"] == {"class_path": "pyro_nlp.ELBO", "init_args": {"particles": 4}}
    assert named["kl"]["weight"] == 0.5, "what a strategy does not mention stays"
    assert strategy("--strategy", "vimco")["kl"]["weight"] == 1.0
    changed = strategy("--strategy", "rloo", "--strategy.bound.particles", "7")
    assert changed["bound"]["init_args"] == {"particles": 7}
    (mixture / "mine.yaml").write_text(
        "# mine\ndiscrete: {class_path: Subset, init_args: {k: 2}}\nbound: ELBO\n", "utf-8"
    )
    assert strategy("--strategy", "mine.yaml")["discrete"]["init_args"]["k"] == 2


def test_a_run_by_a_named_strategy_says_so_in_its_recipe_and_is_resumed_and_judged(
    cli: CommandLine, mixture: Path
) -> None:
    printed = cli("train", "mixture.yaml", "--strategy", "marginalize", "--training.epochs", "1", cwd=mixture).worked()
    run = mixture / "runs" / "mixture-marginalize"
    assert "into runs/mixture-marginalize" in printed
    resolved = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
    assert resolved["strategy"]["discrete"]["class_path"] == "pyro_nlp.Marginalize"
    assert not (run / "guide.safetensors").exists(), "a guide that learnt nothing is not kept"
    found = json.loads(cli("evaluate", run, "--samples", "3", "--json", cwd=mixture).worked())
    assert found["likelihood"]["samples"] == 0 and found["latents"]["c"]["kl"] >= 0
    longer = ("train", "--resume", "--out", run, "--training.epochs", "2")
    cli(*longer, cwd=mixture).worked()
    before = contents(run)
    assert cli(*longer, "--strategy", "rloo", cwd=mixture).failed(2).startswith("a resumed run keeps its strategy")
    assert contents(run) == before


def test_a_strategy_that_cannot_be_read_is_named_with_the_near_match(cli: CommandLine, mixture: Path) -> None:
    before = contents(mixture)

    def refused(strategy: str, command: str = "check", status: int = 2) -> str:
        return cli(command, "mixture.yaml", "--strategy", strategy, cwd=mixture).failed(status)

    line = refused("rlo", "train")
    assert line.startswith("there is no strategy 'rlo'; did you mean 'rloo'? (give a YAML file, or one of aggressive, ")
    assert refused("nowhere.yaml").startswith("there is no strategy 'nowhere.yaml' (give")
    for text, message in (
        ("discrte: Enumerate", "mine.yaml: 'discrte': a strategy has no such key; did you mean 'discrete'?"),
        ("- Enumerate", "mine.yaml: a strategy has the keys continuous, discrete, sites, bound, kl, updates"),
        ("discrete: [", "mine.yaml: not YAML: "),
        (
            "discrete: Enumerat",
            "mixture.yaml with the strategy mine.yaml: 'strategy.discrete': there is no class 'Enum",
        ),
    ):
        (mixture / "mine.yaml").write_text(text, "utf-8")
        assert refused("mine.yaml").startswith(message)
        (mixture / "mine.yaml").unlink()
    assert "leaves none to sample: give it Enumerate()" in refused("subset", "train", status=1)
    assert contents(mixture) == before


def test_classes_of_the_guide_follow_the_models(cli: CommandLine, mixture: Path) -> None:
    printed = cli("check", "mixture.yaml", "--model.classes", "4", cwd=mixture).worked()
    assert ["c", "OneHotCategorical", "[32] | [4]", "latent", "random"] in rows(printed)
    line = cli("check", "mixture.yaml", "--guide.classes", "4", cwd=mixture).failed(2)
    assert line == "mixture.yaml: guide.classes follows model.classes (3): leave it out"
    text = (
        (mixture / "mixture.yaml").read_text("utf-8").replace("init_args: {encoder", "init_args: {classes: 3, encoder")
    )
    (mixture / "mixture.yaml").write_text(text, "utf-8")
    cli("check", "mixture.yaml", "--model.classes", "4", cwd=mixture).worked()
    (mixture / "mixture.yaml").write_text(
        text.replace("init_args: {classes: 3, encoder", "init_args: {classes: 5, encoder")
    )
    assert "guide.classes follows model.classes (3)" in cli("check", "mixture.yaml", cwd=mixture).failed(2)


def test_check_counts_what_a_strategy_costs(cli: CommandLine, mixture: Path) -> None:
    def printed(strategy: str) -> str:
        return cli("check", "mixture.yaml", "--strategy", strategy, cwd=mixture).worked()

    treated = {name: [row for row in rows(printed(name)) if row[0] == "c"] for name in ("enumerate", "marginalize")}
    assert treated["enumerate"][1][:6] == ["c", "OneHotCategorical", "[3]", "1 x 3", "Enumerate()", "3"]
    assert treated["marginalize"][0][3:] == treated["enumerate"][0][3:] == ["latent", "random"]
    assert treated["marginalize"][1][:6] == ["c", "-", "[3]", "1 x 3", "Marginalize()", "3"]
    for name, product in (
        ("enumerate", "3 (3 values of 'c')"),
        ("vimco", "4 (4 particles)"),
        ("rebar", "3 (3 values of"),
    ):
        assert f"model evaluations per document and step: {product}" in printed(name)
    idle = printed("marginalize")
    assert re.search(r"^guide: [\d,]+ parameters, unused: every latent is summed out$", idle, re.MULTILINE)
    assert re.search(
        r"^activations of a batch, an estimate: [\d.]+ [KM]iB for 32 documents of 8 positions$", idle, re.M
    )


def test_the_estimate_of_memory_is_what_a_pass_on_the_whole_batch_keeps(
    mixture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mixture)
    for strategy in ("enumerate", "reinforce_mean"):
        loaded = recipes.load("mixture.yaml", strategy=strategy)
        batch = loaded.corpus.train.batch(np.arange(32))
        objective = loaded.strategy.compile(loaded.model, loaded.guide, batch)
        state = {name: value.clone() for name, value in objective.state_dict().items()}
        found = activations(objective, loaded.corpus.train, 32)
        assert found.documents == 32 and found.positions == batch.mask.numel()
        # sums over real words, of which every document has its own number, are what makes it an estimate
        assert found.bytes == pytest.approx(saved_bytes(objective, batch), rel=0.1)
        assert all(bool((value == state[name]).all()) for name, value in objective.state_dict().items())
        assert model_evaluations(objective) == (3 if strategy == "enumerate" else 1)


def test_what_the_updates_make_of_a_step_is_counted(models: dict[str, Recipe]) -> None:
    loaded = models["vector"]
    batch = loaded.corpus.train.batch(np.arange(4))
    for updates, evaluations in ((SemiAmortized(steps=5), 17), (Aggressive(limit=30), 60)):
        strategy = Strategy(updates=updates, bound=ELBO(2))
        counted = model_evaluations(strategy.compile(loaded.model, loaded.guide, batch))
        assert counted == evaluations, updates


def test_a_gradient_is_compared_with_the_exact_one_and_a_difference_is_said_in_words(
    cli: CommandLine, mixture: Path
) -> None:
    def last(*options: str) -> str:
        return cli("check", "mixture.yaml", *options, cwd=mixture).worked().splitlines()[-1]

    assert re.fullmatch(
        r"no difference from the exact gradient is seen in 400 draws \(p = [\d.]+\)",
        last("--strategy", "rloo", "--gradients", "400"),
    )
    # ELBO of the one class drawn, as if it were all: biased beyond doubt at the first look
    biased = ("--strategy", "subset_random", "--strategy.discrete.k", "1", "--gradients", "4000")
    assert re.fullmatch(
        r"the estimator differs from the exact gradient by [\d.]+% of its length \(p = (?:0|\de-\d+)\)", last(*biased)
    )
    assert last("--strategy", "marginalize", "--gradients") == "gradient: exact, as nothing is drawn"
    table = cli("check", "vae.yaml", "--gradients", "40", cwd=mixture).worked()
    assert "from the reference, itself a mean of draws" in table and "│ guide.posterior │" in table
    assert "--gradients" in cli("check", "mixture.yaml", "--gradients", "0", cwd=mixture).failed(2)
