"""Corpora of sentences and compressions: the published one, the built-in one, test sets of headlines, alignment."""

import json
from collections.abc import Callable, Sequence
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from pyro_nlp.data import (
    UNK,
    CompressionCorpus,
    CorpusError,
    GoogleCompression,
    PairSplit,
    ParagraphSummaries,
    Summarised,
    TextSplit,
    Vocabulary,
    align,
    headline_split,
    hide,
    read_headlines,
)
from pyro_nlp.data.google_compression import JUDGED, news_words
from pyro_nlp.data.tokenise import lowered

Published = Callable[[str], str]
Write = Callable[[str, str | bytes], Path]


def splits(corpus: CompressionCorpus) -> tuple[PairSplit, PairSplit, PairSplit]:
    return corpus.train, corpus.valid, corpus.test


def some_pairs(count: int) -> PairSplit:
    texts = [TextSplit.from_sentences([[4, 5, 6]] * count) for _ in range(2)]
    return PairSplit(texts[0], texts[1], np.arange(count))


@pytest.fixture
def google(tmp_path: Path) -> Callable[..., str]:
    """A folder as the published one, of as many pairs as asked for, some lines of it replaced."""

    def folder(count: int = 2 * JUDGED + 4, **replaced: dict[int, str]) -> str:
        sentences = [f"A man, Bob No. {i}, was found dead in Rome." for i in range(count)]
        compressions = [f"Bob No. {i} was found in Rome." for i in range(count)]
        for name, lines in (("sentence", sentences), ("compression", compressions)):
            for line, text in replaced.get(name, {}).items():
                lines[line - 1] = text
            (tmp_path / f"{name}_en.txt").write_text("\n".join(lines) + "\n")
        return str(tmp_path)

    return folder


# Google's sentences


def test_the_published_compressions_are_cut_and_counted_as_documented(published: Published) -> None:
    corpus = GoogleCompression(published("google_compression"))
    assert [len(split) for split in splits(corpus)] == [8_000, 1_000, 1_000]
    assert corpus.vocabulary is not None and len(corpus.vocabulary) == 16_206
    assert corpus.extractive == {"train": 0.9795, "valid": 0.978, "test": 0.975}
    assert (corpus.longer, corpus.dropped, corpus.truncated) == (0, 0, 9)
    assert corpus.labels == () and all(split.labels is None for split in splits(corpus))
    assert corpus.texts["test"][2].references == ("Luis Suarez was spotted in London.",)
    kept = [len(corpus.tokenise(text)) for pair in corpus.texts["test"] for text in (*pair.references, pair.source)]
    assert sum(kept[::2]) / sum(kept[1::2]) == pytest.approx(0.40, abs=0.01)


def test_the_texts_stand_in_the_order_of_the_pairs(published: Published) -> None:
    corpus = GoogleCompression(published("google_compression"), max_source=20, overlong="drop", max_size=3000)
    assert corpus.dropped > 1000
    for name, split in zip(("train", "valid", "test"), splits(corpus), strict=True):
        texts = corpus.texts[name]
        assert len(texts) == len(split) and np.array_equal(split.group, np.arange(len(split)))
        for row in range(0, len(split), 37):
            source, (compression,) = texts[row]
            assert split.first.words(row) == corpus.vocabulary.encode(corpus.tokenise(source)).tolist()
            assert split.second.words(row) == corpus.vocabulary.encode(corpus.tokenise(compression)).tolist()


def test_the_first_thousand_pairs_are_test_and_the_next_thousand_valid(google: Callable[..., str]) -> None:
    corpus = GoogleCompression(google())
    assert [len(split) for split in splits(corpus)] == [4, 1000, 1000]
    assert "No. 0," in corpus.texts["test"][0].source and "No. 1000," in corpus.texts["valid"][0].source
    assert "No. 2000," in corpus.texts["train"][0].source


def test_a_compression_that_is_no_subsequence_lowers_the_share_of_its_split(google: Callable[..., str]) -> None:
    corpus = GoogleCompression(google(compression={2001: "Rome was found."}))
    assert corpus.extractive == {"train": 0.75, "valid": 1.0, "test": 1.0}


def test_a_share_of_the_training_compressions_can_be_hidden(google: Callable[..., str]) -> None:
    half = GoogleCompression(google(2 * JUDGED + 20), labelled=0.5)
    labels = half.train.labels
    assert labels is not None and sorted(labels.tolist()) == [-1] * 10 + [1] * 10
    assert half.valid.labels is None and half.test.labels is None and half.labels == ()
    batch = half.train.batch(np.array([3, 0]))
    assert batch.labels is not None and batch.labels.tolist() == labels[[3, 0]].tolist()
    whole = GoogleCompression(google(2 * JUDGED + 20))
    assert whole.vocabulary == half.vocabulary and whole.fingerprint != half.fingerprint
    other = GoogleCompression(google(2 * JUDGED + 20), labelled=0.5, seed=1)
    assert not np.array_equal(other.train.labels, labels)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"sentence": {7: " "}}, "sentence_en.txt: line 7 is empty; take the line out of sentence_en.txt and comp"),
        ({"compression": {9: ""}}, "compression_en.txt: line 9 is empty"),
        ({"sentence": {3: "Too short"}}, "line 3 has a compression of 9 words for a sentence of 2; are the two files"),
    ],
)
def test_a_line_that_cannot_be_a_pair_is_named(
    google: Callable[..., str], lines: dict[str, dict[int, str]], message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        GoogleCompression(google(**lines))


def test_files_of_different_length_are_refused(google: Callable[..., str]) -> None:
    folder = google()
    file = Path(folder) / "compression_en.txt"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))
    with pytest.raises(CorpusError, match=r"compression_en.txt: has 2003 lines, and sentence_en.txt has more"):
        GoogleCompression(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labelled": 1.5}, "labelled is 1.5; it is a share"),
        ({"labelled": float("nan")}, "labelled is nan"),
        ({"max_source": 0}, "max_source is 0"),
        ({"overlong": "cut"}, "overlong is 'cut'"),
        (
            {"max_source": 5, "overlong": "error"},
            r"line 1 has a sentence of \d+ words, the limit is 5; raise --corpus.max_s",
        ),
        (
            {"max_length": 5, "overlong": "error"},
            "line 1 has a compression of 9 words, the limit is 5; raise --corpus.max_l",
        ),
    ],
)
def test_options_out_of_range_and_texts_over_the_limit_are_refused(
    google: Callable[..., str], options: dict[str, object], message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        GoogleCompression(google(), **options)  # type: ignore[arg-type]


def test_too_few_pairs_for_three_splits_are_refused(google: Callable[..., str]) -> None:
    with pytest.raises(CorpusError, match="no pair for the train split"):
        GoogleCompression(google(JUDGED + 5))


def test_a_file_in_place_of_the_folder_is_refused(write: Write) -> None:
    with pytest.raises(CorpusError, match="is a file; give the folder with sentence_en.txt"):
        GoogleCompression(str(write("pairs.txt", "a")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("They're 57-year-olds -- don't!", "they 're 57 - year - olds - do n't !"),
        ("``Presidents' Day'' cost O'Brien's U.S. unit", "`` presidents ' day '' cost o'brien 's u.s . unit"),
        ("snake_case on the 1st of 10,000: $1.65bn...", "snake _ case on the 1st of 10,000 : $ 1.65bn ..."),
    ],
)
def test_news_is_cut_where_compressions_are_cut(text: str, expected: str) -> None:
    assert news_words(text) == expected.split()


# which compressions are known


def test_exactly_the_share_is_known_and_a_larger_one_holds_the_smaller() -> None:
    split = some_pairs(101)
    known = [set(np.flatnonzero(hide(split, share, seed=3).labels == 1).tolist()) for share in (0, 0.1, 0.5, 1)]
    assert [len(rows) for rows in known] == [0, 10, 50, 101]
    assert known[0] < known[1] < known[2] < known[3]
    assert split.labels is None


# the built-in corpus


@pytest.fixture(scope="module")
def built_in(session_home: Path) -> ParagraphSummaries:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRO_NLP_HOME", str(session_home))
        return ParagraphSummaries(packages=["stdlib"], labelled=0.3)


def test_the_built_in_pairs_are_paragraphs_and_their_summary_lines(built_in: ParagraphSummaries) -> None:
    assert len(built_in.train) > 800 and min(len(built_in.valid), len(built_in.test)) > 50
    assert built_in.train.labels is not None and (built_in.train.labels == 1).mean() == pytest.approx(0.3, abs=1e-3)
    assert built_in.unrelated > 0 and built_in.longer > 0 and built_in.dropped > 0
    for name, split in zip(("train", "valid", "test"), splits(built_in), strict=True):
        assert len(built_in.texts[name]) == len(split)
        assert split.first.lengths.max() <= 61 and split.second.lengths.max() <= 31
        assert (split.first.lengths >= split.second.lengths).all()
    texts = [pair for part in built_in.texts.values() for pair in part]
    assert len({pair.references for pair in texts}) == len({pair.source for pair in texts}) == len(texts)
    assert 0 < built_in.extractive["train"] < 0.1 and "python" in built_in.versions


def test_pairs_that_share_no_content_word_can_be_kept(built_in: ParagraphSummaries) -> None:
    more = ParagraphSummaries(packages=["stdlib"], shared=0)
    assert more.unrelated == 0 and len(more.train) > len(built_in.train)


@pytest.mark.parametrize("options", [{"packages": []}, {"shared": -1}, {"labelled": -0.1}, {"max_length": 0}])
def test_the_built_in_pairs_refuse_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(CorpusError):
        ParagraphSummaries(**options)  # type: ignore[arg-type]


# headlines


def test_the_published_headlines_have_their_counts(published: Published) -> None:
    gigaword = read_headlines(published("gigaword_test") + "/gigaword.jsonl")
    duc = read_headlines(published("duc2004") + "/duc2004.jsonl")
    assert len(gigaword) == 1_951 and {len(text.references) for text in gigaword} == {1}
    assert len(duc) == 500 and {len(text.references) for text in duc} == {4}
    assert gigaword[1].references == ("sri lanka closes schools as war escalates",)
    split = headline_split(gigaword, Vocabulary([]), lowered)  # by their own words, not those of news
    assert split.first.lengths.sum() - len(split) == sum(len(text.source.split()) for text in gigaword) == 57_938


def test_headlines_are_read_in_a_trained_vocabulary(google: Callable[..., str], write: Write) -> None:
    corpus = GoogleCompression(google())
    lines = [
        {"text": "Bob was seen in Rome.", "summaries": ["Bob seen", "seen in Rome"]},
        {"text": "Found dead", "summaries": ["dead"]},
    ]
    texts = read_headlines(str(write("some.jsonl", "\n\n".join(map(json.dumps, lines)))))
    assert texts == [
        Summarised("Bob was seen in Rome.", ("Bob seen", "seen in Rome")),
        Summarised("Found dead", ("dead",)),
    ]
    split = headline_split(texts, corpus.vocabulary, corpus.tokenise, max_source=3)
    assert corpus.vocabulary.decode(split.first.words(0)) == ["bob", "was", "<unk>"]
    assert split.second.words(0)[1] == UNK and split.group.tolist() == [0, 1] and split.labels is None
    assert len(split.batch(np.array([1, 0]))) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[1]", "line 1 is not {"),
        ('{"text": "a"}', "line 1 is not {"),
        ('{"text": "a", "summaries": []}', "line 1 is not {"),
        ('{"text": "a", "summaries": "b"}', "line 1 is not {"),
        ('{"text": " ", "summaries": ["b"]}', "line 1 has the text or summary ' '"),
        ('{"text": "a", "summaries": ["b", null]}', "line 1 has the text or summary None"),
        (" ", "no text"),
    ],
)
def test_a_headline_that_is_none_is_named(write: Write, line: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read_headlines(str(write("bad.jsonl", line + "\n")))


def test_a_folder_of_headlines_and_texts_without_words_are_refused(tmp_path: Path, google: Callable[..., str]) -> None:
    with pytest.raises(CorpusError, match="is a folder"):
        read_headlines(str(tmp_path))
    corpus = GoogleCompression(google())
    with pytest.raises(ValueError, match="there are no texts"):
        headline_split([], corpus.vocabulary, corpus.tokenise)
    with pytest.raises(ValueError, match="text 0 or its reference has no words"):
        headline_split([Summarised("a", (" ",))], corpus.vocabulary, corpus.tokenise)


# alignment


def spelt(word: Sequence[int], text: Sequence[int]) -> bool:
    rest = iter(text)
    return all(letter in rest for letter in word)


def align_by_enumeration(source: Sequence[int], text: Sequence[int]) -> list[int]:
    """Of all choices of positions that spell a subsequence of the text, the longest, and of these the first."""
    for size in range(len(source), 0, -1):
        for chosen in combinations(range(len(source)), size):  # in lexicographic order
            if spelt([source[i] for i in chosen], text):
                return list(chosen)
    return []


def test_alignment_is_the_longest_and_leftmost_by_enumeration() -> None:
    for length in range(6):
        for source in product(range(3), repeat=length):
            for size in range(4):
                for text in product(range(3), repeat=size):
                    assert align(source, text) == align_by_enumeration(source, text), (source, text)


def test_long_alignments_agree_with_enumeration() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        source, text = rng.integers(4, size=9).tolist(), rng.integers(5, size=7).tolist()
        assert align(source, text) == align_by_enumeration(source, text), (source, text)
