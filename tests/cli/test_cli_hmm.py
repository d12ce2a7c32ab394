"""Hidden Markov models through the commands: the shipped recipe on a user's trees, and what it refuses."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import safetensors.torch

from tests.cli.commands import CommandLine

WORDS = {"DT": ["the", "a"], "NN": ["dog", "cat", "naïve"], "VBZ": ["sees", "hears", "walks"], "IN": ["of"]}
SMALL = (
    "--corpus=BracketedTrees",
    "--corpus.path=my.mrg",
    "--model.emissions.width=8",
    '--model.transitions={"class_path": "LSTMTransitions", "init_args": {"reader": {"class_path": "LSTMDecoder", '
    '"init_args": {"embedding": 8, "width": 8}}}}',
)


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    """A folder with 120 trees of four tags."""
    chance = random.Random(0)
    lines = []
    for _ in range(120):
        tags = ["DT", "NN", "VBZ", "DT", "NN", *["IN", "DT", "NN"] * chance.randint(0, 2)]
        lines.append("( (S " + " ".join(f"({tag} {chance.choice(WORDS[tag])})" for tag in tags) + ") )")
    (tmp_path / "my.mrg").write_text("\n".join(lines), "utf-8")
    return tmp_path


def test_the_shipped_recipe_trains_and_is_judged_exactly_and_writes(cli: CommandLine, trees: Path) -> None:
    assert "HiddenMarkov" in cli("check", "neural_hmm", *SMALL, cwd=trees).worked()
    options = ("--training.epochs=10", "--model.states=5", "--model.supervision=0.5", "--out", "run")
    cli("train", "neural_hmm", *SMALL, *options, cwd=trees).worked()
    letters = safetensors.torch.load_file(trees / "run" / "model.safetensors")["emissions.words.letters"]
    known = [bytes(row[row > 2].tolist()).decode() for row in letters[4:]]
    assert set(known) == {word for group in WORDS.values() for word in group}
    found = json.loads(cli("evaluate", "run", "--json", cwd=trees).worked())
    assert found["likelihood"]["samples"] == 0 and found["likelihood"]["nll"] == pytest.approx(found["negative_elbo"])
    assert found["perplexity"] < len(known)
    assert 0.9 < found["tags"]["accuracy"] <= found["tags"]["many_to_one"] and found["tags"]["one_state"] < 0.5
    assert "│ V-measure" in cli("evaluate", "run", cwd=trees).worked()
    written = cli("generate", "run", cwd=trees).worked()
    assert any(word in written for word in known)
    assert "tran2016" in cli("cite", "run", cwd=trees).worked()


def test_a_tag_set_larger_than_the_states_is_refused_before_anything_is_trained(cli: CommandLine, trees: Path) -> None:
    options = ("--model.states=3", "--model.supervision=0.5", "--out", "run")
    said = cli("train", "neural_hmm", *SMALL, *options, cwd=trees).failed()
    assert "4 tags and the chain 3 states" in said and "(--model.states 4), or supervision to 0" in said
    assert not (trees / "run").exists()


def test_what_a_model_refuses_at_its_first_batch_is_said_in_one_line(cli: CommandLine, trees: Path) -> None:
    options = ("--model.states=4", "--model.supervision=1.5", "--out", "run")
    said = cli("train", "neural_hmm", *SMALL, *options, cwd=trees).failed()
    assert said.endswith("supervision is a share of the documents, between 0 and 1, not 1.5")
    blocks = '--model.emissions={"class_path": "BlockEmissions", "init_args": {"blocks": 2}}'
    said = cli("train", "neural_hmm", *SMALL[:2], blocks, "--model.states=4", "--out", "run", cwd=trees).failed()
    assert said.endswith("and Varying is none: choose transitions that are logits [K, K]")
    assert not (trees / "run").exists()
