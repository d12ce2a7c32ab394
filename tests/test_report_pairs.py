"""The report of models of pairs: ranking, questions with where they look, what labels say, latent attention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_nlp import Run
from pyro_nlp.data import Corpus
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.vocabulary import Vocabulary
from pyro_nlp.diagnosis import Diagnoses, as_dict, diagnose, diagnose_runs, page, save
from pyro_nlp.diagnosis.subject import Protocol
from pyro_nlp.evaluation import elbo_terms, evaluate_answers
from pyro_nlp.inference import terms
from pyro_nlp.models.latent_attention import LatentAttention, SoftAttention
from tests import tiny
from tests.models.test_pair_models import attention, matcher, nasm, pairs
from tests.test_report_page import EVIL, FEW, browser, checked, opened, run


class Pairs(Corpus):
    """Random pairs with words, one of which is markup; without labels sources and targets."""

    def __init__(self, labels: bool = True) -> None:
        self.name, self.reference, self.labels = "pairs", "made up", ("wrong", "right") if labels else ()
        words = [f"w{i}" for i in range(tiny.VOCABULARY - 4)]
        words[12] = EVIL
        self.vocabulary = Vocabulary(words)
        self.train, self.valid, self.test = (pairs(count, labels, seed) for seed, count in enumerate((40, 10, 24)))


def ranker(kind: str) -> Run:
    made: Any = {"NASM": nasm, "LSTM": lambda: (matcher(), None), "attention": lambda: (matcher(attention=True), None)}
    return run(made[kind](), Pairs())


@pytest.mark.parametrize("kind", ["NASM", "LSTM", "attention"])
def test_every_ranker_is_diagnosed_by_its_ranking_and_its_questions(kind: str) -> None:
    made = ranker(kind)
    found = diagnose(made, name=EVIL, **FEW)
    everything = Diagnoses([found], None, {})
    json.dumps(as_dict(everything), allow_nan=False)
    text = page(everything)
    checked(text)
    assert {"ranking", "questions", "documents"} <= set(found.sections)
    assert ("label_gap" in found.sections) == (kind == "NASM")
    assert "alignments" not in found.sections and "Where the decoder looks" not in found.left_out
    whole = evaluate_answers(made.model, made.corpus.test)
    assert whole.ranking is not None
    assert found.sections["ranking"].ranking.map == whole.ranking.map
    assert found.rows()["MAP, whole split"] == str(whole.ranking.intervals()["MAP"])
    assert "each a pair, of 4 questions" in found.about["documents"]
    assert all(" → " in line for line in found.sections["documents"].texts)
    assert ("most looked at" in text) == (kind != "LSTM")
    assert (">±<" in text.replace(" ", "")) == (kind == "NASM")
    assert "no labels" not in " ".join(found.left_out.values())


def test_questions_have_their_candidates_from_the_likeliest_with_a_right_one() -> None:
    found = diagnose(ranker("NASM"), **FEW).sections["questions"]
    assert sorted(one.number for one in found) == [0, 1, 2, 3]
    for one in found:
        assert [c.rank for c in one.candidates] == sorted(c.rank for c in one.candidates)
        probabilities = [c.probability for c in one.candidates]
        assert probabilities == sorted(probabilities, reverse=True)
        assert (one.average_precision is not None) == any(c.right for c in one.candidates)
        assert all(c.words[-1] == "</s>" and len(c.words) == len(c.weights) for c in one.candidates)


def test_what_labels_say_is_the_mean_kl_of_a_questions_pairs() -> None:
    made = ranker("NASM")
    found = diagnose(made, **FEW).sections["label_gap"]
    split = made.corpus.test
    kl = elbo_terms(made.model, made.guide, split).kl["h"]
    for question in range(4):
        own = split.group == question
        assert found.kl[question] == pytest.approx(kl[own].mean(), rel=1e-5)  # of float32 sums
        for values, label in ((found.kl_right, 1), (found.kl_wrong, 0)):
            chosen = own & (split.labels == label)
            assert (
                np.isnan(values[question])
                if not chosen.any()
                else values[question] == pytest.approx(kl[chosen].mean(), rel=1e-5)
            )
    assert found.candidates.tolist() == np.bincount(split.group).tolist()


def test_where_a_question_looks_is_marked_word_by_word() -> None:
    made = ranker("attention")
    with torch.no_grad():
        made.model.attention.energy.weight.mul_(50)
    text = page(Diagnoses([diagnose(made, **FEW)], None, {}))
    checked(text)
    assert 'class="look" style="--look:' in text
    assert "&lt;script&gt;alert" in text, "the word that is markup stands in a candidate"


def test_diagnosed_pairs_are_whole_questions_where_they_fit() -> None:
    split = pairs(24)
    sizes = np.bincount(split.group)
    rows = Protocol(documents=int(sizes.max())).rows(split)
    assert 2 <= len(rows) <= sizes.max()
    assert all(np.isin(split.of_groups(np.array([g])), rows).all() for g in np.unique(split.group[rows]))
    assert len(Protocol(documents=500).rows(split)) == 24
    one = PairSplit(split.first, split.second, np.zeros(24, int), split.labels)
    assert len(Protocol(documents=5).rows(one)) == 5, "no question fits: pairs by chance"
    assert len(Protocol(documents=5).rows(pairs(24, labels=False))) == 5


@pytest.mark.parametrize("kind", [LatentAttention, SoftAttention])
def test_latent_attention_is_shown_as_prior_and_exact_posterior(kind: Any) -> None:
    made = run((attention(kind)[0], None), Pairs(labels=False), ("a",) if kind is LatentAttention else ())
    found = diagnose(made, name=EVIL, **FEW)
    text = page(Diagnoses([found], None, {}))
    json.dumps(as_dict(Diagnoses([found], None, {})), allow_nan=False)
    checked(text)
    shown = found.sections["alignments"]
    assert 0 < len(shown) <= 8 and "perplexity" in found.rows()
    for one in shown:
        assert one.prior.shape == (len(one.target), len(one.source))
        np.testing.assert_allclose(one.prior.sum(1), 1, atol=1e-5)  # float32 softmaxes
        assert (one.posterior is None) == (kind is SoftAttention)
    summed = kind is LatentAttention
    assert ("exact posterior</text>" in text) == summed and ("soft attention</text>" in text) != summed
    assert ("summed out exactly" in found.verdict.headline) == summed
    assert found.rows()["latents"] == ("a summed out exactly" if summed else "no latent variables")


def test_the_posterior_that_is_drawn_is_bayes_rule() -> None:
    made = run((attention()[0], None), Pairs(labels=False), ("a",))
    one = diagnose(made, **FEW).sections["alignments"][0]
    split, model = made.corpus.test, made.model
    batch = split.batch(np.array([one.pair]))
    source, words = len(one.source), len(one.target)
    looked = torch.zeros(words, source)
    with torch.no_grad():
        for place in range(source):  # log p(y_t, a_t = place), from the definition
            where = torch.zeros(words, 1, source)
            where[..., place] = 1
            found = terms(_at(model, where), None, batch)
            looked[:, place] = found.observed["y"].reshape(words) + model.read(batch)[2].log_softmax(-1)[:, 0, place]
    assert one.posterior is not None
    np.testing.assert_allclose(one.posterior, looked.softmax(-1).numpy(), atol=1e-5)  # float32


def _at(model: Any, where: torch.Tensor) -> Any:
    """The model with its attention where we say."""
    soft = SoftAttention(tiny.VOCABULARY, tiny.encoder, tiny.decoder, 6)
    soft.load_state_dict(model.state_dict())
    soft.positions = lambda *given: torch.where(where > 0, 0.0, -1e4)  # type: ignore[method-assign]
    return soft.eval()


@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_questions_are_stepped_through_and_sorted(tmp_path: Path, width: int) -> None:
    browser()
    latent = run((attention()[0], None), Pairs(labels=False), ("a",))
    report = save(diagnose_runs({EVIL: ranker("NASM")}, **FEW), tmp_path / "answers")
    other = save(diagnose_runs({"latent": latent}, **FEW), tmp_path / "attention")
    for path, steps in ((report, [4]), (other, [8])):
        found, said = opened(path, width)
        assert not said
        assert all(found["sorted"]) and all(found["pinned"])
        assert found["width"] == width and not found["wide"], "the page is wider than its window"
        assert [stepper["steps"] for stepper in found["stepped"]] == steps
