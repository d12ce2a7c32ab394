"""A model of questions and answers on the command line: judged, asked by its user, diagnosed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pyro_nlp.commands.rank import shaded
from tests.cli.commands import REAL, CommandLine, environment

LSTM = "{class_path: LSTMEncoder, init_args: {embedding: 8, width: 8}}"
CNN = "{class_path: CNNEncoder, init_args: {embedding: 8, width: 8}}"
RECIPE = """
# Questions and candidate answers of a user's file.
model: {{class_path: {model}, init_args: {{latent: 4, question: {encoder}, width: 8}}}}
guide: {guide}
corpus: {{class_path: PairFile, init_args: {{path: answers.tsv, min_count: 1}}}}
training: {{epochs: {epochs}, batch_size: 16, optimizer: {{class_path: Adam, init_args: {{learning_rate: 0.03}}}}}}
"""
GUIDE = f"{{class_path: NASMGuide, init_args: {{latent: 4, question: {LSTM}, answer: {LSTM}, width: 8}}}}"
PEOPLE = ("Ada", "Emil", "Greta", "Hugo", "Ida", "Jonas", "Klara", "Levi", "Marie", "Nils", "Olga", "Paul")
TOWNS = ("Ulm", "Bern", "Graz", "Jena", "Kiel")
ASKED = (
    ("where was {} born ?", "{} was born in {} , a small town ."),
    ("where did {} die ?", "{} died of a fever in {} ."),
    ("where does {} work ?", "{} works at a mill near {} ."),
)
QUESTION = "Where was Ada born?"


def answers() -> str:
    """A line of question, candidate and label for each of three candidates to every question."""
    lines = []
    for i, person in enumerate(PEOPLE):
        for j, (question, answer) in enumerate(ASKED):
            others = [a.format(person, TOWNS[(i + k) % 5]) for k, (_, a) in enumerate(ASKED) if k != j]
            lines += [f"{question.format(person)}\t{other}\t0" for other in others]
            lines.append(f"{question.format(person)}\t{answer.format(person, TOWNS[i % 5])}\t1")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def asked(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained runs `nasm` and `cnn`, and candidates."""
    folder = tmp_path_factory.mktemp("answers")
    (folder / "answers.tsv").write_text(answers(), "utf-8")
    (folder / "candidates.txt").write_text("Ada died in Ulm.\nAda was born in Graz, a smurf town.\n", "utf-8")
    (folder / "empty.txt").write_text("", "utf-8")
    (folder / "gap.txt").write_text("Ada died in Ulm.\n \nHugo works.\n", "utf-8")
    nasm = RECIPE.format(model="NASM", encoder=LSTM, guide=GUIDE, epochs=3)
    (folder / "nasm.yaml").write_text(nasm, "utf-8")
    (folder / "cnn.yaml").write_text(RECIPE.format(model="AnswerMatcher", encoder=CNN, guide="null", epochs=1), "utf-8")
    for name in ("nasm", "cnn"):
        cli("train", f"{name}.yaml", "--out", name, cwd=folder).worked()
    return folder


def test_evaluate_ranks_the_answers_and_judges_their_probabilities(cli: CommandLine, asked: Path) -> None:
    printed = cli("evaluate", "nasm", "--samples", "5", cwd=asked).worked()
    assert "answers, test split" in printed and all(
        f"│ {row}" in printed for row in ("MAP ", "MRR ", "P@1 ", "questions", "Brier", "expected cal", "log loss")
    )
    found = json.loads(cli("evaluate", "nasm", "--samples", "5", "--json", cwd=asked).worked())
    ranking, calibration = found["answers"]["ranking"], found["answers"]["calibration"]
    assert ranking["keep"] == "right" and ranking["without_right"] == 0
    assert 0 < ranking["MAP"]["low"] <= ranking["MAP"]["mean"] <= ranking["MAP"]["high"] <= 1
    assert calibration["pairs"] == found["documents"] == 3 * ranking["questions"]
    assert calibration["share"] == pytest.approx(1 / 3) and calibration["log_loss"] > 0
    same = json.loads(cli("evaluate", "cnn", "--json", cwd=asked).worked())["answers"]
    assert same["calibration"]["pairs"] == calibration["pairs"]


def test_candidates_of_a_user_are_ranked_with_what_is_not_sure_of_it(cli: CommandLine, asked: Path) -> None:
    arguments = ("generate", "nasm", "--question", QUESTION, "--candidates", "candidates.txt", "--draws", "20")
    found = json.loads(cli(*arguments, "--json", cwd=asked).worked())["rank"]
    rows = found["candidates"]
    assert found["draws"] == 20 and found["unknown"] == ["smurf"]
    assert [row["rank"] for row in rows] == [1, 2] and rows[0]["probability"] >= rows[1]["probability"]
    assert sum(row["first"] for row in rows) == pytest.approx(1) and all(row["standard_deviation"] > 0 for row in rows)
    for row in rows:
        assert row["words"][-1] == "</s>" and len(row["words"]) == len(row["attention"])
        assert sum(row["attention"]) == pytest.approx(1, abs=1e-5)  # float32 softmaxes
    printed = cli(*arguments, "--what", "rank", cwd=asked).worked()
    assert "looked at" in printed and "Ada was born in Graz, a smurf town." in printed and "20 draws" in printed
    assert "not in the vocabulary, and read as <unk>: smurf" in printed
    again = cli(*arguments, "--json", cwd=asked).worked()
    assert json.loads(again)["rank"] == found


def test_a_terminal_with_colours_gets_words_on_a_ground(asked: Path) -> None:
    arguments = ["generate", "nasm", "--question", QUESTION, "--candidates", "-"]
    colours = environment(NO_COLOR=None, FORCE_COLOR="1", COLORTERM="truecolor", TERM="xterm-256color")
    typed = "Ada died.\r\nAda was born.\r\n"
    done = subprocess.run([*REAL, *arguments], cwd=asked, env=colours, input=typed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ada was born . </s>" in re.sub(r"\x1b\[[\d;]*m", "", done.stdout)
    assert "looked at" not in done.stdout and "\r" not in done.stdout


def test_the_ground_of_a_word_is_as_strong_as_it_was_looked_at() -> None:
    text = shaded(["where", "it", "looks"], np.array([0.3, 0.1, 0.6]))
    assert text.plain == "where it looks"
    (span,) = text.spans  # an even share and less have none
    assert text.plain[span.start : span.end] == "looks"
    (all_on_one,) = shaded(["a", "b"], np.array([0.0, 1.0])).spans
    assert str(all_on_one.style) == "rgb(0,0,0) on rgb(255,140,0)"


def test_without_latents_and_attention_their_columns_are_left_out(cli: CommandLine, asked: Path) -> None:
    arguments = ("generate", "cnn", "--question", QUESTION, "--candidates", "candidates.txt")
    printed = cli(*arguments, cwd=asked).worked()
    assert "p(right)" in printed and not any(word in printed for word in ("±", "first", "looked at", "draws"))
    rows = json.loads(cli(*arguments, "--json", cwd=asked).worked())["rank"]["candidates"]
    assert set(rows[0]) == {"rank", "candidate", "line", "probability"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "a ranking wants a question: give --question TEXT"),
        (["--question", QUESTION], "a ranking wants candidates: give --candidates FILE"),
        (["--question", " ", "--candidates", "candidates.txt"], "no word in --question ' '"),
        (["--question", QUESTION, "--candidates", "empty.txt"], "empty.txt: no candidate in it"),
        (["--question", QUESTION, "--candidates", "gap.txt"], "gap.txt: line 2 has no word"),
        (["--question", QUESTION, "--candidates", "none.txt"], "none.txt: No such file or directory"),
        (["--question", QUESTION, "--candidates", "-"], "standard input: no candidate in it"),
        (["--question", QUESTION, "--candidates", "nasm/model.safetensors"], "is not UTF-8"),
        (["--what", "samples"], "NASM ranks answers: it has no samples"),
        (["--what", "topics"], "NASM ranks answers: it has no topics"),
    ],
)
def test_a_ranking_says_in_a_line_what_it_lacks(cli: CommandLine, asked: Path, arguments: list[str], said: str) -> None:
    assert said in cli("generate", "nasm", *arguments, cwd=asked).failed()


def test_a_model_of_sentences_ranks_no_answers(cli: CommandLine, trained: Path) -> None:
    for arguments in (["--what", "rank"], ["--question", QUESTION], ["--candidates", "my.txt"]):
        line = cli("generate", "vae", *arguments, cwd=trained).failed()
        assert line.startswith("SentenceVAE ranks no answers: give a run of a model of questions and answers")


def test_diagnose_shows_ranking_questions_and_what_labels_say(cli: CommandLine, asked: Path) -> None:
    printed = cli("diagnose", "nasm", "--documents", "8", "--draws", "25", "--out", "report", cwd=asked).worked()
    assert "MAP, whole split" in printed
    text = (asked / "report" / "report.html").read_text("utf-8")
    for section in ("ranking", "questions", "label_gap"):
        assert f'id="r1-{section}"' in text
    assert "where was" in text and 'class="look"' in text and "Share of right answers by p(y = 1)" in text
    (run,) = json.loads((asked / "report" / "diagnosis.json").read_text("utf-8"))["runs"]
    gaps = run["sections"]["label_gap"]
    assert run["evaluation"]["documents"] == 6 and gaps["candidates"] == [3, 3], "whole questions, of 8 pairs at most"
    assert all(kl >= 0 for kl in gaps["kl"])


def test_a_corpus_that_a_model_does_not_read_is_refused_in_a_line(cli: CommandLine, asked: Path, trained: Path) -> None:
    other = ("--corpus", "PairFile", "--corpus.path", "answers.tsv")
    pairs = cli("check", trained / "lm.yaml", *other, cwd=asked).failed()
    assert pairs.startswith("SentenceLM reads sentences (TextBatch), and PairFile (answers) gives pairs of texts")
    sentences = cli("train", asked / "nasm.yaml", "--corpus", "TextFile", "--corpus.path", "my.txt", cwd=trained)
    assert sentences.failed().startswith(
        "NASMGuide reads pairs of texts (PairBatch), and TextFile (my) gives sentences"
    )


def test_another_path_of_a_corpus_of_pairs_is_one_of_pairs(cli: CommandLine, asked: Path) -> None:
    cli("check", "nasm.yaml", "--corpus.path", "answers.tsv", cwd=asked).worked()
    assert cli("check", "nasm.yaml", "--corpus.path", "none.tsv", cwd=asked).failed().startswith("none.tsv")
