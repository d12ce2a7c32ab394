"""Answer selection: NASM and its deterministic twins beside search engines' scores, alone and joined with shared words.

Protocol: WikiQA (20,360 / 2,733 / 6,165 pairs), and TREC QA raw (1,148 / 1,517 pairs for choosing and for judging)
after training on `train` (4,718 pairs) and on `train-all` (53,417, labelled by patterns): each with the vocabulary of
its own training pairs. The recipes `answer_lstm`, `answer_attention`, `answer_cnn` and `nasm` as shipped (vectors,
states and h of 50, dropout 0.3, Adam at 1e-3, batches of 64, at most 8 epochs), judged by the parameters with the best
validation bound. `vectors` begins from vectors trained elsewhere and does not train those on; `scratch` has none.
--vectors takes any file in the text format of GloVe or word2vec, 50 wide: GloVe 6B (Pennington et al. 2014, public
domain) is at nlp.stanford.edu/projects/glove; the environment of a row has the name and digest of the file it used.

Lines:

    BM25, TF-IDF    document frequencies of the training answers (k1 1.2, b 0.75)
    overlap, of X   logistic regression of how many words are shared, how much idf, and both as shares of the question's
                    (`overlap_features`), fitted to the pairs of X; `of train` is what a user would do, `of valid` what
                    the next line adds a model to
    + overlap       logistic regression of the model's log-odds and those four, fitted to validation pairs: on its own
                    training pairs a model is too sure
    NASM            h at the mean of p(h | q)
    NASM, 20 draws  p(y = 1) averaged over 20 draws of h from p(h | q), the same for all candidates of a question

Measures, all on test, in percent:

    MAP, MRR, P@1   over questions with a right and a wrong answer (WikiQA 237; TREC QA 68, which are those of the
                    `clean` set, so that its numbers are these); ± is the standard error over seeds, `from` and `to` are
                    the 95 % bootstrap interval over questions of what is averaged over seeds
    ..., right      over those with a right answer (243; 89)
    Brier, calibration error, log loss
                    of p(y = 1), over all pairs, those of questions that cannot be ranked too; 10 bins
    NLL             -log p(y | q, a) by 20 importance samples, h drawn for each pair; exact without h
    KL              of h, per pair
    training        pairs a second, median, beside other jobs

Equal scores are ordered as by trec_eval (`rank_questions`): the files of TREC QA have right answers first. No model is
told where a candidate stands, which in WikiQA (in the order of its page) is informative.

Paired: differences question by question, averaged over the seeds that both have, with 95 % bootstrap intervals and the
p-value of the randomisation test; ± is over seeds. Strategies: NASM on WikiQA from vectors, otherwise trained: the KL
weight from 0 to 1 in three epochs; the bound of five particles; the score function with a running mean in place of the
gradient through h; model and guide in turns of an epoch, at most 16, as Miao et al. do. Speed: untrained networks, the
candidates of the first 200 test questions of WikiQA, all systems in turns, median of 7 rounds; `score_pairs` makes its
batches, the others are made before; the ratio is of both with the same pairs in the same batches.

Chosen on validation, by twelve runs at seed 0 of at most 6 or 8 epochs and two of the trials below (MAP in percent,
bound in nats; WikiQA, from vectors): to keep the vectors as they are (bound better for 4 of 4 pairs, as .1868 against
.1887 for NASM; MAP for 3: LSTM 58.3 against 55.4, NASM 62.8 and 62.3, LSTM with attention on TREC QA `train` 58.8 and
58.0, on WikiQA 64.7 and 66.6); pooling by the maximum, new to the two recipes without attention (LSTM 65.9 against 55.4
for the last state, CNN 59.1 against 55.5 for the mean, its vectors kept), and not to that with attention (62.4 against
66.6; from scratch 59.3). All words count in the overlap features: without stop words their MAP falls from 54.2 to 48.7
on WikiQA. Before, twelve trials had printed test numbers too (MAP 56 to 63 on WikiQA, 36 to 43 on TREC QA `train` from
scratch), and so had the lexical lines; nothing was chosen by them.

References, in brackets: Miao et al. 2016 and, by it, Yu et al. 2014, both joined with shared words: vectors of
word2vec, not at hand here; LSTMs of three layers; a guide that shares the model's readers. Which questions of TREC QA
they leave out is not known to us, and matters: BM25 after `train-all` has 63.3 by 68 questions, 71.9 by 89. Their
training set is taken to be `train-all`. Another point is dataset-sts (its README; `train-all`, questions with a right
and a wrong answer, ties in the order of the file): a MAP of 63.0 or 69.4 for BM25, by version, 64.9 for a recurrent
network and 72.6 for a CNN.

    python -m benchmarks.answers --vectors PATH [--rows PART ...] [--corpora NAME ...] [--seeds 0 1 2 3 4] [--runs DIR]
        [--only-table]
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from benchmarks.common import RESULTS, Row, environment, interleave, ratio, row, save
from benchmarks.rows import learnt, read, train, wide, write
from pyro_nlp.data import PairBatch, PairSplit
from pyro_nlp.data.pair_corpus import PairCorpus
from pyro_nlp.evaluation import (
    Ranking,
    binary_calibration,
    bm25,
    compare_rankings,
    elbo_terms,
    fit_logistic,
    importance_nll,
    overlap_features,
    rank_questions,
    score_pairs,
    tf_idf,
)
from pyro_nlp.evaluation.answers import whole_questions
from pyro_nlp.evaluation.documents import judging
from pyro_nlp.evaluation.ranking import MEASURES
from pyro_nlp.recipe import load, open_run

CORPORA = {
    "wikiqa": ["--corpus=WikiQA"],
    "trecqa-train": ["--corpus=TrecQA", "--corpus.train=train"],
    "trecqa-train-all": ["--corpus=TrecQA", "--corpus.train=train-all"],
}
SYSTEMS = {"answer_lstm": "LSTM", "answer_attention": "LSTM with attention", "answer_cnn": "CNN", "nasm": "NASM"}
STARTS = ("scratch", "vectors")
STRATEGIES = {
    "elbo": [],
    "warm-up": [
        '--strategy.kl.weight={"class_path": "Linear", "init_args": {"start": 0.0, "end": 1.0, "epochs": 3}}',
        "--training.plateau.start=3",
    ],
    "iwae": ["--strategy=iwae"],
    "score": ['--strategy.continuous={"class_path": "ScoreFunction", "init_args": {"baseline": "RunningMean"}}'],
    "alternating": [
        '--strategy.updates={"class_path": "Alternating", "init_args": {"model": 1, "guide": 1, "unit": "epochs"}}',
        "--training.epochs=16",
        "--training.plateau.patience=2",
    ],
}
"""How NASM is trained, beside its recipe."""
TRIED_ON = "wikiqa"
"""Where the strategies are compared and the speed is measured."""
SEEDS = (0, 1, 2, 3, 4)
DRAWS = 20
PARTS = ("lexical", *SYSTEMS, "strategies", "speed")
FOLDER = RESULTS / "answers"
JOINED = " + overlap"

PERCENT = {"MAP": "%", "MAP from": "%", "MAP to": "%", "MRR": "%", "P@1": "%"}
COLUMNS = {
    **PERCENT,
    "MAP, right": "%",
    "MRR, right": "%",
    "P@1, right": "%",
    "Brier": "%",
    "calibration error": "%",
    "log loss": "nats/100 pairs",
    "NLL": "nats/100 pairs",
    "KL": "nats/100 pairs",
    "epochs to best": "",
    "seconds to best": "s",
    "training": "pairs/s",
}
PAIRED = {"MAP": "points", "from": "points", "to": "points", "p": "%", "MRR": "points", "better": "", "worse": ""}
STRATEGY = {
    "NLL": "nats/100 pairs",
    "log loss": "nats/100 pairs",
    "KL": "nats/100 pairs",
    "MAP": "%",
    "MAP by draws": "%",
    "epochs to best": "",
    "seconds to best": "s",
    "training": "pairs/s",
}
SPEED = {"score_pairs": "pairs/s", "question read once": "pairs/s", "a copy for every pair": "pairs/s", "ratio": ""}
TABLES = {"paired": PAIRED, "strategies": STRATEGY, "speed": SPEED}
"""Columns of the tables that are not of a corpus, by the end of their names."""

MIAO, YU = "Miao et al. 2016", "Yu et al. 2014, as in Miao et al. 2016"
REFERENCES: dict[tuple[str, str], tuple[float, float, str]] = {
    ("trecqa-train-all", "LSTM, vectors + overlap"): (64.36, 72.35, MIAO),
    ("trecqa-train-all", "LSTM with attention, vectors + overlap"): (64.51, 73.16, MIAO),
    ("trecqa-train-all", "CNN, vectors + overlap"): (71.13, 78.46, YU),
    ("trecqa-train-all", "NASM, vectors + overlap"): (73.39, 81.17, MIAO),
    ("wikiqa", "LSTM with attention, vectors + overlap"): (66.39, 68.28, MIAO),
    ("wikiqa", "CNN, vectors + overlap"): (65.20, 66.52, YU),
    ("wikiqa", "NASM, vectors + overlap"): (68.86, 70.69, MIAO),
}
"""MAP and MRR in percent, by corpus and line."""


@dataclass(frozen=True)
class Trained:
    """What a row is of."""

    corpus: str
    recipe: str
    start: str
    seed: int
    strategy: str = "elbo"

    @property
    def stem(self) -> str:
        """Name of its run, and of its result within the corpus's folder."""
        parts = [self.recipe, self.start, *([] if self.strategy == "elbo" else [self.strategy]), str(self.seed)]
        return "-".join(parts)

    @property
    def file(self) -> Path:
        """Where its result is."""
        return FOLDER / self.corpus / f"{self.stem}.json"

    def options(self, vectors: Path | None) -> list[str]:
        """What `pyro-nlp train` is told beside the recipe."""
        found = [*CORPORA[self.corpus], f"--seed={self.seed}", *STRATEGIES[self.strategy]]
        if self.start == "vectors":
            found += [f"--training.vectors={vectors}", "--training.keep_vectors=true"]
        return found


@cache
def corpus_of(name: str) -> PairCorpus:
    """A corpus by its name here."""
    found = load("answer_lstm", CORPORA[name]).corpus
    assert isinstance(found, PairCorpus)
    return found


@cache
def digest(path: Path) -> str:
    """Which file of vectors it was: its name and first digits of its SHA-256."""
    with path.open("rb") as file:
        return f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def judge(scores: np.ndarray, part: PairSplit, probability: bool = True) -> tuple[dict[str, Any], Ranking]:
    """The measures of scores, log-odds where `probability`, and the ranking of the questions with a right answer."""
    assert part.labels is not None
    found: dict[str, Any] = {}
    ranking = rank_questions(scores, part.labels, part.group, keep="right")
    for name, value in zip(MEASURES, ranking.values.T, strict=True):
        found[name] = 100 * float(value[ranking.wrong > 0].mean())
        found[f"{name}, right"] = 100 * float(value.mean())
    found["questions"], found["questions, right"] = int((ranking.wrong > 0).sum()), len(ranking)
    found["tied"] = ranking.tied
    if probability:
        calibration = binary_calibration(expit(scores), part.labels)
        found["Brier"], found["calibration error"] = 100 * calibration.brier, 100 * calibration.expected_error
        found["log loss"] = 100 * calibration.log_loss
    return found, ranking


def lexical(corpus: PairCorpus, part: PairSplit) -> dict[str, tuple[np.ndarray, bool]]:
    """Scores by shared words, and whether they are log-odds; nothing of `part` but its pairs is used."""
    features = partial(overlap_features, reference=corpus.train)
    found = {"BM25": (bm25(part, corpus.train), False), "TF-IDF": (tf_idf(part, corpus.train), False)}
    for name in ("train", "valid"):
        of: PairSplit = getattr(corpus, name)
        assert of.labels is not None
        found[f"overlap, of {name}"] = (fit_logistic(features(of), of.labels).logit(features(part)), True)
    return found


def neural(model: Any, corpus: PairCorpus, part: PairSplit, draws: tuple[int, ...]) -> dict[str, np.ndarray]:
    """log-odds of a model's, alone and joined with the overlap features on validation pairs, by the draws of each."""
    assert corpus.valid.labels is not None
    valid, judged = (overlap_features(of, corpus.train) for of in (corpus.valid, part))
    found = {}
    for count in draws:
        name = f", {count} draws" if count else ""
        chosen, found[name] = (score_pairs(model, of, count) for of in (corpus.valid, part))
        joined = fit_logistic(np.column_stack([chosen, valid]), corpus.valid.labels)
        found[name + JOINED] = joined.logit(np.column_stack([found[name], judged]))
    return found


def keep(file: Path, measures: dict[str, Any], rankings: Mapping[str, Ranking]) -> None:
    """Write a row's measures, and beside them what each line's questions scored, which paired differences need."""
    some = next(iter(rankings.values()))
    arrays: dict[str, Any] = {name: getattr(some, name).astype(np.int32) for name in ("questions", "right", "wrong")}
    arrays |= {f"of {name}": found.values.astype(np.float32) for name, found in rankings.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(file.with_suffix(".npz"))
    write(file, measures)


def finish_lexical(name: str) -> None:
    """Judge what needs no training, unless that is done."""
    file = FOLDER / name / "lexical.json"
    if file.exists():
        return
    corpus = corpus_of(name)
    judged = {line: judge(s, corpus.test, p) for line, (s, p) in lexical(corpus, corpus.test).items()}
    chosen = {line: judge(s, corpus.valid, p)[0]["MAP"] for line, (s, p) in lexical(corpus, corpus.valid).items()}
    measures = {
        "lines": {line: found | {"valid MAP": chosen[line]} for line, (found, _) in judged.items()},
        "environment": environment(corpus=corpus.name, fingerprint=corpus.fingerprint),
    }
    keep(file, measures, {line: ranking for line, (_, ranking) in judged.items()})


def finish(what: Trained, runs: Path, vectors: Path | None) -> None:
    """Train and judge one row, and write its result down, unless that is done."""
    if what.file.exists():
        return
    out = runs / f"{what.corpus}-{what.stem}"
    train(what.recipe, out, what.options(vectors))
    run, loaded = open_run(out)
    corpus = loaded.corpus
    assert isinstance(corpus, PairCorpus)
    latent = run.guide is not None
    judged = {
        name: judge(scores, corpus.test)
        for name, scores in neural(run.model, corpus, corpus.test, (0, DRAWS) if latent else (0,)).items()
    }
    chosen = score_pairs(run.model, corpus.valid)
    speeds = [entry["words_per_second"] for entry in run.history if "words_per_second" in entry]
    each = len(corpus.train.second.flat) / len(corpus.train)
    measures: dict[str, Any] = {
        "seed": what.seed,
        "valid MAP": judge(chosen, corpus.valid)[0]["MAP"],
        "lines": {name: found for name, (found, _) in judged.items()},
        "training": median(speeds) / each,
        "NLL": 100 * importance_nll(run.model, run.guide, corpus.test, DRAWS, batch_size=40).mean,
    }
    if latent:
        measures["KL"] = 100 * float(elbo_terms(run.model, run.guide, corpus.test).kl["h"].mean())
    described = environment(corpus=corpus.name, fingerprint=corpus.fingerprint)
    if what.start == "vectors" and vectors is not None:
        described["vectors"] = digest(vectors)
    measures |= learnt(run.history) | {"environment": described}
    keep(what.file, measures, {f"model{name}": ranking for name, (_, ranking) in judged.items()})


def question_a_pair(split: PairSplit, rows: np.ndarray) -> PairBatch:
    """The pairs `rows`, each with a copy of its question: what a batch is where questions are not held apart."""
    batch = split.batch(rows)
    return batch.replace(first=split.first.batch(split.group[rows]), group=torch.arange(len(rows)))


def speed(questions: int = 200, rounds: int = 7) -> dict[str, dict[str, Any]]:
    """Ranking of some test questions by untrained networks of the shipped sizes, all taking turns."""
    split = corpus_of(TRIED_ON).test
    part = split.take(split.of_groups(np.arange(questions)))
    rows = list(whole_questions(part, 128))
    batches: dict[str, list[PairBatch]] = {
        "question read once": [part.batch(some) for some in rows],
        "a copy for every pair": [question_a_pair(part, some) for some in rows],
    }
    models: dict[str, Any] = {line: load(recipe, CORPORA[TRIED_ON]).model.eval() for recipe, line in SYSTEMS.items()}
    systems: dict[tuple[str, str], Callable[[], object]] = {
        ("BM25", "score_pairs"): partial(bm25, part, corpus_of(TRIED_ON).train),
        (f"NASM, {DRAWS} draws", "score_pairs"): partial(score_pairs, models["NASM"], part, DRAWS),
    }
    for line, model in models.items():
        systems[line, "score_pairs"] = partial(score_pairs, model, part)
        for name, some in batches.items():
            systems[line, name] = partial(score_all, model, some)
    seconds = interleave({" | ".join(key): call for key, call in systems.items()}, rounds, warmup=1)
    found: dict[str, dict[str, Any]] = {}
    for line, measure in systems:
        found.setdefault(line, {})[measure] = len(part) / median(seconds[f"{line} | {measure}"])
    for line in models:
        value, error = ratio(*(seconds[f"{line} | {name}"] for name in reversed(batches)))
        found[line] |= {"ratio": value, "ratio error": error}
    described = environment(corpus=corpus_of(TRIED_ON).name, pairs=len(part), questions=questions, rounds=rounds)
    return {"lines": found, "environment": described}


def score_all(model: Any, batches: list[PairBatch]) -> list[torch.Tensor]:
    """Log-odds of every batch, latents at their means."""
    with judging(model, None, 0):
        return [model.scores(batch, 0)[0][0] for batch in batches]


# ---- tables -----------------------------------------------------------------------------------------------------


def ranking_of(file: Path, line: str) -> Ranking:
    """The ranking of the questions with a right and a wrong answer that a row's file keeps."""
    with np.load(file.with_suffix(".npz")) as kept:
        both = kept["wrong"] > 0
        ap, rr, p1 = kept[f"of {line}"][both].astype(np.float64).T
        questions, right, wrong = (kept[name][both].astype(np.int64) for name in ("questions", "right", "wrong"))
    return Ranking(questions, ap, rr, p1, right, wrong, "both")


def averaged(rankings: list[Ranking]) -> Ranking:
    """The same questions with what they scored averaged over seeds: its intervals are over questions alone."""
    ap, rr, p1 = np.mean([found.values for found in rankings], 0).T
    return replace(rankings[0], average_precision=ap, reciprocal_rank=rr, precision_at_1=p1)


def results(corpus: str) -> dict[str, tuple[list[dict[str, Any]], list[tuple[Path, str]], tuple[int, ...]]]:
    """By line: its measures for each seed, where its rankings are, and the seeds."""
    found: dict[str, tuple[list[dict[str, Any]], list[tuple[Path, str]], tuple[int, ...]]] = {}
    file = FOLDER / corpus / "lexical.json"
    if file.exists():
        kept = read(file)
        for line, measures in kept["lines"].items():
            found[line] = ([measures | {"environment": kept["environment"]}], [(file, line)], ())
    for recipe, system in SYSTEMS.items():
        for start in STARTS:
            asked = [Trained(corpus, recipe, start, seed) for seed in SEEDS]
            done = [what for what in asked if what.file.exists()]
            measures_of = [read(what.file) for what in done]
            seeds = tuple(what.seed for what in done)
            for name in measures_of[0]["lines"] if done else ():
                lines = [_of_line(one, name) for one in measures_of]
                places = [(what.file, f"model{name}") for what in done]
                found[f"{system}, {start}{name}"] = (lines, places, seeds)
    return found


def _of_line(measures: dict[str, Any], name: str) -> dict[str, Any]:
    """The measures of one line, those of the run itself on its first line alone."""
    whole = {key: value for key, value in measures.items() if key != "lines" and (not name or key == "environment")}
    return whole | measures["lines"][name]


def corpus_rows(corpus: str) -> Iterator[Row]:
    """The lines of a corpus, averaged over seeds, with the interval over questions."""
    for line, (measures, places, seeds) in results(corpus).items():
        interval = averaged([ranking_of(*place) for place in places]).intervals()["MAP"]
        bounds = {"MAP from": 100 * interval.low, "MAP to": 100 * interval.high}
        reference = REFERENCES.get((corpus, line))
        for measure, unit in COLUMNS.items():
            values = [bounds[measure]] if measure in bounds else [one[measure] for one in measures if measure in one]
            if values:
                published = {"MAP": reference[0], "MRR": reference[1]}.get(measure) if reference else None
                yield _row(f"{corpus} | {line} | {measure}", values, unit, seeds, measures[0]["environment"], published)


def paired_rows(corpus: str) -> Iterator[Row]:
    """NASM minus its deterministic twin, seed by seed, and everything neural minus BM25."""
    found = results(corpus)
    pairs = [
        (f"NASM, {start}{name}", f"LSTM with attention, {start}{JOINED if name.endswith(JOINED) else ''}")
        for start in STARTS
        for name in ("", f", {DRAWS} draws", JOINED, f", {DRAWS} draws{JOINED}")
    ]
    pairs += [(line, "BM25") for line, (_, _, seeds) in found.items() if seeds]
    for first, second in pairs:
        if first not in found or second not in found:
            continue
        (measures, places, seeds), (_, others, theirs) = found[first], found[second]
        shared = tuple(seed for seed in seeds if seed in theirs) if theirs else seeds
        if not shared:
            continue
        ours = [ranking_of(*place) for place, seed in zip(places, seeds, strict=True) if seed in shared]
        twins = [ranking_of(*place) for place, seed in zip(others, theirs or shared, strict=False) if seed in shared]
        twins = twins * (len(ours) // len(twins))
        difference = compare_rankings(averaged(ours), averaged(twins))
        by_seed = [100 * (one.map - other.map) for one, other in zip(ours, twins, strict=True)]
        values: dict[str, list[float]] = {
            "MAP": by_seed,
            "from": [100 * difference.map.low],
            "to": [100 * difference.map.high],
            "p": [100 * difference.map.p_value],
            "MRR": [100 * (one.mrr - other.mrr) for one, other in zip(ours, twins, strict=True)],
            "better": [float(difference.better)],
            "worse": [float(difference.worse)],
        }
        for measure, unit in PAIRED.items():
            name = f"{corpus}, paired | {first} minus {second} | {measure}"
            yield _row(name, values[measure], unit, shared, measures[0]["environment"])


def strategy_rows() -> Iterator[Row]:
    """NASM by how it was trained."""
    for strategy in STRATEGIES:
        asked = [Trained(TRIED_ON, "nasm", "vectors", seed, strategy) for seed in SEEDS]
        done = [what for what in asked if what.file.exists()]
        found, seeds = [read(what.file) for what in done], tuple(what.seed for what in done)
        drawn = [one["lines"][f", {DRAWS} draws"] for one in found]
        for measure, unit in STRATEGY.items() if found else ():
            values = [one[measure] for one in found if measure in one]
            if measure == "log loss":
                values = [one["log loss"] for one in drawn]
            elif measure == "MAP":
                values = [one["lines"][""]["MAP"] for one in found]
            elif measure == "MAP by draws":
                values = [one["MAP"] for one in drawn]
            name = f"{TRIED_ON}, strategies | {strategy} | {measure}"
            yield _row(name, values, unit, seeds, found[0]["environment"])


def speed_rows() -> Iterator[Row]:
    """How fast candidates are ranked."""
    file = FOLDER / "speed.json"
    if not file.exists():
        return
    kept = read(file)
    for line, measures in kept["lines"].items():
        for measure, unit in SPEED.items():
            if measure in measures:
                name, error = f"{TRIED_ON}, speed | {line} | {measure}", measures.get(f"{measure} error")
                yield _row(name, [measures[measure]], unit, (), kept["environment"], error=error)


def _row(
    measure: str,
    values: list[float],
    unit: str,
    seeds: tuple[int, ...],
    described: dict[str, Any],
    reference: float | None = None,
    error: float | None = None,
) -> Row:
    if len(values) > 1:
        error = float(np.std(values, ddof=1) / len(values) ** 0.5)
    corpus, line, _ = measure.split(" | ")
    return row(
        measure,
        round(float(np.mean(values)), 3),
        unit,
        standard_error=None if error is None else round(error, 3),
        reference=reference,
        source=REFERENCES[corpus, line][2] if reference is not None else "",
        protocol=f"seeds {', '.join(map(str, seeds))}",
        seed=seeds[0] if len(seeds) == 1 else None,
        environment=described,
    )


def rows() -> Iterator[Row]:
    """Everything that has a result."""
    for name in CORPORA:
        yield from corpus_rows(name)
    for name in CORPORA:
        yield from paired_rows(name)
    yield from strategy_rows()
    yield from speed_rows()


def markdown(found: list[Row]) -> str:
    """The rows as wide tables: those of the corpora, the paired differences, strategies and speed."""
    parts = []
    for end, columns in {"": COLUMNS, **TABLES}.items():
        kind = [one for one in found if one["measure"].split(" | ")[0].partition(", ")[2] == end]
        if kind:
            parts.append(wide(kind, columns))
    return "\n\n".join(parts)


def main() -> None:
    """Run what is missing, and write results/answers.json from what is there."""
    parser = argparse.ArgumentParser(description="Answer selection: which candidate answers the question.")
    parser.add_argument("--rows", nargs="+", choices=PARTS, default=PARTS, help="by default all")
    parser.add_argument("--corpora", nargs="+", choices=tuple(CORPORA), default=tuple(CORPORA))
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS)
    parser.add_argument("--vectors", type=Path, help="50 wide, as text; without it rows that begin with them are left")
    parser.add_argument("--runs", type=Path, default=Path("runs/answers"))
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    options = parser.parse_args()
    if not options.only_table:
        complete(options.rows, options.corpora, options.seeds, options.vectors, options.runs)
    save("answers", list(rows()))


def complete(parts: list[str], corpora: list[str], seeds: list[int], vectors: Path | None, runs: Path) -> None:
    """Make the results that are asked for and missing."""
    starts = STARTS if vectors is not None else STARTS[:1]
    for name in corpora if "lexical" in parts else ():
        finish_lexical(name)
    for seed in seeds:
        for name in corpora:
            for start in reversed(starts):
                for recipe in SYSTEMS:
                    if recipe in parts:
                        finish(Trained(name, recipe, start, seed), runs, vectors)
        for strategy in STRATEGIES if "strategies" in parts and vectors is not None and TRIED_ON in corpora else ():
            finish(Trained(TRIED_ON, "nasm", "vectors", seed, strategy), runs, vectors)
    if "speed" in parts and not (FOLDER / "speed.json").exists():
        write(FOLDER / "speed.json", speed())


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    main()
