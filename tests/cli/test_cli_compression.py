"""A model that compresses on the command line: judged, given sentences by its user, diagnosed."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import pytest

from tests.cli.commands import REAL, CommandLine, environment

LSTM = "init_args: {embedding: 8, width: 12}"
RECIPE = f"""
# Summary lines of docstrings, pointed at in their first paragraphs.
model:
  class_path: SentenceCompression
  init_args:
    prior: {{class_path: LSTMDecoder, {LSTM}}}
    encoder: {{class_path: LSTMEncoder, {LSTM}}}
    decoder: {{class_path: LSTMDecoder, {LSTM}}}
    width: 12
guide:
  class_path: PointerGuide
  init_args: {{source: {{class_path: LSTMEncoder, {LSTM}}}, decoder: {{class_path: LSTMDecoder, {LSTM}}}}}
corpus:
  class_path: ParagraphSummaries
  init_args: {{packages: [stdlib], labelled: 0.5, min_count: 2, max_source: 20, max_length: 8}}
strategy:
  discrete: {{class_path: ScoreFunction, init_args: {{baseline: LeaveOneOut}}}}
  bound: {{class_path: ELBO, init_args: {{particles: 2}}}}
  auxiliary: [KnownSequences]
training: {{epochs: 1, batch_size: 32}}
"""
SENTENCES = ("Return the smurf of a list with the key.", "If the file is not there, an error is raised.")


@pytest.fixture(scope="module")
def compressed(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained run `run`, and sentences."""
    folder = tmp_path_factory.mktemp("compressed")
    (folder / "small.yaml").write_text(RECIPE, "utf-8")
    (folder / "sentences.txt").write_text("".join(f"{line}\n" for line in SENTENCES), "utf-8")
    (folder / "gap.txt").write_text("Return the list.\n \nReturn it.\n", "utf-8")
    (folder / "empty.txt").write_text("", "utf-8")
    (folder / "said.txt").write_text(cli("train", "small.yaml", "--out", "run", cwd=folder).worked(), "utf-8")
    return folder


def test_training_says_what_its_parameters_are_the_best_by(compressed: Path) -> None:
    said = (compressed / "said.txt").read_text("utf-8")
    assert "best validation bound + auxiliary.KnownSequences " in said


def test_sentences_of_a_user_are_compressed_with_probability_and_rate(cli: CommandLine, compressed: Path) -> None:
    arguments = ("generate", "run", "--sentences", "sentences.txt", "--draws", "6")
    found = json.loads(cli(*arguments, "--json", cwd=compressed).worked())["compress"]
    assert found["method"] == "beam" and found["draws"] == 6 and "smurf" in found["unknown"]
    assert [row["source"] for row in found["sentences"]] == list(SENTENCES)
    for row in found["sentences"]:
        best, drawn, words = row["compression"], row["draws"], len(row["words"])
        assert best["words"] == math.ceil(0.4 * words) and best["rate"] == best["words"] / words
        assert best["probability"] == pytest.approx(math.exp(best["log_q"])) and best["log_q"] < 0
        assert sum(one["share"] for one in drawn) == pytest.approx(1)
        assert sum(one["posterior"] for one in drawn) == pytest.approx(1)
        assert [one["posterior"] for one in drawn] == sorted((one["posterior"] for one in drawn), reverse=True)
    printed = cli(*arguments, cwd=compressed).worked()
    assert all(line in printed for line in SENTENCES) and "4 of 10, 40%" in printed and "p(c | s)" in printed
    assert "among 6 draws" in printed and "not in the vocabulary" in printed and "smurf" in printed
    greedy = cli("generate", "run", "--sentence", SENTENCES[0], "--method", "greedy", cwd=compressed).worked()
    assert "│ greedy │" in greedy and "p(c | s)" not in greedy


def test_without_a_sentence_those_of_test_stand_beside_their_references(cli: CommandLine, compressed: Path) -> None:
    for what in ([], ["--what", "compress"]):
        printed = cli("generate", "run", "--count", "3", *what, cwd=compressed).worked()
        assert printed.count("│ reference │") == 3
    rows = json.loads(cli("generate", "run", "--json", cwd=compressed).worked())["compress"]["sentences"]
    assert len(rows) == 5 and all(row["reference"] and "draws" not in row for row in rows)


def test_sentences_are_read_from_standard_input(compressed: Path) -> None:
    command = [*REAL, "generate", "run", "--sentences", "-", "--json"]
    done = subprocess.run(
        command, cwd=compressed, env=environment(), input="Return the list.\r\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["compress"]["sentences"]
    assert row["source"] == "Return the list." and row["words"] == ["return", "the", "list", "."]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sentence", " "], "--sentence ' ' has no word: there is nothing to leave out"),
        (["--sentence", "Return"], "--sentence 'Return' has the one word 'return': there is nothing to leave out"),
        (["--sentences", "gap.txt"], "gap.txt: line 2 has no word"),
        (["--sentences", "empty.txt"], "empty.txt: no sentence in it"),
        (["--sentences", "none.txt"], "none.txt: No such file or directory"),
        (["--what", "samples"], "SentenceCompression compresses sentences: it has no samples"),
        (["--method", "ancestral"], "compressions are searched for, --method greedy or beam"),
        (["--temperature", "0.5", "--draws", "4"], "--temperature is of ancestral sampling: compressions are searched"),
        (["--count", "2", "--sentence", "Return the list."], "--count is how many sentences of test are compressed"),
        (["--count", "2", "--sentences", "sentences.txt"], "--draws N shows several compressions of each"),
        (["--attribute", "tone=good"], "--attribute is of samples and transfers: compressions are not written"),
    ],
)
def test_a_compression_says_in_a_line_what_it_lacks(
    cli: CommandLine, compressed: Path, arguments: list[str], said: str
) -> None:
    assert said in cli("generate", "run", *arguments, cwd=compressed).failed()


def test_a_ratio_that_is_no_number_and_a_file_that_is_no_text_are_named(cli: CommandLine, compressed: Path) -> None:
    said = cli("check", "small.yaml", "--model.ratio=abc", cwd=compressed).failed(2)
    assert said.endswith("'model.ratio': expected float or null, got abc")
    (compressed / "latin.txt").write_bytes("Return it.\nnaïve\n".encode("latin-1"))
    assert (
        "latin.txt: line 2 is not UTF-8 (byte 13)"
        in cli("generate", "run", "--sentences", "latin.txt", cwd=compressed).failed()
    )


def test_a_model_of_sentences_compresses_nothing(cli: CommandLine, trained: Path) -> None:
    for arguments in (["--what", "compress"], ["--sentences", "my.txt"]):
        line = cli("generate", "vae", *arguments, cwd=trained).failed()
        assert line.startswith("SentenceVAE compresses nothing: give a run of a model with a compression for a latent")


def test_evaluate_judges_compressions_beside_the_bound(cli: CommandLine, compressed: Path) -> None:
    pytest.importorskip("rouge_score")
    printed = cli("evaluate", "run", "--samples", "5", cwd=compressed).worked()
    assert "compressions by beam search, test split" in printed
    for row in ("-ELBO", "ROUGE-2 F1", "lead of the same length", "kept words, F1", "perplexity under the prior"):
        assert f"│ {row}" in printed
    found = json.loads(cli("evaluate", "run", "--samples", "5", "--json", cwd=compressed).worked())
    judged = found["compressions"]
    assert judged["texts"] == found["documents"] and 0 < judged["rate"] < 1 and 0 < judged["f1"] < 1
    assert judged["prior_perplexity"] > 1 and judged["reconstruction"] > 0 and judged["log_q"] < 0
    assert set(judged["rouge"]) == {"ROUGE-1", "ROUGE-2", "ROUGE-L"}


def test_without_rouge_score_the_rest_is_printed(compressed: Path) -> None:
    (compressed / "without" / "rouge_score").mkdir(parents=True)
    (compressed / "without" / "rouge_score" / "__init__.py").write_text("raise ImportError\n", "utf-8")
    command = [*REAL, "evaluate", "run", "--samples", "2"]
    surroundings = environment(PYTHONPATH=str(compressed / "without"))
    done = subprocess.run(command, cwd=compressed, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pip install 'pyro-nlp[metrics]'" in done.stdout
    assert "│ kept words, F1" in done.stdout and "│ reconstruction, -log p(s | c)" in done.stdout


def test_diagnose_shows_what_is_kept_and_how_sure_the_guide_is(cli: CommandLine, compressed: Path) -> None:
    printed = cli("diagnose", "run", "--documents", "10", "--draws", "25", "--out", "report", cwd=compressed).worked()
    assert "entropy of q(c | s)" in printed and "two draws agree" in printed
    text = (compressed / "report" / "report.html").read_text("utf-8")
    assert 'id="r1-compressions"' in text and 'class="look"' in text and "of 20 draws" in text
    (run,) = json.loads((compressed / "report" / "diagnosis.json").read_text("utf-8"))["runs"]
    found = run["sections"]["compressions"]
    assert len(found["entropy"]) == run["evaluation"]["documents"] and all(0 <= share <= 1 for share in found["same"])
    assert found["shown"] and len(found["shown"][0]["draws"]) <= 6


OWN = "".join(f"the big dog number{i} saw a cat\tdog number{i} saw cat\n" for i in range(100))


@pytest.mark.parametrize("alone", [False, True])
def test_a_file_of_a_users_own_sentences_is_judged_where_it_has_compressions(
    cli: CommandLine, compressed: Path, tmp_path: Path, alone: bool
) -> None:
    pytest.importorskip("rouge_score")
    lines = OWN.splitlines()
    text = "\n".join(line.split("\t")[0] for line in lines) if alone else f"{OWN}a small cat heard it\n"
    (tmp_path / "own.tsv").write_text(text, "utf-8")
    recipe = (compressed / "small.yaml").read_text("utf-8").partition("corpus:")
    end = recipe[2].partition("strategy:")
    corpus = "corpus: {class_path: CompressionFile, init_args: {path: own.tsv, min_count: 1}}\n"
    (tmp_path / "own.yaml").write_text(f"{recipe[0]}{corpus}{end[1]}{end[2]}", "utf-8")
    said = cli("train", "own.yaml", "--out", "run", cwd=tmp_path).worked()
    assert ("auxiliary.KnownSequences" in said) == (not alone)
    printed = cli("evaluate", "run", "--samples", "2", cwd=tmp_path).worked()
    for row in ("ROUGE-1 F1", "lead of the same length", "kept words, F1", "compression rate"):
        assert (f"│ {row}" in printed) == (not alone)
    assert ("│ reference │" in cli("generate", "run", cwd=tmp_path).worked()) == (not alone)


@pytest.mark.parametrize("corpus", ["PairFile", "TextFile"])
def test_a_corpus_without_compressions_is_refused_with_the_one_that_reads_them(
    cli: CommandLine, compressed: Path, corpus: str
) -> None:
    (compressed / "own.tsv").write_text(OWN, "utf-8")
    own = ("--corpus", corpus, "--corpus.path", "own.tsv", "--corpus.max_length", "100")
    line = cli("check", "small.yaml", *own, cwd=compressed).failed()
    assert f"{corpus} (own) has none: --corpus CompressionFile reads a file of yours" in line
