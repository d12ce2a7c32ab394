"""The Penn Treebank in Mikolov's preparation (layer: data)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pyro_nlp.data.corpus import CorpusError
from pyro_nlp.data.files import locate, read_lines
from pyro_nlp.data.store import SPLITS
from pyro_nlp.data.text import Sentence, TextCorpus


class PTB(TextCorpus):
    """Penn Treebank sentences, 42,068 / 3,370 / 3,761, lower-cased, with `N` for numbers and `<unk>`.

    The vocabulary has 10,002 entries: 9,999 types, `<unk>` among them, `</s>` (with it the published 10,000),
    and `<pad>` and `<s>`, which are never predicted.

    Args:
        path: folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt; None looks for `ptb` in the working
            directory and in PYRO_NLP_DATA.
        sentences: train on the first so many only; the vocabulary stays that of all.
    """

    reference = "Mikolov et al. 2010, Recurrent neural network based language model; text of the LDC's Penn Treebank"

    def __init__(self, path: str | None = None, sentences: int | None = None):
        self.name = "ptb" if sentences is None else f"ptb-{sentences}"
        folder = locate(path or "ptb")
        files = [folder / f"ptb.{split}.txt" for split in SPLITS]

        def source() -> Iterator[Sentence]:
            for split, file in enumerate(files):
                for _, line in read_lines(file):
                    if words := line.split():
                        yield Sentence(words, split)

        self.build(source(), where=str(folder))
        if sentences is not None:
            if not 0 < sentences <= len(self.train):
                raise CorpusError(f"{folder} has {len(self.train)} training sentences, not {sentences}")
            self.train = self.train.take(np.arange(sentences))
