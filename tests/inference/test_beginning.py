"""Runs that begin with parts of other runs, and parts that are not trained."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_nlp.data import GoogleCompression, OneSide
from pyro_nlp.data.files import CorpusError
from pyro_nlp.guides.pointer import PointerGuide
from pyro_nlp.inference import ELBO, LeaveOneOut, ScoreFunction, Strategy
from pyro_nlp.inference.fit import fit
from pyro_nlp.inference.folder import RunError
from pyro_nlp.inference.terms import StructureError
from pyro_nlp.inference.training import Training
from pyro_nlp.models.compression import SentenceCompression
from pyro_nlp.models.sentence_lm import SentenceLM
from pyro_nlp.nn import LSTMDecoder, LSTMEncoder

decoder = partial(LSTMDecoder, embedding=6, width=6)
encoder = partial(LSTMEncoder, embedding=6, width=6)
SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 8, "device": "cpu"}
STRATEGY = Strategy(discrete=ScoreFunction(LeaveOneOut()), bound=ELBO(2))


@pytest.fixture
def corpus(tmp_path: Path) -> GoogleCompression:
    """2,040 short sentences: the first 2,000 are for judging."""
    rng = np.random.default_rng(0)
    words = np.array(["dog", "cat", "sat", "ran", "big", "small", "old"])
    sentences = [list(rng.choice(words, rng.integers(4, 7))) for _ in range(2040)]
    folder = tmp_path / "google"
    folder.mkdir()
    (folder / "sentence_en.txt").write_text("\n".join(map(" ".join, sentences)) + "\n")
    (folder / "compression_en.txt").write_text("\n".join(" ".join(s[:2]) for s in sentences) + "\n")
    found = GoogleCompression(str(folder), labelled=0.25, min_count=1)
    for name in ("valid", "test"):
        setattr(found, name, getattr(found, name).take(np.arange(20)))
    return found


def programs(corpus: GoogleCompression, width: int = 6) -> tuple[SentenceCompression, PointerGuide]:
    torch.manual_seed(0)
    size = len(corpus.vocabulary)
    prior = partial(LSTMDecoder, embedding=width, width=width)
    return SentenceCompression(size, prior, encoder, decoder, 6), PointerGuide(size, encoder, decoder)


def language_model(corpus: GoogleCompression, out: Path) -> SentenceLM:
    torch.manual_seed(1)
    side = OneSide(corpus, "first")
    model = SentenceLM(len(side.vocabulary), decoder)
    fit(model, None, side, training=Training(**SHORT), out=out)
    return model


def test_a_prior_begins_as_a_language_model_and_stays_as_it_is(corpus: GoogleCompression, tmp_path: Path) -> None:
    lm = language_model(corpus, tmp_path / "lm")
    model, guide = programs(corpus)
    training = Training(**SHORT, start={"model.prior": str(tmp_path / "lm")}, fixed=("model.prior",))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, guide, corpus, STRATEGY, training, out=tmp_path / "run")
    for name, value in lm.state_dict().items():
        assert torch.equal(model.state_dict()[f"prior.{name}"], value)
        assert not torch.equal(before[f"prior.{name}"], value)
    assert not torch.equal(model.head.weight, before["head.weight"])
    # and a run goes on without the one it began with
    (tmp_path / "lm").rename(tmp_path / "elsewhere")
    again, other = programs(corpus)
    longer = Training(**{**SHORT, "epochs": 2}, start=training.start, fixed=training.fixed)
    fit(again, other, corpus, STRATEGY, longer, out=tmp_path / "run", resume=True)
    assert torch.equal(again.prior.head.weight, lm.head.weight)


def test_what_cannot_be_a_beginning_is_refused_by_name(corpus: GoogleCompression, tmp_path: Path) -> None:
    language_model(corpus, tmp_path / "lm")
    model, guide = programs(corpus)

    def refused(error: type[Exception], match: str, **options: Any) -> None:
        with pytest.raises(error, match=match):
            fit(model, guide, corpus, STRATEGY, Training(**SHORT, **options), out=tmp_path / "run")
        assert not (tmp_path / "run" / "checkpoint.pt").exists()

    start = str(tmp_path / "lm")
    refused(
        StructureError, "'model.first' is no part of SentenceCompression; it has model.prior,", fixed=("model.first",)
    )
    refused(StructureError, "with model, guide fixed nothing is left to train", fixed=("model", "guide"))
    model, guide = programs(corpus)
    with pytest.raises(ValueError, match="fixed is a list of parts"):
        Training(fixed="model.prior")  # type: ignore[arg-type]
    refused(StructureError, "'prior' names no part: give model or guide, a dot", fixed=("prior",))
    refused(RunError, "there is no run folder nowhere", start={"model.prior": "nowhere"})
    refused(
        StructureError,
        "'model.encoder' cannot start from .*lm, whose parts are not those of",
        start={"model.encoder": start},
    )
    other = str(tmp_path / "compression")
    fit(model, guide, corpus, STRATEGY, Training(**SHORT), out=other)
    refused(
        StructureError, "whose parts are not those of a LanguageModel: give a run of Sent", start={"model.prior": other}
    )
    model, guide = programs(corpus, width=5)
    refused(StructureError, "'model.prior' cannot start .* give both the same sizes", start={"model.prior": start})
    words = corpus.vocabulary.words
    corpus.vocabulary = type(corpus.vocabulary)([*words[4:-1], "horse"])
    model, guide = programs(corpus)
    refused(StructureError, "another vocabulary .* is '.*' there and 'horse' here", start={"model.prior": start})


def test_one_side_of_pairs_is_a_corpus_of_sentences(corpus: GoogleCompression) -> None:
    first, second = OneSide(corpus, "first"), OneSide(corpus, "second")
    assert (len(first.train), len(second.train)) == (40, 10)
    assert len(second.valid) == len(corpus.valid)
    known = np.flatnonzero(corpus.train.labels == 1)
    assert second.train.words(0) == corpus.train.second.words(int(known[0]))
    assert first.vocabulary is corpus.vocabulary
    corpus.train.labels = np.full(40, -1)
    with pytest.raises(CorpusError, match="no second text .* is known"):
        OneSide(corpus, "second")
