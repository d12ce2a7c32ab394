"""Importance-weighted NLL: vectorised over sentences and draws, against one sentence at a time.

Protocol, fixed before looking: two threads, nothing else on the machine. The network of overhead.py after 200 steps of
training, so that its weights are no longer exchangeable; 100 test sentences of the Penn Treebank by a fixed
permutation; 100 samples each. The alternative is the evaluation of published code: one sentence, its 100 draws as a
batch, logits and log-softmax of all of them. The three take turns over blocks of 20 sentences.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pyro
import torch

from benchmarks.common import environment, peak_memory, report_peak, row, save
from benchmarks.handwritten import PlainSentenceVAE
from benchmarks.overhead import Ours
from pyro_nlp import importance_nll
from pyro_nlp.data import PTB, TextSplit

SENTENCES, SAMPLES, BLOCK = 100, 100, 20


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


def main() -> None:
    """Measure and write results/evaluation.json."""
    parser = argparse.ArgumentParser(description="Importance-weighted NLL, vectorised against one sentence at a time.")
    parser.add_argument("--only", choices=("ours", "one_by_one"), help="(internal) peak memory of one system")
    options = parser.parse_args()
    torch.set_num_threads(2)
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
    save("evaluation", results)


def _bf16(model: torch.nn.Module, guide: torch.nn.Module | None, part: TextSplit) -> np.ndarray:
    return importance_nll(model, guide, part, SAMPLES, precision="bf16").nll


if __name__ == "__main__":
    main()
