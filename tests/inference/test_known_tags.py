"""More weight for sentences whose tags are seen: its value, its gradient, what it is for, and what it refuses."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pyro_nlp.data.splits import TextSplit
from pyro_nlp.distributions.labelled import seen_tags
from pyro_nlp.inference import Adam, KnownTags, Linear, PyroELBO, Strategy, StructureError, Training, fit, terms
from pyro_nlp.models.hmm import HMM
from pyro_nlp.models.neural_hmm import NeuralHMM
from pyro_nlp.nn import LSTMDecoder, LSTMTransitions
from tests.tiny import VOCABULARY, WIDTH, Sentences, gradients, lm, sharpen, text, whole

STATES, SHARE = 3, 0.5
INFORMED = partial(LSTMTransitions, reader=partial(LSTMDecoder, embedding=WIDTH, width=WIDTH))
MODELS: dict[str, Any] = {"HMM": HMM, "neural": NeuralHMM, "LSTM": partial(NeuralHMM, transitions=INFORMED)}


def tagged_batch() -> Any:
    split = text(12, longest=5)
    return whole(TextSplit(split.flat, split.offsets, tags=split.flat % STATES))


def compiled(weight: Any = 4.0, kind: str = "HMM", supervision: float = SHARE) -> tuple[Any, Any]:
    torch.manual_seed(0)
    batch, model = tagged_batch(), sharpen(MODELS[kind](VOCABULARY, STATES, supervision=supervision))
    return Strategy(auxiliary=(KnownTags(weight),)).compile(model, None, batch), batch


@pytest.mark.parametrize("kind", MODELS)
def test_seen_sentences_count_once_and_weight_times_more(kind: str) -> None:
    objective, batch = compiled(kind=kind)
    known = seen_tags(batch, SHARE, STATES, True)
    assert known is not None
    seen = (known >= 0).any(1)
    assert 0 < int(seen.sum()) < len(batch)
    joint = terms(objective.model, None, batch).log_likelihood[0]
    wanted = -(joint * (1 + 4.0 * seen)).mean()
    wanted.backward()
    gradient = gradients(objective.model)
    found = objective(batch)
    found.backward()
    torch.testing.assert_close(found, wanted)
    for name, value in gradients(objective.model).items():
        torch.testing.assert_close(value, gradient[name], rtol=1e-5, atol=1e-6)


def test_validation_adds_all_its_tags_at_the_share_of_training_and_no_evaluation_sees_them() -> None:
    objective, batch = compiled(supervision=0.25)
    auxiliary = KnownTags(4.0)
    words = objective.eval().model
    found = terms(words, None, batch)
    assert auxiliary.loss(objective, found, batch, None) == 0.0
    torch.manual_seed(0)
    supervised = HMM(VOCABULARY, STATES, supervision=1.0)
    supervised.load_state_dict(words.state_dict())
    joint, some = terms(supervised, None, batch).log_likelihood[0], (batch.tags >= 0).any(1)
    assert int((~some).sum()) == 1  # a sentence without words has no tag
    judged = auxiliary.judge(objective, found, batch)
    torch.testing.assert_close(judged, -4.0 * 0.25 * (joint * some).mean())
    moved = KnownTags(Linear(1.0, 9.0, epochs=3)).judge(objective, found, batch)
    torch.testing.assert_close(moved, -0.25 * (joint * some).mean())
    assert auxiliary.judge(objective, found, batch.replace(tags=None)) is None


class Contrary(Sentences):
    """Sentences whose words are of one half of the vocabulary or the other, while a tag is the parity of the word."""

    tags = ("even", "odd")

    def __init__(self) -> None:
        super().__init__()
        for name, count in (("train", 400), ("valid", 40), ("test", 100)):
            rng = np.random.default_rng(count)
            lines = [rng.integers(4, 17, 6) + 13 * rng.integers(2) for _ in range(count)]
            setattr(self, name, TextSplit.from_sentences(lines, tags=[line % 2 for line in lines]))


def test_a_few_tags_move_states_that_have_settled_on_classes_of_their_own() -> None:
    accuracy, corpus = {}, Contrary()
    training = Training(epochs=15, batch_size=20, optimizer=Adam(0.1), plateau=None, device="cpu")
    for weight in (0.0, 20.0):
        torch.manual_seed(0)
        model = HMM(VOCABULARY, 2)
        fit(model, None, corpus, None, training)
        model.supervision = 0.05
        fit(model, None, corpus, Strategy(auxiliary=(KnownTags(weight),)), training)
        batch = whole(corpus.test)
        known = batch.tags >= 0
        accuracy[weight] = float((model.viterbi(batch)[0] == batch.tags)[known].float().mean())
    assert accuracy[0.0] < 0.6 < 0.9 < accuracy[20.0]


def test_what_it_cannot_read_is_refused() -> None:
    strategy, batch = Strategy(auxiliary=(KnownTags(),)), tagged_batch()
    with pytest.raises(StructureError, match=r"KnownTags: no tag is seen: set the model's supervision above 0"):
        strategy.compile(HMM(VOCABULARY, STATES), None, batch)
    with pytest.raises(StructureError, match=r"'x' is no HiddenMarkov of the model, which observes 'x': use HMM or Ne"):
        strategy.compile(lm(), None, batch)
    chain = Strategy(auxiliary=(KnownTags(),), bound=PyroELBO("Trace_ELBO"))
    with pytest.raises(StructureError, match=r"KnownTags: Trace_ELBO keeps its terms to itself: use bound=ELBO\(\)"):
        chain.compile(HMM(VOCABULARY, STATES, supervision=0.5), None, batch)
