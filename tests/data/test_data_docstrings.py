"""The built-in corpus, with the standard library alone and with small packages made for the test."""

import sys
from pathlib import Path

import numpy as np
import pytest

from pyro_nlp.data import CorpusError, Docstrings
from pyro_nlp.data import docstring_records as extraction
from pyro_nlp.data.docstring_records import records, summarise


@pytest.fixture(scope="module")
def stdlib(session_home: Path) -> Docstrings:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRO_NLP_HOME", str(session_home))
        return Docstrings(["stdlib"])


def sentences(corpus: Docstrings, split: str) -> set[tuple[int, ...]]:
    rows = getattr(corpus, split)
    return {tuple(rows.words(i)) for i in range(len(rows))}


def test_the_standard_library_makes_a_corpus_of_its_own(stdlib: Docstrings) -> None:
    sizes = np.array([len(stdlib.train), len(stdlib.valid), len(stdlib.test)])
    assert sizes.sum() > 5_000
    assert np.abs(sizes / sizes.sum() - [0.8, 0.1, 0.1]).max() < 0.02
    assert 1_500 < len(stdlib.vocabulary) < 3_000
    assert stdlib.labels == ("stdlib",) and stdlib.train.labels is not None
    assert set(stdlib.train.labels.tolist()) == {0}
    assert stdlib.versions == {"python": ".".join(map(str, sys.version_info[:3]))}
    assert stdlib.train.lengths.max() <= 41 and stdlib.train.lengths.min() >= 4
    assert 9 < stdlib.train.lengths.mean() - 1 < 14 and stdlib.dropped > 0


def test_the_cache_gives_the_same_corpus_without_parsing(stdlib: Docstrings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "_parse", None)
    assert Docstrings(["stdlib"]).fingerprint == stdlib.fingerprint
    assert Docstrings(["stdlib"], max_length=20).dropped > stdlib.dropped


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package that would fail if it were imported."""
    folder = tmp_path / "site" / "zoo_of_beasts"
    (folder / "tests").mkdir(parents=True)
    text = "".join(f'def f{i}():\n    """Return the beast number{i} of the zoo."""\n' for i in range(80))
    (folder / "__init__.py").write_text('"""A zoo of beasts."""\nraise RuntimeError("imported")\n' + text)
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "tests" / "a.py").write_text('"""This one is a test."""')
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYRO_NLP_HOME", str(tmp_path / "home"))
    return folder


def test_source_is_parsed_and_never_imported(package: Path) -> None:
    _, found = records(package.name)
    assert len(found) == 81 and package.name not in sys.modules
    assert found[0] == (package.name, "", "A zoo of beasts.", "")
    assert found[1].name == "f0"


def test_a_corrupt_cache_is_rebuilt(package: Path, tmp_path: Path) -> None:
    first = records(package.name)
    (cache,) = (tmp_path / "home" / "docstrings").iterdir()
    whole = cache.read_bytes()
    for damaged in (b"", b"not gzip", whole[: len(whole) // 2], whole[:-20] + b"x" * 20):
        cache.write_bytes(damaged)
        assert records(package.name) == first
        assert cache.read_bytes() == whole
    assert list(cache.parent.iterdir()) == [cache]


def test_a_changed_package_without_a_version_is_read_again(package: Path) -> None:
    before = records(package.name)
    (package / "more.py").write_text('"""One more beast came in."""')
    after = records(package.name)
    assert len(after[1]) == len(before[1]) + 1 and after[0] != before[0]


def test_a_cache_that_cannot_be_written_is_a_warning(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRO_NLP_HOME", str(package / "__init__.py"))
    with pytest.warns(UserWarning, match="cannot keep the parsed docstrings"):
        assert len(records(package.name)[1]) == 81


def test_the_split_of_a_sentence_does_not_depend_on_what_else_is_installed(
    package: Path, stdlib: Docstrings, session_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYRO_NLP_HOME", str(session_home))
    both = Docstrings([package.name, "stdlib"], min_count=1)
    alone = Docstrings([package.name], min_count=1)
    assert both.labels == (package.name, "stdlib") and both.test.labels is not None
    assert len(both.test) == len(stdlib.test) + len(alone.test)
    assert int((both.test.labels == 0).sum()) == len(alone.test)
    texts = [{tuple(c.vocabulary.decode(w)) for w in sentences(c, "train")} for c in (both, alone)]
    assert texts[1] <= texts[0]


def test_a_sentence_occurs_once_in_the_whole_corpus(package: Path) -> None:
    twin = (package / "__init__.py").read_text()
    (package / "twin.py").write_text(twin.replace("Return", "return"))
    corpus = Docstrings([package.name], min_count=1)
    assert len(corpus.train) + len(corpus.valid) + len(corpus.test) == 81


def test_a_missing_package_and_an_empty_list_are_refused() -> None:
    with pytest.raises(CorpusError, match="'no_such_thing' is not installed"):
        Docstrings(["no_such_thing"])
    with pytest.raises(CorpusError, match="empty list"):
        Docstrings([])
    with pytest.raises(CorpusError, match="min_count is 0"):
        Docstrings(["stdlib"], min_count=0)


@pytest.mark.parametrize(
    ("text", "summary", "paragraph"),
    [
        ("Return it.", "Return it.", ""),
        ("\n    Return it\n    to them.\n\n    More of\n    it.\n", "Return it to them.", "More of it."),
        ("First one. Second one.\n\nThird.", "First one.", "Second one."),
        ("Use e.g. The thing.", "Use e.g. The thing.", ""),
        ("f(x, y=(1, 2)) -> int\n\nAdd two numbers.\n\nRest.", "Add two numbers.", "Rest."),
        ("The title\n=========\n\nBody.", "The title", "Body."),
        ("=====\nTitle\n=====\n", "Title", ""),
        ("Do it.\n\nParameters\n----------\nx : int", "Do it.", ""),
        ("Do it.\n\n>>> 1 + 1\n2\n", "Do it.", ""),
        (">>> 1 + 1\n2", "", ""),
        (".. deprecated:: 1.0", "", ""),
        ("", "", ""),
    ],
)
def test_the_summary_is_the_first_sentence(text: str, summary: str, paragraph: str) -> None:
    assert summarise(text) == (summary, paragraph)
