"""A model of documents on the command line: topics, nearest documents, and what a bag of words cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import CommandLine

RECIPE = """
# Topics of a text file, a document a line.
model: {class_path: NVDM, init_args: {latent: 3}}
guide: {class_path: GaussianGuide, init_args: {encoder: {class_path: CountEncoder, init_args: {width: 8}}}}
corpus: {class_path: TextDocuments, init_args: {path: bags.txt, min_documents: 1, max_document_share: 1.0}}
training: {epochs: 2, optimizer: {class_path: Adam, init_args: {learning_rate: 0.03}}}
"""


@pytest.fixture(scope="module")
def bags(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run `nvdm`."""
    folder = tmp_path_factory.mktemp("bags")
    themes = ("apple pear plum cherry", "violin flute organ trumpet", "river lake ocean brook")
    lines = [" ".join(themes[i % 3].split()[j] for j in (i % 4, (i + i // 7) % 4, (2 * i + 1) % 4)) for i in range(120)]
    (folder / "bags.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "bags.yaml").write_text(RECIPE, "utf-8")
    cli("train", "bags.yaml", "--out", "nvdm", cwd=folder).worked()
    return folder


def test_topics_are_shown_with_their_words_and_probabilities(cli: CommandLine, bags: Path) -> None:
    found = json.loads(cli("generate", "nvdm", "--words", "4", "--json", cwd=bags).worked())["topics"]
    assert sorted(topic["topic"] for topic in found) == [0, 1, 2]
    shares = [float(topic["share"]) for topic in found]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=0.002)
    for topic in found:
        pairs = [pair.split() for pair in topic["words"].split(", ")]
        chances = [float(chance) for _, chance in pairs]
        assert len(pairs) == 4 and chances == sorted(chances, reverse=True) and 0 < sum(chances) <= 1


def test_the_nearest_documents_of_a_topic_have_most_of_it(cli: CommandLine, bags: Path) -> None:
    printed = cli("generate", "nvdm", "--what", "nearest", "--count", "1", "--json", cwd=bags).worked()
    found = json.loads(printed)["nearest"]
    shares = [float(row["share"]) for row in found]
    assert len(found) == 3 and len({row["topic"] for row in found}) == 1
    assert shares == sorted(shares, reverse=True)
    known = set((bags / "bags.txt").read_text("utf-8").split())
    assert all(pair.split()[0] in known for row in found for pair in row["words"].split(", "))


def test_a_terminal_gets_the_same_in_lines(cli: CommandLine, bags: Path) -> None:
    printed = cli("generate", "nvdm", cwd=bags).worked()
    assert printed.count("topic  ") == 3 and "share  0." in printed


@pytest.mark.parametrize("kind", ["samples", "interpolations", "imputations"])
def test_a_bag_of_words_has_no_sentences(cli: CommandLine, bags: Path, kind: str) -> None:
    line = cli("generate", "nvdm", "--what", kind, cwd=bags).failed()
    assert line == "NVDM is a model of bags of words, which have no order: it has topics and nearest documents"


def test_a_model_of_sentences_has_no_topics(cli: CommandLine, trained: Path) -> None:
    line = cli("generate", "vae", "--what", "topics", cwd=trained).failed()
    assert line == "SentenceVAE has no topics: it writes sentences"


def test_evaluate_judges_topics_beside_the_rest(cli: CommandLine, bags: Path) -> None:
    printed = json.loads(cli("evaluate", "nvdm", "--samples", "5", "--json", cwd=bags).worked())
    assert printed["topics"]["collapse"]["topics"] == 3 and printed["likelihood"]["samples"] == 5


def test_diagnose_leaves_out_what_bags_do_not_have(cli: CommandLine, bags: Path) -> None:
    printed = cli("diagnose", "nvdm", "--documents", "8", "--draws", "30", "--out", "report", cwd=bags).worked()
    assert "NVDM does not write text; left out:" in printed
    assert (bags / "report" / "report.html").exists()
