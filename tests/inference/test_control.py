"""A model that learns from what it writes: which loss it is, where its gradients stop, and in which phase."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pyro_nlp.data import Corpus
from pyro_nlp.data.batches import EOS, PAD, TextBatch
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.guides.controlled import ControlledGuide
from pyro_nlp.inference import (
    KL,
    Adam,
    Control,
    Dreams,
    Enumerate,
    Joint,
    KnownLabels,
    Linear,
    Relax,
    Strategy,
    StructureError,
    Training,
    WakeSleepPhases,
    fit,
)
from pyro_nlp.inference.dreams import as_batch, draw_prior, dream
from pyro_nlp.models.controlled_sentence import ControlledSentence
from pyro_nlp.nn import GRUDecoder, GRUEncoder, LSTMDecoder, TransformerDecoder, write, write_softly
from pyro_nlp.recipe import shipped
from tests.tiny import VOCABULARY, padded, sharpen, styled, text

ATTRIBUTES = {"tone": 2, "tense": 3}
LONGEST = 5


def made(supervision: float = 1.0, dropout: float = 0.3) -> tuple[ControlledSentence, ControlledGuide]:
    torch.manual_seed(0)

    def decoder(vocabulary: int, latent: int) -> GRUDecoder:
        return GRUDecoder(vocabulary, latent, embedding=4, width=5)

    def encoder(vocabulary: int) -> GRUEncoder:
        return GRUEncoder(vocabulary, embedding=4, width=5, dropout=dropout)

    model = sharpen(ControlledSentence(VOCABULARY, 3, ATTRIBUTES, decoder))
    return model, sharpen(ControlledGuide(VOCABULARY, 3, ATTRIBUTES, encoder, encoder, supervision))


class Attributed(Corpus):
    """The same random sentences as every split, classed by chance in two respects, or not at all."""

    labels, attribute = ("a", "b"), "tone"

    def __init__(self, documents: int = 12, tensed: bool = True) -> None:
        self.name, self.reference, self.tensed = "attributed", "made up", tensed
        found = text(documents)
        random = np.random.default_rng(0)
        kinds = np.stack([random.integers(-1, k, documents) for k in ATTRIBUTES.values()], 1)
        self.train = self.valid = self.test = TextSplit(found.flat, found.offsets, kinds[:, 0], None, kinds)

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        known = super().attributes
        return known | {"tense": ("x", "y", "z")} if self.tensed else known


def batch_of(documents: int = 12) -> TextBatch:
    return Attributed(documents).train.batch(np.arange(documents))


def compiled(*auxiliary: Any, supervision: float = 1.0, **options: Any) -> Any:
    model, guide = made(supervision)
    return Strategy(discrete=Relax(hard=True), auxiliary=auxiliary, **options).compile(model, guide, batch_of())


def gradients(module: torch.nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


CONTROL = Control({"tone": 0.7, "tense": 0.2, "z": 0.1}, temperature=0.8, longest=LONGEST)


def test_what_is_written_softly_is_the_decoders_softmax_read_word_by_word() -> None:
    torch.manual_seed(1)
    model, _ = made()
    z = torch.randn(4, 8)
    words, mask = write_softly(model.decoder, model.head, z, 0.8, LONGEST)
    begin = torch.nn.functional.one_hot(torch.ones(4, 1, dtype=torch.long), VOCABULARY).float()
    read = torch.cat([begin, words[:, :-1]], 1)
    logits = model.head(model.decoder(z, read))
    logits[..., [0, 1]] = -torch.inf
    assert torch.allclose(words, (logits / 0.8).softmax(-1), atol=1e-5)
    ended = (words.argmax(-1) == EOS).cumsum(1)
    assert torch.equal(mask, (ended - (words.argmax(-1) == EOS).long()) == 0)


def test_cold_and_hard_it_is_greedy_search() -> None:
    torch.manual_seed(1)
    model, _ = made()
    z = torch.randn(6, 8)
    greedy = write(model.decoder, model.head, z, max_length=LONGEST)
    for options in ({"temperature": 1e-3}, {"temperature": 0.5, "hard": True}):
        words, mask = write_softly(model.decoder, model.head, z, max_length=LONGEST, **options)  # type: ignore[arg-type]
        ids = words.argmax(-1).masked_fill(~mask, PAD)
        width = min(ids.shape[1], greedy.shape[1])
        kept = greedy[:, : width - (width == LONGEST)]  # write() ends a sentence at the last place, whatever it says
        assert torch.equal(ids[:, : kept.shape[1]], kept)
        assert torch.allclose(words.amax(-1)[mask], torch.ones(()), atol=1e-3)


def test_the_generators_loss_is_minus_the_log_probability_of_what_it_was_told() -> None:
    objective, batch = compiled(CONTROL), batch_of()
    torch.manual_seed(2)
    loss = CONTROL.loss(objective, None, batch, None)  # type: ignore[arg-type]
    torch.manual_seed(2)
    latents = draw_prior(objective.model, batch)
    objective.eval()
    words, mask = objective.model.write_softly(latents, 0.8, LONGEST)
    guide, written = objective.guide, as_batch(words, mask, batch)
    total = torch.zeros(len(batch))
    for name, weight in (("tone", 0.7), ("tense", 0.2)):
        log_q = guide.discriminators[name](written).log_softmax(-1)
        total -= weight * (log_q * latents[name]).sum(-1)
    loc, scale = guide.posterior(guide.encoder(written))
    total -= 0.1 * torch.distributions.Normal(loc, scale).log_prob(latents["z"]).sum(-1)
    assert loss.item() == pytest.approx(total.mean().item(), rel=1e-5)


def test_the_generators_loss_reaches_the_model_alone_and_the_dreams_the_guide_alone() -> None:
    batch = batch_of()
    for auxiliary, learns, stays in ((CONTROL, "model", "guide"), (Dreams(("tone", "tense")), "guide", "model")):
        objective = compiled(auxiliary)
        objective.train()
        objective.phase = "sleep"
        objective(batch).backward()
        assert gradients(getattr(objective, learns)) > 0
        assert gradients(getattr(objective, stays)) == 0
        assert all(p.requires_grad for p in objective.parameters())


def test_dreams_are_the_cross_entropy_and_the_doubt_of_what_was_written() -> None:
    auxiliary = Dreams(("tense",), weight=0.3, entropy=0.4, longest=LONGEST)
    objective, batch = compiled(auxiliary), batch_of()
    objective.eval()
    torch.manual_seed(4)
    loss = auxiliary.loss(objective, None, batch, None)  # type: ignore[arg-type]
    torch.manual_seed(4)
    latents, written = dream(objective.model, batch, LONGEST)
    assert isinstance(written, TextBatch) and written.mask.shape[1] <= LONGEST
    log_q = objective.guide.discriminators["tense"](written).log_softmax(-1)
    expected = -(log_q * latents["tense"]).sum(-1) - 0.4 * (log_q.exp() * log_q).sum(-1)
    assert loss.item() == pytest.approx(0.3 * expected.mean().item(), rel=1e-5)


def test_awake_only_the_documents_count_asleep_only_what_is_written_and_jointly_both() -> None:
    objective, batch = compiled(KnownLabels(site="tone"), CONTROL, Dreams(("tone",))), batch_of()
    objective.train()
    found = {}
    for phase in ("wake", "sleep", None):
        objective.phase = phase
        torch.manual_seed(0)
        value = objective(batch)
        found[phase] = set(objective.last.auxiliary)
        assert objective.last.value.item() == value.item()
    assert found == {
        "wake": {"KnownLabels"},
        "sleep": {"Control", "Dreams"},
        None: {"KnownLabels", "Control", "Dreams"},
    }


def test_labels_are_pinned_column_by_column_and_only_in_training() -> None:
    model, guide = made()
    batch = batch_of()
    objective = Strategy(discrete=Relax(hard=True)).compile(model, guide, batch)
    objective.train()
    sites = objective.terms(batch).sites
    assert batch.attributes is not None
    for column, name in enumerate(ATTRIBUTES):
        known = batch.attributes[:, column]
        drawn = sites[name].value[0].argmax(-1)
        assert bool((known >= 0).any()) and torch.equal(drawn[known >= 0], known[known >= 0])
    objective.eval()
    assert not hasattr(objective.terms(batch).sites["tone"].q, "known")


def test_padding_does_not_count() -> None:
    objective, batch = compiled(CONTROL, Dreams(("tone",))), batch_of()
    objective.eval()
    losses = []
    for given in (batch, padded(batch, 3)):
        torch.manual_seed(0)
        losses.append(objective.plain_terms(given).log_likelihood.detach())
    assert torch.allclose(*losses, atol=1e-5)


TRAINING = Training(epochs=3, batch_size=6, optimizer=Adam(0.01), plateau=None, keep="last", device="cpu", log_every=1)


def test_sleep_begins_after_the_base_and_the_last_parameters_are_kept(tmp_path: Path) -> None:
    model, guide = made()
    strategy = Strategy(
        discrete=Relax(hard=True),
        updates=WakeSleepPhases(base=1),
        auxiliary=(KnownLabels(site="tone"), KnownLabels(site="tense"), CONTROL, Dreams(("tone", "tense"))),
    )
    run = fit(model, guide, Attributed(), strategy, TRAINING, out=tmp_path / "run")
    steps = [row for row in run.history if "loss" in row]
    asleep = ["auxiliary.Control" in row for row in steps]
    assert asleep == [row["epoch"] >= 1 for row in steps]
    assert {"auxiliary.KnownLabels.tone", "auxiliary.KnownLabels.tense"} < set(steps[0])
    assert [row["best"] for row in run.history if "valid.loss" in row] == [True] * 3


def test_all_discrete_estimators_train_it_where_labels_are_unknown() -> None:
    batch = batch_of()
    for estimator in (Enumerate(), Relax(), Relax(hard=True)):
        model, guide = made(supervision=0.5)
        auxiliary = (KnownLabels(site="tone"), CONTROL, Dreams(("tone", "tense")))
        objective = Strategy(discrete=estimator, kl=KL(weight=0.5), auxiliary=auxiliary).compile(model, guide, batch)
        objective.train()
        objective(batch).backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in objective.parameters())


def test_what_was_best_before_the_first_sleep_does_not_count() -> None:
    model, guide = made()
    updates, auxiliary = WakeSleepPhases(base=6), (KnownLabels(site="tone"), KnownLabels(site="tense"), CONTROL)
    strategy = Strategy(discrete=Relax(hard=True), updates=updates, auxiliary=auxiliary)
    training = Training(epochs=8, batch_size=6, optimizer=Adam(0.03), plateau=None, device="cpu")
    history = fit(model, guide, Attributed(), strategy, training).history
    best = [row["epoch"] for row in history if row.get("best")]
    assert [epoch for epoch in best if epoch >= 6][:1] == [6]


def test_weights_that_are_still_zero_are_no_step() -> None:
    model, guide = made()
    rising = Control({"tone": Linear(0.0, 1.0, steps=3)}, longest=LONGEST)
    auxiliary = (KnownLabels(site="tone"), KnownLabels(site="tense"), rising)
    strategy = Strategy(discrete=Relax(hard=True), updates=WakeSleepPhases(), auxiliary=auxiliary)
    history = fit(model, guide, Attributed(), strategy, TRAINING).history
    losses = [row["auxiliary.Control"] for row in history if "auxiliary.Control" in row]
    assert losses[0] == 0 and losses[-1] > 0


@pytest.mark.parametrize(
    ("auxiliary", "updates", "message"),
    [
        (Control({}), Joint(), "it names no site"),
        (Dreams(()), Joint(), "it names no site"),
        (Control({"mood": 1.0}), Joint(), "it reads the site 'mood'; the latents are 'tone', 'tense', 'z'"),
        (Dreams("tone"), Joint(), r"sites is a list of sites: \['tone'\]"),  # type: ignore[arg-type]
        (KnownLabels(site="tone"), WakeSleepPhases(), "there is nothing to sleep on"),
    ],
)
def test_what_cannot_be_learnt_is_refused(auxiliary: Any, updates: Any, message: str) -> None:
    with pytest.raises(StructureError, match=message):
        compiled(auxiliary, updates=updates)


@pytest.mark.parametrize("name", ["controlled_sentence", "controlled_sst", "controlled_yelp"])
def test_the_temperature_of_a_recipe_falls_while_it_sleeps(name: str) -> None:
    recipe = yaml.safe_load(shipped()[name].read_text("utf-8"))
    base, epochs = recipe["strategy"]["updates"]["init_args"]["base"], recipe["training"]["epochs"]
    control = next(one for one in recipe["strategy"]["auxiliary"] if one["class_path"] == "Control")["init_args"]
    joined = control["temperature"]["init_args"]
    assert joined["boundaries"] == [base] and joined["parts"][0] == "Constant"
    assert joined["parts"][1]["init_args"]["epochs"] == epochs - base


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Control({"tone": -1.0}), "Control: the weight of 'tone' is at least 0, not -1.0"),
        (lambda: Control({"tone": 1.0}, temperature=0.0), "Control: temperature is above 0 to its end, not 0.0"),
        (
            lambda: Control({"tone": 1.0}, Linear(1.0, 0.0, epochs=2)),
            r"above 0 to its end, not Linear\(start=1.0, end=0",
        ),
        (lambda: Control({"tone": 1.0}, longest=0), "Control: longest is at least 1, not 0"),
        (lambda: Dreams(("tone",), weight=-1.0), "Dreams: weight is at least 0, not -1.0"),
        (lambda: Dreams(("tone",), entropy=-0.1), "Dreams: entropy is at least 0, not -0.1"),
        (lambda: Dreams(("tone",), longest=0), "Dreams: longest is at least 1, not 0"),
    ],
)
def test_numbers_that_teach_nothing_or_the_contrary_are_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_decoder_that_reads_no_points_of_the_simplex_is_refused() -> None:
    torch.manual_seed(0)
    decoder = partial(TransformerDecoder, width=8, heads=2, layers=1)
    model = ControlledSentence(VOCABULARY, 3, ATTRIBUTES, decoder)
    with pytest.raises(StructureError, match="does not read points of the simplex: use a recurrent one"):
        Strategy(discrete=Relax(hard=True), auxiliary=(CONTROL,)).compile(model, made()[1], batch_of())


def test_a_model_that_cannot_write_softly_is_refused() -> None:
    model, guide = styled()
    with pytest.raises(StructureError, match="StyledSentence cannot write softly"):
        Strategy(discrete=Enumerate(), auxiliary=(Control({"c": 1.0}),)).compile(model, guide, batch_of())


def test_attributes_that_are_not_the_corpuss_are_refused() -> None:
    model, guide = made()
    with pytest.raises(ValueError, match="has no attribute 'tense'; it has 'tone'"):
        fit(model, guide, Attributed(tensed=False), Strategy(discrete=Enumerate()), TRAINING)
    unlabelled = Attributed(tensed=False)
    unlabelled.labels = ()
    with pytest.raises(ValueError, match="has no labels, so no 'tone': choose a labelled corpus"):
        fit(model, guide, unlabelled, Strategy(discrete=Enumerate()), TRAINING)
    for wrong, message in (({}, "attributes is empty"), ({"z": 2}, "called 'z'"), ({"tone": 1}, "has 1 classes")):
        with pytest.raises(ValueError, match=message):
            ControlledSentence(VOCABULARY, 3, wrong, LSTMDecoder)  # type: ignore[arg-type]
