"""The report of a topic model: its topics, the map of them, documents as mixtures, and a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_nlp import Run
from pyro_nlp.data.counts import CountSplit
from pyro_nlp.data.vocabulary import WordList
from pyro_nlp.diagnosis import Diagnoses, as_dict, diagnose, diagnose_runs, page, save, save_posteriors
from pyro_nlp.diagnosis.bags import bag_text
from pyro_nlp.diagnosis.topics import hellinger, scaled
from pyro_nlp.evaluation import read_netcdf, top_words
from pyro_nlp.guides.mean_field import MeanFieldGuide
from tests import bags
from tests.test_report_page import EVIL, FEW, browser, checked, opened, run


class LabelledBags(bags.Bags):
    """Bags of words with names, one of which is markup, and labels; one document is empty."""

    def __init__(self) -> None:
        super().__init__(60, 10, 40)
        self.vocabulary, self.labels = WordList([EVIL, *"bcdefg"]), ("<i>odd", "even")
        self.train, self.valid, self.test = map(self._labelled, (self.train, self.valid, self.test))

    def _labelled(self, split: CountSplit) -> CountSplit:
        labels = np.arange(len(split)) % 3 - 1
        return CountSplit(split.offsets, split.words, split.counts, split.vocabulary, labels)


def topic_run(name: str) -> Run:
    """A topic model's, of every prior that there is."""
    torch.manual_seed(0)
    model, guide, _ = bags.make(name)
    return run((model, guide), LabelledBags())


@pytest.mark.parametrize("name", bags.MODELS)
def test_every_topic_model_is_diagnosed_by_its_topics_and_documents_as_mixtures(name: str) -> None:
    found = diagnose(topic_run(name), name=EVIL, **FEW)
    everything = Diagnoses([found], None, {})
    json.dumps(as_dict(everything), allow_nan=False)
    text = page(everything)
    checked(text)
    assert {"topics", "mixtures", "weights", "projection", "probes", "nearest", "documents"} <= set(found.sections)
    assert {"Interpolations", "Documents read back"} <= set(found.left_out)
    assert len(found.sections["calibration"].ranks) == bags.TOPICS + 1
    assert all(len(why) > 20 and "\n" not in why for why in found.left_out.values())
    topics, mixtures = found.sections["topics"], found.sections["mixtures"]
    shares = [topic.share for topic in topics.topics]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
    assert all(sum(item.shares) == pytest.approx(1) for item in mixtures)  # all three are named
    assert topics.mixed == (not name.startswith(("NVDM", "ProdLDA")))
    assert ("adds their logits" in text) == (not topics.mixed)
    assert text.count('class="mark"') == 3 and "distinct topics" in text
    assert found.evaluation.perplexity_per_document is not None and "tokens" in found.rows()


def test_the_map_keeps_the_distances_of_topics_that_lie_in_a_plane() -> None:
    beta = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    places, explained = scaled(beta)
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    root = np.sqrt(beta)
    exact = np.sqrt(((root[:, None] - root) ** 2).sum(-1) / 2)  # Hellinger, written out
    np.testing.assert_allclose(hellinger(beta), exact, atol=1e-7)  # the root of a difference of float64
    np.testing.assert_allclose(apart, exact, atol=1e-7)  # three points lie in a plane
    assert explained.sum() == pytest.approx(1)
    np.testing.assert_array_equal(scaled(np.full((3, 4), 0.25))[0], np.zeros((3, 2)))


def test_topics_that_are_all_alike_are_a_doubt_and_still_have_a_map() -> None:
    made = topic_run("LDA")
    with torch.no_grad():
        made.model.weights.copy_(made.model.weights[:1].expand_as(made.model.weights))
    found = diagnose(made, **FEW)
    assert found.sections["topics"].distinct == 1
    assert "Topics repeat each other: 1 of 3 distinct." in found.verdict.doubts
    text = page(Diagnoses([found], None, {}))
    checked(text)
    assert "nan" not in "".join(re.findall(r"<circle[^>]*>", text))


def test_the_cure_of_a_topic_model_drops_no_words() -> None:
    made = topic_run("ETM")
    with torch.no_grad():
        made.model.topic_vectors.zero_()
    found = diagnose(made, **FEW)
    assert found.verdict.state == "collapsed" and found.verdict.cure and "word_dropout" not in found.verdict.cure
    assert "drop words that the decoder reads" not in page(Diagnoses([found], None, {}))


def test_a_standard_normal_is_not_held_against_another_prior() -> None:
    found = diagnose(topic_run("ProdLDA"), **FEW)  # its variance is (1 - 1/K) / a
    assert "is no standard normal distribution" in found.left_out["Aggregate posterior"]
    assert "aggregates" in diagnose(topic_run("ETM"), **FEW).sections


def test_bags_are_shown_by_their_most_frequent_words() -> None:
    split = CountSplit.from_pairs(np.zeros(3, int), np.array([0, 2, 1]), np.array([1, 1, 4]), 2, 3)
    words = WordList(["a", "b", "c"])
    assert [bag_text(split, row, words) for row in (0, 1)] == ["b ×4, a, c", ""]
    assert bag_text(split, 0, words, 1) == "b ×4 …"


def test_a_guide_that_does_not_read_what_is_written_is_not_calibrated() -> None:
    torch.manual_seed(0)
    model = bags.make("GSM")[0]
    corpus = LabelledBags()
    guide = MeanFieldGuide(len(corpus.train), bags.TOPICS)
    with torch.no_grad():
        guide.loc.normal_()
    found = diagnose(run((model, guide), corpus), "train", documents=len(corpus.train), draws=30)
    assert "does not read what is written" in found.left_out["Calibration"]


@pytest.mark.parametrize("name", ["LDA", "GSM", "GSB", "RSB", "ETM", "ProdLDA", "NVLDA", "ProdLDA, Dirichlet"])
def test_posterior_draws_of_shares_are_by_topic_and_bags_by_word(name: str, tmp_path: Path) -> None:
    made = topic_run(name)
    save_posteriors({name: made}, diagnose_runs({name: made}, **FEW), tmp_path)
    draws = read_netcdf(tmp_path / "posterior.nc")
    for group in ("posterior", "prior"):
        assert draws[group]["theta"].dims == ("chain", "draw", "document", "topic")
        np.testing.assert_allclose(draws[group]["theta"].sum("topic"), 1, atol=1e-6)  # float32 softmaxes
    words = draws["constant_data"]["topic_words"]
    assert words.dims == ("topic",) and all(len(line.split(" ")) == 7 for line in words.values)
    best = top_words(made.model.topics(), 7)[0]
    assert str(words.values[0]) == " ".join(made.corpus.vocabulary.decode(best))
    for group in ("log_likelihood", "observed_data"):
        assert set(draws[group].data_vars) == {"x"}
    assert draws["observed_data"]["x"].dims == ("document", "word")
    assert draws["observed_data"]["word"].values.tolist() == list(made.corpus.vocabulary.words)


@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_a_click_on_the_map_steps_to_the_topic(tmp_path: Path, width: int) -> None:
    browser()
    report = save(diagnose_runs({EVIL: topic_run("LDA"), "etm": topic_run("ETM")}, **FEW), tmp_path / "report")
    found, said = opened(report, width)
    assert not said
    assert found["marked"] == [[True] * 3] * 2 and all(found["sorted"]) and all(found["pinned"])
    assert found["width"] == width and not found["wide"], "the page is wider than its window"
    assert [stepper["steps"] for stepper in found["stepped"]] == [3, 24, 3, 24]
    for stepper in found["stepped"]:
        last = stepper["steps"] - 1
        assert [shown for _, shown in stepper["trail"]] == [0, 1, 2, 1, 0, last, 0]
