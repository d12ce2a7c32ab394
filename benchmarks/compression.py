"""Sentence compression with few labels: what text without compressions is worth, and what an estimator is.

Protocol: the recipe `compression`, but for the weight of its KL, on Google's pairs (8,000 / 1,000 / 1,000; vocabulary
of 8,000): LSTMs and embeddings of 128, a pointer over the source (read both ways, 64 each) that knows where it last
pointed for a guide, the language model `compression_prior` of the 8,000 training sentences (none of their compressions)
as a prior that is not trained, scores word by word with the other of two draws for a baseline, KL weight from 0.1 to 1
over three epochs, a weight of 1 / (share of labels) on log q of what is known. At most 6 epochs, or with fewer pairs as
many steps, Adam at 0.001, batches of 32, the rate halved twice; the parameters are those with the best validation
bound, plus -log q of its compressions wherever training had any; of what learns from pairs alone, those with the best
log q of them alone, as the bound moves more than log q does. A compression has 40 % of the words of its source, rounded
up (the first results of seed 0 did so in float32, which gives no source of 1 to 199 words another number). A learnt
length is at most the source's.

Rows, seeds 0, 1 and 2 (a seed chooses the pairs that are labelled, too):

    unsupervised         no compression is known
    10 %, 50 %           so many are, the others are latent
    10 % alone, 50 % alone   the labelled pairs only
    supervised           all are known: a pointer network, as no draw is left
    supervised, free length   the same without a fixed length, the ceiling
    ..., KL times 0.1    the KL weighs a tenth, so that what is climbed is no bound (added when `10 %` had been seen, as
                         its guide wrote what p(c) likes best; Miao and Blunsom scale it too [from memory])
    10 %, site by site   as `10 %`, every word answering for all words; likewise NVIL, straight through (temperature 1)

Measures, on the 1,000 test sentences, by beam search (8):

    R-1, R-2, R-L        mean F1, rouge-score with its stemmer, words of the source written out where the vocabulary
                         lacks them
    over the lead        ROUGE-L less that of the beginning of the sentence with as many words, paired
    gain, low, high      ROUGE-L less that of the same seeds without the unlabelled text, paired, and its interval of
                         95 % by Student's t (Satterthwaite's degrees of freedom: some two where seeds are far apart)
    kept                 F1 of kept words
    rate                 words over the source's words
    prior PPL            of what was written, under the language model
    rewriting            -log p(s | c) of it, nats a sentence
    -ELBO                one draw, nats a sentence
    gigaword R-1, R-2, R-L   of headlines of the 1,951 Gigaword sentences; nothing is trained there. They are read by
                         their own words. Results without DUC-2004 were made when they were cut as Google's are: 1,125
                         of the 1,951 had more words then (`####` was four), 62,630 in place of 57,938 in all, and their
                         compressions more by as much. `--judge-again` makes these columns anew from a row's run
    duc2004 R-1, R-2, R-L    of the 500 sentences of DUC-2004, task 1: recall of the first 75 bytes, mean over the four
                         references
    seconds              to the best epoch, beside other jobs

Standard errors are those between sentences, of the mean over seeds, and those between seeds, where there are several,
added in squares. In brackets on Gigaword: SEQ3 (Baziotis et al. 2019), unsupervised and trained on 3.8 million
sentences of it, recomputed from its published output. The leads are by the same code; that of DUC-2004 is 75 bytes.
With seed 0 alone there is no telling rows apart that differ by their seed.

    python -m benchmarks.compression [--rows NAME ...] [--seeds 0 1 2] [--runs DIR] [--only-table | --judge-again]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from benchmarks.common import RESULTS, Row, environment, row, save
from benchmarks.rows import learnt, read, standard_error, train, wide, write
from pyro_nlp.data.compression import CompressionCorpus, Summarised, headline_split, read_headlines
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.google_compression import GoogleCompression
from pyro_nlp.data.tokenise import lowered
from pyro_nlp.evaluation import elbo_terms
from pyro_nlp.evaluation.compressing import compress
from pyro_nlp.evaluation.compression import evaluate_compressions, lead, rouge
from pyro_nlp.evaluation.surface import source_words, written_texts
from pyro_nlp.inference.fit import Run
from pyro_nlp.recipe import open_run

SHARES = {
    "unsupervised": 0.0,
    "10 % alone": 0.1,
    "10 %": 0.1,
    "50 % alone": 0.5,
    "50 %": 0.5,
    "supervised": 1.0,
    "supervised, free length": 1.0,
    "unsupervised, KL times 0.1": 0.0,
    "10 %, KL times 0.1": 0.1,
    "50 %, KL times 0.1": 0.5,
    "10 %, site by site": 0.1,
    "10 %, NVIL": 0.1,
    "10 %, straight through": 0.1,
}
PLAIN = {f"{share}{more}": f"{share} alone" for share in ("10 %", "50 %") for more in ("", ", KL times 0.1")}
ESTIMATORS = {
    "10 %, site by site": "{class_path: ScoreFunction, init_args: {baseline: LeaveOneOut, per: site}}",
    "10 %, NVIL": "{class_path: ScoreFunction, init_args: {per: word, "
    "baseline: {class_path: Neural, init_args: {reads: first}}}}",
    "10 %, straight through": "{class_path: Relax, init_args: {temperature: 1.0, hard: true}}",
}
FOLDER = RESULTS / "compression"
HEADLINES = {"gigaword": "gigaword_test/gigaword.jsonl", "duc2004": "duc2004/duc2004.jsonl"}
ARRAYS = {"gigaword": "headlines", "duc2004": "duc2004"}
"""Of test sets that nothing is trained on: where they are, and the name of their ROUGE by sentence."""
BYTES = 75
ROUGE = ("R-1", "R-2", "R-L")
SEQ3 = {"gigaword R-1": 25.41, "gigaword R-2": 8.22, "gigaword R-L": 22.70}
COLUMNS = {
    **dict.fromkeys(ROUGE, ""),
    "over the lead": "R-L",
    "gain": "R-L",
    "low": "",
    "high": "",
    "kept": "",
    "rate": "",
    "prior PPL": "",
    "rewriting": "nats",
    "-ELBO": "nats",
    **{f"{where} {name}": "" for where in HEADLINES for name in ROUGE},
    "seconds to best": "s",
}


def options(name: str, seed: int, prior: Path) -> list[str]:
    """What a row changes of the recipe."""
    share = SHARES[name]
    found = [
        f"--seed={seed}",
        f"--corpus.seed={seed}",
        f"--corpus.labelled={share}",
        f"--training.start={{model.prior: {prior}}}",
        "--training.fixed=[model.prior]",
    ]
    known = f"[{{class_path: KnownSequences, init_args: {{weight: {1 / share if share else 0}}}}}]"
    found.append(f"--strategy.auxiliary={known if share else '[]'}")
    times = round(1 / share) if name.endswith("alone") else 1  # as many steps, and stalls of as many
    if not name.endswith("KL times 0.1"):
        whole = f"{{class_path: Linear, init_args: {{start: 0.1, end: 1.0, epochs: {3 * times}}}}}"
        found.append(f"--strategy.kl.weight={whole}")
    if name.endswith("alone"):
        found += ["--corpus.keep_hidden=false", f"--strategy.auxiliary={known.replace(str(1 / share), '1.0')}"]
        found += [f"--training.epochs={6 * times}", f"--training.plateau.patience={times}"]
        found.append(f"--training.plateau.start={3 * times}")
    if name.endswith("alone") or name.startswith("supervised"):
        found.append("--training.keep=auxiliary.KnownSequences")
    if name.endswith("free length"):
        found += ["--model.ratio=null", "--guide.ratio=null"]
    if name in ESTIMATORS:
        found.append(f"--strategy.discrete={ESTIMATORS[name]}")
    return found


def judge(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The measures of one run, and ROUGE and that of the leads by sentence."""
    run, recipe = open_run(folder)
    corpus = recipe.corpus
    assert isinstance(corpus, CompressionCorpus) and run.guide is not None
    found = compress(run.model, run.guide, corpus.test, "beam")
    texts = written_texts(found, source_words(corpus, "test"), corpus.vocabulary)
    judged = evaluate_compressions(corpus.texts["test"], texts)
    measures: dict[str, Any] = dict(zip(ROUGE, judged.rouge.mean.values(), strict=True))
    measures |= {
        "over the lead": judged.over_lead()["ROUGE-L"].mean,
        "kept": 100 * float(judged.f1.mean()),
        "rate": float(judged.rate.mean()),
        "prior PPL": found.prior_perplexity,
        "rewriting": found.reconstruction,
        "-ELBO": -float(elbo_terms(run.model, run.guide, corpus.test).elbo.mean()),
    }
    arrays = {"rouge": judged.rouge.f1, "lead": judged.same_length.f1}
    more, by_sentence = transfer(run, corpus)
    measures |= more | learnt(run.history)
    measures["texts"] = texts[:20]
    measures["environment"] = environment(corpus=corpus.name, fingerprint=corpus.fingerprint)
    return measures, arrays | by_sentence


def transfer(run: Run, corpus: CompressionCorpus) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Measures, and ROUGE by sentence, of the test sets that are not the corpus's and are there."""
    assert run.guide is not None
    measures: dict[str, float] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, path in HEADLINES.items():
        try:
            texts = read_headlines(path)
        except CorpusError as error:
            print(error)
            continue
        tokenise = lowered if name == "gigaword" else corpus.tokenise
        found = compress(run.model, run.guide, headline_split(texts, corpus.vocabulary, tokenise), "beam")
        written = written_texts(found, [tokenise(text.source) for text in texts], corpus.vocabulary)
        arrays[ARRAYS[name]] = headline_rouge(name, written, texts)
        measures |= dict(zip((f"{name} {n}" for n in ROUGE), arrays[ARRAYS[name]].mean(0).tolist(), strict=True))
    return measures, arrays


def headline_rouge(name: str, candidates: Sequence[str], texts: Sequence[Summarised]) -> np.ndarray:
    """ROUGE by sentence as a test set is published by, `[N, 3]`."""
    references = [text.references for text in texts]
    if name == "duc2004":
        return rouge(candidates, references, several="mean", max_bytes=BYTES).recall
    return rouge(candidates, references).f1


def leads() -> dict[str, list[float]]:
    """ROUGE of the first words of Google's and Gigaword's test sentences, and of the first bytes of DUC-2004's."""
    google = GoogleCompression().texts["test"]
    gigaword, duc = (read_headlines(path) for path in HEADLINES.values())
    made = {
        "google | lead of ten words": headline_rouge("google", [lead(t.source, 10) for t in google], google),
        "gigaword | lead of eight words": headline_rouge("gigaword", [lead(t.source, 8) for t in gigaword], gigaword),
        f"duc2004 | lead of {BYTES} bytes": headline_rouge("duc2004", [t.source for t in duc], duc),
    }
    return {name: found.mean(0).tolist() for name, found in made.items()}


def file(name: str, seed: int) -> Path:
    """Where the result of one row is."""
    return FOLDER / f"{name.replace(' %', '').replace(',', '').replace(' ', '_')}-{seed}.json"


def finish(name: str, seed: int, runs: Path) -> None:
    """Train and judge one row, and write its result down, unless that is done."""
    path = file(name, seed)
    if path.exists():
        return
    prior = runs / "prior"
    train("compression_prior", prior, ["--training.precision=auto"])
    out = runs / path.stem
    train("compression", out, options(name, seed, prior))
    measures, arrays = judge(out)
    keep(path, measures | {"seed": seed}, arrays)


def keep(path: Path, measures: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a result down, and beside it what is known by sentence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    with open(temporary, "wb") as out_file:
        np.savez_compressed(out_file, allow_pickle=False, **{k: v.astype(np.float32) for k, v in arrays.items()})
    os.replace(temporary, path.with_suffix(".npz"))
    write(path, measures)


def judge_again(name: str, seed: int, runs: Path) -> None:
    """Make the columns of the other test sets anew in the result of a row, from the run that it was made from."""
    path, out = file(name, seed), runs / file(name, seed).stem
    if not path.exists():
        return
    if not (out / "model.safetensors").exists():
        print(f"{path.name}: its run is not in {runs}: delete the result to train the row again")
        return
    run, recipe = open_run(out)
    measures = read(path)
    same = [measures.get(what) == value for what, value in learnt(run.history).items() if "seconds" not in what]
    if not all(same):
        print(f"{path.name}: {out} is another run than it was made from: delete the result to judge that run")
        return
    assert isinstance(recipe.corpus, CompressionCorpus)
    more, by_sentence = transfer(run, recipe.corpus)
    keep(path, measures | more, dict(np.load(path.with_suffix(".npz"))) | by_sentence)


def rows() -> Iterator[Row]:
    """The measures of all rows that have a result, averaged over seeds, and of the leads."""
    if (FOLDER / "leads.json").exists():
        beginnings = read(FOLDER / "leads.json")
        for name, values in beginnings.items():
            if name == "environment":
                continue
            corpus, who = name.split(" | ")
            for measure, value in zip(ROUGE, values, strict=True):
                measure = measure if corpus == "google" else f"{corpus} {measure}"
                yield row(f"google | {who} | {measure}", round(value, 2), "", environment=beginnings["environment"])
    for name in SHARES:
        seeds = [seed for seed in range(3) if file(name, seed).exists()]
        if not seeds:
            continue
        found = [read(file(name, seed)) for seed in seeds]
        of_sentences = intervals(name, seeds)
        for measure, unit in COLUMNS.items():
            values = [one[measure] for one in found if one.get(measure) is not None]
            of_all = float(np.mean(values)) if len(values) == len(found) else None
            value, error = of_sentences.get(measure, (of_all, None))
            if value is None:
                continue
            yield row(
                f"google | {name} | {measure}",
                round(value, 3),
                unit,
                standard_error=None if error is None else round(error, 3),
                reference=SEQ3.get(measure) if name == "unsupervised" else None,
                source="Baziotis et al. 2019, recomputed" if measure in SEQ3 and name == "unsupervised" else "",
                protocol=f"seeds {', '.join(map(str, seeds))}",
                seed=seeds[0] if len(seeds) == 1 else None,
                environment=found[0]["environment"],
            )


def intervals(name: str, seeds: list[int]) -> dict[str, tuple[float, float | None]]:
    """Mean over seeds and its standard error, of what is measured sentence by sentence."""
    arrays = [dict(np.load(file(name, seed).with_suffix(".npz"))) for seed in seeds]
    made: dict[str, list[np.ndarray]] = {}  # by sentence, for every seed
    for measures, key in ((ROUGE, "rouge"), *((tuple(f"{to} {n}" for n in ROUGE), key) for to, key in ARRAYS.items())):
        if all(key in a for a in arrays):
            made |= {measure: [a[key][:, i] for a in arrays] for i, measure in enumerate(measures)}
    made["over the lead"] = [a["rouge"][:, 2] - a["lead"][:, 2] for a in arrays]
    if name in PLAIN:
        others = {seed: file(PLAIN[name], seed).with_suffix(".npz") for seed in seeds}
        pairs = [(a, np.load(others[seed])) for a, seed in zip(arrays, seeds, strict=True) if others[seed].exists()]
        made |= {"gain": [a["rouge"][:, 2] - other["rouge"][:, 2] for a, other in pairs]} if pairs else {}
    found: dict[str, tuple[float, float | None]] = {}
    for measure, by_seed in made.items():
        mean = np.mean(by_seed, 0)
        error = standard_error([float(one.mean()) for one in by_seed], [float(mean.std(ddof=1) / len(mean) ** 0.5)])
        found[measure] = (float(mean.mean()), error)
    if "gain" in made:
        gain, reach = found["gain"][0], half_width(np.stack(made["gain"]))
        found |= {"low": (gain - reach, None), "high": (gain + reach, None)}
    return found


def half_width(by_seed: np.ndarray) -> float:
    """Of the interval of 95 % for a mean of `[seeds, sentences]`: Student's t, with Satterthwaite's degrees of freedom,
    as few seeds do not say well how far seeds are apart."""
    seeds, sentences = by_seed.shape
    squares = [(by_seed.mean(0).var(ddof=1) / sentences, sentences - 1)]
    if seeds > 1:
        squares.append((by_seed.mean(1).var(ddof=1) / seeds, seeds - 1))
    total = sum(square for square, _ in squares)
    freedom = total**2 / sum(square**2 / free for square, free in squares)
    return float(scipy.special.stdtrit(freedom, 0.975) * total**0.5)


def markdown(found: list[Row]) -> str:
    """The rows as wide tables."""
    return wide(found, COLUMNS)


def main() -> None:
    """Run what is missing, and write results/compression.json from what is there."""
    parser = argparse.ArgumentParser(description="Sentence compression with few labels.")
    parser.add_argument("--rows", nargs="+", choices=tuple(SHARES), default=list(SHARES), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/compression"))
    parser.add_argument("--only-table", action="store_true", help="make the table of what is there")
    parser.add_argument("--judge-again", action="store_true", help="make the columns of other test sets anew from runs")
    given = parser.parse_args()
    if not given.only_table:
        for seed in given.seeds:
            for name in given.rows:
                (judge_again if given.judge_again else finish)(name, seed, given.runs)
        if given.judge_again or not (FOLDER / "leads.json").exists():
            write(FOLDER / "leads.json", {**leads(), "environment": environment()})
    save("compression", list(rows()))


if __name__ == "__main__":
    main()
