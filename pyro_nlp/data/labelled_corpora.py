"""Published sentences with a class: movie reviews and reviews of places by sentiment (layer: data)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pyro_nlp.data.classes import require_classes
from pyro_nlp.data.corpus import CorpusError
from pyro_nlp.data.files import locate, read_lines
from pyro_nlp.data.sentiment_trees import Phrase, read_phrases
from pyro_nlp.data.text import TEST, TRAIN, VALID, Sentence, TextCorpus, check_limits, cut
from pyro_nlp.data.tokenise import lowered_marks, lowered_treebank

POLES = ("negative", "positive")
FIVE = ("very negative", "negative", "neutral", "positive", "very positive")


class LabelledCorpus(TextCorpus):
    """Sentences with a class that keep their texts."""

    attribute = "sentiment"
    tokenise = staticmethod(lowered_treebank)

    @abstractmethod
    def __init__(self) -> None:
        """See Corpus."""

    def read(self, sentences: Iterable[Sentence], labels: tuple[str, ...], min_count: int, folder: Path) -> None:
        """Build the corpus and keep its texts."""
        self.build(sentences, min_count=min_count, labelled=True, labels=labels, keep=True, where=str(folder))
        require_classes(self, str(folder))


class SST(LabelledCorpus):
    """The Stanford Sentiment Treebank: sentences of movie reviews, lower-cased.

    Binary 6,920 / 872 / 1,821 sentences, the neutral left out; five classes 8,544 / 1,101 / 2,210. About 78 % of them
    stand in `Polarity` too.

    Args:
        path: folder with `stsa.binary.*`, `stsa.fine.*` and, for phrases, `trees_train.txt`; None looks for `sst` in
            the working directory and in PYRO_NLP_DATA.
        classes: 2 or 5.
        phrases: train on every labelled phrase of the training trees, each once, in place of the sentences alone:
            157,395 with five classes, 77,199 with two. A phrase that is a sentence of valid or test is left out.
        min_count: words seen less often in train become `<unk>`.
        max_length: longer sentences, in words, are left out of all splits, and counted in `dropped`; None keeps all.
    """

    reference = "Socher et al. 2013, Recursive deep models for semantic compositionality over a sentiment treebank"

    def __init__(
        self,
        path: str | None = None,
        classes: Literal[2, 5] = 2,
        phrases: bool = False,
        min_count: int = 1,
        max_length: int | None = None,
    ) -> None:
        if classes not in (2, 5):
            raise CorpusError(f"classes is {classes}; SST has 2, without the neutral sentences, or 5")
        check_limits(min_count, None, max_length)
        folder = locate(path or "sst")
        self.name = f"sst-{classes}" + ("-phrases" if phrases else "")
        names = POLES if classes == 2 else FIVE
        sentences = _sst(folder, "binary" if classes == 2 else "fine", names)
        if phrases:
            sentences = _with_phrases(list(sentences), read_phrases(folder / "trees_train.txt"), names)
        found = list(sentences)
        kept = [sentence for sentence in found if max_length is None or len(sentence.words) <= max_length]
        self.read(kept, names, min_count, folder)
        self.dropped = len(found) - len(kept)


def _sst(folder: Path, kind: str, names: tuple[str, ...]) -> Iterator[Sentence]:
    for place, split in enumerate(("train", "dev", "test")):
        file = folder / f"stsa.{kind}.{split}"
        for line, text in read_lines(file):
            label, _, rest = text.strip().partition(" ")
            if not label.isdigit() or int(label) >= len(names) or not rest.strip():
                raise CorpusError(
                    f"{file}: line {line} should be a label, 0 to {len(names) - 1}, and a sentence, found "
                    f"{text.strip()[:40]!r}; correct the line"
                )
            yield Sentence(rest.split(), place, names[int(label)], str(file), line)


def _with_phrases(sentences: list[Sentence], phrases: Iterable[Phrase], names: tuple[str, ...]) -> Iterator[Sentence]:
    """The phrases in place of the training sentences, which are phrases too."""
    judged = {tuple(sentence.words) for sentence in sentences if sentence.split != TRAIN}
    seen = set()
    for phrase in phrases:
        words = tuple(phrase.words)
        label = _pole(phrase.label) if len(names) == 2 else phrase.label
        if label is None or (words, label) in seen or words in judged:
            continue
        seen.add((words, label))
        yield Sentence(words, TRAIN, names[label], phrase.where, phrase.line)
    yield from (sentence for sentence in sentences if sentence.split != TRAIN)


def _pole(label: int) -> int | None:
    """Of five classes, negative or positive; None for the neutral."""
    return None if label == 2 else int(label > 2)


class Polarity(LabelledCorpus):
    """Sentence polarity 1.0: 5,331 negative and 5,331 positive sentences of movie reviews, lower-cased.

    There is no published split (papers take ten folds): a sentence is in train, valid or test (80 / 10 / 10) by a hash
    of its words, so that copies stand on one side.

    Args:
        path: folder with `rt-polarity.neg` and `rt-polarity.pos`; None looks for `polarity` in the working directory
            and in PYRO_NLP_DATA.
        min_count: words seen less often in train become `<unk>`.
        encoding: of the files; those of the first release are latin-1.
    """

    reference = "Pang and Lee 2005, Seeing stars: exploiting class relationships for sentiment categorization"
    tokenise = staticmethod(lowered_marks)

    def __init__(self, path: str | None = None, min_count: int = 1, encoding: str = "utf-8") -> None:
        folder = locate(path or "polarity")
        self.name = "polarity"
        files = {POLES[i]: folder / f"rt-polarity.{end}" for i, end in enumerate(("neg", "pos"))}

        def sentences() -> Iterator[Sentence]:
            for label, file in files.items():
                for line, text in read_lines(file, encoding):
                    if words := text.split():
                        yield Sentence(words, cut(words), label, str(file), line)

        self.read(sentences(), POLES, min_count, folder)


class YelpStyle(LabelledCorpus):
    """Yelp sentences by sentiment, at most 15 words, with a split of our own.

    Only the files `dev` and `test` of the usual release are read, and 2,884 sentences stand in both. Train is `test`
    without the sentences of `dev`; valid and test are halves of `dev`, by a hash of the words. Numbers on this split
    are not comparable with published ones.

    Args:
        path: folder with `sentiment.dev.0`, `.1`, `sentiment.test.0`, `.1`; None looks for `yelp_style` in the working
            directory and in PYRO_NLP_DATA.
        min_count: words seen less often in train become `<unk>`.
        half: train on a half of train, by a hash of the words: one half for what writes, the other for what judges it.

    Attributes:
        shared: sentences of `test` that were left out, as they stand in `dev`.
    """

    reference = "Shen et al. 2017, Style transfer from non-parallel text by cross-alignment"
    shared: int

    def __init__(
        self, path: str | None = None, min_count: int = 1, half: Literal["first", "second"] | None = None
    ) -> None:
        if half not in (None, "first", "second"):
            raise CorpusError(f"half is {half!r}; give first or second, or leave it out")
        folder = locate(path or "yelp_style")
        self.name = "yelp_style" if half is None else f"yelp_style, {half} half"
        judged: set[tuple[str, ...]] = set()
        self.shared = 0

        def sentences() -> Iterator[Sentence]:
            for part in ("dev", "test"):
                for i, label in enumerate(POLES):
                    file = folder / f"sentiment.{part}.{i}"
                    for line, text in read_lines(file):
                        words = tuple(text.split())
                        if not words:
                            continue
                        place = TRAIN
                        if part == "dev":
                            place = TEST if cut(words, 0.5, 0.5) == TEST else VALID
                            judged.add(words)
                        elif words in judged:
                            self.shared += 1
                            continue
                        elif half is not None and (cut(words, 0.5, 0.5) == TEST) != (half == "first"):
                            continue
                        yield Sentence(words, place, label, str(file), line)

        self.read(sentences(), POLES, min_count, folder)
