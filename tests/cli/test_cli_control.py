"""A model that writes to order on the command line: trained, judged by another run, asked, diagnosed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import CommandLine

GRU = "{class_path: GRUEncoder, init_args: {embedding: 8, width: 8}}"
CNN = "{class_path: CNNEncoder, init_args: {embedding: 8, width: 8, window: 2, pooling: max}}"
ATTRIBUTES = "attributes: {label: 2, tense: 2}"
RECIPE = f"""
# Told the label and the tense.
model:
  class_path: ControlledSentence
  init_args: {{latent: 4, {ATTRIBUTES}, decoder: {{class_path: GRUDecoder, init_args: {{embedding: 8, width: 16}}}}}}
guide:
  class_path: ControlledGuide
  init_args: {{encoder: {GRU}, discriminator: {CNN}}}
corpus:
  class_path: WithTense
  init_args: {{corpus: {{class_path: LabelledLines, init_args: {{train: ours.txt, min_count: 1}}}}}}
strategy:
  discrete: {{class_path: Relax, init_args: {{hard: true}}}}
  updates: {{class_path: WakeSleepPhases, init_args: {{base: 1}}}}
  auxiliary:
    - {{class_path: KnownLabels, init_args: {{site: label}}}}
    - {{class_path: KnownLabels, init_args: {{site: tense}}}}
    - {{class_path: Control, init_args: {{weights: {{label: 1.0, z: 0.1}}, longest: 8}}}}
    - {{class_path: Dreams, init_args: {{sites: [label], longest: 8}}}}
training: {{epochs: 3, keep: last, plateau: null, optimizer: {{class_path: Adam, init_args: {{learning_rate: 0.02}}}}}}
"""
JUDGE = f"""
# Another classifier, of other sentences.
model: {{class_path: TextClassifier, init_args: {{classes: 2, encoder: {CNN}}}}}
guide: null
corpus: {{class_path: LabelledLines, init_args: {{train: theirs.txt, min_count: 1}}}}
training: {{epochs: 2, optimizer: {{class_path: Adam, init_args: {{learning_rate: 0.02}}}}}}
"""
LM = """
# A language model of other sentences.
model: {class_path: SentenceLM, init_args: {decoder: {class_path: GRUDecoder, init_args: {embedding: 8, width: 8}}}}
guide: null
corpus: {class_path: LabelledLines, init_args: {train: theirs.txt, min_count: 1}}
training: {epochs: 1}
"""


def text(first: int) -> str:
    """Labelled sentences with numbers, 300 from `first` on."""
    kinds = ("0 the food was bad at {} , no", "1 the food is good at {} , yes", "0 it is bad {}", "1 it was good {}")
    return "\n".join(kinds[i % 4].format(i) for i in range(first, first + 300)) + "\n"


@pytest.fixture(scope="module")
def told(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained runs `control`, `judge`, `lm`, and `same`, a judge of the run's own sentences."""
    folder = tmp_path_factory.mktemp("control")
    (folder / "ours.txt").write_text(text(0), "utf-8")
    (folder / "theirs.txt").write_text(text(1000), "utf-8")
    recipes = {"control": RECIPE, "judge": JUDGE, "lm": LM, "same": JUDGE.replace("theirs", "ours")}
    for name, content in recipes.items():
        (folder / f"{name}.yaml").write_text(content, "utf-8")
        cli("train", f"{name}.yaml", "--out", name, cwd=folder).worked()
    return folder


def test_it_is_judged_by_the_loop_and_by_another_run(cli: CommandLine, told: Path) -> None:
    options = ("--samples", "5", "--judge", "judge", "--fluency", "lm", "--json")
    found = json.loads(cli("evaluate", "control", *options, cwd=told).worked())["control"]
    assert set(found["samples"]["in_loop"]) == {"label", "tense"} and set(found["samples"]["judged"]) == {"label"}
    assert found["samples"]["perplexity"]["mean"] > 1 and found["transferred"]["bleu"]["mean"] >= 0
    assert set(found["real"]) == {"in the loop, label", "in the loop, tense", "judge, label"}
    assert "TextClassifier on" in found["judge"]["label"] and "SentenceLM on" in found["language_model"]
    table = cli("evaluate", "control", "--samples", "5", "--judge", "judge", cwd=told).worked()
    assert "label obeyed, by the judge" in table and "label foretold from z" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("control", "--judge", "same"), "different sentences stand that the run learnt from"),
        (("control", "--judge", "lm"), "SentenceLM tells no classes apart"),
        (("lm", "--judge", "judge"), "SentenceLM writes nothing to order: leave out --judge and --fluency"),
        (("control", "--fluency", "judge"), "TextClassifier is no language model"),
        (("control", "--fluency", "control"), "ControlledSentence has latents: fluency is by a model that has none"),
    ],
)
def test_a_run_that_cannot_judge_is_refused(
    cli: CommandLine, told: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in cli("evaluate", *arguments, "--samples", "2", cwd=told).failed()


def test_its_user_orders_samples_and_transfers(cli: CommandLine, told: Path) -> None:
    asked = ("--attribute", "label=1", "--attribute", "tense=past")
    samples = cli("generate", "control", *asked, "--count", "3", cwd=told).worked()
    assert samples.count("1, past: ") == 3
    lines = ("--sentence", "the food was bad at 4 , no", "--sentence", "it is bad 6")
    found = json.loads(cli("generate", "control", *lines, "--json", cwd=told).worked())["transfers"]
    assert [entry["sentence"] for entry in found] == ["the food was bad at 4, no", "it is bad 6"]
    assert all(set(entry) == {"sentence", "to be", "becomes"} for entry in found)
    to = json.loads(cli("generate", "control", *lines, "--attribute", "tense=present", "--json", cwd=told).worked())
    assert [entry["to be"] for entry in to["transfers"]] == ["present"] * 2
    both = cli("generate", "control", "--count", "2", cwd=told).worked()
    assert "samples" in both and "transfers" in both


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("control", "--attribute", "mood=glad"), "no attribute is called 'mood'; the run has label, tense"),
        (("control", "--attribute", "label=7"), "label cannot be '7'; it is one of 0, 1"),
        (("control", "--attribute", "label"), "--attribute 'label' is to be a name and a class"),
        (("control", "--attribute", "label=0", "--attribute", "label=1"), "--attribute label is given 2 times"),
        (
            ("control", "--what", "reconstructions", "--attribute", "label=1"),
            "reconstructions are not written to order",
        ),
        (("control", "--what", "samples", "--sentence", "it is bad"), "samples are not made of sentences"),
        (
            ("control", "--sentence", "GREAT!"),
            "no known word in --sentence 'GREAT!'; write as the corpus does, as in: it",
        ),
        (("lm", "--attribute", "label=1"), "SentenceLM has no attributes to write to order"),
    ],
)
def test_orders_that_cannot_be_filled_are_refused(
    cli: CommandLine, told: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in cli("generate", *arguments, cwd=told).failed()


def test_its_report_shows_the_same_code_to_every_order(cli: CommandLine, told: Path) -> None:
    cli("diagnose", "control", "--documents", "12", "--draws", "25", cwd=told).worked()
    page = (told / "control" / "report.html").read_text("utf-8")
    assert "Written to order" in page and "0, past" in page and "Transfers" in page
