"""The report as a page: data of every model of the zoo, and a real browser that clicks through it."""

from __future__ import annotations

import html
import html.parser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_nlp import Run
from pyro_nlp.data import Corpus
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.vocabulary import Vocabulary
from pyro_nlp.diagnosis import Diagnoses, as_dict, diagnose, diagnose_runs, page, save
from pyro_nlp.diagnosis.blocks import Grid
from pyro_nlp.diagnosis.orders import Orders, show_orders
from pyro_nlp.models.hmm import HMM
from tests import tiny

NO_BROWSER = "no Chromium is installed: THE REPORT IS NOT TESTED in a browser"
EVIL = '</title><script>alert("1")</script>'


class Labelled(Corpus):
    """Random sentences with words, one of which is markup, and labels."""

    def __init__(self) -> None:
        self.name, self.reference, self.labels = "labelled", "made up", ("<b>one", "two & three", "four")
        self.vocabulary = Vocabulary([EVIL, *(f"w{i}" for i in range(tiny.VOCABULARY - 5))])
        self.train, self.valid, self.test = (self._split(count, seed) for seed, count in enumerate((60, 10, 40)))

    def _split(self, count: int, seed: int) -> TextSplit:
        labels = np.random.default_rng(seed).integers(-1, len(self.labels), count)
        return TextSplit.from_sentences(tiny.sentences(count, seed), labels)


HISTORY: list[dict[str, Any]] = [
    {"step": 1, "epoch": 0, "loss": 20.0, "kl.z": 0.5, "kl_weight.z": 0.5, "gradient_norm": 3.0, "valid.loss": 19.0},
    {
        "step": 2,
        "epoch": 1,
        "loss": 18.0,
        "kl.z": 0.7,
        "kl_weight.z": 1.0,
        "gradient_norm": 2.0,
        "valid.loss": 18.0,
        "snr.model": 1.5,
    },
]
FEW = {"documents": 30, "draws": 30}


def run(pair: tuple[Any, Any], corpus: Corpus | None = None, marginal: tuple[str, ...] = ()) -> Run:
    return Run(*pair, corpus or Labelled(), HISTORY, None, marginal)


def hmm() -> tuple[HMM, None]:
    torch.manual_seed(0)
    return HMM(tiny.VOCABULARY, 4), None


MODELS: dict[str, Any] = {
    "vae": lambda: run(tiny.vae()),
    "autoencoder": lambda: run(tiny.autoencoder()),
    "lm": lambda: run((tiny.lm(), None)),
    "mixture": lambda: run(tiny.mixture()),
    "mixture, summed out": lambda: run((tiny.mixture()[0], None)),
    "discrete": lambda: run(tiny.discrete()),
    "styled": lambda: run(tiny.styled()),
    "hmm": lambda: run(hmm()),
    "ring": lambda: run(tiny.ring(), tiny.Vectors(torch.randn(30, 2))),
    "no vocabulary": lambda: run(tiny.vae(), tiny.Sentences()),
}


class Checker(html.parser.HTMLParser):
    """Collects what a page refers to, its ids, and whether every element is closed."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        assert not [name for name in given if name.startswith("on")], "a handler in the text of the page"
        if tag == "svg" and not (given.get("aria-label") and given.get("role") == "img"):
            self.unnamed.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> Checker:
    """Assert what holds for every report, and give what was collected."""
    checker = Checker()
    checker.feed(text)
    assert checker.open == [] and checker.unnamed == []
    assert len(set(checker.ids)) == len(checker.ids), "two elements of one id"
    assert all(link.startswith("#") and link[1:] in checker.ids for link in checker.links), checker.links
    assert not re.search(r"https?://|@import|url\((?!#)", text), "something to be fetched"
    assert "<script>alert" not in text
    return checker


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_diagnosed_and_what_does_not_apply_is_left_out_with_a_reason(name: str) -> None:
    found = diagnose(MODELS[name](), name=EVIL, **FEW)
    assert found.verdict.headline.endswith(".")
    assert all(len(why) > 20 and "\n" not in why for why in found.left_out.values())
    everything = Diagnoses([found], None, {})
    json.dumps(as_dict(everything), allow_nan=False)
    text = page(everything)
    checked(text)
    assert "&lt;script&gt;alert" in text
    for title in found.left_out:
        assert title in text
    if name == "vae":
        assert not found.left_out
        assert "signal to noise of the gradient, model" in text and "Along the direction of most difference" in text
    if name in ("lm", "hmm"):
        assert found.verdict.state == "none" and set(found.sections) == {"curves", "checks", "samples", "documents"}


def test_a_report_of_several_runs_pairs_them_by_document() -> None:
    runs = {name: MODELS[name]() for name in ("autoencoder", "vae", "lm")}
    found = diagnose_runs(runs, **FEW)
    assert found.reference == "vae" and set(found.differences) == {"lm"}
    nll = {one.name: one.evaluation.likelihood for one in found.runs}
    assert nll["vae"] is not None and nll["lm"] is not None
    np.testing.assert_array_equal(found.differences["lm"], nll["lm"].nll - nll["vae"].nll)
    text = page(found)
    checked(text)
    assert str(found.paired["lm"]) in text


def test_runs_of_different_corpora_are_not_paired() -> None:
    with pytest.raises(ValueError, match="a and b are of different corpora .labelled, random sentences."):
        diagnose_runs({"a": MODELS["vae"](), "b": MODELS["no vocabulary"]()}, **FEW)


def test_a_guide_that_misses_the_posterior_is_a_doubt_and_breaks_no_section() -> None:
    model, guide = tiny.vae()
    with torch.no_grad():
        guide.posterior.loc.bias.fill_(50.0)
        guide.posterior.log_variance.bias.fill_(-20.0)
    found = diagnose(run((model, guide)), **FEW)
    assert any("k-hat" in doubt or "weights that count" in doubt for doubt in found.verdict.doubts), found.verdict
    checked(page(Diagnoses([found], None, {})))


def test_runs_of_one_recipe_show_whether_they_agree() -> None:
    runs = {name: run(tiny.styled(seed)) for seed, name in enumerate(("first", "second", "third"))}
    runs["alone"] = MODELS["vae"]()
    found = diagnose_runs(runs, seeds=[("first", "second", "third")], **FEW)
    (agreement,) = found.agreements
    assert agreement.runs == ("first", "second", "third")
    assert agreement.measure == {"z": "linear CKA", "c": "adjusted Rand index"}
    text = page(found)
    checked(text)
    assert "Agreement between seeds" in text and f"{agreement.between('z')[0]:.2f}" in text
    json.dumps(as_dict(found), allow_nan=False)
    assert len(found.agreement_lines()) == len(agreement.rows())


def test_two_documents_are_the_fewest() -> None:
    with pytest.raises(ValueError, match="there is 1 in the test split: it wants 2"):
        diagnose(run(tiny.vae(), tiny.Sentences(test=1)))
    assert diagnose(run(tiny.vae(), tiny.Sentences(test=2)), **FEW).evaluation.documents == 2


def test_the_same_seed_gives_the_same_report_to_the_last_byte() -> None:
    first, second = (page(diagnose_runs({"vae": MODELS["vae"]()}, **FEW)) for _ in range(2))
    assert first == second


# ---- in a browser ----------------------------------------------------------------------------------------------------


def browser() -> str:
    """A Chromium, or the test is skipped."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(NO_BROWSER)
    return found


FRAME = """<!doctype html><iframe src="{report}#selftest" style="width: {width}px; height: 900px; border: 0"></iframe>
<script>onload = () => {{
  document.body.dataset.selftest = document.querySelector("iframe").contentDocument.documentElement.dataset.selftest;
}};</script>"""


def opened(report: Path, width: int = 1280) -> tuple[dict[str, Any], str]:
    """What the page's own test of itself wrote down, and what the browser said on its console.

    In a frame of that width, as no window is as narrow as a phone.
    """
    frame, profile = report.with_name("frame.html"), report.with_name("profile")
    frame.write_text(FRAME.format(report=report.name, width=width), "utf-8")
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
    command += ["--allow-file-access-from-files", "--enable-logging=stderr", "--v=0", "--window-size=1400,1000"]
    environment = {**os.environ, "HOME": str(profile)}
    done = subprocess.run(
        [*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=60, env=environment
    )
    written = re.search(r'data-selftest="([^"]*)"', done.stdout)
    assert written, done.stderr
    said = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(html.unescape(written[1])), said


@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_tables_are_sorted_and_steppers_step_without_a_word_on_the_console(
    tmp_path: Path, width: int
) -> None:
    browser()
    report = save(diagnose_runs({EVIL: MODELS["vae"](), "lm": MODELS["lm"]()}, **FEW), tmp_path / "report")
    found, said = opened(report, width)
    assert not said
    assert len(found["sorted"]) >= 4 and all(found["sorted"])
    assert len(found["stepped"]) == 3
    assert len(found["pinned"]) >= 5 and all(found["pinned"]), "a first column that is scrolled out of sight"
    assert found["width"] == width and not found["wide"], "the page is wider than its window"
    for stepper in found["stepped"]:
        last = stepper["steps"] - 1
        assert [shown for _, shown in stepper["trail"]] == [0, 1, 2, 1, 0, last, 0]
        assert [place for place, _ in stepper["trail"]] == [f"{i + 1} of {last + 1}" for _, i in stepper["trail"]]


def test_a_word_on_the_console_would_be_seen(tmp_path: Path) -> None:
    browser()
    report = save(diagnose_runs({"lm": MODELS["lm"]()}, **FEW), tmp_path)
    text = report.read_text("utf-8")
    report.write_text(text.replace("</main>", '</main><img src="https://example.org/x.png" alt="">'), "utf-8")
    assert "Content Security Policy" in opened(report)[1]


@pytest.mark.parametrize(("combinations", "said"), [(2, ""), (13, "; 11 more combinations of classes are left out")])
def test_orders_that_the_grid_has_no_room_for_are_counted(combinations: int, said: str) -> None:
    grid, _ = show_orders(Orders(["a", "b"], [["x", "y"]], [["a", "b"]], combinations, []))
    assert isinstance(grid, Grid) and grid.caption == f"The same code to different orders{said}"
