"""A user's own pairs of texts, in files with tabs (layer: data)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pyro_nlp.data.files import CorpusError, locate, read_lines
from pyro_nlp.data.pair_corpus import Pair, PairCorpus
from pyro_nlp.data.store import SPLITS
from pyro_nlp.data.text import TRAIN, Overlong, cut
from pyro_nlp.data.text_files import SHARE
from pyro_nlp.data.tokenise import Tokeniser, choose_tokeniser

_LABELS = {"0": 0, "1": 1}


class PairFile(PairCorpus):
    """Pairs of texts, one on each line: `first<TAB>second`, or `first<TAB>second<TAB>label`; blank lines are skipped.

    With labels these are questions and candidate answers, 1 for a right one and 0 for a wrong one; without, sources and
    targets. Lines with one first text (the same words) belong together, wherever they stand. Splits that are not given
    are cut from `path` by a hash of the first text (10 % each), so all pairs of a first text stay on one side. The
    first line of `path` says whether there are labels; every line of it then has one. A line of `valid` or `test`
    without label is of an unknown class.

    Args:
        path: the train pairs, in the working directory, in PYRO_NLP_DATA or absolute.
        valid: the validation pairs; None to cut them from `path`.
        test: the test pairs; None to cut them from `path`.
        tokeniser: "words" lower-cases and splits off punctuation; "whitespace" is for text tokenised before.
        min_count: words seen less often in train become `<unk>`.
        max_size: bound on the vocabulary; None for no bound.
        max_length: bound on the words of a second text; None for no bound.
        overlong: what to do with a longer second text.
        encoding: how the files are encoded.
    """

    reference = "a file of pairs of the user's"

    def __init__(
        self,
        path: str,
        valid: str | None = None,
        test: str | None = None,
        tokeniser: Tokeniser = "words",
        min_count: int = 2,
        max_size: int | None = 50_000,
        max_length: int | None = 100,
        overlong: Overlong = "error",
        encoding: str = "utf-8",
    ):
        self.tokenise = choose_tokeniser(tokeniser)
        given = {"train": path, "valid": valid, "test": test}
        files = {split: locate(name) for split, name in given.items() if name is not None}
        for file in files.values():
            if not file.is_file():
                raise CorpusError(f"{file}: is a folder; give a file with a pair on each line, a tab between the texts")
        self.name = files["train"].stem
        fields = next((len(f) for _, f in _lines(files["train"], encoding)), 2)
        self.build(
            self._pairs(files, encoding, labelled=fields == 3),
            min_count=min_count,
            max_size=max_size,
            max_length=max_length,
            overlong=overlong,
            labelled=fields == 3,
            where=str(files["train"]),
        )

    def _pairs(self, files: dict[str, Path], encoding: str, labelled: bool) -> Iterator[Pair]:
        shares = [0.0 if name in files else SHARE for name in ("valid", "test")]
        for name, file in files.items():
            for line, fields in _lines(file, encoding):
                label = _label(fields, f"{file}: line {line}", labelled, needed=name == "train")
                first, second = (self.tokenise(field) for field in fields[:2])
                for text, what in ((first, "question (first field)"), (second, "candidate (second field)")):
                    if not text:
                        raise CorpusError(f"{file}: line {line} has an empty {what}; give it words, or take it out")
                split = SPLITS.index(name)
                if split == TRAIN and any(shares):
                    split = cut(first, *shares)
                yield Pair(first, second, split, tuple(first), label, str(file), line)


def _lines(file: Path, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of every line that is not blank."""
    for line, text in read_lines(file, encoding):
        if not text.strip():
            continue
        fields = [field.strip() for field in text.split("\t")]
        if len(fields) not in (2, 3):
            raise CorpusError(
                f"{file}: line {line} has {len(fields)} {'field' if len(fields) == 1 else 'fields'}; it should be two "
                f"texts with a tab between them, and perhaps another tab and a label, 0 or 1"
            )
        yield line, fields


def _label(fields: list[str], place: str, labelled: bool, needed: bool) -> int | None:
    """The class of a pair; None for one without."""
    if not labelled:
        if len(fields) == 3:
            raise CorpusError(
                f"{place} has a label ({fields[2][:20]!r}), and the first line of train has none; give every line of "
                f"train a label, or take the third field out everywhere"
            )
        return None
    if len(fields) == 2 or not fields[2]:
        if needed:
            raise CorpusError(
                f"{place} has no label, and the first line of train has one; give every line of train a label, 0 or 1, "
                f"as third field, or take the third field out everywhere"
            )
        return None
    if fields[2] not in _LABELS:
        raise CorpusError(
            f"{place} has the label {fields[2][:20]!r}; the third field must be 1 for a right pair or 0 for a wrong one"
        )
    return _LABELS[fields[2]]
