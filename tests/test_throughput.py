"""What the benchmark of models of documents rests on (`benchmarks/throughput.py`), at tiny sizes."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pyro
import pytest
import torch

import tests.tiny  # noqa: F401 (PyTorch's first optimiser sets an environment variable, and there it is made)
from benchmarks.throughput import (
    Candidate,
    MadeUp,
    Scikit,
    Theirs,
    completion,
    curves,
    infer,
    markdown,
    merged,
    pairs,
    point,
    reach,
    row,
    speeds,
    stored,
    times,
)
from pyro_nlp.data.counts import CountSplit
from pyro_nlp.guides.dirichlet import MeanFieldDirichletGuide
from pyro_nlp.models.lda import LDA

try:
    import sklearn.decomposition as scikit  # sets environment variables, so here and not in a test
except ImportError:
    scikit = None


def made(documents: int = 40, vocabulary: int = 20, words: int = 5) -> CountSplit:
    return CountSplit.from_pairs(*pairs(documents, vocabulary, words), documents, vocabulary)


def test_the_tutorial_learns_by_svi_from_the_same_documents() -> None:
    theirs = Theirs(made(), batch_size=10)
    before = theirs.network.decoder[1].weight.clone()
    assert float(theirs.counts.sum()) == made().tokens
    first = theirs.svi.evaluate_loss(theirs.counts)
    for _ in range(30):
        theirs.epoch(validate=False)
    assert not torch.equal(before, theirs.network.decoder[1].weight)
    assert theirs.svi.evaluate_loss(theirs.counts) < first
    pyro.clear_param_store()


def test_completion_by_one_topic_is_the_cross_entropy_of_the_second_halves() -> None:
    halves = made().halves(0)
    beta = torch.rand(1, 20).softmax(-1)
    counts = halves.held_out.batch(np.arange(len(halves.rows))).counts
    expected = math.exp(-float((counts * beta.log()).sum() / counts.sum()))
    assert completion(beta, halves) == pytest.approx(expected, rel=1e-5)


def test_theta_of_topics_without_a_common_word_is_the_share_of_their_words() -> None:
    beta = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.3, 0.7]])
    theta = infer(beta, torch.tensor([[3.0, 1.0, 1.0, 0.0]]), concentration=0.1, iterations=100)
    assert theta[0].tolist() == pytest.approx([4.1 / 5.2, 1.1 / 5.2], rel=1e-5)


def test_both_sides_are_judged_after_every_pass_and_the_first_pass_at_the_target_counts() -> None:
    if scikit is None:
        pytest.skip("scikit-learn is not installed")
    corpus = MadeUp(made())
    ours = Candidate(
        lambda vocabulary: LDA(vocabulary, 3),
        lambda train: MeanFieldDirichletGuide(len(train), 3),
        batch_size=10,
        rates=(0.1, 0.01),
        epochs=(2,),
    )
    systems = {"scikit-learn": (Scikit(corpus.train, 10, latent=3), 3), "ours": (ours.build(corpus, 2), 2)}
    found = curves(systems, corpus.test.halves(0), "test")
    assert [len(curve) for curve in found.values()] == [3, 2]
    assert all(1 < perplexity < 40 for curve in found.values() for _, perplexity in curve)
    assert reach([(1.0, 9.0), (2.0, 5.0), (3.0, 6.0)], 6.0) == 2.0
    rows = times([found], {}, {})
    assert [r["measure"] for r in rows if "best test perplexity" in r["measure"]] == [
        f"lda: {name}: best test perplexity" for name in found
    ]


def test_a_slower_side_has_a_ratio_below_one_and_a_side_that_never_gets_there_has_none() -> None:
    theirs = [(1.0, 100.0), (2.0, 90.0)]
    rows = times([{"scikit-learn": theirs, "slow": [(8.0, 90.0)], "worse": [(1.0, 95.0)]}], {}, {})
    values = {r["measure"]: r["value"] for r in rows}
    assert values["lda: speed of slow / scikit-learn"] == 0.25
    assert values["lda: worse: seconds to the target"] == "not reached (1 of 1)"
    found = speeds({"ours": [1.0, 1.0], "tutorial": [3.0, 4.0], "tutorial, validation off": [2.0, 2.0]}, 60, {})
    assert {r["measure"]: r["value"] for r in found}["prodlda: speed of ours / tutorial"] == 3.5


def test_a_split_takes_eight_bytes_for_each_count_and_document_whatever_the_vocabulary() -> None:
    for vocabulary in (20, 2000):
        assert stored(made(40, vocabulary)) == 8 * (40 * 5) + 8 * (40 + 1)
    found = point(120, 100)
    assert found["bytes"] == stored(made(120, 100, 50)) and found["batches"] == 2
    assert min(found["loaded"], found["trained"]) >= 0


def test_a_part_that_is_not_run_keeps_its_rows() -> None:
    named = partial(row, value=1.0, unit="s")
    old = [named("prodlda: a"), named("memory: b")]
    new = {"lda": [named("lda: c")], "memory": [named("memory: d")]}
    rows = merged(old, new)
    assert [r["measure"] for r in rows] == ["prodlda: a", "lda: c", "memory: d"]
    assert markdown(rows).splitlines()[-1] == "| memory: d | 1.0 | s |  |  |"
