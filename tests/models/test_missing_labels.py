"""What is said of labels that are not there: a way out that does not lead back to the first message."""

from __future__ import annotations

import numpy as np
import pytest

from pyro_nlp.inference import Enumerate, KnownLabels, Strategy, StructureError, Training, fit
from tests.tiny import Sentences, styled, whole

LABELS = Strategy(discrete=Enumerate(), auxiliary=(KnownLabels(),))


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_a_corpus_without_labels_wants_no_more_supervision(share: float, unknown: bool) -> None:
    model, guide = styled(supervision=share)
    corpus = Sentences()
    corpus.train.labels = np.full(len(corpus.train), -1) if unknown else None  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="sees none at all .*: choose a corpus that has them, or set supervision to 0"):
        fit(model, guide, corpus, LABELS, Training(epochs=1, device="cpu"))


def test_without_supervision_the_loss_of_labels_says_that_it_can_be_left_out() -> None:
    model, guide = styled(supervision=0.0)
    batch = whole(Sentences().train)
    with pytest.raises(StructureError, match=r"if the corpus has labels, or leave this loss out \(--strategy.auxil"):
        LABELS.compile(model, guide, batch)
    Strategy(discrete=Enumerate()).compile(model, guide, batch)
