"""What a corpus is: three splits, a vocabulary, names and a fingerprint (layer: data).

To read a format of your own, subclass `TextCorpus` and call `self.build(...)` with a function that yields its
sentences (`text.py`); constructor arguments are scalars, lists or None, as they are the configuration schema.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.splits import Split
from pyro_nlp.data.vocabulary import Vocabulary

__all__ = ["Corpus", "CorpusError"]


class Corpus(ABC):
    """Data to train, choose and judge on.

    Attributes:
        name: short name for tables.
        reference: where the data come from, one line.
        train: the split parameters are fitted to.
        valid: the split hyperparameters are chosen on.
        test: the split that is reported.
        vocabulary: words by id; None where the data are not text.
        labels: names of the classes by id; empty where there are none.
        attribute: what the labels are classes of, as `sentiment`.
        dropped: documents left out because they were longer than the limit.
        truncated: documents cut at the limit.
    """

    name: str
    reference: str
    train: Split
    valid: Split
    test: Split
    vocabulary: Vocabulary | None = None
    labels: tuple[str, ...] = ()
    attribute: str = "label"
    dropped: int = 0
    truncated: int = 0

    @abstractmethod
    def __init__(self) -> None:
        """Read or build the corpus; raises CorpusError with one line that names the file and the cure."""

    @cached_property
    def versions(self) -> dict[str, str]:
        """Versions of the packages the text was taken from; empty unless a reader assigns it."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of vocabulary, label names and all splits."""
        hasher: Any = hashlib.sha256()
        names = self.vocabulary.words if self.vocabulary else ()
        hasher.update("\n".join((*names, "", *self.labels)).encode("utf-8", "surrogatepass"))
        for split in (self.train, self.valid, self.test):
            split.feed(hasher)
        return str(hasher.hexdigest()[:16])

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """Names of the classes in every respect that documents are classed in; of most corpora it is `labels` alone."""
        return {self.attribute: self.labels} if self.labels else {}

    @property
    def called(self) -> str:
        """Class and name, for errors."""
        return f"{type(self).__name__} ({self.name})"

    def __repr__(self) -> str:
        sizes = " / ".join(f"{len(s):,}" for s in (self.train, self.valid, self.test))
        words = f", vocabulary {len(self.vocabulary):,}" if self.vocabulary else ""
        return f"{type(self).__name__}({self.name}: {sizes}{words}, {self.fingerprint})"
