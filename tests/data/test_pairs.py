"""Pairs of texts: each first text once, whatever rows are taken; what a stream of pairs is refused for."""

import hashlib
import pickle
from collections.abc import Iterable

import numpy as np
import pytest
import torch

from pyro_nlp.data import UNK, CorpusError, Pair, PairCorpus, PairSplit, TextSplit, plan

FIRST = TextSplit.from_sentences([[4], [5, 6], [7, 8, 9]])
SECOND = TextSplit.from_sentences([[10], [11, 12], [13], [14, 15, 16], [17]])
GROUP, LABELS = np.array([1, 0, 1, 2, 1]), np.array([0, 1, 1, 0, 0])


class Given(PairCorpus):
    """Pairs handed over."""

    name, reference = "given", "this test"

    def __init__(self, pairs: Iterable[Pair], **options: object):
        self.build(pairs, **options)  # type: ignore[arg-type]


def pairs(*texts: str, labels: Iterable[int | None] = (), split: int = 0, group: str = "q") -> list[Pair]:
    """`first | second` of one group."""
    found = [(*map(str.split, text.split("|")),) for text in texts]
    given = [*labels, *[None] * len(found)]
    return [Pair(a, b, split, group, given[i], "t.tsv", i + 1) for i, (a, b) in enumerate(found)]


REST = [*pairs("q|a", split=1), *pairs("q|a", split=2)]
JUDGED = [p._replace(label=1) for p in REST]


def words(corpus: PairCorpus, split: PairSplit, row: int) -> tuple[str, str]:
    first, second = split.first.words(int(split.group[row])), split.second.words(row)
    return " ".join(corpus.vocabulary.decode(first)), " ".join(corpus.vocabulary.decode(second))


def mark(split: PairSplit) -> str:
    hasher = hashlib.sha256()
    split.feed(hasher)
    return hasher.hexdigest()


def test_a_batch_holds_each_first_text_once_and_says_whose_pair_is_whose() -> None:
    split = PairSplit(FIRST, SECOND, GROUP, LABELS)
    batch = split.batch(np.array([4, 3, 0]))
    assert batch.index.tolist() == [4, 3, 0] and batch.population == 5 and len(batch) == 3
    assert batch.first.index.tolist() == [1, 2] and batch.first.population == 3
    assert batch.group.tolist() == [0, 1, 0] and batch.labels is not None and batch.labels.tolist() == [0, 0, 0]
    assert batch.second.targets[:, 0].tolist() == [17, 14, 10]
    assert batch.first.targets[batch.group, 0].tolist() == [5, 7, 5]
    assert batch.words == 1 + 3 + 1 and batch.scale == pytest.approx(5 / 3)
    assert PairSplit(FIRST, SECOND, GROUP).batch(np.array([0])).labels is None


def test_a_batch_moves_with_the_texts_in_it() -> None:
    moved = PairSplit(FIRST, SECOND, GROUP, LABELS).batch(np.arange(5)).to("meta")
    tensors = (moved.index, moved.group, moved.first.targets, moved.second.mask)
    assert all(tensor.device.type == "meta" for tensor in tensors)


def test_pairs_are_planned_by_the_length_of_their_second_text() -> None:
    split = PairSplit(FIRST, SECOND, GROUP)
    assert split.lengths.tolist() == [2, 3, 2, 4, 2] and split.tokens == 8 + 5
    assert sorted(int(i) for rows in plan(split.lengths, 2, seed=0, epoch=0) for i in rows) == [0, 1, 2, 3, 4]


def test_taken_pairs_leave_out_the_first_texts_that_none_of_them_has() -> None:
    split = PairSplit(FIRST, SECOND, GROUP, LABELS)
    taken = split.take(np.array([3, 0, 2]))
    assert len(taken) == 3 and len(taken.first) == 2 and taken.labels is not None
    assert taken.group.tolist() == [1, 0, 0] and taken.labels.tolist() == [0, 0, 1]
    assert taken.first.words(1) == [7, 8, 9] and taken.second.words(0) == [14, 15, 16]
    assert split.of_groups(np.array([1])).tolist() == [0, 2, 4]
    whole = split.take(np.arange(5))
    assert mark(whole) == mark(split)
    assert torch.equal(taken.batch(np.array([2])).second.targets, split.batch(np.array([2])).second.targets)


def test_a_question_can_be_judged_where_it_has_a_right_answer() -> None:
    assert PairSplit(FIRST, SECOND, GROUP, LABELS).answered.tolist() == [0, 1]
    assert PairSplit(FIRST, SECOND, GROUP).answered.tolist() == []


def test_the_fingerprint_changes_with_labels_groups_and_either_text() -> None:
    other = TextSplit.from_sentences([[4], [5, 6], [7, 8, 10]])
    other_second = TextSplit.from_sentences([[10], [11, 12], [13], [14, 15, 16], [18]])
    made = [
        PairSplit(FIRST, SECOND, GROUP, LABELS),
        PairSplit(FIRST, SECOND, GROUP),
        PairSplit(FIRST, SECOND, GROUP, 1 - LABELS),
        PairSplit(FIRST, SECOND, GROUP[::-1], LABELS),
        PairSplit(other, SECOND, GROUP, LABELS),
        PairSplit(FIRST, other_second, GROUP, LABELS),
    ]
    assert len({mark(split) for split in made}) == len(made)


@pytest.mark.parametrize(
    ("group", "labels", "message"),
    [
        (GROUP[:4], None, "4 groups for 5 second texts"),
        (GROUP + 1, None, "groups go from 1 to 3; there are 3 first texts"),
        (GROUP, LABELS[:2], "2 labels for 5 pairs"),
    ],
)
def test_parts_that_do_not_fit_are_refused(group: np.ndarray, labels: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairSplit(FIRST, SECOND, group, labels)


def test_a_stream_of_pairs_becomes_a_corpus_with_each_first_text_once() -> None:
    train = [*pairs("who|it is me", "who|you", labels=[1, 0]), *pairs("who|nobody", labels=[0], group="other")]
    valid = pairs("who|new words", split=1, labels=[None])
    corpus = Given([train[0], train[2], train[1], *valid, JUDGED[1]], labelled=True)
    assert corpus.labels == ("wrong", "right") and corpus.train.labels is not None and corpus.valid.labels is not None
    # two groups may have the same text, and are two questions
    assert len(corpus.train.first) == 2 and corpus.train.group.tolist() == [0, 1, 0]
    assert corpus.train.labels.tolist() == [1, 0, 0] and corpus.valid.labels.tolist() == [-1]
    assert [words(corpus, corpus.train, i) for i in range(3)] == [
        ("who", "it is me"),
        ("who", "nobody"),
        ("who", "you"),
    ]
    assert corpus.valid.second.words(0) == [UNK, UNK]
    assert pickle.loads(pickle.dumps(corpus)).fingerprint == corpus.fingerprint


def test_the_vocabulary_counts_a_text_once_however_many_pairs_it_stands_in() -> None:
    train = [*pairs("rare name|common", "rare name|common common"), *pairs("x|common common", "x|x", group="r")]
    corpus = Given([*train, *REST], min_count=2)
    assert corpus.vocabulary.words[4:] == ("common", "x") and corpus.labels == () and corpus.train.labels is None
    assert len(Given([*train, *REST], max_size=5).vocabulary) == 5


def test_overlong_second_texts_are_cut_or_left_out_and_counted() -> None:
    train = [*pairs("a b c|d d d", "a b c|e"), *pairs("only|d d d", group="r"), *REST]
    cut = Given(train, max_length=2, overlong="truncate")
    assert cut.train.lengths.tolist() == [3, 2, 3] and (cut.truncated, cut.dropped) == (2, 0)
    short = Given(train, max_length=2, overlong="drop")
    assert len(short.train) == 1 and (short.truncated, short.dropped) == (0, 2)
    # a question that lost its only candidate is gone; the length of first texts is not limited
    assert len(short.train.first) == 1 and words(short, short.train, 0) == ("a b c", "e")
    with pytest.raises(CorpusError, match=r"t\.tsv: line 1 has a second text of 3 words, the limit is 2; raise"):
        Given(train, max_length=2)


@pytest.mark.parametrize(
    ("stream", "labelled", "message"),
    [
        (pairs("a|b", "c|d"), False, "line 2: group 'q' has the first text 'c' here and 'a' before"),
        (pairs("a|b", "a|c", labels=[1]), True, "line 2 has no label; give every pair of train"),
        (pairs("a|b", labels=[1]), False, "line 1 has a label, and the corpus has none"),
        (pairs("a|b", labels=[2]), True, "line 1 has the label 2; give 1 for a right pair and 0"),
        (pairs("a|b", labels=[-1]), True, "line 1 has the label -1"),
        (pairs(" |b"), False, "line 1 has an empty first text; give"),
        (pairs("a| "), False, "line 1 has an empty second text; give"),
        ([], False, r"given: no pair for the train split \(found 2 in all\); give more"),
    ],
)
def test_a_bad_pair_ends_in_one_line(stream: list[Pair], labelled: bool, message: str) -> None:
    with pytest.raises(CorpusError, match=message) as error:
        Given([*stream, *(JUDGED if labelled else REST)], labelled=labelled)
    assert "\n" not in str(error.value)


def test_bad_limits_are_refused() -> None:
    for options, message in (({"min_count": 0}, "min_count is 0"), ({"overlong": "skip"}, "overlong is 'skip'")):
        with pytest.raises(CorpusError, match=message):
            Given(REST, **options)
