"""Finding and reading the files of a corpus, with one clear line when that fails (layer: data)."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from pathlib import Path

from pyro_nlp.data.progress import Meter

VARIABLE = "PYRO_NLP_DATA"
_REPORT = 2000  # lines between two reports of progress


class CorpusError(ValueError):
    """A corpus cannot be read or built; the message is one line that names the file and the cure."""


def home() -> Path:
    """Where built corpora are cached: `PYRO_NLP_HOME`, by default `~/.cache/pyro_nlp`."""
    return Path(os.environ.get("PYRO_NLP_HOME") or Path.home() / ".cache" / "pyro_nlp")


def locate(path: str) -> Path:
    """A file or folder by absolute path, else in the working directory, else under `PYRO_NLP_DATA`.

    Raises CorpusError naming the places that were looked at.
    """
    given = Path(path).expanduser()
    if given.exists():
        return given
    if given.is_absolute():
        raise CorpusError(f"{given}: no such file or folder")
    data = os.environ.get(VARIABLE)
    if not data:
        raise CorpusError(
            f"{path}: not in the working directory, and {VARIABLE} is not set; "
            f"give a path that exists, or set {VARIABLE} to the folder that holds {given.parts[0]!r}"
        )
    if not Path(data).is_dir():
        raise CorpusError(f"{VARIABLE} is set to {data}, which is not a folder; set it to the folder of the corpora")
    if not (Path(data) / given).exists():
        raise CorpusError(
            f"{path}: neither in the working directory nor in {VARIABLE} ({data}); "
            f"set {VARIABLE} to the folder that holds {given.parts[0]!r}"
        )
    return Path(data) / given


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Lines of a text file with their numbers from 1, streamed, without line ends.

    Raises CorpusError for a file that cannot be opened, is empty or cannot be decoded (byte offset named).
    """
    _check_encoding(encoding)
    try:
        size = path.stat().st_size
        stream = path.open("rb")
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror or error}") from None
    offset = 0
    with stream, Meter(f"reading {path.name}", size) as meter:
        if size == 0:
            raise CorpusError(f"{path}: the file is empty; give a text file with a sentence on each line")
        reported = 0
        for number, raw in enumerate(stream, 1):
            try:
                line = raw.decode(encoding)
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{path}: byte {offset + error.start} (line {number}) is not {encoding}; convert the "
                    f"file to UTF-8, or name its encoding where the corpus takes one (for instance latin-1)"
                ) from None
            offset += len(raw)
            yield number, line.removeprefix("\ufeff").rstrip("\r\n") if number == 1 else line.rstrip("\r\n")
            if number % _REPORT == 0:
                meter.advance(offset - reported)
                reported = offset


def _check_encoding(encoding: str) -> None:
    try:
        known = codecs.lookup(encoding).name
        lines = "\n".encode(encoding) == b"\n"
    except (LookupError, ValueError):
        raise CorpusError(
            f"encoding {encoding!r} is unknown; use a Python codec name such as utf-8 or latin-1"
        ) from None
    if not lines:
        raise CorpusError(f"encoding {known} cannot be read line by line; convert the file to UTF-8")
