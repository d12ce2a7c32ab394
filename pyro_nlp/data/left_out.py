"""A corpus without the sentences of another, for what judges that other one (layer: data)."""

from __future__ import annotations

from pyro_nlp.data.corpus import CorpusError
from pyro_nlp.data.overlap import without
from pyro_nlp.data.store import SPLITS
from pyro_nlp.data.text import TextCorpus


class Without(TextCorpus):
    """A corpus whose train and valid lack every sentence of another, and every part of one: a judge's.

    Example:
        >>> Without(Polarity(), SST())  # doctest: +SKIP
        Without(polarity without sst-2: 2,302 / 288 / 1,067, ...)

    Sentences are compared by letters and digits alone (`without`); vocabulary and test stay as they are.

    Args:
        corpus: that something is trained on.
        other: that it is to judge.
        parts: words of the shortest part of a sentence that counts; None for whole sentences alone.
        splits: of the other, whose sentences are left out; by default all.

    Attributes:
        left_out: sentences that are left out, of train and of valid.
    """

    left_out: tuple[int, int]

    def __init__(
        self,
        corpus: TextCorpus,
        other: TextCorpus,
        parts: int | None = 4,
        splits: tuple[str, ...] = ("train", "valid", "test"),
    ) -> None:
        for one in (corpus, other):
            if not isinstance(one, TextCorpus) or not one.texts:
                raise CorpusError(f"{one.called} keeps no texts to be compared: give such as Polarity or LabelledLines")
        self.name, self.reference = f"{corpus.name} without {other.name}", corpus.reference
        self.vocabulary, self.labels, self.attribute = corpus.vocabulary, corpus.labels, corpus.attribute
        self.tags, self.tokenise, self.versions = corpus.tags, corpus.tokenise, corpus.versions
        if not splits or not set(splits) <= set(SPLITS):
            raise CorpusError(f"splits is {list(splits)}; give some of {', '.join(SPLITS)}")
        theirs = [text for name in splits for text in other.texts[name]]
        counts, texts = [], dict(corpus.texts)
        for name in ("train", "valid"):
            rows, count = without(corpus.texts[name], theirs, parts)
            counts.append(count)
            setattr(self, name, getattr(corpus, name).take(rows))
            texts[name] = tuple(corpus.texts[name][row] for row in rows)
        self.left_out, self.texts, self.test = (counts[0], counts[1]), texts, corpus.test
        if not len(self.train) or not len(self.valid):
            raise CorpusError(f"{corpus.called} has no sentence left without those of {other.called}: choose another")
