"""`pyro-nlp topics`: from a folder of real text to topics and a report in one command."""

from __future__ import annotations

import argparse
import ast
import json
import re
import sysconfig
from pathlib import Path

import pytest
import sklearn  # noqa: F401 (on its first import it sets variables of the environment, which a test may not)
import yaml

from pyro_nlp.commands.documents import _training
from tests.cli.commands import CommandLine, contents, real

QUICK = ("--training.epochs", "3", "--corpus.max_size", "300")


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `library`: what the modules of Python's own library say of themselves, a file each."""
    folder = tmp_path_factory.mktemp("collection")
    (folder / "library").mkdir()
    for source in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:120]:
        tree = ast.parse(source.read_text("utf-8"))
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        said = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
        text = "\n\n".join(filter(None, said))
        if len(text.split()) > 50:
            (folder / "library" / f"{source.stem}.txt").write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="module")
def printed(collection: Path) -> str:
    """What one command prints, in a process of its own."""
    return real("topics", "library", "--topics", "4", "--words", "5", *QUICK, cwd=collection).worked()


def test_one_command_goes_from_a_folder_of_text_to_topics_and_a_report(printed: str, collection: Path) -> None:
    run = collection / "runs" / "library"
    assert printed.startswith("prodlda on TextDocuments(library: ") and ", into runs/library\n" in printed
    assert sorted(re.findall(r"^ +topic +(\d+)$", printed, re.MULTILINE)) == ["0", "1", "2", "3"]
    words = [line.split(", ") for line in re.findall(r"^ +words +(.+)$", printed, re.MULTILINE)]
    known = set(json.loads((run / "vocabulary.json").read_text("utf-8")))
    assert [len(row) for row in words] == [5] * 4 and {pair.split()[0] for row in words for pair in row} <= known
    assert all(0 < float(pair.split()[1]) < 1 for row in words for pair in row)
    assert printed.splitlines()[-1] == "report: runs/library/report.html"
    page = (run / "report.html").read_text("utf-8")
    assert "Topics" in page and words[0][0].split()[0] in page


def test_the_run_is_one_like_any_other(printed: str, collection: Path, cli: CommandLine) -> None:
    recipe = yaml.safe_load((collection / "runs" / "library" / "recipe.yaml").read_text("utf-8"))
    corpus = recipe["corpus"]["init_args"]
    assert corpus["path"] == "library" and corpus["max_size"] == 300 and corpus["stop_words"] == "english"
    assert recipe["model"]["init_args"]["latent"] == 4 and recipe["training"]["epochs"] == 3
    shown = json.loads(cli("generate", "runs/library", "--words", "5", "--json", cwd=collection).worked())["topics"]
    assert [f"{key:>13}  {value}" for key, value in shown[0].items()][-1].strip() in printed


def test_a_second_time_nothing_is_overwritten(printed: str, collection: Path, cli: CommandLine) -> None:
    before = contents(collection)
    line = cli("topics", "library", *QUICK, cwd=collection).failed()
    assert line.startswith("runs/library exists already and is not overwritten: ")
    assert cli("train", "prodlda", "--out", "runs/library", cwd=collection).failed() == line
    assert contents(collection) == before


def test_a_run_is_taken_up_again(collection: Path, tmp_path: Path, cli: CommandLine) -> None:
    files = sorted((collection / "library").iterdir())
    lines = [" ".join(file.read_text("utf-8").split()) for file in files]
    (tmp_path / "lines.txt").write_text("\n".join(lines), "utf-8")
    corpus = ("--corpus", "TextDocuments", "--corpus.path", "lines.txt", "--corpus.max_size", "100")
    small = ("--model.latent", "3", "--training.epochs", "1", "--out", "runs/lines")
    cli("train", "prodlda", *corpus, *small, cwd=tmp_path).worked()
    more = cli("topics", "lines.txt", "--resume", "--training.epochs", "2", cwd=tmp_path).worked()
    assert "after epoch 2" in more and "report: runs/lines/report.html" in more
    rows = (tmp_path / "runs" / "lines" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(row)["epoch"] for row in rows} == {0, 1}


BAD = {
    "no path": (("nowhere",), 1, "nowhere: not in the working directory"),
    "no text": (("tables",), 1, r"tables: no file below it ends in \.txt \(there are 1 with \.csv\)"),
    "a table": (("tables/a.csv",), 1, r"tables/a\.csv: \.csv is not plain text"),
    "few": (("few",), 1, r"few: no document for the \w+ split \(found 1 in all"),
    "topics": (("library", "--topics", "60", "--corpus.max_size", "50"), 1, "60 topics of 50 words: give fewer as"),
    "batches": (("library", "--training.batch_size", "999"), 1, r"batches of 999 from \d+ train documents: give fewer"),
    "a model of sentences": (
        ("library", "--recipe", "sentence_vae"),
        2,
        "sentence_vae: SentenceVAE has no topics; give",
    ),
    "another corpus": (("library", "--corpus", "TwentyNews"), 2, "--corpus: topics reads PATH; of another corpus"),
    "an unknown option": (("library", "--corpus.ngram", "2"), 2, "takes no 'ngram'; did you mean 'ngrams'"),
    "one topic": (("library", "--topics", "1"), 2, "argument --topics: 1 is less than 2"),
    "n-grams": (("library", "--corpus.ngrams", "0"), 1, "ngrams is 0; give 1 for words"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_one_line_and_leaves_nothing(
    case: str, collection: Path, tmp_path: Path, cli: CommandLine
) -> None:
    (tmp_path / "library").symlink_to(collection / "library")
    for name, content in (("tables/a.csv", "a,b\n"), ("few/one.txt", "One document.\n")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content, "utf-8")
    arguments, status, message = BAD[case]
    assert re.search(message, cli("topics", *arguments, cwd=tmp_path, PYRO_NLP_DATA=None).failed(status))
    assert not (tmp_path / "runs").exists()


def test_a_small_collection_gets_small_batches_and_enough_steps(
    collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(collection)
    corpus = ("--corpus=TextDocuments", "--corpus.path=library")
    options = argparse.Namespace(recipe="lda", strategy=None)
    found = dict(argument.split("=") for argument in _training(options, corpus))
    size, epochs = int(found.pop("--training.batch_size")), int(found.pop("--training.epochs"))
    documents = len(list((collection / "library").iterdir()))
    assert size == 16 and epochs * -(-documents // size) >= 2000 and epochs % 60 == 0
    # the schedules go with it
    assert found == {
        "--strategy.kl.weight.init_args.epochs": str(epochs * 40 / 60),
        "--training.optimizer.init_args.learning_rate.init_args.epochs": str(float(epochs)),
    }
    said = (*corpus, "--training.epochs=5", "--training.batch_size=8")
    assert _training(options, said) == []
