"""Bags of words: the sparse store, its batches, and the halves for document completion."""

import hashlib
import re
import time
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_nlp.data import CountBatch, CountSplit, plan

TABLE = np.array([[0, 2, 0, 1], [0, 0, 0, 0], [3, 0, 0, 0], [1, 1, 1, 5], [0, 0, 1, 0]])
"""Five documents of four words, one empty and one of a single token."""


def split_of(table: np.ndarray, labels: np.ndarray | None = None) -> CountSplit:
    documents, words = np.nonzero(table)
    return CountSplit.from_pairs(documents, words, table[documents, words], *table.shape, labels)


def random_table(documents: int, words: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.3, 1.0, (documents, words)))


def fingerprint(split: CountSplit) -> str:
    hasher: Any = hashlib.sha256()
    split.feed(hasher)
    return str(hasher.hexdigest())


def test_a_batch_holds_the_counts_with_their_zeros() -> None:
    split = split_of(TABLE, np.array([0, 1, -1, 0, 1]))
    batch = split.batch(np.array([3, 1, 0]))
    assert isinstance(batch, CountBatch) and batch.counts.dtype == torch.float32
    assert torch.equal(batch.counts, torch.tensor(TABLE[[3, 1, 0]], dtype=torch.float32))
    assert batch.index.tolist() == [3, 1, 0] and batch.population == 5 and batch.scale == 5 / 3
    assert batch.labels is not None and batch.labels.tolist() == [0, 1, 0] and batch.labels.dtype == torch.int64
    assert split_of(TABLE).batch(np.array([0])).labels is None


def test_batches_equal_the_dense_table_on_random_counts() -> None:
    table = random_table(150, 40)
    split = split_of(table)
    rng = np.random.default_rng(1)
    for _ in range(50):
        rows = rng.integers(0, 150, rng.integers(0, 20))  # also none, and the same one twice
        assert np.array_equal(split.batch(rows).counts.numpy(), table[rows])


def test_the_plate_of_a_batch_scales_to_the_population() -> None:
    batch = split_of(TABLE).batch(np.array([0, 3]))

    def model() -> None:
        with batch.documents():
            pyro.sample("x", dist.Poisson(1.0 + batch.counts).to_event(1), obs=batch.counts)

    assert poutine.trace(model).get_trace().nodes["x"]["scale"] == 5 / 2


def test_sizes_and_tokens_count_the_tokens_and_no_end() -> None:
    split = split_of(TABLE)
    assert split.sizes.tolist() == TABLE.sum(1).tolist() == [3, 0, 3, 8, 1]
    assert split.tokens == 15 and len(split) == 5


def test_an_epoch_visits_every_document_once_in_an_order_without_trace_of_the_corpus() -> None:
    split = split_of(random_table(1000, 3))
    assert split.lengths.tolist() == [1] * 1000
    first, second = (np.concatenate(plan(split.lengths, 50, seed=0, epoch=e)) for e in (0, 1))
    assert sorted(first.tolist()) == list(range(1000)) and not np.array_equal(first, second)
    # rank correlation with the order of the corpus: mean 0, standard deviation 1 / sqrt(N - 1)
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 4 / 999**0.5
    unshuffled = plan(split.lengths, 50, seed=0, epoch=0, shuffle=False)
    assert np.concatenate(unshuffled).tolist() == list(range(1000))


def test_take_keeps_the_rows_and_changes_the_population() -> None:
    split = split_of(TABLE, np.arange(5)).take(np.array([3, 1, 0]))
    assert np.array_equal(split.batch(np.arange(3)).counts.numpy(), TABLE[[3, 1, 0]])
    assert split.batch(np.array([0])).population == 3
    assert split.labels is not None and split.labels.tolist() == [3, 1, 0]
    assert len(split.take(np.array([], np.int64))) == 0


def test_recode_moves_words_and_leaves_out_those_without_a_new_id() -> None:
    split = split_of(TABLE, np.arange(5)).recode(np.array([1, -1, 0, 1]), 2)
    assert np.array_equal(split.batch(np.arange(5)).counts.numpy(), np.stack([TABLE[:, 2], TABLE[:, [0, 3]].sum(1)], 1))
    assert split.labels is not None and split.labels.tolist() == [0, 1, 2, 3, 4]


def test_pairs_in_any_order_and_in_parts_make_the_same_split() -> None:
    documents, words = np.nonzero(TABLE)
    tokens = np.repeat(np.arange(len(words)), TABLE[documents, words])
    order = np.random.default_rng(0).permutation(tokens)
    again = CountSplit.from_pairs(documents[order], words[order], None, 5, 4)
    assert fingerprint(again) == fingerprint(split_of(TABLE))


def test_the_fingerprint_changes_with_counts_words_documents_and_labels() -> None:
    more, moved = TABLE.copy(), TABLE.copy()
    more[0, 1], moved[4] = 3, [0, 1, 0, 0]
    splits = [split_of(TABLE), split_of(more), split_of(moved), split_of(TABLE[[0, 2, 1, 3, 4]])]
    splits += [split_of(TABLE, np.zeros(5)), split_of(TABLE, np.ones(5))]
    assert len({fingerprint(split) for split in splits}) == 6


def test_halves_add_up_to_the_documents_and_differ_by_the_odd_token() -> None:
    table = random_table(200, 30)
    seen, held_out, rows, excluded = split_of(table, np.arange(200)).halves(seed=3)
    assert rows.tolist() == np.flatnonzero(table.sum(1) >= 2).tolist() and excluded == 200 - len(rows) > 0
    both = seen.batch(np.arange(len(rows))).counts + held_out.batch(np.arange(len(rows))).counts
    assert np.array_equal(both.numpy(), table[rows])
    assert np.array_equal(seen.sizes - held_out.sizes, table[rows].sum(1) % 2)
    assert held_out.sizes.min() >= 1 and seen.labels is not None and seen.labels.tolist() == rows.tolist()


def test_a_document_of_one_token_has_no_completion_and_is_counted() -> None:
    halves = split_of(TABLE).halves()
    assert halves.rows.tolist() == [0, 2, 3] and halves.excluded == 2
    assert halves.seen.batch(np.array([1])).population == 3
    alone = split_of(TABLE[[1, 4]]).halves()
    assert len(alone.seen) == len(alone.held_out) == 0 and alone.excluded == 2


def test_halves_are_a_function_of_the_seed() -> None:
    split = split_of(random_table(50, 30))
    marks = [fingerprint(split.halves(seed).seen) for seed in (0, 0, 1)]
    assert marks[0] == marks[1] != marks[2]


def test_tokens_fall_into_the_halves_as_drawn_without_replacement() -> None:
    copies, (a, b) = 2000, (6, 4)
    seen = split_of(np.tile([[a, b]], (copies, 1))).halves().seen.batch(np.arange(copies)).counts[:, 0]
    # hypergeometric: n = 5 of N = 10, of which K = 6
    mean, variance = 5 * a / 10, 5 * (a / 10) * (b / 10) * (10 - 5) / (10 - 1)
    assert float(seen.mean()) == pytest.approx(mean, abs=4 * (variance / copies) ** 0.5)
    # the distribution has lighter tails than a normal, whose variance is known to within variance * sqrt(2 / (n - 1))
    assert float(seen.var()) == pytest.approx(variance, abs=4 * variance * (2 / (copies - 1)) ** 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": [0, 1, 3]}, "offsets go from [0] to [3]; there are 2 words"),
        ({"offsets": [1, 1, 2]}, "offsets go from [1] to [2]"),
        ({"offsets": []}, "offsets go from [] to []"),
        ({"offsets": [0, 2, 1, 2]}, "offsets fall"),
        ({"counts": [1]}, "1 counts for 2 words"),
        ({"words": [0, 4]}, "word ids go from 0 to 4; with 4 words they are 0 to 3"),
        ({"words": [-1, 1]}, "word ids go from -1 to 1"),
        ({"words": [2, 2]}, "must ascend, each once"),
        ({"words": [2, 1]}, "must ascend, each once"),
        ({"counts": [1, 0]}, "counts go from 0 to 1"),
        ({"counts": [1, 2**24 + 1]}, "counts go from 1 to 16777217"),
        ({"labels": [0, 1]}, "2 labels for 1 documents"),
    ],
)
def test_inconsistent_arrays_are_refused(change: dict[str, list[int]], message: str) -> None:
    arrays = {"offsets": [0, 2], "words": [1, 2], "counts": [1, 1]}
    CountSplit(**{name: np.array(value) for name, value in arrays.items()}, vocabulary=4)
    with pytest.raises(ValueError, match=re.escape(message)):
        CountSplit(**{name: np.array(value) for name, value in (arrays | change).items()}, vocabulary=4)


def test_pairs_that_no_store_can_hold_are_refused() -> None:
    one = np.array([0])
    with pytest.raises(ValueError, match="ids go from 4 to 4; there are 4 words"):
        CountSplit.from_pairs(one, one + 4, None, 1, 4)  # it would be word 0 of the next document
    with pytest.raises(ValueError, match="occurs 16777217 times"):
        CountSplit.from_pairs(np.array([0, 0]), np.array([1, 1]), np.array([2**24, 1]), 1, 4)


def test_a_batch_of_200_documents_of_2000_words_costs_well_under_a_millisecond() -> None:
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(2000), 60)
    split = CountSplit.from_pairs(documents, rng.integers(0, 2000, len(documents)), None, 2000, 2000)
    rows = [np.arange(i, i + 200) for i in range(0, 2000, 200)]
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        for r in rows:  # each is let go before the next, as in training: new memory would cost more than the counts
            batch = split.batch(r)
        best = min(best, (time.perf_counter() - start) / len(rows))
    assert batch.counts.shape == (200, 2000)
    assert best < 1e-3, f"{best * 1e6:.0f} microseconds a batch; measured 70 when written"
