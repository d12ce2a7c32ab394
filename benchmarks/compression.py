"""Sentence compression with few labels: what text without compressions is worth, and what an estimator is.

Protocol: the recipe `compression`, but for the weight of its KL, on Google's pairs (8,000 / 1,000 / 1,000; vocabulary
of 8,000): LSTMs and embeddings of 128, a pointer over the source (read both ways, 64 each) that knows where it last
pointed for a guide, the language model `compression_prior` of the 8,000 training sentences (none of their compressions)
as a prior that is not trained, scores word by word with the other of two draws for a baseline, KL weight from 0.1 to 1
over three epochs, a weight of 1 / (share of labels) on log q of what is known. At most 6 epochs, or with fewer pairs as
many steps, Adam at 0.001, batches of 32, the rate halved twice; the parameters are those with the best validation
bound, plus -log q of its compressions wherever training had any; of what learns from pairs alone, those with the best
log q of them alone, as the bound moves more than log q does (`50 % alone` and `supervised` of seed 0 were trained
before that rule, and chosen by both). A compression has 40 % of the words of its source, rounded up: exactly, and for
the first results of seed 0 in float32, in which no source of 1 to 199 words has another number, so none of these
10,000. A learnt length is at most the source's; no row of learnt length was made before that rule.

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
                         95 % by bootstrap over sentences
    kept                 F1 of kept words
    rate                 words over the source's words
    prior PPL            of what was written, under the language model
    rewriting            -log p(s | c) of it, nats a sentence
    -ELBO                one draw, nats a sentence
    gigaword R-1, R-2, R-L   of headlines of the 1,951 Gigaword sentences; nothing is trained there. They are read by
                         their own words. The first results of seed 0 (10 %, 10 % and 50 % alone, supervised,
                         unsupervised, and both of KL times 0.1) were made when they were cut as Google's are: 1,125 of
                         the 1,951 had more words then (`####` was four), 62,630 in place of 57,938 in all, and their
                         compressions more by as much
    seconds              to the best epoch, beside other jobs

Standard errors are over sentences, of the mean over seeds. In brackets on Gigaword: SEQ3 (Baziotis et al. 2019),
unsupervised and trained on 3.8 million sentences of it, recomputed from its published output. The leads are by the same
code. With seed 0 alone there is no telling rows apart that differ by their seed.

    python -m benchmarks.compression [--rows NAME ...] [--seeds 0 1 2] [--runs DIR] [--only-table]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, Row, environment, row, save
from benchmarks.rows import learnt, read, train, wide, write
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
HEADLINES = "gigaword_test/gigaword.jsonl"
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
    **{f"gigaword {name}": "" for name in ROUGE},
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
    try:
        arrays["headlines"] = headlines(run, corpus, read_headlines(HEADLINES))
        measures |= dict(zip((f"gigaword {n}" for n in ROUGE), arrays["headlines"].mean(0).tolist(), strict=True))
    except CorpusError as error:
        print(error)
    measures |= learnt(run.history)
    measures["texts"] = texts[:20]
    measures["environment"] = environment(corpus=corpus.name, fingerprint=corpus.fingerprint)
    return measures, arrays


def headlines(run: Run, corpus: CompressionCorpus, texts: list[Summarised]) -> np.ndarray:
    """ROUGE by sentence of a test set that is not the corpus's, `[N, 3]`."""
    assert run.guide is not None
    split = headline_split(texts, corpus.vocabulary, lowered)
    found = compress(run.model, run.guide, split, "beam")
    written = written_texts(found, [lowered(text.source) for text in texts], corpus.vocabulary)
    return rouge(written, [text.references for text in texts]).f1


def leads() -> dict[str, list[float]]:
    """ROUGE of the first ten words of Google's test sentences, and of the first eight of Gigaword's."""
    made = {}
    for name, texts, words in (
        ("google | lead of ten words", GoogleCompression().texts["test"], 10),
        ("gigaword | lead of eight words", read_headlines(HEADLINES), 8),
    ):
        found = rouge([lead(text.source, words) for text in texts], [text.references for text in texts])
        made[name] = list(found.mean.values())
    return made


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    with open(temporary, "wb") as out_file:
        np.savez_compressed(out_file, allow_pickle=False, **{k: v.astype(np.float32) for k, v in arrays.items()})
    os.replace(temporary, path.with_suffix(".npz"))
    write(path, measures | {"seed": seed})


def rows() -> Iterator[Row]:
    """The measures of all rows that have a result, averaged over seeds, and of the leads."""
    if (FOLDER / "leads.json").exists():
        beginnings = read(FOLDER / "leads.json")
        for name, values in beginnings.items():
            if name == "environment":
                continue
            corpus, who = name.split(" | ")
            for measure, value in zip(ROUGE, values, strict=True):
                measure = measure if corpus == "google" else f"gigaword {measure}"
                yield row(f"google | {who} | {measure}", round(value, 2), "", environment=beginnings["environment"])
    for name in SHARES:
        seeds = [seed for seed in range(3) if file(name, seed).exists()]
        if not seeds:
            continue
        found = [read(file(name, seed)) for seed in seeds]
        of_sentences = intervals(name, seeds)
        for measure, unit in COLUMNS.items():
            values = [one[measure] for one in found if one.get(measure) is not None]
            value, error = of_sentences.get(measure, (float(np.mean(values)) if values else None, None))
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
    """Mean over seeds and its standard error over sentences, of what is measured sentence by sentence."""
    arrays = [dict(np.load(file(name, seed).with_suffix(".npz"))) for seed in seeds]
    rouges = np.mean([a["rouge"] for a in arrays], 0)
    made = dict(zip(ROUGE, rouges.T, strict=True))
    made["over the lead"] = rouges[:, 2] - np.mean([a["lead"] for a in arrays], 0)[:, 2]
    if all("headlines" in a for a in arrays):
        shares = np.mean([a["headlines"] for a in arrays], 0)
        made |= dict(zip((f"gigaword {n}" for n in ROUGE), shares.T, strict=True))
    paired = [seed for seed in seeds if name in PLAIN and file(PLAIN[name], seed).exists()]
    if paired:
        with_text, without = (
            np.mean([np.load(file(n, seed).with_suffix(".npz"))["rouge"] for seed in paired], 0)[:, 2]
            for n in (name, PLAIN[name])
        )
        made["gain"] = with_text - without
    found: dict[str, tuple[float, float | None]] = {
        key: (float(v.mean()), float(v.std(ddof=1) / len(v) ** 0.5)) for key, v in made.items()
    }
    if paired:
        draws = np.random.default_rng(0).integers(len(made["gain"]), size=(10_000, len(made["gain"])))
        low, high = np.quantile(made["gain"][draws].mean(1), (0.025, 0.975))
        found |= {"low": (float(low), None), "high": (float(high), None)}
    return found


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
    given = parser.parse_args()
    if not given.only_table:
        for seed in given.seeds:
            for name in given.rows:
                finish(name, seed, given.runs)
        if not (FOLDER / "leads.json").exists():
            write(FOLDER / "leads.json", {**leads(), "environment": environment()})
    save("compression", list(rows()))


if __name__ == "__main__":
    main()
