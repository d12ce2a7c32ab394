"""Losses beside the bound: their values written out, where their gradients go, and that no evaluation sees them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_nlp.evaluation import elbo_terms
from pyro_nlp.inference import (
    IWAE,
    Adam,
    BagOfWords,
    Enumerate,
    Fraternal,
    Linear,
    Pathwise,
    PyroELBO,
    Strategy,
    StructureError,
    Training,
    fit,
)
from pyro_nlp.nn import LSTMDecoder
from tests.tiny import VOCABULARY, WIDTH, Sentences, lm, mixture, padded, parameters, ring, same, text, vae, whole

TRAINING = Training(epochs=2, batch_size=8, optimizer=Adam(0.03), plateau=None, device="cpu", log_every=1)


def compiled(auxiliary: Any, batch: Any, **options: Any) -> Any:
    model, guide = vae(**options)
    return Strategy(auxiliary=(auxiliary,)).compile(model, guide, batch)


def test_a_bag_of_words_is_the_cross_entropy_of_every_word_whatever_its_place() -> None:
    batch = whole(text(6))
    objective = compiled(BagOfWords(weight=0.7, width=5), batch)
    torch.manual_seed(0)
    found = objective.terms(batch)
    log_p = objective.helpers["0"](found.sites["z"].value[0]).log_softmax(-1).detach()
    total = 0.0
    for row, (targets, length) in enumerate(zip(batch.targets.tolist(), batch.lengths.tolist(), strict=True)):
        total -= sum(float(log_p[row, word]) for word in targets[: length - 1])  # the end of sentence is no word
    loss = BagOfWords(weight=0.7, width=5).loss(objective, found, batch, objective.helpers["0"])
    assert loss.item() == pytest.approx(0.7 * total / len(batch), rel=1e-5)


def test_padding_does_not_count() -> None:
    batch = whole(text(6))
    objective = compiled(BagOfWords(width=5), batch)
    losses = []
    for given in (batch, padded(batch, 3)):
        torch.manual_seed(0)
        losses.append(BagOfWords(width=5).loss(objective, objective.terms(given), given, objective.helpers["0"]))
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)


def test_its_gradient_reaches_guide_and_network_and_not_the_decoder() -> None:
    batch = whole(text(6))
    objective = compiled(BagOfWords(width=5), batch)
    BagOfWords(width=5).loss(objective, objective.terms(batch), batch, objective.helpers["0"]).backward()
    reached = {name for name, p in objective.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {name.partition(".")[0] for name in reached} == {"guide", "helpers"}


def test_two_equal_readings_cost_nothing() -> None:
    batch = whole(text(6))
    objective = compiled(Fraternal(weight=3.0), batch)
    loss = Fraternal(weight=3.0).loss(objective, objective.terms(batch), batch, None)
    assert abs(loss.item()) < 1e-5


def test_two_readings_that_differ_cost_half_their_losses_difference_and_their_distance() -> None:
    batch = whole(text(6))
    decoder = partial(LSTMDecoder, embedding=WIDTH, width=WIDTH, output_dropout=0.5)
    objective = compiled(Fraternal(weight=3.0, word_dropout=0.9), batch, decoder=decoder)
    objective.train()
    torch.manual_seed(0)
    found = objective.terms(batch)
    fraternal = Fraternal(weight=3.0, word_dropout=0.9)
    state = torch.get_rng_state()
    loss = fraternal.loss(objective, found, batch, None)
    torch.set_rng_state(state)
    again = fraternal._again(objective, found, batch)
    apart = (found.likelihoods["x"].states - again.likelihoods["x"].states).square().mean(-1)[0]
    distance = sum(apart[i, : int(n)].sum().item() for i, n in enumerate(batch.lengths)) / int(batch.mask.sum())
    difference = 0.5 * (found.log_likelihood - again.log_likelihood).mean().item()
    assert distance > 0.01
    assert loss.item() == pytest.approx(difference + 3.0 * distance, rel=1e-4, abs=1e-5)
    assert torch.equal(again.sites["z"].value, found.sites["z"].value)


@pytest.mark.parametrize("auxiliary", [BagOfWords(width=5), Fraternal(word_dropout=Linear(0.1, 0.3, epochs=1))])
def test_training_logs_it_and_no_evaluation_sees_it(auxiliary: Any, tmp_path: Path) -> None:
    model, guide = vae()
    run = fit(model, guide, Sentences(), Strategy(auxiliary=(auxiliary,)), TRAINING, out=tmp_path / "run")
    name = f"auxiliary.{type(auxiliary).__name__}"
    rows = [row for row in run.history if "loss" in row]
    assert all(row["loss"] == pytest.approx(row["reconstruction"] + row["kl.z"] + row[name], rel=1e-4) for row in rows)
    final = [row for row in run.history if row.get("best")][-1]
    assert final["valid.loss"] == pytest.approx(final["valid.reconstruction"] + final["valid.kl.z"], rel=1e-5)
    judged = -elbo_terms(run.model, run.guide, Sentences().valid, 400).elbo.mean()  # one draw in training
    assert judged == pytest.approx(final["valid.loss"], abs=0.5)
    assert set(parameters(run.model, run.guide)) == set(parameters(*vae()))


def test_its_network_is_saved_and_resumed_with_the_rest(tmp_path: Path) -> None:
    strategy, found = Strategy(auxiliary=(BagOfWords(width=5),)), []
    for epochs in ([2], [1, 2]):
        for i, last in enumerate(epochs):
            training = Training(**{**TRAINING.__dict__, "epochs": last})
            model, guide = vae(seed=i)
            run = fit(model, guide, Sentences(), strategy, training, out=tmp_path / str(len(epochs)), resume=i > 0)
        found.append(parameters(run.model, run.guide))
    assert same(*found)


def test_what_it_cannot_read_is_refused() -> None:
    batch = whole(text(6))
    with pytest.raises(StructureError, match=r"BagOfWords: it reads the site 'w'; the latents are 'z'"):
        compiled(BagOfWords(site="w"), batch)
    with pytest.raises(StructureError, match=r"BagOfWords: it reads the site 'z'; the latents are none"):
        Strategy(auxiliary=(BagOfWords(),)).compile(lm(), None, batch)
    with pytest.raises(StructureError, match=r"BagOfWords: Trace_ELBO keeps its terms to itself: use bound=ELBO\(\)"):
        Strategy(auxiliary=(BagOfWords(),), bound=PyroELBO("Trace_ELBO")).compile(*vae(), batch)
    from pyro_nlp.data.toy import Ring

    points = whole(Ring(20, 0.3).train)
    with pytest.raises(StructureError, match=r"BagOfWords: it foretells the words of a TextBatch"):
        Strategy(auxiliary=(BagOfWords(),)).compile(*ring(), points)
    with pytest.raises(StructureError, match=r"Fraternal: it compares the states of a WordSequence"):
        Strategy(auxiliary=(Fraternal(),)).compile(*ring(), points)
    with pytest.raises(StructureError, match=r"Fraternal: it takes the mean of two readings.*use bound=ELBO"):
        Strategy(auxiliary=(Fraternal(),), bound=IWAE(3)).compile(*vae(), batch)
    with pytest.raises(StructureError, match=r"BagOfWords: Pathwise\(gradient='dreg'\) would reweigh its gradient too"):
        Strategy(auxiliary=(BagOfWords(),), bound=IWAE(3), continuous=Pathwise("dreg")).compile(*vae(), batch)
    with pytest.raises(StructureError, match=r"Fraternal: it reads one draw .* draws tables: use Pathwise"):
        Strategy(auxiliary=(Fraternal(),), discrete=Enumerate()).compile(*mixture(), batch)


def test_a_bag_of_words_of_a_class_is_summed_over_its_table() -> None:
    batch = whole(text(6))
    model, guide = mixture()
    auxiliary = BagOfWords(width=5, site="c")
    objective = Strategy(auxiliary=(auxiliary,), discrete=Enumerate()).compile(model, guide, batch)
    found = objective.terms(batch)
    loss = auxiliary.loss(objective, found, batch, objective.helpers["0"])
    classes = found.sites["c"].q.probs.detach().expand(1, len(batch), -1)[0]
    table = objective.helpers["0"](torch.eye(classes.shape[-1])).log_softmax(-1).detach()
    assert table.shape[-1] == VOCABULARY
    expected = 0.0
    for row, (targets, length) in enumerate(zip(batch.targets.tolist(), batch.lengths.tolist(), strict=True)):
        expected -= sum(float(classes[row] @ table[:, word]) for word in targets[: length - 1])
    assert loss.item() == pytest.approx(expected / len(batch), rel=1e-5)
