"""`pyro-nlp diagnose`: files, the table, several runs, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from pyro_nlp.evaluation import read_netcdf
from tests.cli.commands import CommandLine, contents, sentences

FEW = ("--draws", "30", "--documents", "25")
MADE = {"report.html", "diagnosis.json", "posterior.nc"}


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A folder of the test's own with the three runs and their text."""
    shutil.copy(trained / "my.txt", tmp_path)
    for name in ("vae", "autoencoder", "lm"):
        shutil.copytree(trained / name, tmp_path / name)
    return tmp_path


def test_a_run_gets_a_report_its_numbers_and_its_posterior(cli: CommandLine, runs: Path) -> None:
    before = contents(runs)
    printed = cli("diagnose", "vae", *FEW, cwd=runs).worked()
    made = {name.removeprefix("vae/") for name in contents(runs) if name not in before}
    assert made == MADE and before.items() <= contents(runs).items()
    assert printed.startswith("test split, 25 documents, nats per document\n")
    assert printed.endswith("report: vae/report.html\n")
    for measure in (r"NLL, 30 importance samples +│ \d", r"KL of z +│ \d", r"k-hat above 0.7 +│ \d", r"active units"):
        assert re.search(measure, printed)
    (found,) = json.loads((runs / "vae" / "diagnosis.json").read_text("utf-8"))["runs"]
    assert found["protocol"] == {"split": "test", "documents": 25, "draws": 30, "seed": 0}
    assert found["verdict"]["headline"] in printed
    assert f"│ {found['evaluation']['likelihood']['nll']:.2f} ± " in printed
    assert {len(found["sections"]["documents"][key]) for key in ("nll", "kl", "pareto_k", "texts")} == {25}
    page = (runs / "vae" / "report.html").read_text("utf-8")
    assert page.startswith("<!doctype html>") and found["verdict"]["headline"] in page and len(page) < 2_000_000
    posterior = read_netcdf(runs / "vae" / "posterior.nc")
    assert posterior["posterior"]["z"].sizes["document"] == 25


def test_json_is_what_the_file_holds_and_a_seed_repeats_it(cli: CommandLine, runs: Path) -> None:
    options = ("--split", "valid", "--out", "there", "--json", *FEW)
    printed = json.loads(cli("diagnose", "lm", *options, cwd=runs).worked())
    assert printed == json.loads((runs / "there" / "diagnosis.json").read_text("utf-8"))
    assert printed == json.loads(cli("diagnose", "lm", *options, cwd=runs).worked())
    assert printed["runs"][0]["protocol"]["split"] == "valid"
    other = json.loads(cli("diagnose", "lm", *options, "--seed", "1", cwd=runs).worked())
    assert other["runs"][0]["sections"]["samples"] != printed["runs"][0]["sections"]["samples"]


def test_several_runs_share_a_report_and_are_paired(cli: CommandLine, runs: Path) -> None:
    before = contents(runs)
    printed = cli("diagnose", "vae", "lm", "autoencoder", *FEW, cwd=runs).worked()
    assert set(contents(runs)) - set(before) == {"report.html", "diagnosis.json", "posterior-vae.nc"}
    header = next(line for line in printed.splitlines() if "measure" in line)
    assert re.findall(r"\w+", header) == ["measure", "vae", "lm", "autoencoder"]
    paired = re.search(r"NLL - vae, paired +│ +│ ([+-]\d+\.\d\d ± \d+\.\d\d) ", printed)
    found = json.loads((runs / "diagnosis.json").read_text("utf-8"))
    nll = [run["evaluation"]["likelihood"] for run in found["runs"]]
    assert paired and nll[2] is None and found["reference"] == "vae"
    assert found["paired"]["lm"]["mean"] == pytest.approx(nll[1]["nll"] - nll[0]["nll"], rel=1e-9)
    page = (runs / "report.html").read_text("utf-8")
    assert "3 runs, diagnosed" in page and paired[1] in page


def test_what_a_run_without_a_guide_cannot_show_is_one_line(cli: CommandLine, runs: Path) -> None:
    printed = cli("diagnose", "lm", *FEW, cwd=runs).worked()
    lines = [line for line in printed.splitlines() if "left out" in line]
    assert len(lines) == 1
    assert lines[0].startswith(
        "  SentenceLM was trained without a guide, as it has no latents; left out: KL by dimension"
    )
    assert lines[0].endswith("posterior.nc.")
    assert "lm: No latent variables: there is nothing to infer." in printed
    assert not (runs / "lm" / "posterior.nc").exists() and (runs / "lm" / "report.html").exists()


def test_a_point_guide_has_no_density_and_all_else(cli: CommandLine, runs: Path) -> None:
    printed = cli("diagnose", "autoencoder", *FEW, cwd=runs).worked()
    assert "  PointGuide answers with a point, which has no density; left out: KL by dimension, " in printed
    (found,) = json.loads((runs / "autoencoder" / "diagnosis.json").read_text("utf-8"))["runs"]
    assert {"projection", "interpolations", "traversals", "reconstructions"} <= set(found["sections"])


def test_the_cure_of_a_collapsed_run_is_a_recipe(cli: CommandLine, runs: Path, work: Path) -> None:
    cli("diagnose", "vae", *FEW, cwd=runs).worked()
    (found,) = json.loads((runs / "vae" / "diagnosis.json").read_text("utf-8"))["runs"]
    assert found["verdict"]["state"] == "collapsed"
    cure = yaml.safe_load(found["verdict"]["cure"])
    recipe = yaml.safe_load((work / "vae.yaml").read_text("utf-8"))
    (work / "cured.yaml").write_text(yaml.safe_dump(recipe | cure), "utf-8")
    assert "FreeBits" in cli("check", "cured.yaml", cwd=work).worked()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("nowhere",), 1, "there is no run folder nowhere"),
        ((".",), 1, ". holds no checkpoint.pt: it is not a run"),
        (("lm", "nowhere"), 1, "there is no run folder nowhere"),
        (("lm", "lm"), 1, "the same run is given twice"),
        ((), 2, "the following arguments are required: RUN"),
        (("vae", "--documents", "1"), 2, "argument --documents: 1 is less than 2"),
        (("vae", "--draws", "1"), 2, "argument --draws: 1 is too few to judge the weights by: at least 21"),
        (("vae", "--draws", "many"), 2, "argument --draws: invalid int value: 'many'"),
        (("vae", "--split", "all"), 2, "argument --split: invalid choice: 'all'"),
        (("vae", "--model.latent", "3"), 2, "unrecognized arguments: --model.latent=3"),
        (("lm", "--out", "my.txt"), 1, "cannot make the folder my.txt: File exists"),
        (("lm", "--out", "my.txt/there"), 1, "cannot make the folder my.txt/there: Not a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_diagnosed_is_one_line_and_nothing_is_written(
    cli: CommandLine, trained: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    before = contents(trained)
    few = () if {"--draws", "--documents"} & set(arguments) or status == 2 else FEW
    assert cli("diagnose", *arguments, *few, cwd=trained).failed(status).startswith(message)
    assert contents(trained) == before


def test_runs_that_differ_by_their_seed_alone_are_asked_whether_they_agree(
    cli: CommandLine, runs: Path, work: Path
) -> None:
    cli("train", "vae.yaml", "--seed", "1", "--out", "other", cwd=work).worked()
    cli("train", "vae.yaml", "--seed", "1", "--training.epochs", "1", "--out", "shorter", cwd=work).worked()
    printed = cli("diagnose", "vae", "other", "lm", "shorter", *FEW, cwd=work).worked()
    lines = [line for line in printed.splitlines() if line.startswith("vae, other: ")]
    found = json.loads((work / "diagnosis.json").read_text("utf-8"))
    (agreement,) = found["agreements"]
    assert agreement["runs"] == ["vae", "other"]
    bounds = [max(-row["valid.loss"] for row in metrics(work / name)) for name in ("vae", "other")]
    assert agreement["bounds"] == pytest.approx(bounds, rel=1e-12)
    mean, deviation = sum(bounds) / 2, abs(bounds[0] - bounds[1]) / 2**0.5
    assert lines[0] == f"vae, other: validation bound, 2 seeds: {mean:.2f}, standard deviation {deviation:.2f}"
    assert re.search(r"linear CKA of z: [01]\.\d\d, from ", lines[-1])
    assert "Agreement between seeds" in (work / "report.html").read_text("utf-8")
    assert "agreements" not in json.loads(cli("diagnose", "vae", "shorter", "--json", *FEW, cwd=work).worked())


def metrics(folder: Path) -> list[dict[str, float]]:
    """The rows with a validation bound."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [row for row in rows if "valid.loss" in row]


def test_weights_that_are_nan_name_a_document_and_the_site(cli: CommandLine, runs: Path) -> None:
    weights = load_file(runs / "vae" / "guide.safetensors")
    name = next(name for name in weights if "loc" in name)
    save_file(weights | {name: torch.full_like(weights[name], torch.nan)}, runs / "vae" / "guide.safetensors")
    before = contents(runs)
    line = cli("diagnose", "vae", *FEW, cwd=runs).failed()
    assert re.match(r"document \d+: 30 of 30 importance weights are NaN: .*'z'", line), line
    assert contents(runs) == before


def test_a_corpus_that_has_changed_is_named(cli: CommandLine, runs: Path) -> None:
    (runs / "my.txt").write_text(sentences(300, seed=1), "utf-8")
    before = contents(runs)
    line = cli("diagnose", "vae", *FEW, cwd=runs).failed()
    assert line.startswith("the corpus 'my' has changed since vae began (fingerprint ") and "restore it" in line
    assert contents(runs) == before


def test_a_full_disk_leaves_the_last_report_as_it_was(cli: CommandLine, runs: Path) -> None:
    cli("diagnose", "lm", *FEW, cwd=runs).worked()
    before = contents(runs)
    line = cli("diagnose", "lm", *FEW, "--seed", "1", cwd=runs, file_size=2000).failed()
    assert line == "cannot write lm/diagnosis.json: File too large; what was saved before is intact"
    assert contents(runs) == before
