"""Writing token ids to memory or to memory-mapped files (layer: data)."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.splits import TextSplit

SPLITS = ("train", "valid", "test")
_COLUMNS = {"tokens": "i", "offsets": "q", "labels": "q"}
_TAGS = {"tags": "i"}  # in memory only
_FLUSH = 1 << 20  # values held in memory before they go to the file
_VERSION = 1


class _Column:
    """A growing array of integers, in memory or appended to a file."""

    def __init__(self, code: str, path: Path | None):
        self.code, self.path = code, path
        self.values, self.size = array(code), 0
        self.stream = path.open("wb") if path else None

    def extend(self, values: Iterable[int]) -> int:
        """Append, and return how many values the column now has."""
        self.values.extend(values)
        if self.stream and len(self.values) >= _FLUSH:
            self._flush()
        return self.size + len(self.values)

    def _flush(self) -> None:
        if self.stream:
            self.values.tofile(self.stream)
            self.size += len(self.values)
            del self.values[:]

    def close(self) -> None:
        if self.stream:
            with self.stream:  # closed also where the disk is full
                self._flush()

    def array(self, mode: Literal["r", "r+"] = "r+") -> np.ndarray:
        """The values of a closed column."""
        if self.path is not None:
            return map_file(self.path, self.code, mode)
        return np.frombuffer(self.values, self.code) if self.values else np.zeros(0, self.code)


class SplitWriter:
    """Sentences of one split, one after the other; `folder` None keeps them in memory.

    Ids are provisional while the text is read, numbered by first appearance; `recode` makes them final. So
    the text is tokenised once, whatever the vocabulary turns out to be.
    """

    def __init__(self, split: str, folder: Path | None, labelled: bool, tagged: bool = False):
        names = _COLUMNS if labelled else {k: v for k, v in _COLUMNS.items() if k != "labels"}
        if tagged:
            names = names | _TAGS
        self._columns = {name: _Column(code, folder and folder / f"{split}.{name}") for name, code in names.items()}
        self._columns["offsets"].extend((0,))
        self.sentences = 0

    def add(self, ids: Iterable[int], label: int, tags: Iterable[int] = ()) -> None:
        """Append a sentence; `tags` are as many as `ids` where the split is tagged."""
        end = self._columns["tokens"].extend(ids)
        self._columns["offsets"].extend((end,))
        if "labels" in self._columns:
            self._columns["labels"].extend((label,))
        if "tags" in self._columns:
            self._columns["tags"].extend(tags)
        self.sentences += 1

    def close(self) -> None:
        """Write what is still in memory."""
        with ExitStack() as stack:
            for column in self._columns.values():
                stack.callback(column.close)

    def counts(self, types: int) -> np.ndarray:
        """How often each of `types` ids occurs among the tokens, int64 `[types]`."""
        total = np.zeros(types, np.int64)
        tokens = self._columns["tokens"].array("r")
        for start in range(0, len(tokens), _FLUSH):
            total += np.bincount(tokens[start : start + _FLUSH], minlength=types)
        return total

    def recode(self, name: Literal["tokens", "labels", "tags"], table: np.ndarray) -> None:
        """Replace each id i by `table[i]`, in place and a piece at a time."""
        if name not in self._columns:
            return
        values = self._columns[name].array()
        for start in range(0, len(values), _FLUSH):
            piece = values[start : start + _FLUSH]
            piece[:] = table[piece]

    def split(self) -> TextSplit:
        """What was written, for a writer without a folder."""
        arrays = {name: column.array() for name, column in self._columns.items()}
        return TextSplit(arrays["tokens"], arrays["offsets"], arrays.get("labels"), arrays.get("tags"))


def map_file(path: Path, code: str, mode: Literal["r", "r+"] = "r") -> np.ndarray:
    """A file of integers as a memory-mapped array; an empty file cannot be mapped."""
    return np.memmap(path, dtype=code, mode=mode) if path.stat().st_size else np.zeros(0, code)


class StoreBuilder:
    """A folder of splits that appears under its name complete or not at all."""

    def __init__(self, target: Path):
        self.target = target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        except OSError as error:
            raise unwritable(target, error) from None

    def commit(self, meta: dict[str, Any]) -> None:
        """Write `meta` and move the folder into place."""
        sizes = {path.name: path.stat().st_size for path in self.folder.iterdir()}
        text = json.dumps({"version": _VERSION, "sizes": sizes, **meta})
        (self.folder / "meta.json").write_text(text, encoding="utf-8")
        if read_meta(self.target) is None:
            shutil.rmtree(self.target, ignore_errors=True)  # a damaged store
            try:
                os.replace(self.folder, self.target)
            except OSError:
                if read_meta(self.target) is None:
                    raise
        self.discard()  # what is left where another process, with the same content, was faster

    def discard(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)


def unwritable(target: Path, error: OSError) -> CorpusError:
    """What to say when the store cannot be written."""
    return CorpusError(
        f"{error.filename or target}: cannot write the tokens ({error.strerror or error}); "
        f"free some space, or set PYRO_NLP_HOME to a folder with room"
    )


def read_meta(folder: Path) -> dict[str, Any] | None:
    """What `commit` was given; None if there is no complete store of this version."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in meta["sizes"].items())
        return meta if whole and meta["version"] == _VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def open_split(folder: Path, split: str) -> TextSplit:
    """A split of a complete store, memory-mapped."""
    paths = {name: folder / f"{split}.{name}" for name in _COLUMNS}
    arrays = {name: map_file(path, _COLUMNS[name]) for name, path in paths.items() if path.exists()}
    return TextSplit(arrays["tokens"], arrays["offsets"], arrays.get("labels"))
