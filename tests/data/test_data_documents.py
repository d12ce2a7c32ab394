"""The built-in corpus as documents, with the standard library and with a small package made for the test."""

import sys
from pathlib import Path

import numpy as np
import pytest

from pyro_nlp.data import CorpusError, DocstringDocuments
from pyro_nlp.data.bags import STOP


@pytest.fixture(scope="module")
def stdlib(session_home: Path) -> DocstringDocuments:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRO_NLP_HOME", str(session_home))
        return DocstringDocuments(["stdlib"])


def test_the_modules_of_the_standard_library_are_documents(stdlib: DocstringDocuments) -> None:
    sizes = [len(stdlib.train), len(stdlib.valid), len(stdlib.test)]
    assert sum(sizes) > 200 and min(sizes) > 10
    assert stdlib.labels == ("stdlib",) and stdlib.train.labels is not None
    assert set(stdlib.train.labels.tolist()) == {0}
    assert stdlib.versions == {"python": ".".join(map(str, sys.version_info[:3]))}
    assert min(split.sizes.min() for split in (stdlib.train, stdlib.valid, stdlib.test)) >= 20
    assert stdlib.dropped == sum(stdlib.dropped_by_split.values()) > 0


def test_the_words_are_those_of_enough_and_not_too_many_modules(stdlib: DocstringDocuments) -> None:
    words = stdlib.vocabulary.words
    assert 500 < len(words) <= 2000 and not set(words) & (STOP | {"N"})
    counts = stdlib.train.batch(np.arange(len(stdlib.train))).counts
    # of all modules, those left out for their few words among them, so that a bound from above holds only
    inside = (counts > 0).sum(0)
    assert int(inside.max()) <= 0.5 * (len(stdlib.train) + stdlib.dropped_by_split["train"])
    assert len(DocstringDocuments(["stdlib"], max_size=50).vocabulary) == 50


def test_modules_of_few_words_are_counted(stdlib: DocstringDocuments) -> None:
    fewer = DocstringDocuments(["stdlib"], min_words=60)
    whole = [len(c.train) + len(c.valid) + len(c.test) + c.dropped for c in (stdlib, fewer)]
    assert whole[0] == whole[1] and fewer.dropped > stdlib.dropped
    assert fewer.train.sizes.min() >= 60


def test_the_splits_are_a_function_of_the_seed(stdlib: DocstringDocuments) -> None:
    assert DocstringDocuments(["stdlib"]).fingerprint == stdlib.fingerprint
    assert DocstringDocuments(["stdlib"], seed=1).fingerprint != stdlib.fingerprint


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two packages of 20 modules with two docstrings each, about lions and about ships."""
    about = {"zoo_of_lions": "lions roar", "port_of_ships": "ships sail"}
    for name, topic in about.items():
        folder = tmp_path / "site" / name
        folder.mkdir(parents=True)
        for i in range(20):
            text = f'"""All {topic}.\n\nAnd more of it{i % 3}.\n"""\ndef f():\n    """Some {topic} twice."""\n'
            (folder / f"m{i}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYRO_NLP_HOME", str(tmp_path / "home"))
    return "zoo_of_lions", "port_of_ships"


def test_a_document_has_all_docstrings_of_its_module_and_the_library_as_label(packages: tuple[str, str]) -> None:
    corpus = DocstringDocuments(list(packages), min_words=1, max_document_share=0.7)
    assert [len(s) for s in (corpus.train, corpus.valid, corpus.test)] == [32, 4, 4] and corpus.labels == packages
    batch = corpus.train.batch(np.arange(32))
    column = {word: batch.counts[:, i] for i, word in enumerate(corpus.vocabulary.words)}
    assert set(column) == {"lions", "roar", "ships", "sail", "it0", "it1", "it2"}  # "twice" is in all
    assert batch.labels is not None
    assert column["lions"].tolist() == [2.0 * (label == 0) for label in batch.labels.tolist()]
    assert column["sail"].tolist() == [2.0 * (label == 1) for label in batch.labels.tolist()]


def test_bad_arguments_are_refused(packages: tuple[str, str]) -> None:
    with pytest.raises(CorpusError, match="empty list"):
        DocstringDocuments([])
    with pytest.raises(CorpusError, match="min_words is 0"):
        DocstringDocuments(min_words=0)
    with pytest.raises(CorpusError, match="max_document_share is 0"):
        DocstringDocuments(max_document_share=0)
    with pytest.raises(CorpusError, match="'no_such_thing' is not installed"):
        DocstringDocuments(["no_such_thing"])
    with pytest.raises(CorpusError, match=r"none of \d words is in at least 33"):
        DocstringDocuments(list(packages), min_documents=33)
    with pytest.raises(CorpusError, match=r"docstring-documents: no document for the train split"):
        DocstringDocuments(list(packages), min_words=1000)
