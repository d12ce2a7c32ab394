"""A model or guide that does not read what a corpus gives is refused in the dry run."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pyro.nn import PyroModule

from pyro_nlp.data.batches import Batch
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.inference import Strategy, StructureError, Training, fit
from pyro_nlp.models.nasm import NASM
from pyro_nlp.nn import CountEncoder
from tests import bags, tiny
from tests.models.test_pair_models import nasm, pairs

PAIRS = pairs().batch(np.arange(4))
TEXTS = tiny.Sentences().train.batch(np.arange(4))


def test_a_model_of_sentences_refuses_pairs_and_names_the_cure() -> None:
    with pytest.raises(StructureError) as refused:
        Strategy().compile(tiny.lm(), None, PAIRS)
    assert str(refused.value) == (
        "SentenceLM reads sentences (TextBatch), and the corpus gives pairs of texts (PairBatch): choose a corpus of "
        "sentences, such as TextFile, or a model (with its guide) of pairs of texts"
    )
    assert isinstance(refused.value.__cause__, AttributeError), "the traceback shows where it was asked for"


@pytest.mark.parametrize("batch", [TEXTS, tiny.Vectors(torch.randn(8, 2)).train.batch(np.arange(4))])
def test_a_model_of_pairs_refuses_others(batch: Batch) -> None:
    for model, guide in ((nasm()[0], None), nasm()):
        with pytest.raises(StructureError, match=r"reads pairs of texts \(PairBatch\), and .* such as PairFile"):
            Strategy().compile(model, guide, batch)


def test_a_guide_of_another_kind_than_its_model_is_refused() -> None:
    with pytest.raises(StructureError, match="NASMGuide reads pairs of texts .* or a model .* of sentences"):
        Strategy().compile(tiny.vae()[0], nasm()[1], TEXTS)
    with pytest.raises(StructureError, match=r"reads bags of words \(CountBatch\)"):
        Strategy().compile(bags.make("GSM")[0], None, TEXTS)


def test_what_a_guide_reads_is_up_to_its_encoder() -> None:
    guide = GaussianGuide(tiny.VOCABULARY, 2, partial(CountEncoder, width=4))
    with pytest.raises(StructureError, match="GaussianGuide reads bags of words .* and the corpus gives sentences"):
        Strategy().compile(tiny.vae()[0], guide, TEXTS)


def test_a_network_that_does_not_read_its_part_of_a_batch_is_named_as_such() -> None:
    model = NASM(tiny.VOCABULARY, 2, partial(CountEncoder, width=4), tiny.encoder)
    with pytest.raises(StructureError, match="a network of NASM reads bags of words .* is given sentences"):
        Strategy().compile(model, None, PAIRS)


def test_fit_names_the_corpus() -> None:
    corpus = tiny.Sentences()
    with pytest.raises(StructureError, match=f"and Sentences .{corpus.name}. gives sentences"):
        fit(*nasm(), corpus, Strategy(), Training(epochs=1))


class Mistaken(PyroModule):
    """Asks for what no batch has."""

    def forward(self, batch: Any) -> None:
        batch.imputs  # noqa: B018


def test_a_slip_of_the_pen_is_shown_as_what_it_is() -> None:
    with pytest.raises(AttributeError, match="imputs"):
        Strategy().compile(Mistaken(), None, TEXTS)
