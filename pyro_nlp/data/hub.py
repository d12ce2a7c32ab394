"""Data sets by name from the Hugging Face hub, or local files its builders read (layer: data; extra: hub)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.store import SPLITS
from pyro_nlp.data.text import TRAIN, Overlong, Sentence, TextCorpus, cut
from pyro_nlp.data.text_files import SHARE
from pyro_nlp.data.tokenise import Tokeniser, choose_tokeniser

_CHUNK = 1000


class HuggingFace(TextCorpus):
    """A text column of a data set, a sentence per row.

    Args:
        name: name on the hub, or a builder ("text", "csv", "json", "parquet") together with `data_files`.
        text: column with the sentence.
        label: column with the class; None for a corpus without labels.
        config: name of the configuration, for data sets that have several.
        data_files: local files by split, for a builder: {train: a.csv, validation: b.csv}.
        train: name of the split to train on.
        valid: name of the validation split; None to cut 10 % from train by a hash of the words.
        test: name of the test split; None to cut 10 % from train by a hash of the words.
        tokeniser: "words" lower-cases and splits off punctuation; "whitespace" is for text tokenised before.
        min_count: words seen less often in train become `<unk>`.
        max_size: bound on the vocabulary; None for no bound.
        max_length: bound on the words of a sentence; None for no bound.
        overlong: what to do with a longer sentence.
    """

    def __init__(
        self,
        name: str,
        text: str = "text",
        label: str | None = None,
        config: str | None = None,
        data_files: dict[str, str] | None = None,
        train: str = "train",
        valid: str | None = "validation",
        test: str | None = "test",
        tokeniser: Tokeniser = "words",
        min_count: int = 2,
        max_size: int | None = 50_000,
        max_length: int | None = 100,
        overlong: Overlong = "drop",
    ):
        dataset, self.versions = _load(name, config, data_files)
        chosen = {split: part for split, part in zip(SPLITS, (train, valid, test), strict=True) if part is not None}
        for part in chosen.values():
            _check(name, dataset, part, text, label)
        self.tokenise = choose_tokeniser(tokeniser)
        self.name = name.rpartition("/")[2]
        self.reference = f"https://huggingface.co/datasets/{name}" if data_files is None else "the user's files"
        self.build(
            _sentences(name, {split: dataset[part] for split, part in chosen.items()}, text, label, tokeniser),
            min_count=min_count,
            max_size=max_size,
            max_length=max_length,
            overlong=overlong,
            labelled=label is not None,
        )


def _load(name: str, config: str | None, data_files: dict[str, str] | None) -> tuple[Any, dict[str, str]]:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise CorpusError(
            "the corpus HuggingFace needs the package datasets, which is not installed; pip install 'pyro-nlp[hub]'"
        ) from None
    try:
        loaded = datasets.load_dataset(name, config, data_files=data_files)
    except Exception as error:  # the library raises many kinds; the user wants the reason in one line
        reason = " ".join(str(error).split())[:300]
        raise CorpusError(f"data set {name!r} could not be loaded: {type(error).__name__}: {reason}") from error
    return loaded, {"datasets": datasets.__version__}


def _check(name: str, dataset: Any, part: str, text: str, label: str | None) -> None:
    if part not in dataset:
        raise CorpusError(
            f"data set {name!r} has no split {part!r} (it has {', '.join(dataset)}); "
            f"give --corpus.train, --corpus.valid and --corpus.test, null to cut one from train"
        )
    for column in filter(None, (text, label)):
        if column not in dataset[part].column_names:
            columns = ", ".join(dataset[part].column_names)
            raise CorpusError(
                f"data set {name!r} has no column {column!r} (it has {columns}); give --corpus.text, --corpus.label"
            )


def _sentences(name: str, parts: dict[str, Any], text: str, label: str | None, words: Tokeniser) -> Iterator[Sentence]:
    split_words = choose_tokeniser(words)
    valid, test = (0.0 if split in parts else SHARE for split in ("valid", "test"))
    row = 0
    for split, part in parts.items():
        number = SPLITS.index(split)
        names = getattr(part.features[label], "names", None) if label else None
        for chunk in part.select_columns([c for c in (text, label) if c]).iter(_CHUNK):
            classes = chunk[label] if label else [None] * len(chunk[text])
            for value, given in zip(chunk[text], classes, strict=True):
                row += 1
                if not isinstance(value, str) or not (tokens := split_words(value)):
                    continue
                place = cut(tokens, valid, test) if number == TRAIN and (valid or test) else number
                yield Sentence(tokens, place, _class(given, names), name, row)


def _class(value: Any, names: list[str] | None) -> str | None:
    """The name of a class; None where the data set says that it is unknown."""
    if value is None or value == -1:
        return None
    return names[value] if names else str(value)
