"""Neural hidden Markov models: every pair of parts, known tags, spelling, and what they refuse."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from pyro_nlp import Adam, Linear, Training, fit, importance_nll
from pyro_nlp.data import TextBatch, Treebank
from pyro_nlp.data.batches import EOS
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.vocabulary import SPECIAL, Vocabulary
from pyro_nlp.distributions import chain_emissions
from pyro_nlp.distributions.labelled import _uniform, seen_tags
from pyro_nlp.inference import terms
from pyro_nlp.models.hmm import HMM, EnumeratedHMM
from pyro_nlp.models.neural_hmm import NeuralHMM
from pyro_nlp.nn import (
    BlockEmissions,
    CharacterCNN,
    LowRankTransitions,
    LSTMDecoder,
    LSTMTransitions,
    SecondOrderTransitions,
    SpelledEmissions,
    StateTransitions,
    TableEmissions,
    TableTransitions,
    WordEmissions,
    meet_corpus,
)
from tests.tiny import VOCABULARY, WIDTH, Sentences, gradients, padded, sharpen, text

STATES = 3
WORDS = (*SPECIAL, *(f"{stem}{end}" for stem, end in itertools.product(("run", "walk"), ("", "s", "ed", "ing"))))
WORDS = (*WORDS, *(f"w{i}" for i in range(VOCABULARY - len(WORDS))))
EMISSIONS: dict[str, Any] = {
    "table": TableEmissions,
    "words": partial(WordEmissions, width=WIDTH),
    "letters": partial(SpelledEmissions, width=WIDTH, letters=partial(CharacterCNN, letter=4, filters=4)),
}
TRANSITIONS: dict[str, Any] = {
    "table": TableTransitions,
    "states": partial(StateTransitions, width=WIDTH),
    "LSTM": partial(LSTMTransitions, reader=partial(LSTMDecoder, embedding=WIDTH, width=WIDTH)),
    "low rank": partial(LowRankTransitions, rank=2, width=WIDTH),
    "second order": SecondOrderTransitions,
}
everything = pytest.mark.parametrize(
    ("emissions", "transitions"), [*itertools.product(EMISSIONS, TRANSITIONS)], ids=lambda name: name
)


def neural(emissions: str = "words", transitions: str = "states", states: int = STATES, **options: Any) -> NeuralHMM:
    torch.manual_seed(0)
    model = NeuralHMM(VOCABULARY, states, EMISSIONS[emissions], TRANSITIONS[transitions], **options)
    if emissions == "letters":
        model.emissions.words.spell(WORDS)  # type: ignore[union-attr,operator]
    return sharpen(model)


def some(tagged: bool = False, tags: int = STATES) -> TextBatch:
    split = text(20, longest=4)
    if tagged:
        rng = np.random.default_rng(0)
        split = TextSplit(split.flat, split.offsets, tags=rng.integers(-1, tags, len(split.flat)))
    return split.batch(np.array([3, 10, 7, 9, 0]))  # one of them empty


def by_hand(model: NeuralHMM, batch: TextBatch, tags: Tensor | None = None) -> Tensor:
    """log p(x, known tags) of each sentence over all its chains, by the parts' own tables."""
    emitted = model.emissions()
    table = (emitted if isinstance(emitted, Tensor) else emitted.table()).log_softmax(1)
    moves, initial = model.transitions(batch.inputs), model.initial.log_softmax(0)

    def step(n: int, z: tuple[int, ...], t: int) -> Tensor:
        if isinstance(moves, Tensor):
            return moves.log_softmax(1)[z[t - 1], z[t]]
        if isinstance(model.transitions, LSTMTransitions):
            return moves.logs[0][t - 1, n, z[t - 1], z[t]]
        if isinstance(model.transitions, LowRankTransitions):
            parts = model.transitions
            u, v = (parts.features(x).exp() for x in (parts.before, parts.after))
            return (u @ v.t())[z[t - 1], z[t]].log() - (u @ v.sum(0))[z[t - 1]].log()
        return moves.logs[0][z[t - 2] if t > 1 else STATES, z[t - 1], z[t]]

    found = []
    for n, length in enumerate(batch.lengths.tolist()):
        chains = []
        for z in itertools.product(range(STATES), repeat=length):
            if tags is not None and any(int(tags[n, t]) not in (-1, z[t]) for t in range(length)):
                continue
            words = sum(table[k, w] for k, w in zip(z, batch.targets[n].tolist(), strict=False))
            chains.append(initial[z[0]] + words + sum(step(n, z, t) for t in range(1, length)))
        found.append(torch.stack(chains).logsumexp(0))
    return torch.stack(found)


@everything
@pytest.mark.parametrize("supervision", [0.0, 0.6])
def test_value_and_gradients_are_those_of_all_chains(emissions: str, transitions: str, supervision: float) -> None:
    model, batch = neural(emissions, transitions, supervision=supervision).double(), some(tagged=True)
    tags = seen_tags(batch, supervision, STATES, True)
    assert (tags is None) == (supervision == 0)
    found, wanted = terms(model, None, batch).log_likelihood[0], by_hand(model, batch, tags)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    found.sum().backward()
    mine = gradients(model)
    wanted.sum().backward()
    theirs = gradients(model)
    assert mine.keys() == theirs.keys() == {f"0.{name}" for name, _ in model.named_parameters()}
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-8, atol=1e-8)


def blocked(**options: Any) -> NeuralHMM:
    torch.manual_seed(0)
    return sharpen(NeuralHMM(VOCABULARY, 6, partial(BlockEmissions, blocks=3, width=WIDTH), **options))


def test_by_blocks_it_is_the_dense_model_whose_other_emissions_are_impossible() -> None:
    model, batch = blocked().double(), some()
    dense, found = HMM(VOCABULARY, 6).double(), terms(model, None, batch).log_likelihood
    with torch.no_grad():
        parts = model.initial, model.transitions(batch.inputs), model.emissions().table()
    dense.load_state_dict(dict(zip(("initial", "transition", "emission"), parts, strict=True)))
    torch.testing.assert_close(found, terms(dense, None, batch).log_likelihood, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.marginals(batch), dense.marginals(batch), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.viterbi(batch), dense.viterbi(batch))
    written = [m.generate({}, count=20, method="greedy", max_length=9) for m in (model, dense)]
    assert torch.equal(*written)


def test_by_blocks_it_learns_and_its_blocks_are_saved_with_it() -> None:
    corpus, model = Sentences(), blocked()
    assert isinstance(model.emissions, BlockEmissions)
    assert model.emissions.blocks[:5].tolist() == [0, 1, 2, 0, 1]  # by falling frequency, one to each block in turn
    model.emissions.assign([2, 1, 0] * (VOCABULARY // 3))
    before = importance_nll(model, None, corpus.train).mean
    fit(model, None, corpus, None, Training(epochs=4, batch_size=10, optimizer=Adam(0.03), device="cpu"))
    after = importance_nll(model, None, corpus.train)
    assert after.mean < before - 0.5
    other = NeuralHMM(VOCABULARY, 6, partial(BlockEmissions, blocks=3, width=WIDTH))
    other.load_state_dict(model.state_dict())
    assert np.array_equal(importance_nll(other, None, corpus.train).nll, after.nll)


def test_blocks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="BlockEmissions: 4 blocks of 6 states and 30 words: give a number that div"):
        BlockEmissions(VOCABULARY, 6, blocks=4)
    with pytest.raises(ValueError, match="blocks of 2 words, and a vocabulary of 30: give one for each"):
        blocked().emissions.assign([0, 1])  # type: ignore[operator]
    with pytest.raises(ValueError, match="block 2 of 3 has no word"):
        blocked().emissions.assign([0, 1] * 15)  # type: ignore[operator]
    with pytest.raises(ValueError, match="emissions by blocks go with a table of transitions, and LowRank is none"):
        terms(blocked(transitions=LowRankTransitions), None, some())
    with pytest.raises(ValueError, match="known tags want other emissions"):
        terms(blocked(supervision=1.0), None, some(tagged=True))


@everything
def test_padding_changes_nothing(emissions: str, transitions: str) -> None:
    model, batch = neural(emissions, transitions), some()
    torch.testing.assert_close(
        *(terms(model, None, b).log_weight for b in (batch, padded(batch, 4))), rtol=1e-6, atol=1e-6
    )


@everything
def test_training_improves_the_bound_and_a_saved_state_gives_the_same(emissions: str, transitions: str) -> None:
    corpus, model = Sentences(), neural(emissions, transitions)
    corpus.vocabulary = Vocabulary(WORDS)  # type: ignore[misc]
    before = importance_nll(model, None, corpus.train).mean
    fit(model, None, corpus, None, Training(epochs=4, batch_size=10, optimizer=Adam(0.03), device="cpu"))
    after = importance_nll(model, None, corpus.train)
    assert after.mean < before - 0.5 and not after.samples
    other = NeuralHMM(VOCABULARY, STATES, EMISSIONS[emissions], TRANSITIONS[transitions])
    other.load_state_dict(model.state_dict())  # the spelling with it
    assert np.array_equal(importance_nll(other, None, corpus.train).nll, after.nll)


@pytest.mark.parametrize("transitions", TRANSITIONS)
def test_it_writes_sentences_as_often_as_it_gives_them_probability(transitions: str) -> None:
    torch.manual_seed(0)
    model = sharpen(NeuralHMM(5, STATES, partial(TableEmissions, spread=0.3), TRANSITIONS[transitions]))
    with torch.no_grad():
        assert isinstance(model.emissions, TableEmissions)
        model.emissions.logits[:, :2] = -1e4  # `write` never gives padding or the beginning
    draws = 4000
    written = model.generate({}, count=draws, method="ancestral", max_length=60)
    for sentence in ([EOS], [3, EOS], [4, EOS], [3, 4, EOS], [4, 3, EOS], [3, 4, 4, EOS]):
        words = torch.tensor([sentence])
        inputs = torch.tensor([[1, *sentence[:-1]]])
        batch = TextBatch(torch.arange(1), 1, inputs, words, torch.ones_like(words, dtype=torch.bool))
        p = float(terms(model, None, batch).log_likelihood.detach().exp())
        seen = float((written[:, : len(sentence)] == words).all(1).float().mean())
        assert seen == pytest.approx(p, abs=4.5 * (p * (1 - p) / draws) ** 0.5)


def test_with_tables_for_parts_it_is_the_hidden_markov_model() -> None:
    model, batch = neural("table", "table"), some()
    other = HMM(VOCABULARY, STATES)
    parts = model.state_dict()
    other.load_state_dict(
        {"initial": parts["initial"], "transition": parts["transitions.logits"], "emission": parts["emissions.logits"]}
    )
    assert torch.equal(*(terms(m, None, batch).log_likelihood for m in (model, other)))
    assert torch.equal(*(m.viterbi(batch)[0] for m in (model, other)))


# ---- known tags ------------------------------------------------------------------------------------------------------


def test_which_tags_are_seen_follows_from_the_share_and_a_larger_one_adds_to_them() -> None:
    batch = some(tagged=True)
    some_seen, all_seen = seen_tags(batch, 0.6, STATES, True), seen_tags(batch, 1.0, STATES, True)
    assert some_seen is not None and all_seen is not None and batch.tags is not None
    assert torch.equal(all_seen, batch.tags)
    inside = _uniform(batch.index) < 0.6
    assert 0 < int(inside.sum()) < len(batch)
    assert torch.equal(some_seen[inside], batch.tags[inside]) and (some_seen[~inside] == -1).all()
    assert seen_tags(batch, 1.0, STATES, False) is None and seen_tags(batch, 0.0, STATES, True) is None


@pytest.mark.parametrize("make", [partial(HMM, VOCABULARY), partial(NeuralHMM, VOCABULARY)], ids=["HMM", "neural"])
def test_in_evaluation_the_likelihood_is_of_words_alone(make: Any) -> None:
    batch = some(tagged=True)
    model = make(STATES, supervision=1.0)
    joint = terms(model, None, batch).log_likelihood
    model.eval()
    words = terms(model, None, batch).log_likelihood
    assert (joint < words - 0.1)[0, batch.tags.amax(1) >= 0].all()  # type: ignore[union-attr]
    assert torch.equal(words, terms(model, None, batch.replace(tags=None)).log_likelihood)
    path = model.viterbi(batch)[0]
    assert torch.equal(path, model.train().viterbi(batch)[0])  # nor does decoding ever know them


def test_pyro_enumeration_with_known_tags_gives_the_same_value_and_gradients() -> None:
    torch.manual_seed(0)
    batch, model = some(tagged=True), HMM(VOCABULARY, STATES, supervision=0.6)
    other = EnumeratedHMM(VOCABULARY, STATES, supervision=0.6)
    other.load_state_dict(model.state_dict())
    mine = -terms(model, None, batch).log_likelihood.sum()
    bound = TraceEnum_ELBO(max_plate_nesting=1)
    theirs = bound.differentiable_loss(other, lambda batch: None, batch) / batch.scale
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    (mine + theirs).backward()
    first, second = gradients(model), gradients(other)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-5)


class Tagged(Sentences):
    """Random sentences whose tag is the parity of the word."""

    tags = ("even", "odd")

    def __init__(self) -> None:
        super().__init__()
        for name in ("train", "valid", "test"):
            split = getattr(self, name)
            setattr(self, name, TextSplit(split.flat, split.offsets, tags=split.flat % 2))


def test_a_supervised_model_finds_the_tags_and_an_unsupervised_one_need_not() -> None:
    corpus = Tagged()
    accuracy = {}
    for supervision in (0.0, 1.0):
        torch.manual_seed(0)
        model = HMM(VOCABULARY, 2, supervision=supervision)
        fit(model, None, corpus, None, Training(epochs=30, batch_size=10, optimizer=Adam(0.1), device="cpu"))
        batch = corpus.train.batch(np.arange(len(corpus.train)))
        assert batch.tags is not None
        accuracy[supervision] = float((model.viterbi(batch)[0] == batch.tags)[batch.tags >= 0].float().mean())
    assert accuracy[1.0] > 0.95 > accuracy[0.0]


@pytest.mark.slow
def test_supervised_it_tags_a_treebank_better_than_the_commonest_tag_of_each_word(corpora: object) -> None:
    corpus = Treebank("ud_ewt", tags="upos", lowercase=True, min_count=2)
    model = HMM(len(corpus.vocabulary), len(corpus.tags), supervision=1.0)
    fit(model, None, corpus, None, Training(epochs=5, optimizer=Adam(Linear(0.2, 0.02, epochs=5)), clip=None))
    counts = np.zeros((len(corpus.vocabulary), len(corpus.tags)))
    assert corpus.train.tags is not None and corpus.test.tags is not None
    np.add.at(counts, (corpus.train.flat, corpus.train.tags), 1)
    looked_up = (counts.argmax(1)[corpus.test.flat] == corpus.test.tags).mean()
    right = total = 0
    for rows in np.array_split(np.arange(len(corpus.test)), 40):
        batch = corpus.test.batch(rows)
        assert batch.tags is not None
        known = batch.tags >= 0
        right += int((model.viterbi(batch)[0] == batch.tags)[known].sum())
        total += int(known.sum())
    assert 0.8 < looked_up < right / total - 0.03 and right / total > 0.88


@pytest.mark.parametrize("kind", [HMM, NeuralHMM])
def test_a_tag_set_larger_than_the_states_is_refused_with_both_numbers_and_the_cure(kind: Any) -> None:
    told = r"the tag set has 2 tags and the chain 1 states.*: set states to at least 2 \(--model.states 2\), or superv"
    with pytest.raises(ValueError, match=told):
        fit(kind(VOCABULARY, 1, supervision=0.5), None, Tagged(), None, Training(epochs=1))
    with pytest.raises(ValueError, match="the tag set has 4 tags and the chain 3 states"):
        terms(kind(VOCABULARY, 3, supervision=1.0), None, some(tagged=True, tags=4))
    fit(kind(VOCABULARY, 1), None, Tagged(), None, Training(epochs=1, device="cpu"))  # none is seen: any number will do


def test_no_states_and_no_rank_are_refused() -> None:
    for kind in (HMM, NeuralHMM):
        with pytest.raises(ValueError, match=f"{kind.__name__}: states is 0; there is at least one"):
            kind(VOCABULARY, 0)
    with pytest.raises(ValueError, match="LowRankTransitions: rank is 0; there is at least one"):
        LowRankTransitions(VOCABULARY, STATES, rank=0)


def test_supervision_without_tags_or_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"supervision is 0\.5, but the corpus has no tags: choose one that has"):
        terms(HMM(VOCABULARY, STATES, supervision=0.5), None, some())
    with pytest.raises(ValueError, match=r"supervision is a share of the documents, between 0 and 1, not 2"):
        terms(NeuralHMM(VOCABULARY, STATES, supervision=2.0), None, some(tagged=True))


# ---- spelling --------------------------------------------------------------------------------------------------------


def test_emissions_by_letters_that_no_one_has_told_the_words_say_what_to_do() -> None:
    model = NeuralHMM(VOCABULARY, STATES, EMISSIONS["letters"])
    with pytest.raises(ValueError, match=r"how words are spelled: call spell\(corpus\.vocabulary\.words\)"):
        terms(model, None, some())
    with pytest.raises(ValueError, match="random sentences has no words to spell"):
        meet_corpus(Sentences(), model)
    with pytest.raises(ValueError, match="2 words to spell, and a vocabulary of 30"):
        model.emissions.words.spell(["a", "b"])  # type: ignore[union-attr,operator]


def test_a_table_made_in_pieces_has_gradients_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backward pass runs outside autocast."""
    found = {}
    for name, limit, half in (("whole", 10**9, False), ("pieces", 1, True)):
        monkeypatch.setattr(chain_emissions, "_PIECE", limit)
        torch.manual_seed(0)
        vectors, words = (torch.randn(n, 4, requires_grad=True) for n in (3, 20))
        bias = torch.randn(20, requires_grad=True)
        ids = torch.arange(6).view(2, 3)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            states = vectors.to(torch.bfloat16) if half else vectors
            total = chain_emissions.FactoredEmission(states, words, bias).look_up(ids).sum()
        found[name] = torch.cat([g.flatten() for g in torch.autograd.grad(total, [vectors, words, bias])])
    assert torch.nn.functional.cosine_similarity(found["whole"], found["pieces"], dim=0) > 0.999
