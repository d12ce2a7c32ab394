"""Generative against discriminative: accuracy and calibration by the number of labelled sentences.

A generative classifier is said to come sooner to an asymptote that is worse (Ng and Jordan 2002, Yogatama et al. 2017).
Two pairs that differ in which distribution is learnt: naive Bayes and logistic regression on the same counts of words,
and a language model told the class and an LSTM classifier. Beside them a CNN classifier, and logistic regression on
presence of words and pairs of neighbours.

Protocol, fixed before any result: sentences of `SST` (binary), `Polarity` (our split by a hash) and `Docstrings` (which
library a summary line is of). 10, 30, 100, 300 or 1,000 training sentences of each class, drawn by the seed, or all; of
a class with fewer, all of them. As many sentences of each class for validation, or as many as there are, so that no
choice is made on more labels than were trained on. The words known are those of the whole training split seen twice
(in Docstrings three times), as unlabelled text would tell. Seeds 0 to 4 choose sentences, first weights and order; a
row or seed that is not in the table has not been run.

    naive Bayes     `NaiveBayes`, closed form; smoothing of .1, .3, 1 or 3 by the validation log loss
    logistic, words scikit-learn's logistic regression on counts of words (`<unk>` is one), L2 weight 1/C with C of
                    .01, .1, 1 or 10 by the same; left out where scikit-learn is not installed
    logistic, pairs the same on presence of words and pairs of neighbours
    LSTM, CNN       `TextClassifier`, embeddings and width 64, pooled by maximum, CNN windows of 3, dropout .3 on
                    vectors and features, Adam at .002
    class LM        `ClassLanguageModel`, LSTM of 64, code of 16 with `skip`, dropout .3, Adam at .004; chosen by the
                    validation log p(x); bf16 where this machine is faster in it

Networks train for at most 15 epochs of at least 1,000 sentences: a smaller set is passed as often as that takes. In
batches of 32, or of a quarter of a smaller set. Validated after every pass; after an epoch (of a smaller set three)
without a better validation bound the best parameters are taken back and the rate is halved; the second time ends it.
All on test: `accuracy`, `log loss` in nats, `calibration error` of the likeliest class in 10 bins of equal numbers.

Differences: the first less the second of a pair, mean over seeds that both have; ± is over seeds. Curves cross between
the sizes where the sign changes.

`out of domain`, of those trained on all: AUROC between test and sentences of another kind read by the same vocabulary,
Docstrings for reviews, SST for docstrings; 50 % is chance. By log p(x) per word (`likelihood`), by that of the words
that are known, each given all before it (`known words`), both of generative models; by the probability of the likeliest
class (`confidence`); and, as what is to be beaten, by the share of `<unk>` (`unknown words`), since `<unk>` is a likely
word. Beside them that share in the test sentences and in the others.

`transfer`: trained on all of Polarity, judged on SST's test, where 79 % of the judged sentences stand in Polarity, and
251 others are parts of a sentence there; all but the class LM. Those that a test sentence has in common with train and
validation are left out (1,285 of 8,498 and 167 of 1,043, of which 1,145 and 147 as whole sentences, the others by a run
of 4 words or more: `data.without`) or left in.

References, in brackets: Socher et al. 2013 (naive Bayes), Wang and Manning 2012 (naive Bayes, ten folds), Kim 2014
(CNN without vectors; on phrases too for SST, ten folds for Polarity): their splits or training sets are not ours.

    python -m benchmarks.classifiers [--corpora NAME ...] [--systems NAME ...] [--sizes N ...] [--seeds 0 1 2 3 4]
        [--only-table]
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.common import RESULTS, Row, environment, row, save
from benchmarks.rows import read, wide, write
from pyro_nlp.data import SST, Docstrings, Polarity, TextCorpus, TextSplit, recode, reread, without
from pyro_nlp.data.corpus import Corpus
from pyro_nlp.evaluation import Classification, classify, out_of_domain, unknown_words
from pyro_nlp.inference import Adam, Plateau, Strategy, Training, fit
from pyro_nlp.models.class_language_model import ClassLanguageModel
from pyro_nlp.models.naive_bayes import NaiveBayes
from pyro_nlp.models.text_classifier import TextClassifier
from pyro_nlp.nn import CNNEncoder, LSTMDecoder, LSTMEncoder

CORPORA: dict[str, Callable[[], TextCorpus]] = {
    "sst": partial(SST, min_count=2),
    "polarity": partial(Polarity, min_count=2),
    "docstrings": Docstrings,
}
OUTSIDE = {"sst": "docstrings", "polarity": "docstrings", "docstrings": "sst"}
TRANSFER = {"left out": True, "left in": False}
SIZES = (10, 30, 100, 300, 1000, 0)
"""Sentences of each class; 0 is all."""
SEEDS = (0, 1, 2, 3, 4)
SYSTEMS = ("naive Bayes", "logistic, words", "logistic, pairs", "CNN", "LSTM", "class LM")
PAIRS = (("naive Bayes", "logistic, words"), ("class LM", "LSTM"), ("naive Bayes", "LSTM"))
"""Generative first."""
MEASURES = {"accuracy": "%", "log loss": "nats", "calibration error": "%"}
FOLDER = RESULTS / "classifiers"
SOCHER, KIM, WANG = "Socher et al. 2013", "Kim 2014, CNN-rand", "Wang and Manning 2012, MNB-uni"
REFERENCES: dict[tuple[str, str], tuple[float, str]] = {
    ("sst", "naive Bayes"): (81.8, SOCHER),
    ("sst", "CNN"): (82.7, KIM),
    ("polarity", "CNN"): (76.1, KIM),
    ("polarity", "naive Bayes"): (77.9, WANG),
}
"""Accuracy in percent of those trained on all."""
EPOCHS, EPOCH, BATCH = 15, 1000, 32
"""Epochs at most, sentences that one has at least, and those of a batch at most."""
PART = 4
"""Words of a shared part of two sentences at least; `data.without` says why."""
OUT_OF_DOMAIN = {
    "AUROC of likelihood": "likelihood (%)",
    "AUROC of known words": "known words (%)",
    "AUROC of unknown words": "unknown words (%)",
    "AUROC of confidence": "confidence (%)",
    "unknown in test": "`<unk>` in test (%)",
    "unknown in the others": "`<unk>` in the others (%)",
}
"""Measures of the files, and their columns."""


@cache
def corpus_of(name: str) -> TextCorpus:
    """A corpus by its name here."""
    return CORPORA[name]()


class Part(Corpus):
    """Some sentences of a corpus to train and choose by, in place of all."""

    def __init__(self, corpus: Corpus, train: TextSplit, valid: TextSplit, test: TextSplit) -> None:
        self.name, self.reference, self.vocabulary, self.labels = (
            corpus.name,
            corpus.reference,
            corpus.vocabulary,
            corpus.labels,
        )
        self.train, self.valid, self.test = train, valid, test


def some(split: TextSplit, size: int, rng: np.random.Generator) -> TextSplit:
    """`size` sentences of each class, or all that a class has; all of the split where it is 0."""
    if not size:
        return split
    assert split.labels is not None
    order = rng.permutation(len(split))
    rows = [order[split.labels[order] == label][:size] for label in np.unique(split.labels)]
    return split.take(np.concatenate(rows))


def part_of(corpus: TextCorpus, size: int, seed: int) -> Part:
    """What is trained on, chosen by and judged on."""
    rng = np.random.default_rng([seed, size])
    return Part(corpus, some(corpus.train, size, rng), some(corpus.valid, size, rng), corpus.test)


def encoder(name: str) -> Any:
    """The reader of a discriminative network."""
    options: dict[str, Any] = {"embedding": 64, "width": 64, "pooling": "max", "dropout": 0.3}
    return partial(CNNEncoder, window=3, **options) if name == "CNN" else partial(LSTMEncoder, **options)


def network(name: str, words: int, classes: int, sentences: int) -> tuple[Any, Training]:
    """A new network and how it is trained on so many sentences."""
    generative = name == "class LM"
    if generative:
        decoder = partial(LSTMDecoder, embedding=64, width=64, skip=True, input_dropout=0.3, output_dropout=0.3)
        model: Any = ClassLanguageModel(words, classes, 16, decoder)
    else:
        model = TextClassifier(words, classes, encoder(name), dropout=0.3)
    passes = passes_of(sentences)
    training = Training(
        epochs=EPOCHS * passes,
        batch_size=max(1, min(BATCH, sentences // 4)),
        optimizer=Adam(0.004 if generative else 0.002),
        plateau=Plateau(patience=1 if passes == 1 else 3 * passes, decays=1),
        precision="auto" if generative else "float32",
    )
    return model, training


def passes_of(sentences: int) -> int:
    """How often a training set is passed in an epoch."""
    return -(-EPOCH // sentences) if sentences < EPOCH else 1


def trained(name: str, part: Part, seed: int) -> tuple[Any, float]:
    """A model trained on a part, and its epochs."""
    assert part.vocabulary is not None
    words, classes = len(part.vocabulary), len(part.labels)
    train: Any = part.train
    if name == "naive Bayes":
        tried = [NaiveBayes(words, classes, smoothing).estimate(train) for smoothing in (0.1, 0.3, 1.0, 3.0)]
        return min(tried, key=lambda model: classify(model, None, part.valid).log_loss), 0
    torch.manual_seed(seed)
    model, training = network(name, words, classes, len(train))
    valid: Any = part.valid
    run = fit(
        model,
        None,
        Part(part, train, valid, valid),
        Strategy(),
        training,
        seed=seed,
        progress=False,
    )
    return run.model, sum("valid.loss" in entry for entry in run.history) / passes_of(len(train))


def logistic(part: Part, judged: dict[str, TextSplit], pairs: bool) -> dict[str, Classification]:
    """scikit-learn's classifier of counts of words, or of presence of words and pairs of neighbours."""
    vectorizer: Any = importlib.import_module("sklearn.feature_extraction.text").CountVectorizer
    regression: Any = importlib.import_module("sklearn.linear_model").LogisticRegression

    def texts(split: Any) -> list[str]:
        return [" ".join(map(str, split.words(i))) for i in range(len(split))]

    features = vectorizer(token_pattern=r"\S+", ngram_range=(1, 1 + pairs), binary=pairs)
    train, valid = features.fit_transform(texts(part.train)), features.transform(texts(part.valid))
    labels: Any = [split.labels for split in (part.train, part.valid)]  # type: ignore[attr-defined]
    tried = [regression(C=weight, max_iter=1000).fit(train, labels[0]) for weight in (0.01, 0.1, 1.0, 10.0)]

    def said(model: Any, given: Any, split: TextSplit) -> Classification:
        table = np.full((len(split), len(part.labels)), -1e3)  # of a class that training lacks
        table[:, model.classes_] = np.maximum(model.predict_log_proba(given), -1e3)
        known = np.full(len(split), -1) if split.labels is None else split.labels
        return Classification(
            table, known, "by the model", part.labels, None, split.lengths, unknown=unknown_words(split)
        )

    best = min(tried, key=lambda model: said(model, valid, part.valid).log_loss)  # type: ignore[arg-type]
    return {name: said(best, features.transform(texts(split)), split) for name, split in judged.items()}


def judge(name: str, part: Part, seed: int, outside: TextSplit | None = None) -> dict[str, Any]:
    """Train and judge one system: its measures on test, and against other sentences where there are some."""
    began = perf_counter()
    test: Any = part.test
    judged = {"test": test} | ({} if outside is None else {"outside": outside})
    epochs: float = 0
    if name.startswith("logistic"):
        found = logistic(part, judged, name.endswith("pairs"))
    else:
        model, epochs = trained(name, part, seed)
        known = outside is not None
        options: dict[str, Any] = {"names": part.labels, "known_words": known}
        found = {where: classify(model, None, split, **options) for where, split in judged.items()}
    own = found["test"]
    measures: dict[str, Any] = {
        "sentences": len(part.train),
        "seed": seed,
        "epochs": epochs,
        "seconds": perf_counter() - began,
        "accuracy": 100 * own.accuracy,
        "log loss": own.log_loss,
        "calibration error": 100 * own.calibration().expected_error,
        "majority": 100 * own.majority,
    }
    if own.log_likelihood is not None:
        measures["NLL per word"] = -float(own.log_likelihood.sum() / own.tokens.sum())
    if outside is not None:
        scores = out_of_domain(own, found["outside"])
        measures |= {f"AUROC of {key}": 100 * score.mean for key, score in scores.items()}
        measures |= {"unknown in test": 100 * own.unknown_share}
        measures |= {"unknown in the others": 100 * found["outside"].unknown_share}
    return measures


def file(corpus: str, name: str, size: int, seed: int) -> Path:
    """Where the result of one row is."""
    return FOLDER / corpus / f"{name.replace(', ', '_').replace(' ', '_')}-{size or 'all'}-{seed}.json"


def finish(corpus: str, name: str, size: int, seed: int) -> None:
    """Train and judge one row, and write its result down, unless that is done."""
    path = file(corpus, name, size, seed)
    if path.exists():
        return
    whole = corpus_of(corpus)
    outside = None
    if not size:
        other = corpus_of(OUTSIDE[corpus])
        outside = recode(other.test, other.vocabulary, whole.vocabulary)
    measures = judge(name, part_of(whole, size, seed), seed, outside)
    write(path, measures | {"environment": environment(corpus=whole.name, fingerprint=whole.fingerprint)})


def transfer(how: str, name: str, seed: int) -> None:
    """Train on all of Polarity and judge on SST, unless that is done."""
    path = file(f"transfer_{how.replace(' ', '_')}", name, 0, seed)
    if path.exists():
        return
    source, target = Polarity(min_count=2), SST()
    splits, removed = {}, {}
    for split in ("train", "valid"):
        rows, count = without(source.texts[split], target.texts["test"], PART)
        whole: TextSplit = getattr(source, split)
        splits[split], removed[split] = (whole.take(rows), count) if TRANSFER[how] else (whole, 0)
    test = reread(target.texts["test"], source, target.test.labels)
    measures = judge(name, Part(source, splits["train"], splits["valid"], test), seed)
    described = environment(corpus=source.name, fingerprint=source.fingerprint)
    write(path, measures | {"removed": removed, "environment": described})


def summary(measure: str, found: list[float], unit: str, seeds: list[int], first: dict[str, Any], **more: Any) -> Row:
    """A row of the mean over seeds."""
    # what does not depend on the seed has no error over seeds
    error = float(np.std(found, ddof=1) / len(found) ** 0.5) if len(set(found)) > 1 else None
    return row(
        measure,
        round(float(np.mean(found)), 3),
        unit,
        standard_error=None if error is None else round(error, 3),
        protocol=f"seeds {', '.join(map(str, seeds))}",
        seed=seeds[0] if len(seeds) == 1 else None,
        environment=first["environment"],
        **more,
    )


def results(corpus: str, name: str, size: int) -> dict[int, dict[str, Any]]:
    """What there is of a row, by seed."""
    paths = {seed: file(corpus, name, size, seed) for seed in SEEDS}
    return {seed: read(path) for seed, path in paths.items() if path.exists()}


def column(size: int) -> str:
    """The head of a size's column."""
    return f"{size:,} a class" if size else "all"


def rows() -> Iterator[Row]:
    """Everything that has a result."""
    for corpus in CORPORA:
        for measure, unit in MEASURES.items():
            for name in SYSTEMS:
                for size in SIZES:
                    if found := results(corpus, name, size):
                        more: dict[str, Any] = {}
                        if measure == "accuracy" and not size and (corpus, name) in REFERENCES:
                            more = dict(zip(("reference", "source"), REFERENCES[corpus, name], strict=True))
                        values = [one[measure] for one in found.values()]
                        first = next(iter(found.values()))
                        label = f"{corpus}, {measure} ({unit}) | {name} | {column(size)}"
                        yield summary(label, values, unit, list(found), first, **more)
        yield from differences(corpus)
    for corpus in CORPORA:
        for name in SYSTEMS:
            found = results(corpus, name, 0)
            for measure, head in OUT_OF_DOMAIN.items():
                having = {seed: one for seed, one in found.items() if measure in one}
                if having:
                    label = f"out of domain | {corpus}, {name} | {head}"
                    values = [one[measure] for one in having.values()]
                    yield summary(label, values, "%", list(having), next(iter(having.values())))
    for how in TRANSFER:
        for name in SYSTEMS:
            found = results(f"transfer_{how.replace(' ', '_')}", name, 0)
            for key in ("sentences", "accuracy", "log loss", "calibration error") if found else ():
                label = f"transfer, Polarity to SST | {name}, shared {how} | {key}"
                values = [one[key] for one in found.values()]
                yield summary(label, values, MEASURES.get(key, ""), list(found), next(iter(found.values())))


def differences(corpus: str) -> Iterator[Row]:
    """Accuracy of a generative system less that of a discriminative one, by size."""
    for pair in PAIRS:
        for size in SIZES:
            first, second = (results(corpus, name, size) for name in pair)
            seeds = sorted(first.keys() & second.keys())
            if seeds:
                values = [first[seed]["accuracy"] - second[seed]["accuracy"] for seed in seeds]
                label = f"{corpus}, generative minus discriminative (points) | {' minus '.join(pair)} | {column(size)}"
                yield summary(label, values, "points", seeds, first[seeds[0]])


def markdown(found: list[Row]) -> str:
    """The rows as wide tables: a system a line, a size a column."""
    kinds = {
        "out of domain": dict.fromkeys(OUT_OF_DOMAIN.values(), ""),
        "transfer": {"sentences": "", "accuracy": "%", "log loss": "nats", "calibration error": "%"},
    }
    sizes = dict.fromkeys(map(column, SIZES), "")
    parts = []
    for kind in (*CORPORA, *kinds):
        of = [one for one in found if one["measure"].split(" | ")[0].partition(",")[0] == kind]
        if of:
            parts.append(wide(of, kinds.get(kind, sizes)))
    return "\n\n".join(parts)


def installed() -> tuple[str, ...]:
    """The systems that can be run here."""
    found = importlib.util.find_spec("sklearn") is not None
    return SYSTEMS if found else tuple(name for name in SYSTEMS if not name.startswith("logistic"))


def main() -> None:
    """Run what is missing, and write results/classifiers.json from what is there."""
    parser = argparse.ArgumentParser(description="Generative and discriminative classifiers by number of labels.")
    parser.add_argument("--corpora", nargs="+", choices=(*CORPORA, "transfer"), default=(*CORPORA, "transfer"))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=SIZES, help="0 is all")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS)
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    options = parser.parse_args()
    systems = [name for name in options.systems if name in installed()]
    for seed in () if options.only_table else options.seeds:
        for corpus in options.corpora:
            for name in systems:
                for size in options.sizes if corpus != "transfer" else ():
                    finish(corpus, name, size, seed)
                for how in TRANSFER if corpus == "transfer" and name != "class LM" else ():
                    transfer(how, name, seed)
    save("classifiers", list(rows()))


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    main()
