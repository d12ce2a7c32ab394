"""The table: every measure is the one it names, and the verdict follows from them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_nlp.evaluation import (
    Difference,
    Evaluation,
    Likelihood,
    active_units,
    elbo_terms,
    evaluate,
    importance_nll,
    mutual_information,
    perplexity,
    posteriors,
    shuffled_rise,
)
from pyro_nlp.evaluation.plots import curves, latent_space
from pyro_nlp.evaluation.report import Latent
from tests.tiny import CLASSES, LATENT, Vectors, autoencoder, lm, ring, styled, text, vae


def test_every_measure_of_a_vae_is_what_its_own_function_gives() -> None:
    (model, guide), split = vae(), text(40)
    found = evaluate(model, guide, split, samples=30, seed=2)
    nll = importance_nll(model, guide, split, 30, seed=2)
    terms = elbo_terms(model, guide, split, seed=2)
    posterior = posteriors(model, guide, split, seed=2)["z"]
    assert found.likelihood is not None and np.array_equal(found.likelihood.nll, nll.nll)
    assert found.negative_elbo == -terms.elbo.mean() and found.reconstruction == -terms.log_likelihood.mean()
    assert found.perplexity == perplexity(nll.nll, split.tokens)
    assert (found.documents, found.tokens) == (40, split.tokens)
    assert found.shuffled_rise == shuffled_rise(model, guide, split, seed=2)
    assert found.latents == {
        "z": Latent(terms.kl["z"].mean(), active_units(posterior), LATENT, mutual_information(posterior, seed=2))
    }
    assert found.negative_elbo == pytest.approx(found.reconstruction + found.latents["z"].kl)


def test_a_language_model_has_an_exact_likelihood_and_no_latents() -> None:
    found = evaluate(lm(), None, text(20), samples=30)
    assert found.likelihood is not None and found.likelihood.samples == 0
    assert found.latents == {} and found.shuffled_rise is None and not found.collapsed
    assert found.verdict == "no latent variables"
    assert "NLL, exact" in found.rows() and not any("KL" in name for name in found.rows())


def test_the_information_of_each_latent_inside_minibatches_is_printed_with_its_own_cap() -> None:
    (model, guide), split = styled(), text(60)
    rows = evaluate(model, guide, split, samples=20).rows()
    caps = {"c": math.log(CLASSES), "z": math.log(32)}  # a class of three cannot say more than that
    for site, cap in caps.items():
        assert f"(N 32, cap {cap:.2f})" in rows[f"... of {site} inside minibatches, as He et al. 2019"]


def test_an_autoencoder_has_a_reconstruction_and_no_density() -> None:
    found = evaluate(*autoencoder(), text(20), samples=30)
    assert found.likelihood is None and found.negative_elbo is None and found.perplexity is None
    assert found.rows()["NLL"] == "no density (point guide)"
    assert found.reconstruction > 0 and found.latents["z"].mutual_information is None
    assert "no density" in replace(found, shuffled_rise=Difference(3.0, 0.1)).verdict


def test_vectors_have_no_perplexity() -> None:
    found = evaluate(*ring(), Vectors(torch.randn(9, 2)).test, samples=5)
    assert found.tokens == 0 and found.perplexity is None and "perplexity" not in found.rows()


@pytest.mark.parametrize("make", [vae, autoencoder, lambda: (lm(), None)], ids=["VAE", "autoencoder", "language model"])
def test_a_split_of_one_document_is_judged_without_a_standard_error_between_documents(make: object) -> None:
    found = evaluate(*make(), text(1), samples=5)  # type: ignore[operator]
    assert found.documents == 1 and found.rows()
    assert found.likelihood is None or math.isnan(found.likelihood.mean_standard_error)


@pytest.mark.parametrize("make", [vae, autoencoder, lambda: (lm(), None)], ids=["VAE", "autoencoder", "language model"])
def test_an_evaluation_is_json(make: object) -> None:
    found = evaluate(*make(), text(6), samples=5)  # type: ignore[operator]
    again = json.loads(json.dumps(found.as_dict()))
    assert again["verdict"] == found.verdict and again["documents"] == 6
    if found.likelihood is not None:
        assert again["likelihood"]["nll"] == found.likelihood.mean


def made(kl: float, rise: float, error: float = 0.01) -> Evaluation:
    latents = {"z": Latent(kl, 0, 4, None)}
    likelihood = Likelihood(np.ones(3), np.zeros(3), 10)
    return Evaluation(3, 9, likelihood, 1.0, 1.0, 1.0, Difference(rise, error), latents)


@pytest.mark.parametrize(
    ("kl", "rise", "error", "collapsed"),
    [(0.0, 0.0, 0.01, True), (0.09, 0.2, 0.1, True), (0.0, 0.5, 0.01, False), (5.0, 2.0, 0.01, False)],
)
def test_collapse_is_no_rise_under_shuffled_latents(kl: float, rise: float, error: float, collapsed: bool) -> None:
    found = made(kl, rise, error)
    assert found.collapsed is collapsed
    assert found.verdict.startswith("collapsed" if collapsed else "in use")


def test_a_kl_that_buys_nothing_is_collapse_too_and_called_so() -> None:
    found = made(5.0, 0.0)
    assert found.collapsed and "paid for nothing" in found.verdict


def test_every_row_of_the_table_is_printed() -> None:
    found = evaluate(*vae(), text(10), samples=5)
    assert found.table("title").row_count == len(found.rows())


def test_pictures_are_written(tmp_path: Path) -> None:
    (model, guide), split = vae(), text(12)
    rows = [{"step": i, "loss": 3.0, "reconstruction": 2.0, "kl.z": 1.0} for i in range(4)]
    curves({"a": [*rows, {"step": 4, "valid.loss": 2.0}], "b": []}, tmp_path / "curves.png")
    posterior = posteriors(model, guide, split)["z"]
    latent_space(posterior, tmp_path / "plain.png")
    latent_space(posterior, tmp_path / "labelled.png", np.arange(12) % 3, ("x", "y", "z"))
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
