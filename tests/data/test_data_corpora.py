"""The readers on the published files (where PYRO_NLP_DATA has them) and on small files of their own."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_nlp.data import (
    PTB,
    UNK,
    CorpusError,
    HuggingFace,
    LabelledLines,
    Ring,
    TextFile,
    Treebank,
    VectorSplit,
    plan,
)
from pyro_nlp.data import text_files as text_files_module

Published = Callable[[str], str]
Write = Callable[[str, str | bytes], Path]

LINES = "".join(f"The {animal} eats x{i}.\n" for i in range(60) for animal in ("cat", "dog"))


def test_ptb_has_the_published_counts_and_perplexity_arithmetic(published: Published) -> None:
    corpus = PTB(published("ptb"))
    splits = (corpus.train, corpus.valid, corpus.test)
    assert [len(s) for s in splits] == [42_068, 3_370, 3_761]
    assert [s.tokens - len(s) for s in splits] == [887_521, 70_390, 78_669]
    assert corpus.test.tokens / len(corpus.test) == pytest.approx(21.917, abs=5e-4)
    # 9,998 words, and `<unk>`, `</s>`, `<s>`, `<pad>`; nothing of valid or test is new
    assert len(corpus.vocabulary) == 10_002 and corpus.vocabulary.words[4:6] == ("the", "N")
    first = ["no", "it", "was", "n't", "black", "monday"]
    assert corpus.vocabulary.decode(corpus.test.words(0)) == first
    assert UNK in corpus.train.words(1)
    assert corpus.labels == () and corpus.versions == {} and corpus.dropped == 0


def test_ptb_batches_are_at_least_95_percent_words(published: Published) -> None:
    split = PTB(published("ptb")).train
    batches = [split.batch(rows) for rows in plan(split.lengths, 32, seed=0, epoch=0)]
    density = sum(int(b.mask.sum()) for b in batches) / sum(b.mask.numel() for b in batches)
    assert density >= 0.95


@pytest.mark.parametrize(
    ("name", "sentences", "words"),
    [
        ("ud_ewt", [12_544, 2_001, 2_077], [204_577, 25_147, 25_094]),
        ("ud_atis", [4_274, 572, 586], [48_655, 6_644, 6_580]),
    ],
)
def test_treebanks_have_the_published_counts(
    published: Published, name: str, sentences: list[int], words: list[int]
) -> None:
    corpus = Treebank(published(name))
    splits = (corpus.train, corpus.valid, corpus.test)
    assert [len(s) for s in splits] == sentences and [s.tokens - len(s) for s in splits] == words
    if name == "ud_atis":
        assert len(corpus.vocabulary) == 863 + 4
    tags = Treebank(published(name), column="upos")
    assert len(tags.vocabulary) <= 17 + 4 and "NOUN" in tags.vocabulary
    assert np.array_equal(tags.train.lengths, corpus.train.lengths)


def test_sst_lines_have_the_published_counts(published: Published) -> None:
    folder = published("sst")
    train, valid, test = (f"{folder}/stsa.binary.{split}" for split in ("train", "dev", "test"))
    corpus = LabelledLines(train, valid, test)
    assert [len(s) for s in (corpus.train, corpus.valid, corpus.test)] == [6_920, 872, 1_821]
    assert corpus.labels == ("0", "1") and corpus.train.labels is not None
    assert corpus.train.labels[:3].tolist() == [1, 0, 0]


def test_a_file_per_class_is_read_by_its_pattern(published: Published) -> None:
    corpus = LabelledLines(published("polarity") + "/rt-polarity.*")
    assert sum(len(s) for s in (corpus.train, corpus.valid, corpus.test)) == 2 * 5_331
    assert corpus.labels == ("neg", "pos") and corpus.name == "rt-polarity"


def test_a_path_is_looked_for_in_the_working_directory_and_then_in_the_data_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("mine.txt", LINES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYRO_NLP_DATA", "/nowhere")
    here = TextFile("mine.txt")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("PYRO_NLP_DATA", str(tmp_path))
    assert TextFile("mine.txt").fingerprint == here.fingerprint


def test_a_text_file_is_cut_by_hash_so_that_copies_stay_together(write: Write) -> None:
    once, twice = (TextFile(str(write(f"{n}.txt", LINES * n)), min_count=1) for n in (1, 2))
    assert 0.02 < len(once.test) / 120 < 0.25
    for split in ("train", "valid", "test"):
        kept = [
            {tuple(corpus.vocabulary.decode(s.words(i))) for i in range(len(s))}
            for corpus, s in ((c, getattr(c, split)) for c in (once, twice))
        ]
        assert kept[0] == kept[1]
    assert len(twice.test) == 2 * len(once.test)


def test_given_splits_are_kept_and_only_the_missing_one_is_cut(write: Write) -> None:
    path = str(write("a.txt", LINES))
    valid = str(write("b.txt", "the cat\n\n  \nthe dog eats\n"))
    corpus = TextFile(path, valid=valid)
    assert len(corpus.valid) == 2 and len(corpus.train) + len(corpus.test) == 120 and len(corpus.test) > 0
    whole = TextFile(path, valid=valid, test=valid)
    assert len(whole.train) == 120 and whole.vocabulary.words[4:6] == (".", "eats")


def test_a_large_file_is_memory_mapped_once_and_equals_the_one_in_memory(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("big.txt", LINES)
    memory = TextFile(str(path))
    monkeypatch.setattr(text_files_module, "MAP_ABOVE", 10)
    monkeypatch.setenv("PYRO_NLP_HOME", str(tmp_path / "home"))
    mapped = TextFile(str(path))
    assert mapped.fingerprint == memory.fingerprint and isinstance(mapped.train._tokens.base, np.memmap)
    with monkeypatch.context() as patch:
        patch.setattr(text_files_module, "read_lines", None)  # the second time the text is not read
        again = TextFile(str(path))
    assert again.fingerprint == memory.fingerprint and again.vocabulary == memory.vocabulary
    stores = tmp_path / "home" / "texts"
    assert len(list(stores.iterdir())) == 1
    os.utime(path, (1, 1))  # the text may have changed: it is read again
    assert TextFile(str(path)).fingerprint == memory.fingerprint and len(list(stores.iterdir())) == 2


def test_an_interrupted_build_leaves_nothing_behind(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files_module, "MAP_ABOVE", 10)
    monkeypatch.setenv("PYRO_NLP_HOME", str(tmp_path / "home"))
    with pytest.raises(CorpusError, match="line 121 has 3 words"):
        TextFile(str(write("bad.txt", LINES.replace(" ", "") + "one two three\n")), max_length=2)
    assert list((tmp_path / "home" / "texts").iterdir()) == []


def test_a_full_disk_ends_in_one_line_and_leaves_nothing_behind(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    path = write("big.txt", LINES * 20)
    monkeypatch.setattr(text_files_module, "MAP_ABOVE", 10)
    monkeypatch.setenv("PYRO_NLP_HOME", str(tmp_path / "home"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as if no more fitted on the disk
    try:
        with pytest.raises(CorpusError, match="cannot write the tokens .*PYRO_NLP_HOME"):
            TextFile(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "home" / "texts").iterdir()) == []


def test_the_fingerprint_is_stable_and_changes_with_the_content(write: Write) -> None:
    def mark(text: str, **options: int) -> str:
        return TextFile(str(write("text.txt", text)), **options).fingerprint  # type: ignore[arg-type]

    base = mark(LINES)
    assert base == mark(LINES) and len(base) == 16 and int(base, 16) >= 0
    assert len({base, mark(LINES.replace("dog", "cow")), mark(LINES[::-1]), mark(LINES, min_count=3)}) == 4


def test_special_forms_in_a_users_text_are_unknown_words(write: Write) -> None:
    lines = "".join(f"a{i} </s> <s> <pad> b\n" for i in range(60))
    corpus = TextFile(str(write("t.txt", lines)), tokeniser="whitespace", min_count=1)
    assert corpus.train.words(0)[1:4] == [UNK] * 3
    assert len(corpus.vocabulary) == 4 + 1 + len(corpus.train)


@pytest.mark.parametrize(("policy", "words", "dropped", "truncated"), [("drop", 3, 1, 0), ("truncate", 5, 0, 1)])
def test_overlong_sentences_are_dropped_or_cut_and_counted(
    write: Write, policy: str, words: int, dropped: int, truncated: int
) -> None:
    short = str(write("s.txt", "a b\n"))
    path = str(write("l.txt", "a b c\nd d d d d d\n"))
    corpus = TextFile(path, short, short, max_length=5, overlong=policy)  # type: ignore[arg-type]
    assert max(corpus.train.lengths) - 1 == words
    assert (corpus.dropped, corpus.truncated) == (dropped, truncated)


def test_labelled_lines_take_a_separator_and_sort_numbers_as_numbers(write: Write) -> None:
    text = "".join(f"{label}|a b c\n" for label in (10, 2, 1) for _ in range(30))
    path = str(write("l.txt", text))
    corpus = LabelledLines(path, path, path, separator="|")
    assert corpus.labels == ("1", "2", "10") and corpus.train.labels is not None
    assert corpus.train.labels[:2].tolist() == [2, 2] and corpus.train.labels[-1] == 0
    path = str(write("m.txt", "x\xe9 a\ny a\n".encode("latin-1")))
    latin = LabelledLines(path, path, path, encoding="latin-1")
    assert latin.labels == ("xé", "y")


CONLLU = "# text = It's\n1-2\tIt's{r}\n1\tIt{r}\n2\t's{r}\n2.1\tbe{r}\n\n1\tHi{r}\n".replace(
    "{r}", "\tlem\tX" + "\t_" * 6
)


def test_a_treebank_skips_ranges_and_empty_nodes(write: Write, tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        write(f"xx-ud-{split}.conllu", CONLLU)
    corpus = Treebank(str(tmp_path), lowercase=True)
    assert [corpus.vocabulary.decode(corpus.train.words(i)) for i in range(2)] == [["it", "'s"], ["hi"]]
    assert Treebank(str(tmp_path), column="upos").vocabulary.words[4:] == ("X",)


def test_the_ring_follows_its_density_and_its_seed() -> None:
    ring = Ring(4000, noise=0.0)
    assert [len(s) for s in (ring.train, ring.valid, ring.test)] == [4000, 800, 800]
    assert isinstance(ring.train, VectorSplit) and ring.vocabulary is None and ring.versions == {}
    # |x| = |z| / 10 + 1, and |z| is Rayleigh: mean sqrt(pi / 2), variance 2 - pi / 2
    radius = 10 * (ring.train.values.norm(dim=-1) - 1)
    error = ((2 - np.pi / 2) / 4000) ** 0.5
    assert float(radius.mean()) == pytest.approx((np.pi / 2) ** 0.5, abs=4 * error)
    assert Ring(50).fingerprint == Ring(50).fingerprint != Ring(50, seed=1).fingerprint


def test_hugging_face_reads_local_files_with_the_builders_of_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    pytest.importorskip("datasets", reason="datasets is not installed: HuggingFace IS NOT TESTED (extra hub)")
    rows = (json.dumps({"text": line, "tone": ["good", "bad"][i % 2]}) for i, line in enumerate(LINES.split("\n")[:-1]))
    path = str(write("data.json", "\n".join(rows)))
    arguments = {"name": "json", "data_files": {"train": path}, "label": "tone"}
    corpus = HuggingFace(**arguments, valid=None, test=None)  # type: ignore[arg-type]
    same = TextFile(str(write("data.txt", LINES)))
    assert corpus.vocabulary == same.vocabulary and corpus.train.words(0) == same.train.words(0)
    assert corpus.labels == ("bad", "good") and "datasets" in corpus.versions
    with pytest.raises(CorpusError, match="has no split 'validation'"):
        HuggingFace(**arguments)  # type: ignore[arg-type]
    with pytest.raises(CorpusError, match="has no column 'body'"):
        HuggingFace(**arguments, valid=None, test=None, text="body")  # type: ignore[arg-type]
