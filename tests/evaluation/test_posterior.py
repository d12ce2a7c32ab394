"""Groups of draws for ArviZ: against closed forms and each other, through netCDF, in either kind of container."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from pyro.infer import MCMC, NUTS
from pyro.nn import PyroModule

from pyro_nlp.data.batches import EOS, PAD, Batch
from pyro_nlp.data.splits import TextSplit, VectorSplit
from pyro_nlp.data.toy import Ring as RingCorpus
from pyro_nlp.data.vocabulary import Vocabulary
from pyro_nlp.evaluation import NoDensityError, class_posteriors, importance_nll
from pyro_nlp.evaluation._arviz import datasets, has_inference_data, load, read_netcdf, to_arviz, write_netcdf
from pyro_nlp.evaluation.importance import pareto_smooth
from pyro_nlp.evaluation.posterior import mcmc_to_arviz, posterior_to_arviz
from pyro_nlp.models.ring import Ring
from tests.tiny import (
    CLASSES,
    LATENT,
    VARIABLES,
    VOCABULARY,
    autoencoder,
    discrete,
    lm,
    mixture,
    parameters,
    ring,
    same,
    sentences,
    styled,
    text,
    vae,
    whole,
)

WORDS = Vocabulary(f"w{i}" for i in range(4, VOCABULARY))
GROUPS = ["posterior", "log_likelihood", "sample_stats", "posterior_predictive", "prior", "prior_predictive"]


def groups(data: Any) -> dict[str, xarray.Dataset]:
    return datasets(data)


def dims(dataset: xarray.Dataset) -> dict[str, tuple[Any, ...]]:
    return {str(name): variable.dims for name, variable in dataset.data_vars.items()}


DRAWN = ("chain", "draw", "document")


@pytest.fixture(scope="module")
def split() -> VectorSplit:
    return RingCorpus(size=7, noise=0.3).train


# ---- what is in it -------------------------------------------------------------------------------------------------


def test_a_text_model_gives_every_group_with_named_dimensions() -> None:
    model, guide = vae()
    found = groups(posterior_to_arviz(model, guide, text(9), 30, vocabulary=WORDS, prior_draws=20, predictive_draws=4))
    assert found.keys() == {*GROUPS, "observed_data", "constant_data"}
    latent, words = {"z": (*DRAWN, "latent")}, {"x": (*DRAWN, "token"), "x_text": DRAWN}
    assert dims(found["posterior"]) == dims(found["prior"]) == latent
    assert dims(found["log_likelihood"]) == {"x": DRAWN}
    assert dims(found["sample_stats"]) == dict.fromkeys(["log_p", "log_q", "weight"], DRAWN) | {
        "pareto_k": ("document",)
    }
    assert dims(found["posterior_predictive"]) == dims(found["prior_predictive"]) == words
    assert dims(found["observed_data"]) == {"x": ("document", "token"), "x_text": ("document",)}
    assert dims(found["constant_data"]) == {"length": ("document",)}
    assert found["posterior"]["z"].shape == (1, 30, 9, LATENT) and found["prior"]["z"].shape == (1, 20, 9, LATENT)
    assert found["posterior_predictive"]["x"].shape[:3] == (1, 4, 9)
    for dataset in found.values():
        np.testing.assert_array_equal(dataset["document"], np.arange(9))
        assert dataset.attrs["model"] == "SentenceVAE" and dataset.attrs["guide"] == "GaussianGuide"


def test_classes_and_variables_have_dimensions_of_their_own() -> None:
    options: dict[str, Any] = {"prior_draws": 3, "predictive_draws": 1}
    assert dims(groups(posterior_to_arviz(*styled(), text(5), 2, **options))["posterior"]) == {
        "z": (*DRAWN, "latent"),
        "c": (*DRAWN, "class"),
    }
    found = groups(posterior_to_arviz(*discrete(), text(5), 2, **options))
    assert dims(found["posterior"]) == {"z": (*DRAWN, "variable", "class")}
    assert found["posterior"]["z"].shape == (1, 2, 5, VARIABLES, CLASSES)
    assert "pareto_k" not in found["sample_stats"]  # two draws have no tail


def test_vectors_have_features_and_are_predicted_by_their_own_distribution(split: VectorSplit) -> None:
    model, guide = ring()
    found = groups(posterior_to_arviz(model, guide, split, 400, prior_draws=400, predictive_draws=400, batch_size=3))
    assert dims(found["observed_data"]) == {"x": ("document", "feature")} and "constant_data" not in found
    np.testing.assert_array_equal(found["observed_data"]["x"], split.values)
    for name in ("posterior", "prior"):
        z = torch.from_numpy(found[name]["z"].values)
        noise = found[f"{name}_predictive"]["x"].values - Ring.bend(z).numpy()
        assert noise.size == 5600  # a standard deviation is known to 1 / sqrt(2 n)
        assert noise.std() == pytest.approx(0.3, rel=5 / np.sqrt(2 * noise.size))
        assert abs(noise.mean()) < 5 * 0.3 / np.sqrt(noise.size)
    prior = found["prior"]["z"].values
    assert abs(prior.mean()) < 5 / np.sqrt(prior.size) and prior.std() == pytest.approx(1, rel=0.05)


def test_log_probabilities_are_those_of_single_documents(split: VectorSplit) -> None:
    model, guide = ring()
    found = groups(posterior_to_arviz(model, guide, split, 25, batch_size=3, chunk=20))
    z = torch.from_numpy(found["posterior"]["z"].values)
    x = torch.from_numpy(found["observed_data"]["x"].values)
    log_x = dist.Normal(model.bend(z), 0.3).log_prob(x).sum(-1)
    log_z = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    with torch.no_grad():
        trace = pyro.poutine.trace(guide).get_trace(whole(split))
        log_q = trace.nodes["z"]["fn"].log_prob(z)
    stats = found["sample_stats"]
    np.testing.assert_allclose(found["log_likelihood"]["x"], log_x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(stats["log_p"], log_x + log_z, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(stats["log_q"], log_q, rtol=1e-4, atol=1e-4)
    log_weight = (stats["log_p"] - stats["log_q"]).values[0]
    weight = torch.from_numpy(log_weight).softmax(0)
    np.testing.assert_allclose(stats["weight"].values[0], weight, rtol=1e-9)
    np.testing.assert_array_equal(stats["pareto_k"], pareto_smooth(log_weight).pareto_k)


def test_weighted_draws_have_the_mean_of_the_exact_posterior(split: VectorSplit) -> None:
    model, guide = ring()
    found = groups(posterior_to_arviz(model, guide, split, 5000, prior_draws=0, predictive_draws=0, chunk=10**6))
    assert found.keys() == {"posterior", "log_likelihood", "sample_stats", "observed_data"}
    weight, z = found["sample_stats"]["weight"], found["posterior"]["z"]
    mean = (weight * z).sum(["chain", "draw"])
    error = np.sqrt((weight**2 * (z - mean) ** 2).sum(["chain", "draw"]))
    fits = found["sample_stats"]["pareto_k"].values < 0.7
    assert fits.sum() > 2
    exact = model.quadrature(split.values, points=200, reach=5.0)[1].numpy()
    assert (np.abs(mean - exact) < 5 * error).values[fits].all()


def test_text_is_written_by_the_model_and_given_beside_its_ids() -> None:
    model, guide = vae()
    given = TextSplit.from_sentences(sentences(9), labels=[0, 1, -1, 0, 1, 0, 1, 0, 1])
    found = groups(posterior_to_arviz(model, guide, given, 3, vocabulary=WORDS, labels=("quick", "slow")))
    seen, constant = found["observed_data"], found["constant_data"]
    for row in range(9):
        words = [*given.words(row), EOS]
        ids = seen["x"].values[row]
        assert ids[: len(words)].tolist() == words and (ids[len(words) :] == PAD).all()
        assert str(seen["x_text"].values[row]) == " ".join(WORDS.decode(words))
    np.testing.assert_array_equal(constant["length"], given.lengths)
    assert constant["label"].values.tolist() == ["quick", "slow", "", *["quick", "slow"] * 3]
    for name in ("prior_predictive", "posterior_predictive"):
        ids = found[name]["x"].values
        assert ((ids == EOS).sum(-1) == 1).all()
        flat = zip(ids.reshape(-1, ids.shape[-1]), found[name]["x_text"].values.flat, strict=True)
        assert all(str(line) == " ".join(WORDS.decode(row)) for row, line in flat)
    assert "x_text" not in groups(posterior_to_arviz(model, guide, given, 3))["prior_predictive"]


def test_a_decoder_that_cannot_write_is_not_unconditioned(monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide = vae()
    monkeypatch.delattr(type(model), "generate")
    found = groups(posterior_to_arviz(model, guide, text(3), 2, vocabulary=WORDS))
    assert not {"prior_predictive", "posterior_predictive"} & found.keys() and "prior" in found


def test_names_of_labels_are_names_of_classes_where_classes_were_taught() -> None:
    names = ("a", "b", "c")
    for taught, expected in ((0.5, list(names)), (0.0, [0, 1, 2])):  # a cluster is not a label
        model, guide = mixture(supervision=taught)
        found = groups(posterior_to_arviz(model, guide, text(4), 2, labels=names))
        assert found["posterior"]["class"].values.tolist() == expected
    for labels in ((), ("a", "b")):
        found = groups(posterior_to_arviz(*mixture(supervision=0.5), text(4), 2, labels=labels))
        assert found["posterior"]["class"].values.tolist() == [0, 1, 2]


# ---- latents that are summed out -----------------------------------------------------------------------------------


def test_without_a_guide_classes_are_drawn_from_their_exact_posterior() -> None:
    model, split = mixture()[0], text(6)
    found = groups(posterior_to_arviz(model, None, split, 3000, prior_draws=0, predictive_draws=1, chunk=10**5))
    exact = class_posteriors(model, None, split)["c"]
    share = found["posterior"]["c"].values[0].mean(0)
    assert (np.abs(share - exact) < 5 * np.sqrt(exact * (1 - exact) / 3000) + 1e-9).all()
    evidence = importance_nll(model, None, split).nll
    np.testing.assert_allclose(found["sample_stats"]["log_p"].values[0, 0], -evidence, rtol=1e-5)
    np.testing.assert_array_equal(found["sample_stats"]["pareto_k"], -np.inf)
    assert found["posterior_predictive"]["x"].shape[:3] == (1, 1, 6)


def test_several_classes_are_drawn_together() -> None:
    model, split = discrete()[0], text(4)
    z = groups(posterior_to_arviz(model, None, split, 3000, prior_draws=0, predictive_draws=0))["posterior"]["z"]
    joint = class_posteriors(model, None, split)["z"]  # over K^M configurations, the last variable fastest
    assert z.shape == (1, 3000, 4, VARIABLES, CLASSES) and joint.shape == (4, CLASSES**VARIABLES)
    index = z.values.argmax(-1) @ np.array([CLASSES, 1])
    share = np.stack([(index[0] == k).mean(0) for k in range(CLASSES**VARIABLES)], 1)
    assert (np.abs(share - joint) < 5 * np.sqrt(joint * (1 - joint) / 3000) + 1e-9).all()


def test_a_site_that_the_guide_was_not_trained_for_is_summed_out_beside_the_others() -> None:
    model, guide = styled()
    found = groups(posterior_to_arviz(model, guide, text(4), 40, marginal=["c"], predictive_draws=2))
    assert dims(found["posterior"]) == {"z": (*DRAWN, "latent"), "c": (*DRAWN, "class")}
    assert (found["posterior"]["c"].values.sum(-1) == 1).all()
    assert found["posterior_predictive"]["x"].shape[:3] == (1, 2, 4)
    values = found["posterior"]["z"].values
    log_z = dist.Normal(0.0, 1.0).log_prob(torch.from_numpy(values)).sum(-1).numpy()
    np.testing.assert_allclose(found["sample_stats"]["log_p"], found["log_likelihood"]["x"] + log_z, rtol=1e-4)


# ---- models of one's own -------------------------------------------------------------------------------------------


class Worded(PyroModule):
    """A number for every word and, in a plate of its own, one for each of two views; nothing that writes."""

    plates = 2

    def forward(self, batch: Any) -> None:
        with batch.documents():
            length = batch.mask.shape[1]
            w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([length]).to_event(1))
            with pyro.plate("views", 2, dim=-2):
                v = pyro.sample("v", dist.Normal(torch.zeros(1), 1.0))
            mean = w.sum(-1) + v.sum(-2, keepdim=True)
            pyro.sample("n", dist.Normal(mean, 1.0), obs=batch.lengths.float())


class WordedGuide(PyroModule):
    plates = 2

    def forward(self, batch: Any) -> None:
        with batch.documents():
            pyro.sample("w", dist.Normal(0.0, 1.0).expand([batch.mask.shape[1]]).to_event(1))
            with pyro.plate("views", 2, dim=-2):
                pyro.sample("v", dist.Normal(batch.index.float(), 0.01))


def test_plates_are_named_and_shorter_documents_are_filled() -> None:
    given = text(6, longest=4)
    found = groups(posterior_to_arviz(Worded(), WordedGuide(), given, 25, batch_size=2, prior_draws=2))
    assert dims(found["posterior"]) == {"w": (*DRAWN, "latent"), "v": (*DRAWN, "views")}
    assert dims(found["observed_data"]) == {"n": ("document",)}
    v, w = found["posterior"]["v"].values, found["posterior"]["w"].values
    np.testing.assert_allclose(v[0].mean(0), np.arange(6)[:, None] * np.ones(2), atol=0.02)  # documents in order
    filled = np.isnan(w[0, 0]).sum(-1)
    assert filled[given.lengths.argmax()] == 0 and filled[given.lengths.argmin()] > 0
    assert "posterior_predictive" not in found  # it has no generate
    log_p = dist.Normal(0.0, 1.0).log_prob(torch.from_numpy(v)).sum(-1).numpy()
    log_p = log_p + np.nansum(-0.5 * w**2 - 0.5 * np.log(2 * np.pi), -1)
    np.testing.assert_allclose(found["sample_stats"]["log_p"], found["log_likelihood"]["n"] + log_p, rtol=1e-4)


class Shared(PyroModule):
    plates = 1

    def forward(self, batch: Any) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with batch.documents():
            pyro.sample("x", dist.Normal(w.unsqueeze(-1) + torch.zeros(2), 1.0).to_event(1), obs=batch.values)


def test_a_latent_of_the_whole_corpus_is_refused(split: VectorSplit) -> None:
    with pytest.raises(ValueError, match="^site 'w' stands outside the plate of documents: one posterior per document"):
        posterior_to_arviz(Shared(), Shared(), split, 3)


class Computing(PyroModule):
    """Names what it computes from z and, where it has one, from a class."""

    plates = 1

    def __init__(self, classes: bool = False) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, batch: Any) -> None:
        with batch.documents():
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            mean = pyro.deterministic("mean", 2 * z, event_dim=1)
            if self.classes:
                c = pyro.sample("c", dist.OneHotCategorical(torch.ones(3)))
                mean = pyro.deterministic("moved", mean + c[..., :1], event_dim=1)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=batch.values)


def test_what_a_model_computes_from_its_latents_is_beside_them_and_has_no_density(split: VectorSplit) -> None:
    model, guide = Computing(), ring()[1]
    found = groups(posterior_to_arviz(model, guide, split, 8, batch_size=3, prior_draws=5))
    for group, draws in (("posterior", 8), ("prior", 5)):
        assert found[group]["mean"].shape == (1, draws, 7, 2)
        np.testing.assert_array_equal(found[group]["mean"], 2 * found[group]["z"])
    for group in ("log_likelihood", "observed_data", "posterior_predictive", "prior_predictive"):
        assert list(found[group].data_vars) == ["x"]
    draws = {"z": found["posterior"]["z"].values}
    again = groups(mcmc_to_arviz(model, draws, split))
    np.testing.assert_array_equal(again["posterior"]["mean"], 2 * draws["z"])
    np.testing.assert_allclose(again["sample_stats"]["log_p"], found["sample_stats"]["log_p"], rtol=1e-5)


def test_what_depends_on_a_class_that_is_summed_out_is_left_out(split: VectorSplit) -> None:
    found = groups(posterior_to_arviz(Computing(True), ring()[1], split, 8, marginal=("c",)))
    assert set(found["posterior"].data_vars) == {"z", "c"}
    assert {"mean", "moved"} <= set(found["prior"].data_vars)


# ---- refused -------------------------------------------------------------------------------------------------------


def test_a_point_guide_and_a_model_without_latents_are_refused() -> None:
    with pytest.raises(NoDensityError, match=r"site 'z' has a point guide \(Delta\)"):
        posterior_to_arviz(*autoencoder(), text(4), 3)
    with pytest.raises(ValueError, match="^SentenceLM has no latents, so it has no posterior$"):
        posterior_to_arviz(lm(), None, text(4), 3)


def test_one_draw_of_one_document_is_enough() -> None:
    found = groups(posterior_to_arviz(*vae(), text(1), 1, prior_draws=1, predictive_draws=1))
    assert found["posterior"]["z"].shape == (1, 1, 1, LATENT) and "pareto_k" not in found["sample_stats"]
    np.testing.assert_array_equal(found["sample_stats"]["weight"], [[[1.0]]])


def test_bad_numbers_and_labels_are_refused() -> None:
    given = TextSplit.from_sentences(sentences(4), labels=[0, 2, 1, 0])
    with pytest.raises(ValueError, match="^0 draws are too few: at least 1 is needed$"):
        posterior_to_arviz(*vae(), given, 0)
    with pytest.raises(ValueError, match="^prior_draws is -1; it must be at least 0$"):
        posterior_to_arviz(*vae(), given, 3, prior_draws=-1)
    with pytest.raises(ValueError, match="^the split has the label 2, but labels names only 2$"):
        posterior_to_arviz(*vae(), given, 3, labels=("a", "b"))


# ---- nothing else changes ------------------------------------------------------------------------------------------


def test_draws_depend_on_the_seed_alone_and_nothing_is_left_changed() -> None:
    (model, guide), given = vae(), text(5)
    model.train()
    before, state = parameters(model, guide), torch.get_rng_state()
    first = groups(posterior_to_arviz(model, guide, given, 3, vocabulary=WORDS, seed=1))
    assert torch.equal(torch.get_rng_state(), state) and same(before, parameters(model, guide)) and model.training
    torch.rand(3)
    again = groups(posterior_to_arviz(model, guide, given, 3, vocabulary=WORDS, seed=1))
    other = groups(posterior_to_arviz(model, guide, given, 3, vocabulary=WORDS, seed=2))
    assert all(first[name].identical(again[name]) for name in first)
    assert not first["posterior"].equals(other["posterior"])


# ---- MCMC ----------------------------------------------------------------------------------------------------------


def test_draws_of_the_guide_given_as_if_by_mcmc_have_the_same_probabilities() -> None:
    for made, names in ((vae, ["z"]), (styled, ["z", "c"])):
        model, guide = made()
        ours = groups(posterior_to_arviz(model, guide, text(7), 12, batch_size=7))
        arrays = {name: ours["posterior"][name].values.reshape(2, 6, 7, -1) for name in names}
        found = groups(mcmc_to_arviz(model, arrays, text(7), batch_size=3, chunk=10))
        assert list(found) == list(ours)
        for name in names:
            np.testing.assert_array_equal(found["posterior"][name], arrays[name])
            assert found["posterior"][name].dims == ours["posterior"][name].dims
        assert dims(found["sample_stats"]) == {"log_p": DRAWN}
        flat = [g["sample_stats"]["log_p"].values.reshape(12, 7) for g in (found, ours)]
        np.testing.assert_allclose(*flat, rtol=1e-5)
        flat = [g["log_likelihood"]["x"].values.reshape(12, 7) for g in (found, ours)]
        np.testing.assert_allclose(*flat, rtol=1e-5)


def test_nuts_and_a_guide_come_out_alike(split: VectorSplit) -> None:
    model, guide = Ring(0.3), ring()[1]
    mcmc = MCMC(NUTS(model, max_tree_depth=4), num_samples=100, warmup_steps=40, disable_progbar=True)
    mcmc.run(whole(split))
    found = groups(mcmc_to_arviz(model, mcmc.get_samples(group_by_chain=True), split))
    ours = groups(posterior_to_arviz(model, guide, split))
    assert list(found) == list(ours)
    assert found["posterior"]["z"].shape == (1, 100, 7, 2)
    exact = model.quadrature(split.values, points=200, reach=5.0)[1].numpy()
    assert np.abs(found["posterior"]["z"].values[0].mean(0) - exact).mean() < 0.2
    assert found["posterior_predictive"]["x"].dims == ours["posterior_predictive"]["x"].dims


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({"y": np.zeros((1, 2, 7, 2))}, r"^site 'y' is no latent: give the draws of \['z'\]$"),
        (
            {"z": np.zeros((1, 2, 7, 2)), "a": np.zeros((1, 2, 7))},
            r"^site 'a' is no latent: give the draws of \['z'\]$",
        ),
        ({"z": np.zeros((2, 7, 2))}, r"^site 'z' has shape \[2, 7, 2\], expected \[chain, draw, document, ...\] of 7"),
        ({"z": np.zeros((1, 2, 7, 2)), "y": np.zeros((1, 3, 7, 2))}, r"^site 'y' has \[1, 3\] chains and draws"),
        ({}, "^there are no draws"),
    ],
)
def test_draws_of_something_else_are_refused(
    split: VectorSplit, samples: Mapping[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mcmc_to_arviz(Ring(0.3), {n: v.astype(np.float32) for n, v in samples.items()}, split)


# ---- ArviZ and netCDF ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["as installed", "DataTree"])
def container(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """ArviZ as it is, and without InferenceData: the branch of 1.x, which itself is not exercised on Python 3.11."""
    if request.param == "DataTree" and has_inference_data():
        monkeypatch.delattr(load(), "InferenceData")
    return str(request.param)


def test_groups_survive_netcdf_in_either_container(container: str, tmp_path: Path) -> None:
    model, guide = styled(supervision=0.5)
    given = TextSplit.from_sentences(sentences(6), labels=[0, 1, 2, -1, 0, 1])
    odd = Vocabulary([*(f"w{i}" for i in range(4, VOCABULARY - 3)), "naïve ✓", "nul\0", "half \ud800"])
    data = posterior_to_arviz(model, guide, given, 30, vocabulary=odd, labels=("a", "b", "ç"))
    assert isinstance(data, xarray.DataTree) == (container == "DataTree" or not has_inference_data())
    path = tmp_path / "posterior.nc"
    write_netcdf(data, path)
    again = read_netcdf(path)
    assert type(again) is type(data) and [p.name for p in tmp_path.iterdir()] == ["posterior.nc"]
    before, after = groups(data), groups(again)
    assert before.keys() == after.keys()
    for name in before:
        xarray.testing.assert_identical(before[name], after[name])
    assert "✓" in "".join(after["prior_predictive"]["x_text"].values.flat)
    path.unlink()  # the file is closed
    assert after["posterior"]["class"].values.tolist() == ["a", "b", "ç"]


def test_an_alias_for_the_tree_is_not_taken_for_arviz_of_old(monkeypatch: pytest.MonkeyPatch) -> None:
    arviz = load()
    monkeypatch.delattr(arviz, "InferenceData", raising=False)
    monkeypatch.setattr(arviz, "__getattr__", lambda name: xarray.DataTree, raising=False)  # as 1.3 answers
    assert arviz.InferenceData is xarray.DataTree and not has_inference_data()
    assert isinstance(to_arviz({"posterior": {"z": np.zeros((1, 2))}}), xarray.DataTree)


def test_arviz_itself_reads_the_file_and_summarises_it(split: VectorSplit, tmp_path: Path) -> None:
    arviz = load()
    data = posterior_to_arviz(*ring(), split, 50)
    write_netcdf(data, tmp_path / "p.nc")
    if hasattr(arviz, "from_netcdf"):
        read = arviz.from_netcdf(str(tmp_path / "p.nc"))
        xarray.testing.assert_equal(read["posterior"].load(), data["posterior"])
        read.close()
    summary = arviz.summary(data, var_names=["z"], round_to="none")
    assert len(summary) == 7 * 2
    np.testing.assert_allclose(summary["mean"], data["posterior"]["z"].values.mean((0, 1)).ravel(), rtol=1e-5)


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _garbled(content: bytes) -> bytes:
    rng = np.random.default_rng(0)
    return content[:100] + rng.bytes(len(content) - 100)


def _text(content: bytes) -> bytes:
    return b"these are not the draws you are looking for\n"


def _empty(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [_cut, _garbled, _text, _empty])
def test_a_damaged_file_ends_in_one_line(damage: Any, split: VectorSplit, tmp_path: Path) -> None:
    path = tmp_path / "posterior.nc"
    write_netcdf(posterior_to_arviz(*ring(), split, 5), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"posterior.nc is damaged or no netCDF file \(.+\): write it again") as caught:
        read_netcdf(path)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is None


def test_one_damaged_byte_in_the_draws_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "posterior.nc"
    draws = np.random.default_rng(0).standard_normal((1, 100, 20, 5))
    write_netcdf(to_arviz({"posterior": {"z": draws}}), path)
    with h5py.File(path) as file:
        chunk = file["posterior/z"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"posterior.nc is damaged"):
        read_netcdf(path)


def test_a_missing_file_and_one_without_groups_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file .*absent.nc$"):
        read_netcdf(tmp_path / "absent.nc")
    xarray.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"other.nc holds no groups: it is not what `diagnose` writes$"):
        read_netcdf(tmp_path / "other.nc")


def test_arrays_of_ones_own_are_named_by_dims_and_coords(container: str) -> None:
    arrays = {"z": np.zeros((2, 5, 3, 4)), "s": np.zeros((2, 5))}
    made = groups(
        to_arviz(
            {
                "posterior": arrays,
                "log_likelihood": {"x": np.zeros((2, 5, 3))},
                "sample_stats": {"k": (("document",), np.zeros(3))},
                "observed_data": {"x": np.zeros((3, 6)), "y": np.zeros((3, 2))},
            },
            coords={"document": [10, 20, 30]},
            dims={"z": ["document"], "x": ["document", "token"], "y": ["document"]},
            attrs={"note": "by hand"},
        )
    )
    assert dims(made["posterior"]) == {"z": (*DRAWN, "z_dim_0"), "s": ("chain", "draw")}
    assert dims(made["log_likelihood"]) == {"x": DRAWN}
    assert dims(made["sample_stats"]) == {"k": ("document",)}
    assert dims(made["observed_data"]) == {"x": ("document", "token"), "y": ("document", "y_dim_0")}
    assert made["posterior"]["document"].values.tolist() == [10, 20, 30]
    assert made["posterior"]["draw"].values.tolist() == [0, 1, 2, 3, 4]
    assert made["posterior"].attrs["note"] == "by hand"


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="^posterior: 'z' has 1 dimensions, expected chain and draw first$"):
        to_arviz({"posterior": {"z": np.zeros(3)}})
    with pytest.raises(ValueError, match="^posterior: dimension 'document' has 3 entries, but 2 coordinates$"):
        to_arviz({"posterior": {"z": np.zeros((1, 2, 3))}}, coords={"document": [1, 2]}, dims={"z": ["document"]})
    with pytest.raises(ValueError, match="^posterior: dimension 'draw' has 5 entries, but 6 in 'b'$"):
        to_arviz({"posterior": {"a": np.zeros((1, 5)), "b": np.zeros((1, 6))}})


def test_batches_are_put_back_in_the_order_of_the_split() -> None:
    (model, guide), given = vae(), text(11)
    found = groups(posterior_to_arviz(model, guide, given, 40, vocabulary=WORDS, batch_size=4, predictive_draws=0))
    mean = found["posterior"]["z"].values[0].mean(0)
    with torch.no_grad():
        batch: Batch = whole(given)
        q: Any = pyro.poutine.trace(guide.eval()).get_trace(batch).nodes["z"]["fn"]
    assert (np.abs(mean - q.mean.numpy()) < 5 * q.stddev.numpy() / np.sqrt(40)).all()
    assert [len(str(line).split()) + 1 for line in found["observed_data"]["x_text"].values] == given.lengths.tolist()
