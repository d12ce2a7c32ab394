"""compare: several strategies in one table, through an interruption and a kill."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_nlp.comparison_table import Comparison, Row
from tests.cli.commands import CommandLine, contents, sentences
from tests.cli.test_cli_strategies import MIXTURE
from tests.cli.test_cli_zoo import rows

STOPPING = '''
"""A SentenceMixture that obeys the file `stop`, once, in the second epoch: interrupt the comparison, or die."""
import os
import signal

import torch
from pyro_nlp.models.sentence_mixture import SentenceMixture


class Stopping(SentenceMixture):
    passes = 0

    def forward(self, batch):
        super().forward(batch)
        self.passes += torch.is_grad_enabled() and self.training
        if self.passes == 12 and os.path.exists("stop"):
            with open("stop") as file:
                whom, how = file.read().split()
            os.remove("stop")
            os.kill(os.getppid() if whom == "comparison" else os.getpid(), getattr(signal, how))
'''
COMPARE = ("compare", "mixture.yaml", "--out", "cmp", "--workers", "2", "--seeds")
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals as POSIX has them")


def furnish(folder: Path) -> Path:
    """Sentences of two lengths, which are their labels, and a mixture of three classes."""
    lines = [f"{'long' if len(s.split()) > 5 else 'short'} {s}" for s in sentences(300).splitlines()]
    (folder / "my.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "stopping.py").write_text(STOPPING, "utf-8")
    text = MIXTURE.replace("class_path: SentenceMixture", "class_path: stopping.Stopping")
    text = text.replace(
        "{class_path: TextFile, init_args: {path: my.txt}}", "{class_path: LabelledLines, init_args: {train: my.txt}}"
    )
    (folder / "mixture.yaml").write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="module")
def compared(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that was interrupted, then lost a run, and then was finished, with more seeds and strategies."""
    folder = furnish(tmp_path_factory.mktemp("compared"))
    (folder / "stop").write_text("comparison SIGINT", "utf-8")
    line = cli(*COMPARE, "1", "--strategies", "enumerate", cwd=folder).failed()
    assert line == "the comparison was interrupted; give the same command again to go on"
    saved = torch.load(folder / "cmp" / "enumerate" / "seed0" / "checkpoint.pt", weights_only=True)
    assert saved["counters"]["row"] > 0, "in the middle of an epoch: what was running saved its state"
    assert not (folder / "cmp" / "table.json").exists()

    (folder / "stop").write_text("run SIGKILL", "utf-8")
    ended = cli(*COMPARE, "1", "--strategies", "enumerate", "rloo", cwd=folder)
    assert ended.status == 1 and "\nnot finished: " in ended.out and "failed" in ended.out
    first, second = ended.err.split(" (")
    assert first == "pyro-nlp: 1 run was not finished"
    assert re.fullmatch(r"\w+, seed 0: killed by signal 9\); give the same command again to go on\n", second)
    finished = cli(*COMPARE, "2", "--strategies", "enumerate", "rloo", "subset", cwd=folder).worked()
    (folder / "printed").write_text(finished, "utf-8")
    return folder


@posix
def test_a_comparison_is_one_table_with_a_row_for_every_strategy(compared: Path) -> None:
    printed = (compared / "printed").read_text("utf-8")
    assert printed.startswith("mixture on LabelledLines(my.txt: ") and "2 seeds; nats per document" in printed
    titles, first, second, third = rows(printed.replace("┃", "│"))
    assert titles == [
        *("strategy", "NLL (exact)", "- enumerate", "KL", "many-to-one", "V-measure", "gradient variance"),
        *("s / epoch", "evaluations / epoch", "peak memory"),
    ]
    assert [first[0], second[0], third[0]] == ["enumerate", "rloo", "subset"]
    assert re.fullmatch(r"\d+\.\d\d ± \d\.\d\d \[\d\.\d\d\]", first[1]) and first[2] == "-"
    assert re.fullmatch(r"[+-]\d\.\d\d ± \d\.\d\d", second[2])
    assert third[1:] == ["refused", *["-"] * 8]
    assert "subset is refused: site 'c': Subset(k=3) of 3 values leaves none to sample: give it Enumerate()" in printed
    page = (compared / "cmp" / "table.md").read_text("utf-8")
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert lines == [titles, ["---"] * 10, first, second, third]
    assert (compared / "cmp" / "curves.png").read_bytes().startswith(b"\x89PNG")


@posix
def test_its_numbers_follow_from_the_runs(compared: Path) -> None:
    found = json.loads((compared / "cmp" / "table.json").read_text("utf-8"))
    first, second, refused = found["rows"]
    nll = {
        name: np.stack([np.load(compared / "cmp" / name / f"seed{seed}" / "nll.npz")["nll"] for seed in (0, 1)])
        for name in ("enumerate", "rloo")
    }
    assert nll["rloo"].shape == (2, found["documents"])
    difference = nll["rloo"].mean(0) - nll["enumerate"].mean(0)
    assert second["difference"]["mean"] == pytest.approx(difference.mean())
    assert second["difference"]["standard_error"] == pytest.approx(difference.std(ddof=1) / len(difference) ** 0.5)
    assert second["nll"] == pytest.approx(nll["rloo"].mean()) and second["samples"] == 0
    assert second["spread"] == pytest.approx(nll["rloo"].mean(1).std(ddof=1))
    documents = int(found["about"]["corpus"].split(": ")[1].split(" /")[0])
    assert (first["evaluations_per_epoch"], second["evaluations_per_epoch"]) == (3 * documents, 4 * documents)
    assert first["variance_of"] == "guide" and first["variance_start"] < 1e-12 < second["variance_start"]
    assert 0.5 < first["many_to_one"] <= 1 and 0 <= first["v_measure"] <= 1 and first["kl"] >= 0
    assert first["peak_memory"] > 2**27 and first["seconds_per_epoch"] > 0
    assert [len(curve) for curve in first["curves"].values()] == [2, 2]
    assert all(a[0] < b[0] for a, b in first["curves"].values()), "seconds go on where they were left"
    assert refused["refused"] and not refused["seeds"] and refused["nll"] is None


@posix
def test_a_run_that_was_stopped_ends_like_one_that_was_not(cli: CommandLine, compared: Path) -> None:
    for strategy in ("enumerate", "rloo"):
        out = compared / f"whole-{strategy}"
        cli("train", "mixture.yaml", "--strategy", strategy, "--out", out, cwd=compared).worked()
        for name in ("model.safetensors", "guide.safetensors"):
            assert (compared / "cmp" / strategy / "seed0" / name).read_bytes() == (out / name).read_bytes()
    found = json.loads(cli("evaluate", "cmp/rloo/seed1", "--samples", "2", "--json", cwd=compared).worked())
    result = json.loads((compared / "cmp" / "rloo" / "seed1" / "result.json").read_text("utf-8"))
    assert found["likelihood"]["nll"] == pytest.approx(result["nll"]["mean"], rel=1e-6)


@posix
def test_nothing_finished_is_repeated_and_a_smaller_comparison_is_part_of_it(cli: CommandLine, compared: Path) -> None:
    before = contents(compared / "cmp" / "rloo")
    part = ("compare", "mixture.yaml", "--strategies", "rloo", "--seeds", "1", "--out", "cmp", "--json")
    found = json.loads(cli(*part, cwd=compared).worked())
    assert [row["strategy"] for row in found["rows"]] == ["rloo"] and found["rows"][0]["spread"] is None
    assert contents(compared / "cmp" / "rloo") == before
    # another comparison is refused, and changes nothing
    before = contents(compared / "cmp")
    for option, said in (
        (("--training.epochs", "3"), "training.epochs is 2 there, not 3"),
        (("--samples", "7"), "samples is 100 there, not 7"),
        (("--strategy.bound.particles", "9"), "rloo.bound.particles is 4 there, not 9"),
    ):
        line = cli(*part, *option, cwd=compared).failed()
        assert line == f"cmp holds another comparison ({said}): choose another --out"
    assert contents(compared / "cmp") == before


def test_what_cannot_be_compared_is_one_line_and_nothing_is_written(cli: CommandLine, tmp_path: Path) -> None:
    furnish(tmp_path)
    before = contents(tmp_path)

    def refused(*arguments: str, status: int = 2) -> str:
        return cli("compare", "mixture.yaml", *arguments, cwd=tmp_path).failed(status)

    assert refused("--strategies", "enumerate", "rlo").startswith("there is no strategy 'rlo'; did you mean 'rloo'?")
    assert refused("--strategies", "rloo", "rloo") == "the strategy 'rloo' is given twice"
    assert "argument --seeds: 0 is not positive" in refused("--strategies", "rloo", "--seeds", "0")
    assert "argument --workers: 0 is not positive" in refused("--strategies", "rloo", "--workers", "0")
    assert "are required: --strategies" in refused()
    assert (
        refused("--strategies", "rloo", "--strategy", "iwae") == "compare takes --strategies a b c, and no --strategy"
    )
    assert "there is no option '--training.epoch'" in refused("--strategies", "rloo", "--training.epoch", "1")
    assert "nowhere.txt" in refused("--strategies", "rloo", "--corpus.train", "nowhere.txt", status=1)
    assert refused("--strategies", "rloo", "--out", ".", status=1) == (
        ". exists already and is not overwritten: choose another --out"
    )
    assert contents(tmp_path) == before and not (tmp_path / "runs").exists()


def test_a_table_leaves_out_what_no_strategy_has() -> None:
    rows = [Row("a", seeds=[0], nll=2.0, samples=5, variance_of="model", variance_start=1, variance_end=2)]
    rows += [Row("b", failed={0: "the loss is not finite"})]
    for i, row in enumerate(rows[:1]):
        rows[i] = Row(**{**vars(row), "seconds_per_epoch": 1.0, "evaluations_per_epoch": 1000})
    found = Comparison(rows, {"recipe": "r", "corpus": "c", "seeds": [0]}, 9)
    titles, (first, second) = found.cells()
    assert titles == ["strategy", "NLL (5 samples)", "gradient variance", "s / epoch", "evaluations / epoch"]
    assert first == ["a", "2.00", "1 → 2*", "1.0", "1,000"] and second == ["b", "failed", "-", "-", "-"]
    assert found.failures == ["b, seed 0: the loss is not finite"] and "not finished: b, seed 0" in found.markdown()
