"""M1+M2: exact numbers by quadrature, labels, two stages of training, every discrete strategy."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation import classify, importance_nll
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.stacked import StackedGuide
from pyro_nlp.inference import (
    ELBO,
    KL,
    Adam,
    Enumerate,
    KnownLabels,
    Marginalize,
    Strategy,
    StructureError,
    Training,
    fit,
    terms,
)
from pyro_nlp.inference.folder import RunFolder
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.models.stacked_sentence import StackedSentence
from pyro_nlp.nn import InputlessDecoder
from tests.models.test_classifiers import STRATEGIES, Separable
from tests.tiny import VOCABULARY, WIDTH, decoder, encoder, gradients, sharpen, whole

CLASSES, POINTS = 3, 161
pooled = partial(encoder, pooling="max")
GRID = torch.linspace(-8, 8, POINTS).double()
STEP = float(GRID[1] - GRID[0])


def line(supervision: float = 0.0) -> tuple[Any, Any]:
    """A model and guide whose codes are numbers, so that integrals over them are sums over a grid."""
    torch.manual_seed(0)
    model = sharpen(StackedSentence(VOCABULARY, 1, CLASSES, 1, WIDTH, decoder))
    guide = sharpen(StackedGuide(VOCABULARY, 1, CLASSES, 1, WIDTH, pooled, supervision=supervision))
    with torch.no_grad():  # a style that follows the code, and a code that follows the style
        for layer in (model.hidden[0], model.code.loc, guide.hidden[0], guide.posterior.loc):
            layer.weight.mul_(3.0)
    return model, guide


def sentence(label: int = -1) -> TextSplit:
    return TextSplit.from_sentences([[4, 9, 6]], [label])


def exact(model: Any, guide: Any, label: int = -1) -> tuple[Tensor, Tensor]:
    """The bound and log p(x, c) by class `[K]` of the sentence, by sums over grids of z1 and z2.

    Tables are `[K, z1, z2]`. With a label the bound is that of a class that is pinned.
    """
    batch, eye = whole(sentence()), torch.eye(CLASSES)
    states = model.sentence.decoder(GRID.float()[:, None], batch.inputs.expand(POINTS, -1))
    log_x = model.sentence.head(states).log_softmax(-1).gather(-1, batch.targets.expand(POINTS, -1)[..., None])
    log_x = log_x[..., 0].double().sum(-1)[None, :, None]
    z1, z2 = GRID[None, :, None], GRID[None, None, :]
    pairs = torch.cat([GRID.float()[None, :, None].expand(CLASSES, -1, -1), eye[:, None].expand(-1, POINTS, -1)], -1)
    loc, scale = (of.double()[..., 0] for of in model.code(model.hidden(pairs)))  # [K, z2]
    log_p1 = Normal(loc[:, None], scale[:, None]).log_prob(z1)
    log_p = model.prior.double().log_softmax(0)[:, None, None] + Normal(0.0, 1.0).log_prob(z2) + log_p1
    joint = (log_p + log_x).flatten(1).logsumexp(1) + 2 * math.log(STEP)

    loc, scale = (of.double() for of in guide.sentence.posterior(guide.sentence.encoder(batch)))
    log_q1 = Normal(loc[0], scale[0]).log_prob(GRID)[None, :, None]
    said = guide.classifier(guide.reading(GRID.float()[:, None])).double().log_softmax(-1).T  # [K, z1]
    log_q = said if label < 0 else torch.where(torch.arange(CLASSES)[:, None] == label, 0.0, -torch.inf)
    given = torch.cat([GRID.float()[None, :, None].expand(CLASSES, -1, -1), eye[:, None].expand(-1, POINTS, -1)], -1)
    loc, scale = (of.double() for of in guide.posterior(guide.hidden(given)))  # [K, z1, 1]
    log_q2 = Normal(loc, scale).log_prob(z2)
    weight = (log_q1 + log_q[..., None] + log_q2).exp() * STEP**2
    torch.testing.assert_close(weight.sum(), torch.ones(()).double(), rtol=1e-4, atol=0)
    ratio = log_p + log_x - log_q1 - log_q.clamp(min=-50)[..., None] - log_q2
    return (weight * ratio).sum(), joint


@pytest.mark.parametrize("label", [-1, 2])
def test_the_bound_is_that_by_quadrature_although_z1_and_z2_change_places(label: int) -> None:
    model, guide = line(1.0)
    with torch.no_grad():
        wanted, joint = exact(model, guide, label)
        assert wanted < (joint.logsumexp(0) if label < 0 else joint[label])
        losses = []
        torch.manual_seed(1)
        objective = Strategy(discrete=Enumerate(), bound=ELBO(2000)).compile(model, guide, whole(sentence(label)))
        for _ in range(50):
            losses.append(-float(objective(whole(sentence(label)))))
    error = np.std(losses, ddof=1) / len(losses) ** 0.5
    assert error < 0.05 and abs(np.mean(losses) - float(wanted)) < 4 * error


def test_one_draw_of_one_document_has_no_closed_form_either() -> None:
    model, guide = line(1.0)
    found = terms(model, guide, whole(sentence(2)))
    assert found.sites["z1"].closed_form is None
    assert found.sites["c"].closed_form is not None and found.sites["z2"].closed_form is not None


def test_the_gradient_is_that_by_quadrature() -> None:
    model, guide = line()
    exact(model, guide)[0].neg().backward()
    wanted = gradients(model, guide)
    size = math.sqrt(sum(float(g.square().sum()) for g in wanted.values()))
    rng = torch.Generator().manual_seed(2)
    directions = [{n: g / size for n, g in wanted.items()}]
    directions += [{n: torch.randn(g.shape, generator=rng) for n, g in wanted.items()} for _ in range(5)]
    objective = Strategy(discrete=Enumerate(), bound=ELBO(200)).compile(model, guide, whole(sentence()))
    found = []
    torch.manual_seed(3)
    for _ in range(60):
        objective(whole(sentence())).backward()
        drawn = gradients(model, guide)
        found.append([sum(float((drawn[n] * d[n]).sum()) for n in d) for d in directions])
    table = np.array(found)
    expected = [sum(float((wanted[n] * d[n]).sum()) for n in d) for d in directions]
    error = table.std(0, ddof=1) / len(table) ** 0.5
    assert error[0] < size / 10
    assert (np.abs(table.mean(0) - expected) < 4.5 * error).all()


def test_the_likelihood_and_the_class_are_those_by_quadrature() -> None:
    model, guide = line(0.5)
    with torch.no_grad():
        _, joint = exact(model, guide)
    found = importance_nll(model, guide, sentence(), samples=20_000)
    assert abs(found.nll[0] + float(joint.logsumexp(0))) < max(5 * found.standard_error[0], 1e-3)
    classes = classify(model, guide, sentence(), samples=20_000, chunk=20_000)
    np.testing.assert_allclose(np.exp(classes.log_probability[0]), joint.softmax(0), atol=0.02)
    with torch.no_grad():
        loc, scale = guide.sentence.posterior(guide.sentence.encoder(whole(sentence())))
        weight = Normal(loc[0].double(), scale[0].double()).log_prob(GRID).exp() * STEP
        said = weight @ guide.classifier(guide.reading(GRID.float()[:, None])).double().softmax(-1)
    assert classes.guide is not None
    np.testing.assert_allclose(np.exp(classes.guide[0]), said, atol=0.02)


def test_a_label_that_is_seen_is_the_class() -> None:
    model, guide = line(1.0)
    found = terms(model, guide, whole(sentence(2)), particles=4)
    assert found.sites["c"].value.argmax(-1).tolist() == [[2]] * 4
    torch.testing.assert_close(found.kl["c"], -model.prior.log_softmax(0)[2].expand(4, 1))
    objective = Strategy(discrete=Enumerate(), auxiliary=(KnownLabels(3.0),)).compile(model, guide, whole(sentence(2)))
    said = guide.classifier(guide.reading(found.sites["z1"].value)).log_softmax(-1)[..., 2].mean()
    torch.testing.assert_close(KnownLabels(3.0).loss(objective, found, whole(sentence(2)), None), -3.0 * said)


def test_a_class_that_other_latents_depend_on_is_not_summed_out_in_the_model() -> None:
    model, guide = line()
    with pytest.raises(StructureError, match=r"'c'.*Enumerate\(\)"):
        Strategy(discrete=Marginalize()).compile(model, guide, whole(sentence()))


# two stages


LATENT = 4
CORPUS = Separable(train=240)
forgetful = partial(InputlessDecoder, embedding=WIDTH, width=WIDTH)
SHORT: dict[str, Any] = {"batch_size": 20, "device": "cpu"}


@pytest.fixture(scope="module")
def m1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a sentence VAE."""
    out = tmp_path_factory.mktemp("stacked") / "m1"
    model, guide = vae()
    strategy = Strategy(kl=KL(0.2))  # or too little of so short a sentence is in its code
    fit(model, guide, CORPUS, strategy, Training(epochs=30, optimizer=Adam(0.02), plateau=None, **SHORT), out=out)
    return out


def vae() -> tuple[Any, Any]:
    torch.manual_seed(0)
    return SentenceVAE(VOCABULARY, LATENT, forgetful), GaussianGuide(VOCABULARY, LATENT, pooled)


def m2(supervision: float = 0.5, width: int = WIDTH) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = StackedSentence(VOCABULARY, LATENT, CLASSES, 2, WIDTH, partial(forgetful, width=width))
    return model, StackedGuide(VOCABULARY, LATENT, CLASSES, 2, WIDTH, pooled, supervision=supervision)


BEGIN = ("model.sentence", "guide.sentence")


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_second_stage_learns_the_class_from_the_code_that_the_first_learnt(name: str, m1: Path) -> None:
    model, guide = m2()
    strategy = Strategy(**STRATEGIES[name], auxiliary=(KnownLabels(3.0),))
    training = Training(epochs=12, optimizer=Adam(0.02), start=dict.fromkeys(BEGIN, str(m1)), fixed=BEGIN, **SHORT)
    run = fit(model, guide, CORPUS, strategy, training)
    for which, module, part in zip(("model", "guide"), vae(), (model.sentence, guide.sentence), strict=True):
        module.load_state_dict(RunFolder.open(m1).load_weights(which))
        assert all(torch.equal(part.state_dict()[n], v) for n, v in module.state_dict().items())
    bounds = [entry["valid.loss"] for entry in run.history if "valid.loss" in entry]
    assert bounds[-1] < bounds[0]
    found = classify(run.model, run.guide, CORPUS.test, names=CORPUS.labels, samples=20)
    assert found.by_guide().accuracy >= 0.9  # which M1+M2 classifies by


def test_a_part_with_other_parameters_than_the_run_is_refused(m1: Path) -> None:
    model, guide = m2(width=WIDTH + 1)
    training = Training(epochs=1, start={"model.sentence": str(m1)}, **SHORT)
    with pytest.raises(StructureError, match=r"'model.sentence' cannot start from .*m1, whose model has other param"):
        fit(model, guide, CORPUS, Strategy(discrete=Enumerate()), training)
