from itertools import pairwise

import numpy as np
import pytest

from pyro_nlp.data import plan, shard

LENGTHS = np.random.default_rng(0).integers(1, 60, 1003)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("size", [1, 7, 32, 1003, 5000])
def test_every_sentence_is_visited_once_in_batches_of_nearly_equal_size(size: int, shuffle: bool) -> None:
    batches = plan(LENGTHS, size, seed=0, epoch=0, shuffle=shuffle)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1003))
    sizes = {len(b) for b in batches}
    assert max(sizes) <= size and max(sizes) - min(sizes) <= 1
    assert len(batches) == -(-1003 // size)


def test_the_plan_is_a_function_of_seed_and_epoch() -> None:
    def flat(seed: int, epoch: int) -> list[int]:
        return np.concatenate(plan(LENGTHS, 32, seed=seed, epoch=epoch)).tolist()

    assert flat(3, 5) == flat(3, 5)
    assert len({tuple(flat(s, e)) for s in range(3) for e in range(3)}) == 9


def test_batches_hold_like_lengths_and_mix_between_epochs() -> None:
    first, second = (plan(LENGTHS, 32, seed=0, epoch=e) for e in range(2))
    spread = [np.ptp(LENGTHS[b]) / LENGTHS[b].mean() for b in first]
    assert np.median(spread) < 0.3
    pairs = [{frozenset(p) for b in batches for p in pairwise(b)} for batches in (first, second)]
    assert len(pairs[0] & pairs[1]) < 0.2 * len(pairs[0])
    means = [LENGTHS[b].mean() for b in first]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.6  # not from short to long


def test_evaluation_order_is_by_length_with_ties_in_corpus_order() -> None:
    rows = np.concatenate(plan(LENGTHS, 32, seed=0, epoch=0, shuffle=False))
    assert rows.tolist() == sorted(range(1003), key=lambda i: (LENGTHS[i], i))


def test_no_sentences_make_no_batches_and_size_zero_is_refused() -> None:
    assert plan(np.array([], dtype=int), 32, seed=0, epoch=0) == []
    with pytest.raises(ValueError, match="batch_size is 0"):
        plan(LENGTHS, 0, seed=0, epoch=0)


def test_shards_partition_each_batch_evenly() -> None:
    for rows in plan(LENGTHS, 32, seed=0, epoch=0):
        shards = [shard(rows, rank, 3) for rank in range(3)]
        assert sorted(np.concatenate(shards).tolist()) == sorted(rows.tolist())
        assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert shard(rows, 0, 1).tolist() == rows.tolist()


def test_a_batch_too_small_to_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 2 cannot be divided between 3 processes"):
        shard(np.arange(2), 0, 3)
    with pytest.raises(ValueError, match="rank 3"):
        shard(np.arange(9), 3, 3)
