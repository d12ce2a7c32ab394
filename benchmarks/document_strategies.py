"""Two models of documents under several strategies: NVDM and LDA on 20 Newsgroups.

Protocol: `pyro-nlp compare nvdm` and `compare lda`, the recipes as shipped but for the strategy (K = 50, the first
preparation of 20 Newsgroups, 60 epochs at most, the parameters with the best validation bound); a strategy replaces
what it names and keeps the rest, so that LDA's KL comes in over 40 epochs where the strategy says nothing of a KL
weight, at once under `iwae` and `wake_sleep`, in cycles under `cyclical`. Every strategy is judged alike: NLL by 100
importance samples on all 7,505 test documents, in nats per document, paired with `elbo`; perplexity is exp of the
total NLL over the total of words; distinct are the topics where those that share half of their ten top words count
once (of NVDM, whose dimensions have signs, the positive ends). One seed unless said. Seconds per epoch are of a
machine shared with other jobs; evaluations of `aggressive` are the most it may take. LDA refuses `free_bits`, as its
Dirichlet has no KL by dimension; `semi_amortized` refines Gaussians alone, at twenty times the price, and is left
out.

    python -m benchmarks.document_strategies [--models nvdm lda] [--seeds 1] [--runs DIR]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import Row, row, save
from benchmarks.rows import wide
from pyro_nlp.comparison import compare_strategies
from pyro_nlp.comparison_table import Comparison
from pyro_nlp.data.counts import CountSplit
from pyro_nlp.evaluation import distinct_topics
from pyro_nlp.recipe import open_run

STRATEGIES = ("elbo", "iwae", "wake_sleep", "free_bits", "cyclical", "alternating", "aggressive")
COLUMNS = {
    "NLL": "nats",
    "minus elbo": "nats",
    "PPL": "",
    "KL": "nats",
    "distinct": "of 50",
    "seconds per epoch": "s",
    "evaluations per epoch": "documents",
}


def measures(name: str, found: Comparison, runs: Path) -> Iterator[Row]:
    """The rows of one comparison."""
    environment = found.about["environment"]
    about = {"python": environment["python"], **environment["versions"], "corpus": environment["corpus"]}
    for one in found.rows:
        if one.refused:
            print(f"{name}, {one.strategy}: {one.refused}")
            continue
        assert one.nll is not None
        run, recipe = open_run(runs / one.strategy / f"seed{one.seeds[0]}")
        split = recipe.corpus.test
        assert isinstance(split, CountSplit)
        topics = run.model.topics().detach().cpu().numpy()  # type: ignore[operator]
        values = {
            "NLL": (one.nll, one.standard_error),
            "minus elbo": (one.difference.mean, one.difference.standard_error) if one.difference else None,
            "PPL": (math.exp(one.nll * len(split) / split.tokens), None),
            "KL": (one.kl, None),
            "distinct": (distinct_topics(topics), None),
            "seconds per epoch": (one.seconds_per_epoch, None),
            "evaluations per epoch": (one.evaluations_per_epoch, None),
        }
        for measure, value in values.items():
            if value is None or value[0] is None:
                continue
            yield row(
                f"{name} | {one.strategy} | {measure}",
                round(float(value[0]), 3),
                COLUMNS[measure],
                standard_error=None if value[1] is None else round(value[1], 3),
                protocol=f"seeds {', '.join(map(str, one.seeds))}",
                seed=None,
                environment=about,
            )


def markdown(found: list[Row]) -> str:
    """The rows as wide tables: a strategy a line."""
    return wide(found, COLUMNS)


def main() -> None:
    """Compare, and write results/document_strategies.json."""
    parser = argparse.ArgumentParser(description="Models of documents under several strategies.")
    parser.add_argument("--models", nargs="+", default=["nvdm", "lda"])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/document_strategies"), help="continued if it is there")
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.models:
        out = options.runs / name
        found = compare_strategies(name, options.strategies, options.seeds, out=out, samples=100)
        if found.failures:
            raise SystemExit("\n".join(found.failures))
        rows += measures(name, found, out)
    save("document_strategies", rows)


if __name__ == "__main__":
    main()
