"""20 Newsgroups on the published files (where PYRO_NLP_DATA has them) and on small files of their own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_nlp.data import CorpusError, TwentyNews, WordList

Published = Callable[[str], str]


def test_nvdm_has_the_published_counts(published: Published) -> None:
    corpus = TwentyNews("nvdm", published("20news_nvdm"))
    assert [len(s) for s in (corpus.train, corpus.valid, corpus.test)] == [10_768, 500, 7_505]
    assert len(corpus.train) + len(corpus.valid) == 11_268 and len(corpus.vocabulary) == 2_000
    assert corpus.train.tokens + corpus.valid.tokens == 1_128_881 and corpus.test.tokens == 720_898
    assert corpus.dropped == 0 and corpus.vocabulary.words[:2] == ("who", "out")
    assert corpus.test.labels is not None and np.bincount(corpus.test.labels)[[0, 19]].tolist() == [318, 251]
    assert corpus.labels[0] == "alt.atheism" and len(corpus.labels) == 20


def test_the_newsgroups_are_named_in_the_order_of_the_labels(published: Published) -> None:
    corpus = TwentyNews("nvdm", published("20news_nvdm"))
    batch = corpus.train.batch(np.arange(len(corpus.train)))
    telling = {"rec.motorcycles": "bike", "sci.crypt": "clipper", "rec.sport.hockey": "hockey", "sci.med": "patients"}
    telling |= {"comp.windows.x": "motif", "misc.forsale": "sale", "sci.space": "orbit", "alt.atheism": "atheists"}
    assert batch.labels is not None
    for group, word in telling.items():
        count = batch.counts[:, corpus.vocabulary.words.index(word)]
        means = [float(count[batch.labels == i].mean()) for i in range(20)]
        assert corpus.labels[int(np.argmax(means))] == group


def test_prodlda_has_the_published_counts_and_says_what_is_left_out(published: Published) -> None:
    folder = published("20news_prodlda")
    with pytest.warns(UserWarning, match="1 of train, 1 of test .*train.feat: line 11259") as caught:
        corpus = TwentyNews("prodlda", folder)
    assert len(caught) == 1
    assert corpus.dropped_by_split == {"train": 1, "valid": 0, "test": 1} and corpus.dropped == 2
    assert len(corpus.train) + len(corpus.valid) + 1 == 11_259 and len(corpus.test) + 1 == 7_488
    assert corpus.train.tokens + corpus.valid.tokens == 991_493 and corpus.test.tokens == 629_312
    assert len(corpus.vocabulary) == 1_995 and corpus.labels == () and corpus.train.labels is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty training and three test documents, document i of train with word i % 5 + 1 times i + 1."""
    (tmp_path / "vocab.new").write_text("".join(f"word{i} {9 - i}\n" for i in range(5)))
    (tmp_path / "train.feat").write_text("".join(f"{i + 1} {i % 5 + 1}:{i + 1} \n" for i in range(20)))
    (tmp_path / "test.feat").write_text("1 1:1\n20 2:1\n3 5:1 4:2\n")
    return tmp_path


def test_validation_documents_are_training_documents_chosen_by_the_seed(folder: Path) -> None:
    corpora = [TwentyNews(path=str(folder), valid=5, seed=seed) for seed in (0, 0, 1)]
    sizes = [(c.train.sizes.tolist(), c.valid.sizes.tolist()) for c in corpora]
    assert sizes[0] == sizes[1] != sizes[2]
    for corpus, (train, valid) in zip(corpora, sizes, strict=True):
        assert sorted(train + valid) == list(range(1, 21)) and len(valid) == 5
        assert train == sorted(train) and valid == sorted(valid)
        assert corpus.test.sizes.tolist() == [1, 1, 3]
        assert corpus.valid.labels is not None and corpus.valid.labels.tolist() == [size - 1 for size in valid]
    assert corpora[0].vocabulary == WordList(f"word{i}" for i in range(5))
    assert corpora[0].fingerprint == corpora[1].fingerprint != corpora[2].fingerprint


def test_bad_arguments_and_files_are_one_line_with_the_cure(folder: Path) -> None:
    with pytest.raises(CorpusError, match="preparation 'lda' is unknown; give nvdm or prodlda"):
        TwentyNews("lda", str(folder))  # type: ignore[arg-type]
    for valid in (0, 20):
        with pytest.raises(CorpusError, match=rf"valid is {valid}; of the 20 training documents .* give 1 to 19"):
            TwentyNews(path=str(folder), valid=valid)
    (folder / "test.feat").write_text("1 1:1\n21 2:1\n")
    with pytest.raises(CorpusError, match=r"test\.feat: line 2 has the label '21', and these are 1 to 20"):
        TwentyNews(path=str(folder), valid=5)
    (folder / "test.feat").write_text("1\n")
    message = r"no document for the test split \(found 20 in all\)"
    with pytest.warns(UserWarning, match="1 of test"), pytest.raises(CorpusError, match=message):
        TwentyNews(path=str(folder), valid=5)
    (folder / "vocab.new").unlink()
    with pytest.raises(CorpusError, match=r"vocab\.new: No such file"):
        TwentyNews(path=str(folder), valid=5)
