"""Bad input: each ends with one line that names the file and the cure."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_nlp.data import PTB, Corpus, CorpusError, HuggingFace, LabelledLines, Ring, TextFile, Treebank

GOOD = "".join(f"a good sentence x{i}\n" for i in range(60))
ROW = "1\tIt\tit\tX" + "\t_" * 6 + "\n"


def conllu(folder: Path, train: str) -> Corpus:
    for split, text in (("train", train), ("dev", ROW), ("test", ROW)):
        (folder / f"x-{split}.conllu").write_text(text)
    return Treebank(str(folder))


def text(folder: Path, content: bytes | str, **options: object) -> Corpus:
    (folder / "mine.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return TextFile(str(folder / "mine.txt"), **options)  # type: ignore[arg-type]


def labelled(folder: Path, content: str, **options: object) -> Corpus:
    (folder / "mine.txt").write_text(content)
    return LabelledLines(str(folder / "mine.txt"), **options)  # type: ignore[arg-type]


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such file": (lambda d: TextFile(str(d / "no.txt")), r"no\.txt: no such file"),
    "a folder for a file": (lambda d: TextFile(str(d)), "is a folder; give a text file"),
    "empty": (lambda d: text(d, ""), r"mine\.txt: the file is empty; give a text"),
    "blank": (lambda d: text(d, "\n \n"), r"mine\.txt: no sentence for the train split \(found 0 in all\)"),
    "too few": (
        lambda d: text(d, "one\n"),
        r"no sentence for the .* split \(found 1 in all\); give more",
    ),
    "undecodable": (
        lambda d: text(d, GOOD.encode() + b"ab\xff\n"),
        rf"mine\.txt: byte {len(GOOD) + 2} \(line 61\) is not utf-8; convert",
    ),
    "unknown encoding": (lambda d: text(d, GOOD, encoding="utf8x"), "encoding 'utf8x' is unknown"),
    "wide encoding": (lambda d: text(d, GOOD, encoding="utf-16"), "cannot be read line by line"),
    "overlong": (
        lambda d: text(d, GOOD + "w " * 101),
        r"mine\.txt: line 61 has 101 words, the limit is 100; raise --corpus\.max_length.*overlong drop",
    ),
    "no words left": (lambda d: text(d, GOOD, max_size=4), "max_size is 4; it must be at least 5"),
    "no length": (lambda d: text(d, GOOD, max_length=0), "max_length is 0"),
    "no such policy": (
        lambda d: text(d, GOOD, overlong="skip"),
        "overlong is 'skip'; give error, drop or trunc",
    ),
    "no such tokeniser": (
        lambda d: text(d, GOOD, tokeniser="bpe"),
        "tokeniser 'bpe' is unknown; give words or",
    ),
    "no such column": (lambda d: Treebank(str(d), column="xpos"), "column 'xpos' is unknown"),  # type: ignore[arg-type]
    "no label": (
        lambda d: labelled(d, "1 good\nbad\n"),
        r"mine\.txt: line 2 should be a label, white space and",
    ),
    "no text": (
        lambda d: labelled(d, "1\tgood\n0\t\n", separator="\t"),
        r"line 2 should be a label, '\\t' and",
    ),
    "empty separator": (lambda d: labelled(d, "1 a\n", separator=""), "separator is empty"),
    "not labelled at all": (
        lambda d: labelled(d, "".join(f"w{i} a good sentence x{i}\n" for i in range(99))),
        "different labels in .* sentences; each line has to begin with its label",
    ),
    "no file of the pattern": (lambda d: LabelledLines(f"{d}/x.*"), r"x\.\*: no file has such a name"),
    "two stars": (lambda d: LabelledLines(f"{d}/*.*"), r"give one \* in the last part"),
    "conllu fields": (
        lambda d: conllu(d, "# x\n1\tIt\n"),
        r"x-train\.conllu: line 2 has 2 tab-separated fields",
    ),
    "conllu numbers": (lambda d: conllu(d, ROW + ROW), r"x-train\.conllu: line 2 has the word number '1'"),
    "conllu garbage": (lambda d: conllu(d, "x" + ROW), "line 1 has the word number 'x1'"),
    "conllu bad range": (lambda d: conllu(d, ROW.replace("1", "1-", 1)), "line 1 has the word number '1-'"),
    "conllu files": (lambda d: Treebank(str(d)), r"needs exactly one file \*train\*\.conllu, found none"),
    "ptb without files": (lambda d: PTB(str(d)), r"ptb\.train\.txt: No such file"),
    "ring": (lambda _: Ring(0), "size is 0"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_with_the_cure(case: str, tmp_path: Path) -> None:
    build, message = CASES[case]
    with pytest.raises(CorpusError, match=message) as raised:
        build(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (None, r"PYRO_NLP_DATA is not set; give a path that exists, or set PYRO_NLP_DATA to .* holds 'ptb'"),
        ("/no/such/folder", "PYRO_NLP_DATA is set to /no/such/folder, which is not a folder"),
        (".", r"neither in the working directory nor in PYRO_NLP_DATA \(\.\)"),
    ],
)
def test_a_missing_data_folder_is_named_with_the_variable(
    variable: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYRO_NLP_DATA", raising=False)
    if variable:
        monkeypatch.setenv("PYRO_NLP_DATA", variable)
    with pytest.raises(CorpusError, match=message):
        PTB()


def test_hugging_face_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(CorpusError, match=r"pip install 'pyro-nlp\[hub\]'"):
        HuggingFace("some/name")


def test_a_byte_order_mark_and_windows_line_ends_are_not_part_of_the_text(tmp_path: Path) -> None:
    corpus = text(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert corpus.fingerprint == text(tmp_path, GOOD).fingerprint


def test_the_progress_bar_shows_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pyro_nlp.data.progress.DELAY", -1.0)
    monkeypatch.setattr("pyro_nlp.data.files._REPORT", 10)
    text(tmp_path, GOOD)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    text(tmp_path, GOOD)
    assert "reading mine.txt" in capsys.readouterr().err
