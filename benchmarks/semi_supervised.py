"""What unlabelled sentences add to few labelled ones: M2 and M1+M2 of Kingma et al. 2014b on text.

Protocol, fixed before any result: `SST` (binary) and `Polarity` (our split by a hash), words of the training split seen
twice. The share n / N of the training labels is seen, n of 50, 200, 500 or 2,000; which ones follows from a sentence's
place in the split, which the seed permutes, so that their number is n in expectation: `labels` is what it was. Seeds
0 to 2; a row or seed that is not in the table has not been run.

    supervised      `TextClassifier` on those labels alone; encoder as below; trained as in `benchmarks.classifiers`,
                    chosen by the log loss of n validation labels
    naive Bayes     on those labels alone, in closed form; smoothing by the same labels
    M2, ...         `StyledSentence`, z of 8, code of 16, LSTM of 64, and `StyledGuide`, LSTM of 64 pooled by maximum,
                    dropout .3 on vectors; `KnownLabels` at N / n, ten times the alpha of the paper; KL weight from .01
                    to 1 in three epochs; batches of 32, Adam at .003, 5 epochs, the one with the best validation bound
                    is judged, which sees no label; bf16 where this machine is faster in it
      enumerate     the class summed out under q(c | x)
      rloo, nvil    drawn twice, score function with the other draw or a network as baseline
      relaxed       Gumbel-softmax, temperature from 1 to .5 over training, categorical KL
      straight through   the same with hard draws
      alpha of the paper    as `enumerate`, with `KnownLabels` at 0.1 N / n
    M1+M2           M1: `SentenceVAE`, z1 of 32, LSTM of 64, the same encoder, without labels; KL weight from .01 to 1
                    in three epochs, 8 nats of it free, shared by the dimensions, or z1 would say nothing; 10 epochs.
                    Then `StackedSentence` with M1 fixed: z2 of 8, hidden layers of 64, `KnownLabels` as above, the
                    class enumerated, 10 epochs; rates and batches as above, each stage by its validation bound

The alpha of the paper was the protocol first. At seed 0 of SST with 2,082 labels 0.1, 1 and 10 N / n gave a `guide` of
63.9, 70.8 and 68.3 on as many validation labels, and 63.4, 72.5 and 72.7 on test, which were seen together; 1 was taken
for all rows, and the rows that there were (some of 200 labels) were thrown away.

Sentences of the training split that stand in the test split too, by their normalised words, are left in: 3 of SST (of
1,821 test sentences), 2 of Polarity (of 1,121).

`guide` is the accuracy of q(c | x), which is what M2 classifies by (M1+M2: of q(c | z1), the mean over 10 draws of z1);
`Bayes` that of p(x, c) by 10 importance samples of the other latents for each class. Both on test, in percent, as are
log loss (nats) and calibration error of `guide`. `minus supervised` is paired by seed; ± is over seeds.

No published number is comparable: Xu et al. 2017 (arXiv:1603.02514) classify the long documents of IMDB.

    python -m benchmarks.semi_supervised [--corpora NAME ...] [--systems NAME ...] [--labels N ...] [--seeds 0 1 2]
        [--only-table]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.classifiers import Part, corpus_of, encoder, some, summary
from benchmarks.classifiers import trained as baseline
from benchmarks.common import RESULTS, Row, environment, save
from benchmarks.rows import read, wide, write
from pyro_nlp.data import TextSplit
from pyro_nlp.distributions.labelled import seen_labels
from pyro_nlp.evaluation import Classification, classify
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.stacked import StackedGuide
from pyro_nlp.guides.styled import StyledGuide
from pyro_nlp.inference import (
    ELBO,
    KL,
    Adam,
    Enumerate,
    Exponential,
    FreeBits,
    KnownLabels,
    LeaveOneOut,
    Linear,
    Neural,
    Relax,
    ScoreFunction,
    Strategy,
    Training,
    fit,
)
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.models.stacked_sentence import StackedSentence
from pyro_nlp.models.styled_sentence import StyledSentence
from pyro_nlp.nn import LSTMDecoder

CORPORA = ("sst", "polarity")
LABELS = (50, 200, 500, 2000)
SEEDS = (0, 1, 2)
EPOCHS, SAMPLES = 5, 10
_TEMPERATURE = Exponential(1.0, 0.5, epochs=EPOCHS)
STRATEGIES: dict[str, dict[str, Any]] = {
    "M2, enumerate": {"discrete": Enumerate()},
    "M2, rloo": {"discrete": ScoreFunction(LeaveOneOut()), "bound": ELBO(2)},
    "M2, nvil": {"discrete": ScoreFunction(Neural()), "bound": ELBO(2)},
    "M2, relaxed": {"discrete": Relax(_TEMPERATURE)},
    "M2, straight through": {"discrete": Relax(_TEMPERATURE, hard=True)},
    "M2, alpha of the paper": {"discrete": Enumerate()},
}
ALPHA, ALPHA_OF_THE_PAPER = 1.0, 0.1
"""Weight of the labelled sentences' log q(c | x), a mean over them, in parts of N."""
ALONE = {"supervised": "LSTM", "naive Bayes": "naive Bayes"}
"""What sees the labelled sentences only, by its name in `benchmarks.classifiers`."""
STACKED = "M1+M2"
SYSTEMS = (*ALONE, *STRATEGIES, STACKED)
FOLDER = RESULTS / "semi_supervised"
COLUMNS = {
    "labels": "",
    "guide": "%",
    "Bayes": "%",
    "minus supervised": "points",
    "log loss": "nats",
    "calibration error": "%",
    "seconds": "s",
}


def permuted(corpus: str, seed: int, labels: int) -> tuple[TextSplit, np.ndarray, float]:
    """The training split in the seed's order, the rows of it whose label is seen, and their share."""
    whole = corpus_of(corpus).train
    order = np.random.default_rng(seed).permutation(len(whole))
    train, share = whole.take(order), labels / len(whole)
    seen = seen_labels(train.batch(np.arange(len(train))), share)
    assert seen is not None
    return train, np.flatnonzero(seen.numpy() >= 0), share


def alone(corpus: str, name: str, seed: int, labels: int) -> tuple[Classification, int]:
    """A baseline's classification of test, and the labels it has seen."""
    whole = corpus_of(corpus)
    train, rows, _ = permuted(corpus, seed, labels)
    valid = some(whole.valid, labels // 2, np.random.default_rng([seed, labels]))
    model, _ = baseline(ALONE[name], Part(whole, train.take(rows), valid, whole.test), seed)
    return classify(model, None, whole.test, names=whole.labels), len(rows)


def semi_supervised(corpus: str, name: str, seed: int, labels: int) -> tuple[Classification, int]:
    """M2's classification of test, and the labels it has seen."""
    whole = corpus_of(corpus)
    train, rows, share = permuted(corpus, seed, labels)
    words, classes = len(whole.vocabulary), len(whole.labels)
    torch.manual_seed(seed)
    decoder = partial(LSTMDecoder, embedding=64, width=64)
    model = StyledSentence(words, 8, classes, 16, decoder)
    guide = StyledGuide(words, 8, classes, encoder("LSTM"), supervision=share)
    alpha = ALPHA_OF_THE_PAPER if name == "M2, alpha of the paper" else ALPHA
    strategy = Strategy(kl=KL(Linear(0.01, 1.0, epochs=3)), auxiliary=(KnownLabels(alpha / share),), **STRATEGIES[name])
    training = Training(epochs=EPOCHS, optimizer=Adam(0.003), plateau=None, precision="auto")
    part = Part(whole, train, whole.valid, whole.test)
    run = fit(model, guide, part, strategy, training, seed=seed, progress=False)
    return classify(run.model, run.guide, whole.test, names=whole.labels, samples=SAMPLES), len(rows)


def stacked(corpus: str, name: str, seed: int, labels: int) -> tuple[Classification, int]:
    """M1+M2's classification of test, and the labels it has seen."""
    whole = corpus_of(corpus)
    train, rows, share = permuted(corpus, seed, labels)
    words, classes = len(whole.vocabulary), len(whole.labels)
    part = Part(whole, train, whole.valid, whole.test)
    decoder = partial(LSTMDecoder, embedding=64, width=64)
    options: dict[str, Any] = {"epochs": 2 * EPOCHS, "optimizer": Adam(0.003), "plateau": None, "precision": "auto"}
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        m1, reader = SentenceVAE(words, 32, decoder), GaussianGuide(words, 32, encoder("LSTM"))
        kl = KL(Linear(0.01, 1.0, epochs=3), FreeBits(8.0))
        run = f"{folder}/m1"
        fit(m1, reader, part, Strategy(kl=kl), Training(**options), seed=seed, out=run, progress=False)
        model = StackedSentence(words, 32, classes, 8, 64, decoder)
        guide = StackedGuide(words, 32, classes, 8, 64, encoder("LSTM"), supervision=share)
        halves = ("model.sentence", "guide.sentence")
        training = Training(**options, start=dict.fromkeys(halves, run), fixed=halves)
        strategy = Strategy(discrete=Enumerate(), auxiliary=(KnownLabels(ALPHA / share),))
        found = fit(model, guide, part, strategy, training, seed=seed, progress=False)
    return classify(found.model, found.guide, whole.test, names=whole.labels, samples=SAMPLES), len(rows)


def file(corpus: str, name: str, labels: int, seed: int) -> Path:
    """Where the result of one row is."""
    return FOLDER / corpus / f"{name.replace(', ', '_').replace(' ', '_')}-{labels}-{seed}.json"


def finish(corpus: str, name: str, labels: int, seed: int) -> None:
    """Train and judge one row, and write its result down, unless that is done."""
    path = file(corpus, name, labels, seed)
    if path.exists():
        return
    began = perf_counter()
    how = alone if name in ALONE else stacked if name == STACKED else semi_supervised
    found, seen = how(corpus, name, seed, labels)
    judged = found if found.guide is None else found.by_guide()
    measures: dict[str, Any] = {
        "seed": seed,
        "labels": seen,
        "guide": 100 * judged.accuracy,
        "log loss": judged.log_loss,
        "calibration error": 100 * judged.calibration().expected_error,
        "seconds": perf_counter() - began,
    }
    if found.guide is not None:
        assert found.log_likelihood is not None
        measures |= {"Bayes": 100 * found.accuracy, "NLL": -float(found.log_likelihood.mean())}
    whole = corpus_of(corpus)
    write(path, measures | {"environment": environment(corpus=whole.name, fingerprint=whole.fingerprint)})


def results(corpus: str, name: str, labels: int) -> dict[int, dict[str, Any]]:
    """What there is of a row, by seed."""
    paths = {seed: file(corpus, name, labels, seed) for seed in SEEDS}
    return {seed: read(path) for seed, path in paths.items() if path.exists()}


def rows() -> Iterator[Row]:
    """Everything that has a result."""
    for corpus in CORPORA:
        for labels in LABELS:
            beside = results(corpus, "supervised", labels)
            for name in SYSTEMS:
                found = results(corpus, name, labels)
                for measure, unit in COLUMNS.items() if found else ():
                    values = [one[measure] for one in found.values() if measure in one]
                    if measure == "minus supervised" and name != "supervised":
                        shared = found.keys() & beside.keys()
                        values = [found[seed]["guide"] - beside[seed]["guide"] for seed in sorted(shared)]
                    seeds = sorted(found.keys() & beside.keys()) if measure == "minus supervised" else list(found)
                    if values:
                        label = f"{corpus}, {labels:,} labels | {name} | {measure}"
                        yield summary(label, values, unit, seeds, next(iter(found.values())))


def markdown(found: list[Row]) -> str:
    """The rows as wide tables: a corpus and number of labels each."""
    return wide(found, COLUMNS)


def main() -> None:
    """Run what is missing, and write results/semi_supervised.json from what is there."""
    parser = argparse.ArgumentParser(description="M2 and M1+M2 on text: accuracy by number of labels and strategy.")
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=CORPORA)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--labels", nargs="+", type=int, choices=LABELS, default=LABELS)
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS)
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    options = parser.parse_args()
    for seed in () if options.only_table else options.seeds:
        for corpus in options.corpora:
            for labels in options.labels:
                for name in options.systems:
                    finish(corpus, name, labels, seed)
    save("semi_supervised", list(rows()))


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    main()
