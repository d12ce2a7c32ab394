"""A run that is stopped, by Ctrl-C or worse, and goes on as if it had not been."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.commands import REAL, CommandLine, contents, environment
from tests.cli.conftest import furnish, recipe

STOPPING = '''
"""A SentenceVAE to which a signal is sent in its n-th training pass: STOP is `SIGNAL n`."""
import os
import signal

import torch
from pyro_nlp.models.sentence_vae import SentenceVAE


class Stopping(SentenceVAE):
    passes = 0

    def forward(self, batch):
        super().forward(batch)
        if torch.is_grad_enabled() and self.training:
            name, at = os.environ.get("STOP", "SIGINT -1").split()
            if self.passes == int(at):
                os.kill(os.getpid(), getattr(signal, name))
            self.passes += 1
'''
SAME = ("model.safetensors", "guide.safetensors")
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals as POSIX has them")


@pytest.fixture(scope="module")
def stopped(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that can be stopped, and the run `whole` that was not."""
    folder = furnish(tmp_path_factory.mktemp("stopped"))
    (folder / "stopping.py").write_text(STOPPING, "utf-8")
    text = recipe("SentenceVAE", "GaussianGuide").replace("class_path: SentenceVAE", "class_path: stopping.Stopping")
    (folder / "stopping.yaml").write_text(text, "utf-8")
    cli("train", "stopping.yaml", "--out", "whole", cwd=folder).worked()
    return folder


@pytest.fixture
def stopping(stopped: Path) -> Iterator[Path]:
    yield stopped
    shutil.rmtree(stopped / "run")


def without_time(run: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "words_per_second")} for row in rows]


def weights(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in SAME]


@posix
def test_a_run_that_was_interrupted_ends_bitwise_like_one_that_was_not(cli: CommandLine, stopping: Path) -> None:
    line = cli("train", "stopping.yaml", "--out", "run", cwd=stopping, STOP="SIGINT 12").failed()
    assert line == "training was interrupted; go on with --resume --out run"
    assert weights(stopping / "run") != weights(stopping / "whole")
    cli("evaluate", "run", "--samples", "2", "--json", cwd=stopping).worked()
    cli("train", "--resume", "--out", "run", cwd=stopping).worked()
    assert weights(stopping / "run") == weights(stopping / "whole")
    assert contents(stopping / "run").keys() - {"latent_z.png"} == contents(stopping / "whole").keys()
    bounds = [[row for row in without_time(stopping / r) if "valid.loss" in row] for r in ("run", "whole")]
    assert bounds[0] == bounds[1]
    assert (stopping / "run" / "recipe.yaml").read_text() == (stopping / "whole" / "recipe.yaml").read_text()


@posix
def test_sigterm_in_the_first_epoch_leaves_a_run_that_can_be_resumed(cli: CommandLine, stopping: Path) -> None:
    assert "interrupted" in cli("train", "stopping.yaml", "--out", "run", cwd=stopping, STOP="SIGTERM 3").failed()
    assert "has no model.safetensors yet" in cli("evaluate", "run", cwd=stopping).failed()
    cli("train", "--resume", "--out", "run", cwd=stopping).worked()
    assert weights(stopping / "run") == weights(stopping / "whole")


@posix
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(cli: CommandLine, stopping: Path) -> None:
    assert cli("train", "stopping.yaml", "--out", "run", cwd=stopping, STOP="SIGKILL 12").status == -signal.SIGKILL
    cli("evaluate", "run", "--samples", "2", "--json", cwd=stopping).worked()
    cli("train", "--resume", "--out", "run", cwd=stopping).worked()
    assert weights(stopping / "run") == weights(stopping / "whole")
    assert without_time(stopping / "run") == without_time(stopping / "whole")


@posix
def test_a_run_that_was_killed_in_its_first_epoch_says_so_or_goes_on(cli: CommandLine, stopping: Path) -> None:
    assert cli("train", "stopping.yaml", "--out", "run", cwd=stopping, STOP="SIGKILL 3").status == -signal.SIGKILL
    before = contents(stopping / "run")
    assert "run " in cli("evaluate", "run", cwd=stopping).failed()
    assert "exists already and is not overwritten" in cli("train", "vae.yaml", "--out", "run", cwd=stopping).failed()
    assert contents(stopping / "run") == before
    resumed = cli("train", "--resume", "--out", "run", cwd=stopping)
    if "checkpoint.pt" in before:
        resumed.worked()
    else:
        assert "was stopped before its first checkpoint" in resumed.failed()
        assert contents(stopping / "run") == before


@posix
def test_ctrl_c_in_a_process_from_its_start(work: Path) -> None:
    command = [*REAL, "train", "lm.yaml", "--training.epochs", "100000", "--training.plateau", "null", "--out", "run"]
    process = subprocess.Popen(
        command, cwd=work, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 90
        while not (work / "run" / "checkpoint.pt").exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
    assert process.returncode == 1 and "\r" not in out + err
    assert err == "pyro-nlp: training was interrupted; go on with --resume --out run\n"
    assert not [path for path in (work / "run").iterdir() if path.name.startswith(".")]


@posix
def test_ctrl_c_before_training_is_one_line_and_leaves_nothing(cli: CommandLine, work: Path) -> None:
    (work / "slow.py").write_text(
        "import os, signal\n"
        "from pyro_nlp.data import TextFile\n"
        "class Slow(TextFile):\n"
        "    def __init__(self, path: str):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        super().__init__(path)\n"
    )
    own = ("--corpus", "slow.Slow", "--corpus.path", "my.txt")
    assert cli("train", "lm.yaml", *own, "--out", "run", cwd=work).failed() == "interrupted"
    assert not (work / "run").exists()


def test_a_run_can_be_made_longer(cli: CommandLine, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    before = weights(tmp_path / "vae")
    assert "after epoch" in cli("train", "--resume", "--out", "vae", cwd=tmp_path).worked(), "nothing to do is no error"
    assert weights(tmp_path / "vae") == before
    cli("train", "--resume", "--out", "vae", "--training.epochs", "3", cwd=tmp_path).worked()
    rows = without_time(tmp_path / "vae")
    assert [row["epoch"] for row in rows if "valid.loss" in row] == [0, 1, 2]
    assert yaml.safe_load((tmp_path / "vae" / "recipe.yaml").read_text("utf-8"))["training"]["epochs"] == 3
    cli("train", "vae.yaml", "--training.epochs", "3", "--out", "whole", cwd=tmp_path).worked()
    assert weights(tmp_path / "vae") == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (("--model.latent", "3"), "model.latent (2)"),
        (("--guide.encoder.width", "9"), "guide.encoder.width (16)"),
        (("--training.batch_size", "16"), "training.batch_size (32)"),
        (("--training.optimizer", "SGD"), "training.optimizer.class_path (pyro_nlp.Adam)"),
        (("--strategy.kl.weight", "0.5"), "strategy.kl.weight (1.0)"),
        (("--seed", "1"), "seed (0)"),
    ],
)
def test_a_resumed_run_stays_the_run_it_was(
    cli: CommandLine, trained: Path, options: tuple[str, str], kept: str
) -> None:
    before = contents(trained / "vae")
    line = cli("train", "--resume", "--out", "vae", *options, cwd=trained).failed(2)
    assert line == f"vae: a resumed run keeps its {kept}: leave it out, or begin a new run"
    assert contents(trained / "vae") == before
