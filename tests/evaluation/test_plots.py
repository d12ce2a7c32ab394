"""Pictures are drawn from real data, and touch nothing global; what is in them is checked where it can be counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from pyro_nlp.data.toy import Ring as RingCorpus
from pyro_nlp.evaluation import mcmc_to_arviz, plots, posterior_to_arviz
from pyro_nlp.evaluation._arviz import has_inference_data
from pyro_nlp.evaluation.history import training_history
from pyro_nlp.evaluation.latent import MeanSpace, mean_space
from pyro_nlp.evaluation.references import nuts_posterior
from pyro_nlp.models.ring import Ring
from tests.evaluation.test_history import ROWS
from tests.tiny import ring, text, vae

DOCUMENTS = 2


@pytest.fixture(scope="module")
def drawn() -> dict[str, Any]:
    """Draws of a guide and of NUTS, of the same documents of the ring, converted by the same code."""
    torch.manual_seed(0)
    model, split = Ring(0.4), RingCorpus(size=DOCUMENTS, noise=0.4).train
    samples = [
        nuts_posterior(model, split.batch(np.array([row])), draws=60, chains=2, warmup=60, limit=np.inf).samples["z"]
        for row in range(DOCUMENTS)
    ]
    nuts = {"z": np.stack(samples, 2).astype(np.float32)}
    guide = ring()[1]
    return {"guide": posterior_to_arviz(model, guide, split, 200), "NUTS": mcmc_to_arviz(model, nuts, split)}


def test_draws_of_a_guide_and_of_nuts_stand_in_one_forest_plot(
    drawn: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Figure] = []
    whole = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: saved.append(figure) or whole(figure, *a, **k))
    before = dict(matplotlib.rcParams)
    plots.forest(drawn, tmp_path / "forest.png", documents=range(DOCUMENTS))
    assert dict(matplotlib.rcParams) == before
    assert imread(tmp_path / "forest.png").std() > 0.05  # not blank
    (figure,) = saved
    if has_inference_data():
        (axis,) = figure.axes
        legend = axis.get_legend()
        assert legend is not None and {t.get_text() for t in legend.get_texts()} == {"guide", "NUTS"}
        assert len(axis.get_yticklabels()) == DOCUMENTS * 2
        # a mark for the median of every number and run
        marks = [line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 1]
        medians = [data["posterior"]["z"].values.reshape(-1, DOCUMENTS * 2) for data in drawn.values()]
        np.testing.assert_allclose(
            np.sort(marks), np.sort(np.concatenate([np.median(m, 0) for m in medians])), rtol=1e-5
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "y"}, r"^guide has no draws of 'y' for documents \[0, 1, 2, 3, 4\]$"),
        ({"documents": [2, 3]}, r"^guide has no draws of 'z' for documents \[2, 3\]$"),
    ],
)
def test_what_is_not_among_the_draws_is_refused(
    drawn: dict[str, Any], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plots.forest(drawn, tmp_path / "forest.png", **options)
    with pytest.raises(ValueError, match="^a forest plot wants draws of a run$"):
        plots.forest({}, tmp_path / "forest.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", ["ring", "text"])
def test_the_mean_space_is_a_picture_of_both_means(make: str, tmp_path: Path) -> None:
    if make == "ring":
        found = mean_space(*ring(noise=0.4, learn=False), RingCorpus(size=6, noise=0.4).train, points=100)
    else:
        found = mean_space(*vae(), text(6), draws=100)
    plots.mean_space(found, tmp_path / "means.png", "z")
    assert imread(tmp_path / "means.png").std() > 0.05


def test_documents_of_a_high_k_hat_are_hollow_and_both_axes_have_one_scale() -> None:
    model = np.array([[0.5], [-1.0], [2.0]])
    found = MeanSpace(model, 0.5 * model, np.zeros((3, 1)), np.array([0.1, 0.9, -np.inf]), "40 weighted draws")
    axis = Figure().subplots()
    plots.paint_mean_space(axis, found, 0)
    full, hollow = axis.collections
    np.testing.assert_array_equal(full.get_offsets(), [[0.5, 0.25], [2.0, 1.0]])
    np.testing.assert_array_equal(hollow.get_offsets(), [[-1.0, -0.5]])
    assert not len(hollow.get_facecolor()) and axis.get_xlim() == axis.get_ylim()


def test_training_is_drawn_by_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Figure] = []
    whole = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: saved.append(figure) or whole(figure, *a, **k))
    plots.training(training_history(ROWS), tmp_path / "training.png")
    (figure,) = saved
    shown = {axis.get_title(): axis for axis in figure.axes if axis.axison}
    assert list(shown) == ["bound", "KL", "KL weight", "gradient norm", "signal to noise of the gradient"]
    labels = shown["KL"].get_legend_handles_labels()[1]
    assert labels == ["z", "c", "z validation", "c validation"]
    assert shown["bound"].lines[0].get_xydata().tolist() == [[5, -9], [9, -8]]
    assert imread(tmp_path / "training.png").std() > 0.05
