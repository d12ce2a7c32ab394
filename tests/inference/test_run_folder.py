"""The run folder: nothing half-done is ever seen, and damage is named."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_nlp.inference import RunError, RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path / "a" / "b").path.is_dir()


def test_an_empty_folder_is_taken_and_one_with_anything_in_it_is_refused(tmp_path: Path) -> None:
    RunFolder.create(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists already and is not overwritten: choose another --out"):
        RunFolder.create(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_existing_run_is_refused_with_the_way_to_go_on(folder: RunFolder) -> None:
    folder.save_checkpoint({"step": 1})
    with pytest.raises(RunError, match="is not overwritten: add --resume to go on with it"):
        RunFolder.create(folder.path)


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="exists already"):
        RunFolder.create(tmp_path / "run")
    with pytest.raises(RunError, match="there is no run folder"):
        RunFolder.open(tmp_path / "run")
    with pytest.raises(RunError, match="cannot make the run folder .*: Not a directory"):
        RunFolder.create(tmp_path / "run" / "inside")


def test_a_folder_without_a_checkpoint_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"holds no checkpoint.pt: it is not a run, or was stopped before"):
        RunFolder.open(tmp_path)


def test_a_checkpoint_comes_back_as_it_was(folder: RunFolder) -> None:
    state = {"a": torch.randn(3), "b": {"c": [1, 2.5, None, True, "text"]}, "random": torch.get_rng_state()}
    folder.save_checkpoint(state)
    found = RunFolder.open(folder.path).load_checkpoint()
    assert torch.equal(found["a"], state["a"]) and torch.equal(found["random"], state["random"])  # type: ignore[arg-type]
    assert found["b"] == state["b"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b[:-10],
        lambda b: b"not a checkpoint",
        lambda b: b[::-1],
        lambda b: b"\x80\x04junk",
    ],
    ids=["empty", "half", "cut", "text", "backwards", "a broken pickle"],
)
def test_a_damaged_checkpoint_is_one_line_that_names_it(folder: RunFolder, damage: Any) -> None:
    folder.save_checkpoint({"a": torch.randn(1000)})
    path = folder.path / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match=r"is damaged: checkpoint.pt cannot be read") as raised:
        folder.load_checkpoint()
    assert "\n" not in str(raised.value)


def test_a_checkpoint_that_would_run_code_is_refused(folder: RunFolder) -> None:
    torch.save({"a": os.getcwd}, folder.path / "checkpoint.pt")
    with pytest.raises(RunError, match="checkpoint.pt cannot be read"):
        folder.load_checkpoint()


def test_weights_come_back_as_they_were(folder: RunFolder) -> None:
    state = {"a": torch.randn(3, 2), "b": torch.tensor(3), "c": torch.randn(4, 3).T}
    folder.save_weights("model", state, 7)
    found = folder.load_weights("model")
    assert all(torch.equal(found[k], state[k]) for k in state)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:20], lambda b: b[:-5], lambda b: b"{}"])
def test_damaged_weights_are_one_line_that_names_them(folder: RunFolder, damage: Any) -> None:
    folder.save_weights("guide", {"a": torch.randn(3, 2)}, 7)
    path = folder.path / "guide.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match=r"is damaged: guide.safetensors cannot be read") as raised:
        folder.load_weights("guide")
    assert "\n" not in str(raised.value)


def test_missing_weights_say_how_to_get_them(folder: RunFolder) -> None:
    with pytest.raises(RunError, match=r"has no model.safetensors yet: .*; train it on with --resume"):
        folder.load_weights("model")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_saved_before(
    folder: RunFolder, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.save_checkpoint({"step": 1})
    before = sorted(p.name for p in folder.path.iterdir())

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(RunError, match=r"cannot write .*checkpoint.pt: No space left.*saved before is intact"):
            folder.save_checkpoint({"step": 2})
    assert sorted(p.name for p in folder.path.iterdir()) == before
    assert folder.load_checkpoint() == {"step": 1}


def test_an_interruption_while_writing_leaves_what_was_saved_before(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.save_checkpoint({"step": 1})

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            folder.save_checkpoint({"step": 2})
    assert [p.name for p in folder.path.iterdir()] == ["checkpoint.pt"]
    assert folder.load_checkpoint() == {"step": 1}


def test_metrics_are_rows_and_those_after_a_step_can_be_forgotten(folder: RunFolder) -> None:
    assert folder.metrics() == []
    folder.forget_metrics_after(3)
    for step in range(1, 6):
        folder.log({"step": step, "loss": step / 3})
    with open(folder.path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')  # a kill in the middle of a line
    folder.forget_metrics_after(3)
    assert folder.metrics() == [{"step": step, "loss": step / 3} for step in (1, 2, 3)]


def test_a_line_cut_off_by_a_kill_does_not_hide_the_others(folder: RunFolder) -> None:
    folder.log({"step": 1})
    with open(folder.path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 2, "lo')
    assert folder.metrics() == [{"step": 1}]


def test_a_file_that_is_not_text_is_named(folder: RunFolder) -> None:
    folder.write("environment.json", b"\xff\xfe\x00")
    with pytest.raises(RunError, match=r"is damaged: cannot read environment.json"):
        folder.read_text("environment.json")
    with pytest.raises(RunError, match=r"is damaged: cannot read recipe.yaml"):
        folder.read_text("recipe.yaml")
