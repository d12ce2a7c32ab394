import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_nlp.data import BOS, EOS, PAD, TextBatch, TextSplit, VectorBatch, VectorSplit
from pyro_nlp.data.store import SplitWriter, StoreBuilder, open_split, read_meta

SENTENCES = [[4, 5, 6], [7], [], [8, 9, 10, 11], [5, 5]]


def naive(sentences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    time = max(map(len, sentences)) + 1
    inputs = [[BOS, *s] + [PAD] * (time - len(s) - 1) for s in sentences]
    targets = [[*s, EOS] + [PAD] * (time - len(s) - 1) for s in sentences]
    mask = [[True] * (len(s) + 1) + [False] * (time - len(s) - 1) for s in sentences]
    return torch.tensor(inputs), torch.tensor(targets), torch.tensor(mask)


def random_sentences(count: int, longest: int = 30) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(4, 100, n).tolist() for n in rng.integers(0, longest, count)]


def test_a_batch_is_right_padded_with_the_end_of_sentence_in_targets_only() -> None:
    split = TextSplit.from_sentences(SENTENCES, labels=[0, 1, -1, 0, 1])
    batch = split.batch(np.array([3, 1, 2]))
    for got, wanted in zip(
        (batch.inputs, batch.targets, batch.mask), naive([SENTENCES[i] for i in (3, 1, 2)]), strict=True
    ):
        assert torch.equal(got, wanted)
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64
    assert batch.index.tolist() == [3, 1, 2] and batch.population == 5
    assert batch.labels is not None and batch.labels.tolist() == [0, 1, -1]
    assert batch.lengths.tolist() == split.lengths[[3, 1, 2]].tolist() == [5, 2, 1]


def test_batches_equal_a_loop_on_random_sentences() -> None:
    sentences = random_sentences(200)
    split = TextSplit.from_sentences(sentences)
    rng = np.random.default_rng(1)
    for _ in range(50):
        rows = rng.choice(200, size=rng.integers(1, 20), replace=False)
        batch = split.batch(rows)
        wanted = naive([sentences[i] for i in rows])
        assert all(map(torch.equal, (batch.inputs, batch.targets, batch.mask), wanted))
        assert batch.labels is None


def test_tokens_count_every_end_of_sentence() -> None:
    split = TextSplit.from_sentences(SENTENCES)
    assert split.tokens == sum(split.lengths) == 10 + 5
    assert [split.words(i) for i in range(len(split))] == SENTENCES and split.words(-1) == [5, 5]
    with pytest.raises(IndexError):
        split.words(5)


def test_only_empty_sentences_make_a_batch_too() -> None:
    batch = TextSplit.from_sentences([[], []]).batch(np.array([1, 0]))
    assert batch.targets.tolist() == [[EOS], [EOS]] and batch.inputs.tolist() == [[BOS], [BOS]]


def test_take_keeps_the_rows_and_changes_the_population() -> None:
    split = TextSplit.from_sentences(SENTENCES, labels=[0, 1, 2, 3, 4]).take(np.array([3, 2, 0]))
    assert [split.words(i) for i in range(3)] == [SENTENCES[3], SENTENCES[2], SENTENCES[0]]
    assert split.batch(np.array([0])).population == 3
    assert split.labels is not None and split.labels.tolist() == [3, 2, 0]


def test_inconsistent_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="2 tokens"):
        TextSplit(np.zeros(2, np.int32), np.array([0, 1]))
    with pytest.raises(ValueError, match="1 labels for 2 sentences"):
        TextSplit(np.zeros(2, np.int32), np.array([0, 1, 2]), np.zeros(1))


def written(folder: Path | None, sentences: list[list[int]]) -> SplitWriter:
    writer = SplitWriter("train", folder, labelled=True)
    for i, sentence in enumerate(sentences):
        writer.add(sentence, i % 3 - 1)
    writer.close()
    return writer


def test_the_memory_mapped_store_equals_the_one_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_nlp.data.store._FLUSH", 64)  # many pieces
    sentences = random_sentences(300)
    table = np.random.default_rng(2).permutation(100).astype(np.int32)
    builder = StoreBuilder(tmp_path / "store")
    writers = written(None, sentences), written(builder.folder, sentences)
    assert np.array_equal(writers[0].counts(100), writers[1].counts(100))
    for writer in writers:
        writer.recode("tokens", table)
    builder.commit({"words": []})
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    memory, mapped = writers[0].split(), open_split(tmp_path / "store", "train")
    assert isinstance(mapped._tokens.base, np.memmap)
    rows = np.arange(0, 300, 7)
    assert np.array_equal(memory.lengths, mapped.lengths)
    for field in ("inputs", "targets", "mask", "labels"):
        assert torch.equal(getattr(memory.batch(rows), field), getattr(mapped.batch(rows), field))
    assert mapped.words(1) == table[sentences[1]].tolist()


def test_a_damaged_store_is_not_complete_and_is_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        builder = StoreBuilder(tmp_path / "store")
        written(builder.folder, SENTENCES)
        builder.commit({})
        assert read_meta(tmp_path / "store") is not None
        with (tmp_path / "store" / "train.tokens").open("ab") as stream:
            stream.write(b"more")
        assert read_meta(tmp_path / "store") is None
    assert len(list(tmp_path.iterdir())) == 1


def test_vectors_make_batches() -> None:
    split = VectorSplit(np.arange(10.0).reshape(5, 2))
    batch = split.batch(np.array([4, 0]))
    assert isinstance(batch, VectorBatch) and batch.values.tolist() == [[8.0, 9.0], [0.0, 1.0]]
    assert batch.population == 5 and split.lengths.tolist() == [1] * 5
    assert split.take(np.array([1])).batch(np.array([0])).population == 1
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        VectorSplit(np.zeros(3))


def test_a_batch_of_32_sentences_costs_well_under_a_millisecond() -> None:
    split = TextSplit.from_sentences(random_sentences(2000))
    rows = [np.arange(i, i + 32) for i in range(0, 1900, 32)]
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        batches = [split.batch(r) for r in rows]
        best = min(best, (time.perf_counter() - start) / len(rows))
    assert isinstance(batches[0], TextBatch)
    assert best < 1e-3, f"{best * 1e6:.0f} microseconds a batch; measured 50 when written"
