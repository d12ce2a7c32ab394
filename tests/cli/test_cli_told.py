"""Models that are told a class on the command line: trained on a user's file with few labels, then asked for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import CommandLine

GRU = "{class_path: GRUEncoder, init_args: {embedding: 8, width: 8}}"
DECODER = "{class_path: GRUDecoder, init_args: {embedding: 8, width: 16}}"
CORPUS = 'corpus: {class_path: LabelledLines, init_args: {train: some.tsv, separator: "\\t"}}'
TRAINING = "training: {epochs: 2, plateau: null, optimizer: {class_path: Adam, init_args: {learning_rate: 0.02}}}"
RECIPES = {
    "m2": f"""
# M2, which sees what labels there are.
model: {{class_path: StyledSentence, init_args: {{latent: 4, classes: 2, code: 4, decoder: {DECODER}}}}}
guide: {{class_path: StyledGuide, init_args: {{encoder: {GRU}, supervision: 1.0}}}}
{CORPUS}
strategy: {{discrete: Enumerate, auxiliary: [KnownLabels]}}
{TRAINING}
""",
    "lm": f"""
# A language model of every class.
model: {{class_path: ClassLanguageModel, init_args: {{classes: 2, code: 4, decoder: {DECODER}}}}}
guide: null
{CORPUS}
{TRAINING}
""",
}


@pytest.fixture(scope="module")
def told(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained runs `m2` and `lm`, on a file where one sentence in three has a label."""
    folder = tmp_path_factory.mktemp("told")
    kinds = ("bad\tthe food was bad at {}", "good\tthe food is good at {}")
    lines = [kinds[i % 2].format(i) for i in range(200)]
    few = [line if i % 3 == 0 else "\t" + line.partition("\t")[2] for i, line in enumerate(lines)]
    (folder / "some.tsv").write_text("\n".join(few) + "\n", "utf-8")
    for name, recipe in RECIPES.items():
        (folder / f"{name}.yaml").write_text(recipe, "utf-8")
        cli("train", f"{name}.yaml", "--out", name, cwd=folder).worked()
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_its_user_asks_for_a_class(cli: CommandLine, told: Path, name: str) -> None:
    asked = cli("generate", name, "--attribute", "label=good", "--count", "3", cwd=told).worked()
    assert asked.count("good: ") == 3
    known = cli("generate", name, "--attribute", "label=fine", cwd=told).failed()
    assert known == "label cannot be 'fine'; it is one of bad, good"
    plain = json.loads(cli("generate", name, "--count", "3", "--json", cwd=told).worked())
    assert len(plain["samples"]) == 3 and "transfers" not in plain


def test_a_sentence_is_transferred_where_there_is_a_code(cli: CommandLine, told: Path) -> None:
    order = ("--sentence", "the food is good at 4", "--attribute", "label=bad")
    found = json.loads(cli("generate", "m2", *order, "--json", cwd=told).worked())["transfers"]
    assert [line["to be"] for line in found] == ["bad"]
    assert "ClassLanguageModel has no code z" in cli("generate", "lm", *order, cwd=told).failed()
