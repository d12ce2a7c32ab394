"""One strategy and one seed of a comparison, in a process of its own: trained, judged, written down (layer: recipe).

A folder holds the strategy's `recipe.yaml`; the run goes to seedN in it as any other, with `nll.npz` and, last of all,
`result.json` beside it. A run that was stopped goes on from its checkpoint. The process stops when its standard input
is closed, as when the comparison that started it is gone.
"""

from __future__ import annotations

import _thread
import contextlib
import io
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from pyro_nlp import recipe as recipes
from pyro_nlp.costs import model_evaluations
from pyro_nlp.data.loading import plan
from pyro_nlp.data.splits import Split, TextSplit
from pyro_nlp.evaluation import class_posteriors, evaluate, gradient_variance
from pyro_nlp.evaluation.clustering import many_to_one, v_measure
from pyro_nlp.inference import Interrupted, Objective, RunFolder, StructureError, fit
from pyro_nlp.inference.fit import Run
from pyro_nlp.process import peak_memory, tune_allocator
from pyro_nlp.recipe import Recipe

FAILED, REFUSED = 1, 3
"""Exit statuses: something went wrong; model, guide and strategy do not fit."""
DRAWS = 30
"""Gradients whose variance is taken."""


def train_and_judge(folder: Path, seed: int, samples: int) -> None:
    """Write `result.json`, unless it is there."""
    run = RunFolder(folder / f"seed{seed}")
    with _locked(folder / f"seed{seed}.lock"):
        if run.has("result.json"):
            return
        recipe, override = str(folder / "recipe.yaml"), [f"--seed={seed}"]
        resume = run.has("checkpoint.pt")
        if not resume:
            shutil.rmtree(run.path, ignore_errors=True)  # it was stopped before there was anything to go on from
        loaded = recipes.load(recipe, override)
        trained = fit(
            loaded.model,
            loaded.guide,
            loaded.corpus,
            loaded.strategy,
            loaded.training,
            seed=seed,
            out=run.path,
            resume=resume,
            recipe=loaded.text,
            progress=False,
        )
        memory = _memory(run, loaded)
        objective = compiled(loaded)
        untrained = recipes.load(recipe, override)
        for module in (untrained.model, untrained.guide):
            if module is not None:
                module.to(next(loaded.model.parameters()).device)
        objective.load_state_dict(run.load_checkpoint()["best"]["objective"])
        found = {
            "seed": seed,
            **_judged(run, trained, samples),
            **_learnt(trained, objective),
            "gradient_variance": {
                "start": _variance(compiled(untrained), loaded),
                "end": _variance(objective, loaded),
            },
            "peak_memory": memory,
        }
        run.write("result.json", json.dumps(found, indent=2) + "\n")


def compiled(loaded: Recipe) -> Objective:
    """The objective as `fit` makes it."""
    split, size = loaded.corpus.train, loaded.training.batch_size
    device = next(loaded.model.parameters()).device
    batch = split.batch(np.arange(min(4, size, len(split)))).to(device)
    objective = loaded.strategy.compile(loaded.model, loaded.guide, batch, loaded.corpus.called)
    objective.steps_per_epoch = len(plan(split.lengths, size, seed=0, epoch=0))
    return objective


def _judged(run: RunFolder, trained: Run, samples: int) -> dict[str, Any]:
    """What is known of the discrete, unannealed model on the test split."""
    test = trained.corpus.test
    found = evaluate(trained.model, trained.guide, test, samples=samples, marginal=trained.marginal)
    nll: dict[str, Any] | None = None
    if found.likelihood is not None:
        content = io.BytesIO()
        np.savez(content, nll=found.likelihood.nll, standard_error=found.likelihood.standard_error)
        run.write("nll.npz", content.getvalue())
        nll = {"mean": found.likelihood.mean, "samples": found.likelihood.samples}
    return {
        "documents": len(test),
        "nll": nll,
        "perplexity": found.perplexity,
        "reconstruction": found.reconstruction,
        "kl": {name: latent.kl for name, latent in found.latents.items()},
        "verdict": found.verdict,
        "clustering": _clustering(trained, test),
    }


def _clustering(trained: Run, split: Split) -> dict[str, dict[str, float]]:
    """How well the likeliest class of a document agrees with its label, by site."""
    labels = split.labels if isinstance(split, TextSplit) else None
    if labels is None or not (labels >= 0).any():
        return {}
    found = class_posteriors(trained.model, trained.guide, split)
    clusters = {name: probabilities.argmax(-1) for name, probabilities in found.items()}
    return {n: {"many_to_one": many_to_one(c, labels), "v_measure": v_measure(c, labels)} for n, c in clusters.items()}


def _learnt(trained: Run, objective: Objective) -> dict[str, Any]:
    """How training went, in seconds of training alone."""
    spent: dict[int, float] = {}
    for row in trained.history:
        spent[row["epoch"]] = spent.get(row["epoch"], 0.0) + row.get("seconds", 0.0)
    seconds = list(accumulate(row.get("seconds", 0.0) for row in trained.history))
    pairs = zip(seconds, trained.history, strict=True)
    return {
        "estimators": {name: repr(estimator) for name, estimator in objective.estimators.items()},
        "epochs": len(spent),
        "seconds_per_epoch": median(spent.values()),
        "evaluations_per_epoch": model_evaluations(objective) * len(trained.corpus.train),
        "curve": [[second, row["valid.loss"]] for second, row in pairs if "valid.loss" in row],
    }


def _variance(objective: Objective, loaded: Recipe) -> dict[str, float]:
    """Variance of one gradient on the first documents of the corpus, the same for every strategy."""
    split = loaded.corpus.train
    batch = split.batch(np.arange(min(loaded.training.batch_size, len(split))))
    return gradient_variance(objective, batch.to(next(objective.parameters()).device), DRAWS)


def _memory(run: RunFolder, loaded: Recipe) -> int | None:
    """Peak of the training process; of the one that trained last, where it was stopped in between."""
    if not run.has("memory.json"):
        device = next(loaded.model.parameters()).device
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
        run.write("memory.json", json.dumps({"peak": peak, "device": device.type}) + "\n")
    content: Mapping[str, int | None] = json.loads(run.read_text("memory.json"))
    return content["peak"]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for another process with the same run, such as one whose comparison was killed and that is yet to notice."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _stop_with_input() -> None:
    """Ask for a stop, as Ctrl-C does, when standard input ends."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell in the background may have switched off

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held when the interpreter ends
            pass
        _thread.interrupt_main()

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: Sequence[str]) -> int:
    """FOLDER SEED SAMPLES THREADS: 0 for a result, else `FAILED` or `REFUSED` and a line on standard error."""
    folder, seed, samples = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    torch.set_num_threads(int(arguments[3]))
    tune_allocator()
    _stop_with_input()
    try:
        train_and_judge(folder, seed, samples)
    except (Interrupted, KeyboardInterrupt):
        return FAILED
    except Exception as error:
        known = isinstance(error, ValueError | RuntimeError | ArithmeticError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        print(" ".join(text.split()), file=sys.stderr)
        with contextlib.suppress(OSError):
            (folder / f"seed{seed}").rmdir()  # nothing was in it yet
        return REFUSED if isinstance(error, StructureError) else FAILED
    return 0
