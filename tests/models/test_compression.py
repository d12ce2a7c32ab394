"""Sentence compression: a latent sentence, exact by enumeration at toy size."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_nlp.data.batches import BOS, EOS, PAD, PairBatch
from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.distributions.written import OUT_OF_REACH, allowed_lengths
from pyro_nlp.evaluation import evaluate, importance_nll
from pyro_nlp.guides.pointer import PointerGuide
from pyro_nlp.inference import (
    ELBO,
    IWAE,
    KL,
    Baseline,
    KnownSequences,
    LeaveOneOut,
    Neural,
    RunningMean,
    ScoreFunction,
    Strategy,
    Training,
    WakeSleep,
    fit,
    terms,
)
from pyro_nlp.inference.dreams import dreamt_log_q
from pyro_nlp.models.compression import SentenceCompression
from pyro_nlp.nn import LSTMDecoder, LSTMEncoder
from tests.tiny import sharpen, whole

WORDS = 7
encoder, decoder = partial(LSTMEncoder, embedding=5, width=6), partial(LSTMDecoder, embedding=5, width=6)


def pairs(labels: list[int] | None, count: int = 3) -> PairSplit:
    """Sources of two to four words, compressions of one or two."""
    rng = np.random.default_rng(0)
    first, second = (
        TextSplit.from_sentences([rng.integers(4, WORDS, k) for k in rng.integers(low, high, count)])
        for low, high in ((2, 5), (1, 3))
    )
    return PairSplit(first, second, np.arange(count), None if labels is None else np.array(labels))


def text(*lengths: int) -> TextSplit:
    return TextSplit.from_sentences([np.full(length, 4) for length in lengths])


def programs(ratio: float | None = 0.5, free: bool = False) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = SentenceCompression(WORDS, decoder, encoder, decoder, 6, ratio, 2)
    return sharpen(model), sharpen(PointerGuide(WORDS, encoder, decoder, free, ratio, 2))


def every(longest: int) -> Tensor:
    """Every sequence of one to `longest` words, `[R, longest + 1]`."""
    found = []
    for length in range(1, longest + 1):
        for words in product([w for w in range(WORDS) if w not in (PAD, 1, EOS)], repeat=length):
            found.append((*words, EOS, *[PAD] * (longest - length)))
    return torch.tensor(found)


def exact(model: Any, guide: Any, batch: PairBatch, weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """Minus the ELBO and minus log p(s), per document, summed over every compression."""
    longest = terms(model, guide, batch).sites["c"].q.longest
    each = every(longest)
    given = {"c": each[:, None].expand(-1, len(batch), -1)}
    found = terms(model, guide, batch, particles=len(each), given=given)
    log_q, log_p = found.sites["c"].log_q, found.sites["c"].log_p
    bound = log_q.exp() * (found.log_likelihood + weight * (log_p - log_q))
    return -bound.sum(0), -(found.log_likelihood + log_p).logsumexp(0)


KINDS = {"pointer, fixed ratio": (0.5, False), "pointer and softmax, learnt length": (None, True)}


def flat(loss: Tensor, model: Any, guide: Any) -> Tensor:
    parameters = [*model.parameters(), *guide.parameters()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    both = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in both])


STRATEGIES = {
    "score function": Strategy(discrete=ScoreFunction()),
    "running mean": Strategy(discrete=ScoreFunction(RunningMean())),
    "NVIL": Strategy(discrete=ScoreFunction(Neural())),
    "RLOO": Strategy(discrete=ScoreFunction(LeaveOneOut()), bound=ELBO(4)),
    "word by word": Strategy(discrete=ScoreFunction(RunningMean(), per="word")),
    "NVIL, word by word": Strategy(discrete=ScoreFunction(Neural(), per="word")),
    "RLOO, word by word": Strategy(discrete=ScoreFunction(LeaveOneOut(), per="word"), bound=ELBO(4)),
    "RLOO, word by word, KL weight 0.3": Strategy(
        discrete=ScoreFunction(LeaveOneOut(), per="word"), bound=ELBO(4), kl=KL(0.3)
    ),
    "RLOO, KL weight 0.3": Strategy(discrete=ScoreFunction(LeaveOneOut()), bound=ELBO(4), kl=KL(0.3)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_mean_gradient_is_that_of_the_sum_over_every_compression(name: str, kind: str) -> None:
    model, guide = programs(*KINDS[kind])
    split = pairs([-1, -1, -1])
    weight = 0.3 if "0.3" in name else 1.0
    loss, _ = exact(model, guide, whole(split), weight)
    gradient = flat(loss.mean(), model, guide)
    batch = split.batch(np.tile(np.arange(3), 40))
    objective = STRATEGIES[name].compile(model, guide, batch).eval()
    torch.manual_seed(1)
    for parameter in objective.state.parameters():  # whatever a baseline has learnt
        torch.nn.init.normal_(parameter, std=0.3)
    drawn = torch.stack([flat(objective(batch), model, guide) for _ in range(25)])
    of_guide = torch.arange(len(gradient)) >= sum(p.numel() for p in model.parameters())
    directions = torch.stack([gradient, gradient * of_guide])
    along = drawn @ directions.T
    error = along.std(0) / len(drawn) ** 0.5
    # Student's t with 24 degrees of freedom: beyond 6.5 with probability 1e-6, in one of 20
    assert ((along.mean(0) - directions @ gradient).abs() < 6.5 * error).all()


@pytest.mark.parametrize("kind", KINDS)
def test_importance_sampling_finds_the_likelihood_of_the_source(kind: str) -> None:
    model, guide = programs(KINDS[kind][0], free=True)  # with the softmax q covers every compression
    split = pairs(None)
    with torch.no_grad():
        _, nll = exact(model, guide, whole(split))
    found = importance_nll(model.eval(), guide.eval(), split, samples=4000)
    assert (np.abs(found.nll - nll.numpy()) < 5 * found.standard_error + 1e-4).all()


def test_a_pointer_gives_a_word_the_probability_of_all_its_places() -> None:
    model, guide = programs(0.5)
    split = PairSplit(
        TextSplit.from_sentences([[4, 5, 4]]), TextSplit.from_sentences([[4]]), np.zeros(1, np.int64), np.array([-1])
    )
    q = terms(model, guide, whole(split)).sites["c"].q
    inside = q.log_prob(torch.tensor([[[4, 5, EOS]], [[5, 4, EOS]], [[4, 4, EOS]], [[5, 5, EOS]]])).exp()
    assert inside.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert q.log_prob(torch.tensor([[[6, 4, EOS]]])).item() < -50


@pytest.mark.parametrize("kind", KINDS)
def test_compressions_that_are_known_are_pinned_in_training_alone(kind: str) -> None:
    model, guide = programs(*KINDS[kind])
    batch = whole(pairs([1, -1, 1]))
    found = terms(model.train(), guide.train(), batch, particles=3)
    c, targets = found.sites["c"].value, batch.second.targets
    for i in (0, 2):
        words = targets[i][batch.second.mask[i]]
        assert (c[:, i, : len(words)] == words).all()
    assert (found.sites["c"].log_q[:, [0, 2]] == 0).all() and (found.sites["c"].log_q[:, 1] < 0).all()
    free = terms(model.eval(), guide.eval(), batch)
    assert (free.sites["c"].log_q[:, 1:] < 0).all()
    all_known = terms(model.train(), guide.train(), whole(pairs(None)))
    assert (all_known.sites["c"].log_q == 0).all()


def test_the_guide_learns_from_what_is_known_by_the_auxiliary_loss() -> None:
    model, guide = programs()
    batch = whole(pairs([1, -1, 1]))
    strategy = Strategy(discrete=ScoreFunction(RunningMean()), auxiliary=(KnownSequences(weight=2.0),))
    objective = strategy.compile(model, guide, batch).train()
    objective(batch)
    q = terms(model, guide, batch).sites["c"].q
    plain = replace_known(q)
    expected = -2.0 * torch.stack([plain.log_prob(q.known[0])[i] for i in (0, 2)]).sum() / 3
    assert objective.last.auxiliary["KnownSequences"].item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(ValueError, match="KnownSequences: it reads the site 'z'; the latents are 'c'"):
        replace(strategy, auxiliary=(KnownSequences(site="z"),)).compile(model, guide, batch)


def test_model_and_guide_of_other_lengths_are_refused() -> None:
    batch = whole(pairs([-1, -1, -1]))
    model, _ = programs(1.0)
    for ratio in (0.25, None):
        _, guide = programs(ratio)
        with pytest.raises(
            ValueError, match="'c': model and guide give its sequences other lengths: give both the same"
        ):
            STRATEGIES["RLOO"].compile(model, guide, batch)


@pytest.mark.parametrize("reads", [None, "first"])
def test_a_baseline_reads_the_text_that_is_foretold(reads: Any) -> None:
    model, guide = programs()
    batch = whole(pairs([-1, -1, -1]))
    objective = Strategy(discrete=ScoreFunction(Neural(reads=reads))).compile(model, guide, batch)
    guess = objective.state["c"]
    torch.nn.init.normal_(guess.each.weight)
    other = batch.replace(second=batch.second.replace(targets=batch.second.targets.roll(1, 0)))
    assert torch.equal(guess(other), guess(batch))
    moved = batch.replace(first=batch.first.replace(targets=batch.first.targets + 1))
    assert not torch.equal(guess(moved), guess(batch))


def test_validation_judges_the_guide_by_what_is_known_there() -> None:
    """The sequences of a validation split are judged at their own lengths, and are not given to the guide."""
    model, guide = programs()
    batch = whole(pairs([1, -1, 1]))
    auxiliary = KnownSequences(weight=2.0)
    objective = Strategy(discrete=ScoreFunction(RunningMean()), auxiliary=(auxiliary,)).compile(model, guide, batch)
    split = pairs(None)
    judged = auxiliary.judge(objective.eval(), objective.plain_terms(whole(split)), whole(split))
    all_known = terms(model.train(), guide.train(), whole(split)).sites["c"].q
    assert judged is not None
    assert judged.item() == pytest.approx(-2.0 * all_known.log_known().mean().item(), rel=1e-5)


@pytest.mark.parametrize("labels", [[-1, -1, -1], [1, -1, -1], None])
def test_compressions_of_validation_choose_the_epoch_where_training_knows_some(labels: list[int] | None) -> None:
    class Own(Corpus):
        def __init__(self) -> None:
            self.name, self.reference = "random pairs", "made up"
            self.train, self.valid, self.test = pairs(labels), pairs(None), pairs(None)

    strategy = Strategy(discrete=ScoreFunction(RunningMean()), auxiliary=(KnownSequences(),))
    run = fit(*programs(), Own(), strategy, Training(epochs=1, plateau=None))
    row = next(row for row in run.history if "best" in row)
    assert ("valid.auxiliary.KnownSequences" in row) == (labels != [-1, -1, -1])


class Counting(Baseline):
    """A guess whose loss is one number for every word that it has a say on."""

    def state(self, batch: Any) -> torch.nn.Module:
        return torch.nn.ParameterList([torch.zeros(())])

    def __call__(self, signal: Any, state: Any, batch: Any) -> tuple[Tensor, Tensor]:
        return signal.value, state[0].expand_as(signal.value)


def test_a_baseline_learns_from_words_and_not_from_padding() -> None:
    model, guide = programs()
    batch = whole(pairs([-1] * 8, 8))
    objective = Strategy(discrete=ScoreFunction(Counting(), per="word")).compile(model, guide, batch)
    objective(batch).backward()
    words = ((batch.first.lengths - 1) * 0.5).ceil() + 1  # with the end
    assert len(words.unique()) > 1 and objective.state["c"][0].grad == pytest.approx(words.mean().item())


@dataclass(frozen=True)
class Remembering(RunningMean):
    """A running mean that keeps what it is shown."""

    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, signal: Any, state: Any, batch: Any) -> Any:
        self.seen.append(signal.value)
        return super().__call__(signal, state, batch)


@pytest.mark.parametrize("kind", KINDS)
def test_a_running_mean_by_words_counts_no_padding(kind: str) -> None:
    model, guide = programs(*KINDS[kind])
    batch, baseline = whole(pairs([-1] * 8, 8)), Remembering()
    objective = Strategy(discrete=ScoreFunction(baseline, per="word"), bound=ELBO(2)).compile(model, guide, batch)
    baseline.seen.clear()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        c = objective.terms(batch).sites["c"].value
    torch.manual_seed(5)
    objective(batch)
    written = (c != PAD).movedim(-1, 0)
    assert not written.all()
    assert objective.state["c"].now()[0].item() == pytest.approx(baseline.seen[0][written].mean().item(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_guess_of_a_word_is_what_is_still_to_be_paid_there(kind: str) -> None:
    """One guess for all words of a sentence would leave too little at the first and too much at the last."""
    model, guide = programs(*KINDS[kind])
    batch = pairs([-1] * 3).batch(np.tile(np.arange(3), 40))
    strategy = Strategy(discrete=ScoreFunction(Neural(), per="word"), bound=ELBO(4), kl=KL(5.0))
    objective = strategy.compile(model, guide, batch)
    optimizer = torch.optim.Adam(objective.state.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        objective(batch).backward()
        optimizer.step()
    guess = objective.state["c"]
    found = objective.terms(batch)
    _, cost, written = found.sites["c"].by_word()
    paid = -found.log_likelihood + 5.0 * cost.flip(0).cumsum(0).flip(0)
    mean, spread = guess.mean.now()
    left = (paid - mean - spread * guess(batch, len(paid))).detach()
    means = torch.stack([left[t][written[t]].mean() for t in range(len(left))])
    assert paid[0].mean() - paid[1][written[1]].mean() > 0.4 * spread and means.abs().max() < 0.1 * spread


def replace_known(q: Any) -> Any:
    return type(q)(q.writer, q.batch, q.longest, q.lengths, most=q.most)


@pytest.mark.parametrize("bound", [IWAE(4), WakeSleep(4), WakeSleep(4, "both")], ids=["IWAE", "wake", "both"])
def test_it_learns_under_bounds_of_many_particles_too(bound: Any) -> None:
    model, guide = programs(None, True)
    batch = whole(pairs([-1, -1, -1]))
    objective = Strategy(discrete=ScoreFunction(LeaveOneOut()), bound=bound).compile(model, guide, batch)
    optimizer = torch.optim.Adam(objective.parameters(), 0.02)
    _, before = exact(model, guide, batch)
    for _ in range(60):
        optimizer.zero_grad()
        objective(batch).backward()
        optimizer.step()
    _, after = exact(model, guide, batch)
    assert after.mean() < before.mean() - 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_sleep_is_that_of_all_that_could_be_dreamt(kind: str) -> None:
    """sum_c p(c) sum_s p(s | c) grad log q(c | s) over the 64 sources of three words."""
    model, guide = programs(*KINDS[kind])
    copies = whole(PairSplit(TextSplit.from_sentences([[4, 5, 6]] * 1000), text(*[1] * 1000), np.arange(1000)))
    sources = [list(words) for words in product(range(3, WORDS), repeat=3)]
    batch = whole(PairSplit(TextSplit.from_sentences(sources), text(*[1] * 64), np.arange(64)))
    each = every(2)
    found = terms(model.eval(), guide.eval(), batch, particles=len(each), given={"c": each[:, None].expand(-1, 64, -1)})
    words = model.head(model.rewrite(each[:, None].expand(-1, 64, -1), batch.first.inputs))[..., :3, 3:].log_softmax(-1)
    written = words.gather(-1, (batch.first.targets[:, :3] - 3).expand(len(each), -1, -1)[..., None]).sum((-1, -2))
    weight = (found.sites["c"].log_p + written).exp().detach()
    assert weight.sum().item() == pytest.approx(1.0, abs=1e-4)
    wanted = flat((weight * found.sites["c"].log_q).sum(), model, guide)
    torch.manual_seed(2)
    asleep = (dreamt_log_q(model.train(), guide.train(), copies).mean() for _ in range(60))
    drawn = torch.stack([flat(log_q, model, guide) for log_q in asleep])
    directions = torch.stack([wanted, *(wanted * torch.randn(len(wanted)) for _ in range(3))])
    along = drawn @ directions.T
    error = along.std(0) / len(drawn) ** 0.5
    # Student's t with 59 degrees of freedom: beyond 5.5 with probability 1e-6
    assert ((along.mean(0) - directions @ wanted).abs() < 5.5 * error).all() and wanted @ wanted > 5.5 * error[0]


def test_a_source_is_dreamt_at_the_length_of_each_pair() -> None:
    """Of two pairs that share a source each has its own; none is known, whatever is known of the batch."""
    model, _ = programs()
    sources = TextSplit.from_sentences([[4, 5, 6, 4], [5, 6]])
    batch = whole(PairSplit(sources, text(3, 1, 1), np.array([0, 0, 1]), np.array([1, 1, 1])))
    drawn, dreamt = model.dream(batch)
    assert (drawn["c"] > EOS).sum(-1).tolist() == [2, 2, 1] and (dreamt.first.lengths - 1).tolist() == [4, 4, 2]
    assert dreamt.labels.tolist() == [-1] * 3 and dreamt.group.tolist() == [0, 1, 2]
    assert (dreamt.first.inputs[:, 0] == BOS).all()
    assert (
        torch.equal(dreamt.first.inputs[0, 1:], dreamt.first.targets[0, :-1])
        and (dreamt.first.inputs[2, 3:] == PAD).all()
    )


def test_evaluation_asks_whether_the_source_is_rewritten_from_its_own_compression() -> None:
    model, guide = programs(0.5)
    guide.query.weight.data.zero_()  # any word may be pointed at, so that compressions tell sources apart
    split = pairs(None, 60)
    mute = copy.deepcopy(model)
    for layer in (mute.of_source.weight, *mute.decoder.parameters()):
        layer.data.zero_()
    found, ignored = (evaluate(m, guide, split, samples=20) for m in (model, mute))
    assert found.shuffled_rise is not None and found.latents["c"].kl > 0 and "units" not in found.verdict
    assert ignored.shuffled_rise is not None and ignored.shuffled_rise.mean == pytest.approx(0.0, abs=1e-5)
    assert ignored.collapsed and ignored.verdict.startswith("collapsed: KL ")


def test_a_ratio_outside_its_range_is_refused() -> None:
    for ratio in (0.0, 1.5, float("nan")):
        for who in (SentenceCompression, PointerGuide):
            with pytest.raises(ValueError, match=f"{who.__name__}: ratio is {ratio}; it is the share of words"):
                who(WORDS, ratio=ratio)
    with pytest.raises(ValueError, match="PointerGuide: longest is 0; a compression of learnt length"):
        PointerGuide(WORDS, ratio=None, longest=0)


@pytest.mark.parametrize(("ratio", "words", "kept"), [(0.6, 25, 15), (0.3, 50, 15), (0.4, 11, 5), (0.01, 3, 1)])
def test_a_share_of_words_is_rounded_up_and_no_further(ratio: float, words: int, kept: int) -> None:
    split = PairSplit(text(words), text(1), np.arange(1), np.array([-1]))
    assert allowed_lengths(whole(split), ratio, 20, None).lengths.tolist() == [kept]


def test_a_compression_of_learnt_length_is_no_longer_than_its_source() -> None:
    model, guide = programs(None, True)
    model.longest = guide.longest = 4
    split = PairSplit(text(1, 3, 9), text(1, 1, 1), np.arange(3), np.array([-1, -1, -1]))
    found = terms(model, guide, whole(split), particles=200)
    lengths = (found.sites["c"].value != PAD).sum(-1) - 1
    assert lengths.amax(0).tolist() == [1, 3, 4]
    assert found.sites["c"].log_p.min() > OUT_OF_REACH / 2  # the model agrees
    given = PairSplit(text(1, 3, 9), text(2, 1, 5), np.arange(3))  # a longer one that is known is as long as it is
    assert terms(model.train(), guide.train(), whole(given)).sites["c"].q.log_known().min() > OUT_OF_REACH / 2
