"""A user's own sentences and compressions, in files with tabs (layer: data)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pyro_nlp.data.compression import Compressed, CompressionCorpus, refuse_longer
from pyro_nlp.data.files import CorpusError, locate, read_lines
from pyro_nlp.data.store import SPLITS
from pyro_nlp.data.text import TRAIN, Overlong, cut
from pyro_nlp.data.text_files import SHARE
from pyro_nlp.data.tokenise import Tokeniser, choose_tokeniser


class CompressionFile(CompressionCorpus):
    """Sentences, one on each line, and after a tab the compression of those that have one; blank lines are skipped.

    A sentence without a compression is one of train, where its compression is hidden. Splits that are not given are cut
    from `path` by a hash of the sentence (10 % each), from the sentences with a compression; where none has one, from
    all, and there is nothing to judge compressions by.

    Args:
        path: the train sentences, in the working directory, in PYRO_NLP_DATA or absolute.
        valid: the validation pairs; None to cut them from `path`.
        test: the test pairs; None to cut them from `path`.
        labelled: share of the training compressions that are known, 0 to 1; the others are marked in `train.labels`.
        keep_hidden: keep the training sentences whose compression is hidden.
        tokeniser: "words" lower-cases and splits off punctuation; "whitespace" is for text tokenised before.
        min_count: words seen less often in train become `<unk>`.
        max_size: bound on the vocabulary; None for no bound.
        max_source: bound on the words of a sentence; None for no bound.
        max_length: bound on the words of a compression; None for no bound.
        overlong: what to do with a line of which either is longer.
        seed: of the choice of the compressions that are known.
        encoding: how the files are encoded.
    """

    reference = "a file of sentences and compressions of the user's"

    def __init__(
        self,
        path: str,
        valid: str | None = None,
        test: str | None = None,
        labelled: float = 1.0,
        keep_hidden: bool = True,
        tokeniser: Tokeniser = "words",
        min_count: int = 2,
        max_size: int | None = 50_000,
        max_source: int | None = 100,
        max_length: int | None = None,
        overlong: Overlong = "error",
        seed: int = 0,
        encoding: str = "utf-8",
    ):
        self.tokenise = choose_tokeniser(tokeniser)
        given = {"train": path, "valid": valid, "test": test}
        files = {split: locate(name) for split, name in given.items() if name is not None}
        for file in files.values():
            if not file.is_file():
                raise CorpusError(f"{file}: is a folder; give a file with a sentence on each line")
        self.name = files["train"].stem
        self.fill(
            self._pairs(files, encoding),
            labelled=labelled,
            keep_hidden=keep_hidden,
            seed=seed,
            min_count=min_count,
            max_size=max_size,
            max_source=max_source,
            max_length=max_length,
            overlong=overlong,
            where=str(files["train"]),
        )

    def _pairs(self, files: dict[str, Path], encoding: str) -> Iterator[Compressed]:
        some = any(compression for _, _, compression in _lines(files["train"], encoding))
        shares = [0.0 if name in files else SHARE for name in ("valid", "test")]
        for name, file in files.items():
            for where, sentence, compression in _lines(file, encoding):
                split, words = SPLITS.index(name), self.tokenise(sentence)
                if some and not compression and split != TRAIN:
                    raise CorpusError(f"{where} has no compression: give it one, as some sentences of train have one")
                if split == TRAIN and any(shares) and bool(compression) == some:
                    split = cut(words, *shares)
                if compression and words:
                    refuse_longer(words, self.tokenise(compression), where)
                yield Compressed(sentence, compression, split, where)


def _lines(file: Path, encoding: str) -> Iterator[tuple[str, str, str | None]]:
    """Where it stands, sentence and compression of every line that is not blank."""
    for line, text in read_lines(file, encoding):
        if not text.strip():
            continue
        where, fields = f"{file}: line {line}", [field.strip() for field in text.split("\t")]
        if len(fields) > 2:
            raise CorpusError(f"{where} has {len(fields)} fields; give a sentence, or one, a tab and its compression")
        yield where, fields[0], fields[1] if len(fields) == 2 else None
