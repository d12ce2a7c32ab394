"""The tables of a topic model, the diagnosis of its collapse, and the command that prints them."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_nlp import recipe as recipes
from pyro_nlp.commands.runs import evaluate_run
from pyro_nlp.data.vocabulary import WordList
from pyro_nlp.evaluation import (
    NoDensityError,
    TopicCollapse,
    coherence_npmi,
    distinct_topics,
    document_completion,
    document_perplexity,
    elbo_terms,
    evaluate,
    evaluate_topics,
    linear_probe,
    retrieval_precision,
    theta,
    topic_diversity,
    topics_used,
)
from pyro_nlp.guides.dirichlet import DirichletGuide
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.inference import fit
from pyro_nlp.models.etm import ETM
from pyro_nlp.models.gsm import GSB, GSM, RSB
from pyro_nlp.models.lda import LDA
from pyro_nlp.models.nvdm import NVDM
from pyro_nlp.models.prodlda import NVLDA, ProdLDA
from pyro_nlp.nn import CountEncoder
from tests.evaluation.urn import WORDS, Own, Point, Prior, Urn, bags, dense, random_bags, small, urn
from tests.tiny import sharpen

ROUNDING = 1e-5
"""Relative: float32 sums of some ten words."""


# ---- everything ------------------------------------------------------------------------------------------------------


def test_every_measure_of_the_table_is_what_its_own_function_gives() -> None:
    (model, guide), corpus = urn(), small()
    found = evaluate_topics(model, guide, corpus, samples=10, seed=4, top=2)
    assert found.perplexity == document_perplexity(model, guide, corpus.test, 10, seed=4)
    assert found.completion == document_completion(model, guide, corpus.test, 4, samples=2)
    assert found.coherence.mean == coherence_npmi(model.topics(), corpus.train, 2).mean
    assert found.diversity == (topic_diversity(model.topics(), WORDS), WORDS)
    shares, of_train = (theta(model, guide, split) for split in (corpus.test, corpus.train))
    assert found.use.largest.tolist() == topics_used(shares[corpus.test.sizes > 0]).largest.tolist()
    by_labels = of_train, corpus.train.labels, shares, corpus.test.labels
    assert found.probe == linear_probe(*by_labels) and found.retrieval == retrieval_precision(*by_labels)
    assert found.collapse.kl == elbo_terms(model, guide, corpus.test, seed=4).kl["theta"].mean()
    assert found.collapse.distinct == distinct_topics(model.topics(), 2)
    assert found.words[1] == ("w1", "w0")


@pytest.mark.parametrize("kind", [NVDM, GSM, GSB, RSB, ProdLDA, NVLDA, ETM, LDA], ids=lambda kind: kind.__name__)
def test_every_topic_model_of_the_zoo_is_judged(kind: Any) -> None:
    corpus = small()
    guide = DirichletGuide if kind is LDA else GaussianGuide
    model, guide = sharpen(kind(WORDS, 2)), sharpen(guide(WORDS, 2, partial(CountEncoder, width=4)))
    shares = theta(model, guide, corpus.test)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=ROUNDING)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = evaluate_topics(model, guide, corpus, samples=5)
    assert found.as_dict() == evaluate_topics(model, guide, corpus, samples=5).as_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found.perplexity is not None and found.completion is not None and found.probe is not None
    assert found.perplexity.documents == 29 and found.coherence.topics.shape == (2,)


def test_another_reference_is_counted_in_its_place() -> None:
    (model, guide), corpus = urn(), small()
    found = evaluate_topics(model, guide, corpus, samples=2, top=2, reference=corpus.valid)
    assert found.coherence.mean == coherence_npmi(model.topics(), corpus.valid, 2).mean
    assert found.coherence.documents == 19


def test_the_table_prints_every_row_and_is_json() -> None:
    found = evaluate_topics(*urn(), small(), samples=10)
    rows = found.rows()
    assert found.table("title").row_count == len(rows) and rows["topics"] == found.verdict
    assert rows["empty documents left out"] == "1" and rows["documents too short to complete"] == "2"
    assert f"NPMI of the top {WORDS}" in rows and "precision of 1 % retrieved (1)" in rows
    again = json.loads(json.dumps(found.as_dict()))
    assert found.perplexity is not None and again["perplexity"]["bound"] == found.perplexity.bound
    assert again["coherence"]["mean"] == found.coherence.mean and len(again["words"]) == WORDS
    assert again["verdict"] == found.verdict


@pytest.mark.parametrize("how", ["none", "unknown", "one class", "the train split"])
def test_without_labels_to_tell_apart_there_is_neither_probe_nor_retrieval(how: str) -> None:
    corpus = small(labels=how != "none")
    if how == "unknown":
        corpus.test.labels = np.full(len(corpus.test), -1)
    if how == "one class":
        corpus.train.labels = np.zeros(len(corpus.train), np.int64)
    found = evaluate_topics(*urn(), corpus, "train" if how == "the train split" else "test", samples=2)
    assert found.probe is None and found.retrieval is None
    assert not any("probe" in row or "retrieved" in row for row in found.rows())


def test_a_point_guide_has_no_perplexity_and_a_guide_for_each_document_no_completion() -> None:
    (model, _), corpus = urn(), small()
    point = evaluate_topics(model, Point(model), corpus, samples=2)
    assert point.perplexity is None and point.completion is not None and point.completion.importance is None
    with pytest.raises(NoDensityError):
        document_perplexity(model, Point(model), corpus.test, 2)
    own = evaluate_topics(model, Own(model.a.numpy() + dense(corpus.test)), corpus, samples=2)
    assert own.completion is None and own.probe is None and own.perplexity is not None
    for found in (point, own):
        assert found.rows() and json.dumps(found.as_dict())


def test_documents_too_short_to_complete_are_judged_without_completion() -> None:
    (model, guide), corpus = urn(), small()
    corpus.test = bags([[0], [], [2]], WORDS)
    found = evaluate_topics(model, guide, corpus, samples=2)
    assert found.completion is None and found.perplexity is not None and found.perplexity.empty == 1


def test_a_corpus_of_another_vocabulary_is_refused() -> None:
    corpus = small()
    corpus.vocabulary = WordList(["a", "b"])
    with pytest.raises(ValueError, match="the model has 3 words and small 2"):
        evaluate_topics(*urn(), corpus, samples=2)


HEALTHY = TopicCollapse(kl=20.0, active=50, units=50, topics=50, distinct=45, used=25, redundancy=0.02)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "in use: 45 of 50 topics distinct, 25 the largest of some document"),
        ({"kl": 0.05}, "collapsed, all documents have the same topics: "),
        ({"distinct": 44}, "components collapsed, topics are repeated: 44 of 50"),
        ({"used": 24}, "components collapsed, topics are idle: "),
        ({"used": 3, "distinct": 9}, "components collapsed, topics are repeated and idle: "),
    ],
)
def test_collapse_of_posterior_and_of_components_is_told_with_its_evidence(changes: Any, says: str) -> None:
    found = replace(HEALTHY, **changes)
    assert found.verdict.startswith(says)
    assert found.verdict.endswith(f"redundancy 0.02, KL {found.kl:.2f} nats, 50 of 50 units active")
    assert found.components == bool({"used", "distinct"} & changes.keys()) and found.posterior == ("kl" in changes)


def test_a_guide_that_has_learnt_nothing_is_collapsed() -> None:
    model = Urn()
    found = evaluate_topics(model, Prior(model), small(), samples=2)
    assert found.collapse.posterior and found.verdict.startswith("collapsed, all documents have the same topics")


# ---- the common table ------------------------------------------------------------------------------------------------


def test_the_common_table_counts_tokens_of_bags_without_ends_of_sentence_and_has_both_perplexities() -> None:
    (model, guide), split = urn(), random_bags(25, WORDS)
    found, four = evaluate(model, guide, split, samples=30), document_perplexity(model, guide, split, 30)
    assert found.tokens == split.tokens == split.sizes.sum()
    assert (found.perplexity, found.perplexity_per_document) == (four.importance, four.importance_per_document)
    rows = found.rows()
    assert rows["tokens"] == f"{split.tokens}" and "tokens (ends of sentence counted)" not in rows
    assert rows["perplexity, mean over documents"] == f"{four.importance_per_document:.2f}"


def test_bags_without_any_word_have_no_perplexity() -> None:
    found = evaluate(*urn(), bags([[], []], WORDS), samples=3)
    assert found.perplexity is None and found.perplexity_per_document is None and "tokens" not in found.rows()


RECIPE = """
model: {class_path: LDA, init_args: {latent: 2}}
guide: {class_path: DirichletGuide, init_args: {encoder: {class_path: CountEncoder, init_args: {width: 4}}}}
corpus: {class_path: TextDocuments, init_args: {path: %s, max_document_share: 1.0}}
training: {epochs: 1, batch_size: 32}
"""


def test_the_command_prints_both_tables_and_both_are_in_its_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    words = np.array(["ape", "bee", "cat", "dog", "eel"])
    lines = [" ".join(words[rng.integers(0, 5, rng.integers(2, 9))]) for _ in range(200)]
    (tmp_path / "my.txt").write_text("\n".join(lines), "utf-8")
    (tmp_path / "my.yaml").write_text(RECIPE % (tmp_path / "my.txt"), "utf-8")
    loaded, run = recipes.load(str(tmp_path / "my.yaml"), []), tmp_path / "run"
    fit(loaded.model, loaded.guide, loaded.corpus, loaded.strategy, loaded.training, out=run, recipe=loaded.text)
    capsys.readouterr()
    options = argparse.Namespace(run_folder=run, split="test", samples=5, seed=0, precision="float32", json=False)
    options.judge, options.fluency = [], None
    evaluate_run(options, ())
    printed = capsys.readouterr().out
    for row in ("tokens", "perplexity, mean over documents", "topics, test split", "NPMI of the top 5", "distinct"):
        assert row in printed
    options.json = True
    evaluate_run(options, ())
    found = json.loads(capsys.readouterr().out)
    assert found["topics"]["perplexity"]["importance"] == found["perplexity"]
    assert found["topics"]["verdict"] and not found["ends_counted"]
