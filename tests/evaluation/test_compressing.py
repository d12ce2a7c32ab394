"""Decoding of compressions against every compression there is, at toy size; words as the source has them."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from pyro_nlp.data import PairSplit, TextSplit, Vocabulary
from pyro_nlp.data.batches import EOS, PAD, UNK
from pyro_nlp.data.compression import source_split
from pyro_nlp.diagnosis.compressions import agreement
from pyro_nlp.distributions.written import Writer
from pyro_nlp.evaluation import importance_nll
from pyro_nlp.evaluation.compressing import Compressions, compress, is_compressor, step_entropy
from pyro_nlp.evaluation.surface import places, surface
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.pointer import PointerGuide
from pyro_nlp.inference import terms
from pyro_nlp.models.compression import SentenceCompression
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import LSTMDecoder, LSTMEncoder
from tests.tiny import sharpen, text, whole

WORDS = 8
encoder, decoder = partial(LSTMEncoder, embedding=5, width=6), partial(LSTMDecoder, embedding=5, width=6)
KINDS = {"pointer, fixed ratio": (0.5, False), "pointer and softmax, learnt length": (None, True)}


def programs(kind: str) -> tuple[SentenceCompression, PointerGuide]:
    ratio, free = KINDS[kind]
    torch.manual_seed(0)
    model = SentenceCompression(WORDS, decoder, encoder, decoder, 6, ratio, 3)
    guide = PointerGuide(WORDS, encoder, decoder, free, ratio, 3)
    return sharpen(sharpen(model)).eval(), sharpen(sharpen(sharpen(guide))).eval()


def sources() -> PairSplit:
    """Of one to six words, not in the order of their lengths."""
    rng = np.random.default_rng(1)
    first = [rng.integers(3, WORDS, n) for n in (6, 2, 5, 1, 3, 6, 4)]
    return PairSplit(
        TextSplit.from_sentences(first), TextSplit.from_sentences([[4]] * len(first)), np.arange(len(first))
    )


def posterior(model: Any, guide: Any, split: PairSplit) -> Any:
    return terms(model, guide, whole(split)).sites["c"].q


def every(length: int) -> list[tuple[int, ...]]:
    """Every compression of so many words."""
    return list(product(range(UNK, WORDS), repeat=length))


def log_q(q: Any, row: int, words: tuple[int, ...]) -> float:
    value = torch.full((1, q.batch, q.longest + 1), PAD)
    value[0, row, : len(words) + 1] = torch.tensor([*words, EOS])
    with torch.no_grad():
        return float(q.log_prob(value)[0, row])


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_takes_the_likeliest_word_at_every_step(kind: str) -> None:
    model, guide = programs(kind)
    split = sources()
    found, q = compress(model, guide, split, batch_size=3), posterior(model, guide, split)
    for row in range(len(split)):
        before: list[int] = []
        for word in (*found.words(row), EOS):
            inputs = torch.tensor([1, *before]).expand(q.batch, -1)
            with torch.no_grad():
                allowed = q._allowed(q.writer.logits(inputs), 0)[row, -1]
            assert int(allowed.argmax()) == word
            before.append(word)


@pytest.mark.parametrize("place", [0, 2, 3])
def test_what_a_pointer_may_write_next_is_the_words_of_its_source_each_once(place: int) -> None:
    q = posterior(*programs("pointer, fixed ratio"), sources())
    words, ends, left = torch.randint(3, WORDS, (2, q.batch)), q.ends(place, 1).at(0), torch.Size([2, q.batch])
    found, log_p, _ = q.writer.candidates(q.writer.begin(left), words, ends)
    _, wanted, _ = Writer.candidates(q.writer, q.writer.begin(left), words, ends)
    times = torch.zeros_like(wanted).scatter_add(-1, found, (log_p > -torch.inf).float())
    assert found.shape[-1] < WORDS and times.max() == 1
    torch.testing.assert_close(torch.zeros_like(wanted).scatter_add(-1, found, log_p.exp()), wanted.exp())


@pytest.mark.parametrize("kind", KINDS)
def test_a_beam_as_large_as_everything_finds_the_likeliest_compression(kind: str) -> None:
    model, guide = programs(kind)
    split = sources()
    q = posterior(model, guide, split)
    found = compress(model, guide, split, "beam", beam=200, batch_size=4)
    greedy = compress(model, guide, split, "beam", beam=1)
    assert (greedy.ids == compress(model, guide, split).ids).all()
    better = 0
    for row in range(len(split)):
        lengths = range(1, 4) if q.lengths is None else [int(q.lengths[row])]
        scores = {words: log_q(q, row, words) for length in lengths for words in every(length)}
        best = max(scores, key=lambda words: scores[words])
        assert tuple(found.words(row)) == best
        assert found.log_q[row, 0] == pytest.approx(scores[best], abs=1e-4)
        assert greedy.log_q[row, 0] <= found.log_q[row, 0] + 1e-5
        better += found.words(row) != greedy.words(row)
    assert better, "greedy is not always right"


@pytest.mark.parametrize("kind", KINDS)
def test_draws_carry_their_probabilities_and_importance_weights(kind: str) -> None:
    model, guide = programs(kind)
    split = sources()
    found = compress(model, guide, split, "sample", draws=30, batch_size=3, chunk=10)
    given = {"c": torch.from_numpy(found.ids.swapaxes(0, 1))}
    with torch.no_grad():
        at_once = terms(model, guide, whole(split), particles=30, given=given)
        site, log_weight = at_once.sites["c"], at_once.log_weight
        of_q, of_p = site.q.log_prob(given["c"]), site.p.log_prob(given["c"])
    assert np.allclose(found.log_q.T, of_q, atol=1e-4)
    assert np.allclose(found.log_prior.T, of_p, atol=1e-4)
    assert np.allclose(found.log_weight.T, log_weight, atol=1e-3)
    ends = int(KINDS[kind][0] is None)
    assert [[len(found.words(i, r)) + ends for r in range(30)] for i in range(7)] == found.tokens.tolist()
    assert found.pareto_k.shape == (7,)
    again = compress(model, guide, split, "sample", draws=30, batch_size=3, chunk=10)
    assert (found.ids == again.ids).all()
    assert (found.ids != compress(model, guide, split, "sample", draws=30, seed=1).ids).any()


def test_weights_of_draws_give_the_likelihood_and_the_posterior_by_enumeration() -> None:
    model, guide = programs("pointer and softmax, learnt length")
    split = sources().take(np.array([1, 4]))
    found = compress(model, guide, split, "sample", draws=6000, chunk=2000)
    nll = np.log(6000) - np.logaddexp.reduce(found.log_weight, 1)
    by_importance = importance_nll(model, guide, split, 6000, chunk=2000)
    assert (np.abs(nll - by_importance.nll) < 5 * by_importance.standard_error * 2**0.5 + 1e-4).all()
    each = [words for length in (1, 2, 3) for words in every(length)]
    values = torch.tensor([[*words, EOS, *[PAD] * (3 - len(words))] for words in each])[:, None].expand(-1, 2, -1)
    with torch.no_grad():
        exact = terms(model, guide, whole(split), particles=len(each), given={"c": values})
        joint = (exact.log_likelihood + exact.sites["c"].log_p).softmax(0).numpy()
    for source in range(2):
        best = found.distinct(source)[0]
        assert sum(one.posterior for one in found.distinct(source)) == pytest.approx(1)
        assert sum(one.share for one in found.distinct(source)) == pytest.approx(1)
        of_best = float(joint[each.index(tuple(found.words(source, best.row))), source])
        assert best.posterior == pytest.approx(of_best, rel=0.25)


@pytest.mark.parametrize("kind", KINDS)
def test_entropies_of_steps_add_up_to_that_of_the_posterior(kind: str) -> None:
    model, guide = programs(kind)
    split = sources()
    found = compress(model, guide, split, "sample", draws=800, chunk=700)
    steps = step_entropy(model, guide, split, found, batch_size=4)
    assert (np.isnan(steps) == (found.ids == PAD)).all() and np.nanmin(steps) > -1e-6
    summed = np.nansum(steps, 2)
    both = summed + found.log_q  # each averages to the entropy, the second with a minus
    error = both.std(1, ddof=1) / 800**0.5
    assert (np.abs(both.mean(1)) < 5 * error + 1e-4).all()


def test_prior_perplexity_and_reconstruction_are_those_of_what_was_written() -> None:
    made = np.array([[[4, 5, EOS]], [[6, EOS, PAD]]])
    prior, likelihood = np.array([[-2.0], [-1.0]]), np.array([[-3.0], [-7.0]])
    found = Compressions(made, np.zeros((2, 1)), prior, likelihood, np.array([[2], [1]]))
    assert found.prior_perplexity == pytest.approx(np.e)
    assert found.reconstruction == 5.0 and found.words(1) == [6]


def test_sources_need_no_references() -> None:
    model, guide = programs("pointer, fixed ratio")
    split = sources()
    vocabulary = Vocabulary(["a", "b", "c", "d"])
    words = [vocabulary.decode(split.first.words(i)) for i in range(len(split))]
    alone = source_split(words, vocabulary)
    assert (compress(model, guide, alone, "beam").ids == compress(model, guide, split, "beam").ids).all()
    with pytest.raises(ValueError, match="there are no sources"):
        source_split([], vocabulary)
    with pytest.raises(ValueError, match="source 1 has no words"):
        source_split([["a"], []], vocabulary)


def test_a_word_takes_its_next_place_in_the_source() -> None:
    assert places([7, 8, 3, 7, 3], [8, 3, 3, 7, 9]) == [1, 2, 4, 0, -1]
    assert places([4, 5], [5, 5]) == [1, 1]
    assert places([4, 5, 4], [6, 4, 4]) == [-1, 0, 2]


def test_words_that_the_vocabulary_lacks_are_written_as_the_source_has_them() -> None:
    vocabulary = Vocabulary(["police", "in", "arrest", "says"])
    source = ["smurf", "police", "arrest", "gargamel", "in", "arrest"]
    ids = [UNK, 6, UNK, 5, 6]
    assert surface(source, ids, vocabulary) == ["smurf", "arrest", "gargamel", "in", "arrest"]
    assert surface(source, [7, 4], vocabulary) == ["says", "police"]


def test_what_compresses_nothing_is_refused() -> None:
    model, guide = programs("pointer, fixed ratio")
    split = sources()
    assert is_compressor(model, guide, split) and not is_compressor(model, None, split)
    vae = SentenceVAE(30, 2, decoder), GaussianGuide(30, 2, encoder)
    assert not is_compressor(*vae, text(4))
    with pytest.raises(TypeError, match="GaussianGuide on a TextSplit compresses nothing"):
        compress(*vae, text(4))
    with pytest.raises(ValueError, match="method is 'best'"):
        compress(model, guide, split, "best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="beam is 0"):
        compress(model, guide, split, "beam", beam=0)
    with pytest.raises(ValueError, match="no source"):
        compress(model, guide, split.take(np.zeros(0, np.int64)))


def test_the_agreement_of_draws_is_that_of_all_their_pairs() -> None:
    made = np.array([[[4, 5, EOS, PAD], [4, 6, 5, EOS], [4, 5, EOS, PAD]]])
    nothing = np.zeros((1, 3))
    found = Compressions(made, nothing, nothing, nothing, np.array([[2, 3, 2]]))
    same, overlap = agreement(found)
    assert same[0] == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert overlap[0] == pytest.approx((4 / 5 + 1 + 4 / 5) / 3)
