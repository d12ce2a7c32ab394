"""Tags beside the words: in splits, in batches, and as treebanks give them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_nlp.data import CorpusError, TextCorpus, TextSplit, Treebank
from pyro_nlp.data.text import Sentence

Write = Callable[[str, str | bytes], Path]

SENTENCES, TAGS = [[4, 5, 6], [7], [], [8, 9]], [[0, 1, 0], [2], [], [1, 1]]


def rows(*sentences: str) -> str:
    """CoNLL-U of sentences whose words are written form/UPOS/XPOS."""
    text = ""
    for sentence in sentences:
        for i, word in enumerate(sentence.split(), 1):
            form, upos, xpos = word.split("/")
            text += f"{i}\t{form}\t{form}\t{upos}\t{xpos}" + "\t_" * 5 + "\n"
        text += "\n"
    return text


def bank(write: Write, tmp_path: Path, **options: object) -> Treebank:
    write("x-train.conllu", rows("The/DET/DT dog/NOUN/NN barks/VERB/VBZ", "Dogs/NOUN/NNS bark/VERB/VBP"))
    write("x-dev.conllu", rows("A/DET/DT dog/NOUN/NN"))
    write("x-test.conllu", rows("Oh/INTJ/UH"))
    return Treebank(str(tmp_path), **options)  # type: ignore[arg-type]


def test_a_batch_has_a_tag_for_every_word_and_none_for_end_and_padding() -> None:
    batch = TextSplit.from_sentences(SENTENCES, tags=TAGS).batch(np.array([3, 0, 2]))
    assert batch.tags is not None and batch.tags.dtype == torch.int64
    assert batch.tags.tolist() == [[1, 1, -1, -1], [0, 1, 0, -1], [-1] * 4]
    assert batch.tags.shape == batch.targets.shape
    assert batch.to("cpu").tags is not None
    assert TextSplit.from_sentences(SENTENCES).batch(np.array([0])).tags is None


def test_only_empty_sentences_have_no_tags() -> None:
    batch = TextSplit.from_sentences([[], []], tags=[[], []]).batch(np.array([1, 0]))
    assert batch.tags is not None and batch.tags.tolist() == [[-1], [-1]]


def test_taking_sentences_takes_their_tags() -> None:
    split = TextSplit.from_sentences(SENTENCES, tags=TAGS).take(np.array([3, 2, 0]))
    assert split.tags is not None and split.tags.tolist() == [1, 1, 0, 1, 0]


def test_tags_that_do_not_fit_the_words_are_refused() -> None:
    with pytest.raises(ValueError, match="1 tags for 2 tokens"):
        TextSplit(np.zeros(2, np.int32), np.array([0, 2]), tags=np.zeros(1))
    with pytest.raises(ValueError, match="sentence 1 has 1 tokens and 2 tags"):
        TextSplit.from_sentences([[4], [5]], tags=[[0], [1, 1]])


def test_a_treebank_keeps_the_tags_that_are_asked_for(write: Write, tmp_path: Path) -> None:
    corpus = bank(write, tmp_path, tags="upos", lowercase=True)
    assert corpus.tags == ("DET", "INTJ", "NOUN", "VERB")
    assert corpus.train.tags is not None and corpus.test.tags is not None
    assert [corpus.tags[i] for i in corpus.train.tags] == ["DET", "NOUN", "VERB", "NOUN", "VERB"]
    assert [corpus.tags[i] for i in corpus.test.tags] == ["INTJ"]
    own = bank(write, tmp_path, tags="xpos")
    assert own.train.tags is not None
    assert [own.tags[i] for i in own.train.tags] == ["DT", "NN", "VBZ", "NNS", "VBP"]


def test_tags_change_neither_the_words_nor_the_fingerprint_of_a_corpus_without_them(
    write: Write, tmp_path: Path
) -> None:
    plain, upos, xpos = (bank(write, tmp_path, tags=tags) for tags in (None, "upos", "xpos"))
    assert plain.fingerprint == "4e20710ada697e75", "as it was before there were tags"
    assert len({c.fingerprint for c in (plain, upos, xpos)}) == 3
    assert plain.tags == () and plain.train.tags is None
    assert plain.vocabulary == upos.vocabulary and plain.train.words(0) == upos.train.words(0)


def test_a_sentence_that_is_cut_loses_the_tags_of_what_is_cut(write: Write, tmp_path: Path) -> None:
    corpus = bank(write, tmp_path, tags="upos", max_length=1, overlong="truncate")
    assert corpus.train.tags is not None and [corpus.tags[i] for i in corpus.train.tags] == ["DET", "NOUN"]
    assert corpus.truncated == 3


def test_unknown_tags_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="tags 'deprel' are unknown; give upos, xpos or null"):
        bank(write, tmp_path, tags="deprel")


def test_tags_are_not_written_to_a_store(tmp_path: Path) -> None:
    class Own(TextCorpus):
        def __init__(self) -> None:
            self.name, self.reference = "own", "made up"
            self.build([Sentence(["a"], tags=["X"])], tagged=True, store=tmp_path / "store")

    with pytest.raises(ValueError, match="tags and texts are kept in memory"):
        Own()


def test_the_published_treebank_has_seventeen_universal_tags(published: Callable[[str], str]) -> None:
    corpus = Treebank(published("ud_ewt"), tags="upos")
    assert len(corpus.tags) == 17 and corpus.train.tags is not None
    assert len(corpus.train.tags) == corpus.train.tokens - len(corpus.train) == 204_577
    batch = corpus.train.batch(np.array([0]))
    assert batch.tags is not None
    found = list(zip(corpus.vocabulary.decode(batch.targets[0]), batch.tags[0].tolist(), strict=False))
    assert [(w, corpus.tags[t]) for w, t in found[:4]] == [
        ("Al", "PROPN"),
        ("-", "PUNCT"),
        ("Zaman", "PROPN"),
        (":", "PUNCT"),
    ]
