"""Importance-weighted NLL: vectorised over sentences and draws, against one sentence at a time.

Protocol, fixed before looking: two threads, nothing else on the machine. The network of overhead.py after 200 steps of
training, so that its weights are no longer exchangeable; 100 test sentences of the Penn Treebank by a fixed
permutation; 100 samples each. The alternative is the evaluation of published code: one sentence, its 100 draws as a
batch, logits and log-softmax of all of them. The three take turns over blocks of 20 sentences.

Importance diagnostics, protocol fixed before looking: 250, 500 and 1,000 documents x 125, 250 and 500 draws.

- smoothing: Student t weights of 3 degrees, k-hat and smoothed NLL of all documents in one call, and ArviZ's psislw
  called for one document after the other; medians of 7 rounds, taking turns. Peak memory is that of arrays alone
  (tracemalloc), the weights themselves included, in a call of its own.
- whole: `importance_diagnostics` of a sentence VAE (embeddings and LSTM 64, z 8) after 200 steps on the docstrings of
  the standard library (words seen 20 times), its train sentences by a fixed permutation; one call each. Peak
  memory is that of a process of its own, at the corners.
- growth: the exponents of documents and of draws, by least squares on the logarithms of the 9 numbers; 1 is linear.

The results at hand are of the last of several runs; its ratios in float32 / bf16 were 1.3 / 2.91 in an earlier session,
then 1.98 / 4.92, 1.48 / 4.18 beside other jobs, and last those below, with other light jobs not excluded.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import pyro
import torch

from benchmarks.common import Row, environment, interleave, peak_memory, report_peak, row, save
from benchmarks.handwritten import PlainSentenceVAE
from benchmarks.overhead import Ours
from pyro_nlp import Strategy, importance_nll
from pyro_nlp.data import PTB, Docstrings, TextSplit, plan
from pyro_nlp.evaluation._arviz import has_inference_data, load
from pyro_nlp.evaluation.importance import importance_diagnostics, log_mean, pareto_smooth
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import LSTMDecoder, LSTMEncoder

SENTENCES, SAMPLES, BLOCK = 100, 100, 20
DOCUMENTS, DRAWS = (250, 500, 1000), (125, 250, 500)


@torch.no_grad()
def one_by_one(network: PlainSentenceVAE, split: TextSplit) -> np.ndarray:
    """-log p(x) of each sentence, `[N]`."""
    found = []
    for i in range(len(split)):
        batch = split.batch(np.array([i]))
        loc, log_variance = network.posterior(batch.targets, batch.lengths)
        scale = (0.5 * log_variance).exp()
        z = loc + scale * torch.randn(SAMPLES, loc.shape[1])
        logits = network.logits(z, batch.inputs.expand(SAMPLES, -1))
        log_p = logits.log_softmax(-1).gather(-1, batch.targets.expand(SAMPLES, -1)[..., None]).squeeze(-1).sum(-1)
        log_prior = -0.5 * z.square().sum(-1)
        log_q = (-0.5 * ((z - loc) / scale).square() - scale.log()).sum(-1)
        found.append(math.log(SAMPLES) - (log_p + log_prior - log_q).logsumexp(0).item())
    return np.array(found)


def trained(corpus: PTB) -> tuple[Ours, PlainSentenceVAE]:
    """Our model and guide after 200 steps, and the hand-written network with the same parameters."""
    ours = Ours(corpus)
    with pyro.validation_enabled(False):
        for count, _ in enumerate(ours.epoch()):
            if count == 200:
                break
    model, guide = ours.loop.objective.model, ours.loop.objective.guide
    assert guide is not None
    state = {}
    names = {"encoder.words": "encoder_words", "encoder.network": "encoder"}
    names |= {"posterior.loc": "loc", "posterior.log_variance": "log_variance"}
    names |= {
        "decoder.words": "decoder_words",
        "decoder.network": "decoder",
        "decoder.initial": "initial",
        "head": "head",
    }
    for name, value in (*guide.state_dict().items(), *model.state_dict().items()):
        module, _, leaf = name.rpartition(".")
        if module in names:
            state[f"{names[module]}.{leaf}"] = value
    plain = PlainSentenceVAE(len(corpus.vocabulary))
    plain.load_state_dict(state)
    return ours, plain


def psislw_by_document(log_weights: np.ndarray) -> np.ndarray:
    """k-hat by ArviZ, one document after the other, `[N]`; `arviz_stats` of ArviZ 1.x negates what it is given."""
    arviz = load()
    if has_inference_data():
        return np.array([arviz.psislw(column)[1] for column in log_weights.T])
    from arviz_stats.base import array_stats  # type: ignore[import-not-found,unused-ignore]

    return np.array([array_stats.psislw(-column)[1] for column in log_weights.T])


def smoothed(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """k-hat and smoothed NLL of all documents at once."""
    found = pareto_smooth(log_weights)
    return found.pareto_k, -log_mean(found.log_weights)


def growth(found: dict[tuple[int, int], float]) -> dict[str, tuple[float, float]]:
    """Exponents of documents and draws, with standard errors: value ~ documents^a draws^b."""
    sizes = np.log(np.array(list(found), float))
    design = np.column_stack([np.ones(len(sizes)), sizes])
    values = np.log(np.array(list(found.values())))
    coefficients = np.linalg.lstsq(design, values, rcond=None)[0]
    freedom = len(values) - design.shape[1]
    noise = np.square(values - design @ coefficients).sum() / freedom if freedom > 0 else math.nan
    error = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * noise)
    return {name: (float(coefficients[i]), float(error[i])) for i, name in ((1, "documents"), (2, "draws"))}


def small_vae(steps: int = 200) -> tuple[SentenceVAE, GaussianGuide, TextSplit]:
    """A small sentence VAE after some steps on the standard library's docstrings, and the sentences."""
    corpus = Docstrings(["stdlib"], min_count=20)
    torch.manual_seed(0)
    size = len(corpus.vocabulary or ())
    model = SentenceVAE(size, 8, partial(LSTMDecoder, embedding=64, width=64))
    guide = GaussianGuide(size, 8, partial(LSTMEncoder, embedding=64, width=64))
    objective = Strategy().compile(model, guide, corpus.train.batch(np.arange(4)))
    optimizer = torch.optim.Adam(objective.parameters(), 1e-3)
    with pyro.validation_enabled(False):
        for rows in plan(corpus.train.lengths, 32, seed=0, epoch=0)[:steps]:
            optimizer.zero_grad()
            objective(corpus.train.batch(rows)).backward()
            optimizer.step()
            objective.advance()
    assert isinstance(corpus.train, TextSplit)
    order = np.random.default_rng(0).permutation(len(corpus.train))
    return model, guide, corpus.train.take(order)


def smoothing_rows(documents: Sequence[int], draws: Sequence[int], more: dict[str, Any], rounds: int = 7) -> list[Row]:
    """The smoothing alone: time, memory, growth, and ArviZ's beside it."""
    weights = np.random.default_rng(0).standard_t(3, (max(draws), max(documents)))
    times: dict[tuple[int, int], float] = {}
    peaks: dict[tuple[int, int], float] = {}
    rows = []
    for size in itertools.product(documents, draws):
        given = np.ascontiguousarray(weights[: size[1], : size[0]])
        systems: dict[str, Callable[[], object]] = {
            "ours": partial(smoothed, given),
            "arviz": partial(psislw_by_document, given),
        }
        seconds = interleave(systems, rounds, warmup=1)
        times[size] = statistics.median(seconds["ours"])
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["arviz"], strict=True)]
        tracemalloc.start()
        smoothed(given.copy())
        peaks[size] = tracemalloc.get_traced_memory()[1] / 1024**2
        tracemalloc.stop()
        what = f"smoothing of {size[0]:,} documents x {size[1]} draws"
        rows.append(row(f"{what}: time", round(1000 * times[size], 2), "ms", environment=more))
        rows.append(row(f"{what}: peak memory", round(peaks[size], 1), "MiB", environment=more))
        value = round(statistics.median(ratios), 2)
        rows.append(row(f"{what}: time of ArviZ's psislw by document / ours", value, "ratio", environment=more))
    difference = np.abs(pareto_smooth(weights).pareto_k - psislw_by_document(weights)).max()
    rows.append(row("largest difference of k-hat from ArviZ's", float(f"{difference:.1g}"), "", environment=more))
    return rows + growth_rows("smoothing: time", times, more) + growth_rows("smoothing: peak memory", peaks, more)


def growth_rows(what: str, found: dict[tuple[int, int], float], more: dict[str, Any]) -> list[Row]:
    """Fitted exponents as rows."""
    return [
        row(
            f"{what} ~ {name}^a: a",
            round(value, 3),
            "",
            standard_error=None if math.isnan(error) else round(error, 3),
            reference="<= 1 (linear)",
            environment=more,
        )
        for name, (value, error) in growth(found).items()
    ]


def whole_rows(documents: Sequence[int], draws: Sequence[int], more: dict[str, Any]) -> list[Row]:
    """`importance_diagnostics` of a small sentence VAE: time, memory, growth, and what it says."""
    model, guide, split = small_vae()
    importance_diagnostics(model, guide, split.take(np.arange(8)), 30)
    times: dict[tuple[int, int], float] = {}
    peaks: dict[tuple[int, int], float] = {}
    rows = []
    for size in itertools.product(documents, draws):
        part = split.take(np.arange(size[0]))
        run = partial(importance_diagnostics, model, guide, part, size[1])
        (times[size],) = interleave({"ours": run}, rounds=1, warmup=0)["ours"]
        what = f"importance diagnostics of {size[0]:,} sentences x {size[1]} draws"
        rows.append(row(f"{what}: time", round(times[size], 2), "s", environment=more))
    for size in itertools.product((documents[0], documents[-1]), (draws[0], draws[-1])):
        peaks[size] = peak_memory("evaluation", f"importance-{size[0]}-{size[1]}")
        what = f"importance diagnostics of {size[0]:,} sentences x {size[1]} draws: peak memory of the process"
        rows.append(row(what, round(peaks[size]), "MiB", environment=more))
    rows += growth_rows("importance diagnostics: time", times, more)
    rows += growth_rows("importance diagnostics: peak memory of the process", peaks, more)
    found = importance_diagnostics(model, guide, split.take(np.arange(documents[-1])), draws[-1])
    summary = found.summary()
    note = f"{summary.documents:,} sentences, {summary.draws} draws, after 200 steps"
    rows.append(row(f"median k-hat, {note}", round(summary.pareto_k[0.5], 3), "", environment=more))
    rows.append(row(f"k-hat above 0.7, {note}", round(summary.above, 4), "of sentences", environment=more))
    for name, nll in (("raw", found.nll), ("smoothed", found.nll_smoothed)):
        rows.append(row(f"mean NLL, {name} weights, {note}", round(float(nll.mean()), 3), "nats", environment=more))
    return rows


def main() -> None:
    """Measure and write results/evaluation.json."""
    parser = argparse.ArgumentParser(description="Importance-weighted NLL, vectorised against one sentence at a time.")
    parser.add_argument("--only", help="(internal) peak memory of ours, one_by_one or importance-DOCUMENTS-DRAWS")
    options = parser.parse_args()
    torch.set_num_threads(2)
    if options.only and options.only.startswith("importance-"):
        _, documents, draws = options.only.split("-")
        small, small_guide, sentences = small_vae(steps=1)
        importance_diagnostics(small, small_guide, sentences.take(np.arange(int(documents))), int(draws))
        report_peak()
        return
    corpus = PTB()
    rows = np.random.default_rng(0).permutation(len(corpus.test))[:SENTENCES]
    ours, plain = trained(corpus)
    model, guide = ours.loop.objective.model, ours.loop.objective.guide
    systems: dict[str, Callable[[TextSplit], np.ndarray]] = {
        "one by one": lambda part: one_by_one(plain, part),
        "float32": lambda part: importance_nll(model, guide, part, SAMPLES).nll,
        "bf16": partial(_bf16, model, guide),
    }
    if options.only:
        split = corpus.test.take(rows[:BLOCK])
        systems["float32" if options.only == "ours" else "one by one"](split)
        report_peak()
        return
    spent: dict[str, float] = dict.fromkeys(systems, 0.0)
    found: dict[str, list[np.ndarray]] = {name: [] for name in systems}
    warm = corpus.test.take(rows[:4])
    for system in systems.values():
        system(warm)
    for block in np.array_split(rows, SENTENCES // BLOCK):
        part = corpus.test.take(block)
        for name, system in systems.items():
            began = time.perf_counter()
            found[name].append(system(part))
            spent[name] += time.perf_counter() - began
    more = environment(corpus=corpus.name, fingerprint=corpus.fingerprint)
    results = []
    for name, seconds in spent.items():
        results.append(row(f"{name}", round(SENTENCES / seconds, 2), "sentences/s", environment=more))
        mean = float(np.concatenate(found[name]).mean())
        results.append(row(f"mean NLL, {name}", round(mean, 3), "nats", environment=more))
    for name, wanted in (("float32", ">= 1.6"), ("bf16", ">= 3.5")):
        value = round(spent["one by one"] / spent[name], 2)
        results.append(row(f"speed, ours in {name} / one by one", value, "ratio", reference=wanted, environment=more))
        error = abs(np.concatenate(found[name]).mean() / np.concatenate(found["one by one"]).mean() - 1)
        what = f"relative difference of the mean NLL, {name} and one by one"
        results.append(row(what, float(f"{error:.2g}"), "", reference="< 5e-4 (four digits)", environment=more))
    for name in ("ours", "one_by_one"):
        results.append(row(f"peak memory, {name}", round(peak_memory("evaluation", name)), "MiB", environment=more))
    corpus_free = environment(arviz=version("arviz"))
    results += smoothing_rows(DOCUMENTS, DRAWS, corpus_free)
    results += whole_rows(DOCUMENTS, DRAWS, corpus_free | {"corpus": "docstrings of the standard library"})
    save("evaluation", results)


def _bf16(model: torch.nn.Module, guide: torch.nn.Module | None, part: TextSplit) -> np.ndarray:
    return importance_nll(model, guide, part, SAMPLES, precision="bf16").nll


if __name__ == "__main__":
    main()
