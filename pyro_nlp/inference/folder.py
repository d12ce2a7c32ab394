"""A run's folder: what is in it, and how it is written so that nothing half-done is ever seen (layer: inference).

Every file is written beside its place and renamed into it. `checkpoint.pt` alone restores a run;
`model.safetensors` and `guide.safetensors` are its best parameters, for use.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor


class RunError(RuntimeError):
    """A run folder that cannot be used; one line with the cure."""


class RunFolder:
    """The files of one run.

    recipe.yaml · model.safetensors · guide.safetensors · checkpoint.pt · vocabulary.json · metrics.jsonl ·
    environment.json
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path) -> RunFolder:
        """A new, empty folder; an existing one that holds anything is refused."""
        folder = cls(path)
        if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
            cure = (
                "add --resume to go on with it, or choose another --out"
                if folder.has("checkpoint.pt")
                else "choose another --out"
            )
            raise RunError(f"{path} exists already and is not overwritten: {cure}")
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror}") from None
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing folder with a checkpoint in it."""
        folder = cls(path)
        if not folder.path.is_dir():
            raise RunError(f"there is no run folder {path}")
        if not folder.has("checkpoint.pt"):
            raise RunError(
                f"{path} holds no checkpoint.pt: it is not a run, or was stopped before its first checkpoint"
            )
        return folder

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return (self.path / name).exists()

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file whole or not at all."""
        data = content.encode() if isinstance(content, str) else content
        temporary = self.path / f".{name}.{os.getpid()}"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise RunError(
                f"cannot write {self.path / name}: {error.strerror}; what was saved before is intact"
            ) from None
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def read_text(self, name: str) -> str:
        """A text file of the run."""
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{self.path} is damaged: cannot read {name} ({error})") from None

    def log(self, row: dict[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        try:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise RunError(f"cannot write {self.path / 'metrics.jsonl'}: {error.strerror}") from None

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a line cut off by a kill is left out."""
        rows = []
        for line in self.read_text("metrics.jsonl").splitlines() if self.has("metrics.jsonl") else ():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def forget_metrics_after(self, step: int) -> None:
        """Drop rows a resumed run is about to write again, and a line cut off by a kill."""
        if not self.has("metrics.jsonl"):
            return
        kept = [json.dumps(row) + "\n" for row in self.metrics() if row["step"] <= step]
        self.write("metrics.jsonl", "".join(kept))

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write the state that `resume` continues from."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.write("checkpoint.pt", buffer.getvalue())

    def load_checkpoint(self) -> dict[str, Any]:
        """The state written last."""
        try:
            state = torch.load(self.path / "checkpoint.pt", map_location="cpu", weights_only=True)
        except Exception as error:  # torch, pickle and zipfile each have their own
            reason = " ".join(str(error).split()).split(". ")[0][:120] or type(error).__name__
            raise RunError(f"{self.path} is damaged: checkpoint.pt cannot be read ({reason})") from None
        return state

    def save_weights(self, name: str, state: dict[str, Tensor], step: int) -> None:
        """Write the best parameters of the model or the guide; what two parts share is written for both."""
        tensors: dict[str, Tensor] = {}
        places: set[int] = set()
        for key, value in state.items():
            value = value.detach().cpu().contiguous()
            shared = value.data_ptr() in places  # which safetensors refuses
            places.add(value.data_ptr())
            tensors[key] = value.clone() if shared else value
        self.write(f"{name}.safetensors", safetensors.torch.save(tensors, metadata={"step": str(step)}))

    def load_weights(self, name: str) -> dict[str, Tensor]:
        """The best parameters of the model or the guide."""
        try:
            return safetensors.torch.load((self.path / f"{name}.safetensors").read_bytes())
        except FileNotFoundError:
            raise RunError(
                f"{self.path} has no {name}.safetensors yet: it was stopped before its first "
                "validation; train it on with --resume"
            ) from None
        except Exception as error:
            raise RunError(f"{self.path} is damaged: {name}.safetensors cannot be read ({error})") from None
