"""`diagnose` and `diagnose_runs`: every section that applies to a run, and runs paired by document (layer: recipe)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rich.table import Table

import pyro_nlp
from pyro_nlp.data.splits import Split
from pyro_nlp.diagnosis import compressions, inferred, orders, pairs, sections, spaces, topics, written
from pyro_nlp.diagnosis.progress import progress_bar
from pyro_nlp.diagnosis.subject import LeftOut, Protocol, Subject
from pyro_nlp.diagnosis.verdict import Verdict, verdict
from pyro_nlp.evaluation import Difference, Evaluation, NoDensityError, compare
from pyro_nlp.evaluation.agreement import SeedAgreement, seed_agreement
from pyro_nlp.inference.fit import Run
from pyro_nlp.inference.terms import StructureError

FEWEST = 2
"""Documents that can be compared with each other."""


@dataclass(frozen=True)
class Section:
    """A part of a diagnosis.

    Attributes:
        key: in `Diagnosis.sections`.
        title: on the page.
        measure: gives the part, or raises `LeftOut`.
        serves: whether anybody would look for it; where not, nothing is said of it.
    """

    key: str
    title: str
    measure: Callable[[Subject], Any]
    serves: Callable[[Subject], bool] = lambda subject: True


SECTIONS = (
    Section("topics", "Topics", topics.topics, topics.has_topics),
    Section("mixtures", "Documents as mixtures", topics.mixtures, topics.has_topics),
    Section("ranking", "Ranking", pairs.ranking, pairs.has_answers),
    Section("questions", "Questions", pairs.questions, pairs.has_answers),
    Section("label_gap", "What the label says", pairs.label_gap, pairs.has_label_gap),
    Section("orders", "Written to order", orders.orders, orders.has_orders),
    Section("compressions", "Compressions", compressions.compressions, compressions.has_compressions),
    Section("alignments", "Where the decoder looks", pairs.alignments, pairs.has_attention),
    Section("curves", "Training", sections.curves),
    Section("dimensions", "KL by dimension", sections.dimensions),
    Section("weights", "Importance weights", sections.weights),
    Section("gaps", "Inference gaps", inferred.gaps),
    Section("calibration", "Calibration", inferred.calibration),
    Section("checks", "Predictive checks", inferred.checks),
    Section("aggregates", "Aggregate posterior", spaces.aggregates),
    Section("heard", "What the decoder hears", spaces.heard),
    Section("projection", "Latent space", sections.projection),
    Section("means", "Means of model and guide", spaces.means),
    Section("probes", "Labels from latents", spaces.probes),
    Section("interpolations", "Interpolations", written.interpolations),
    Section("traversals", "Traversals", spaces.traversals),
    Section("nearest", "Nearest documents", spaces.nearest),
    Section("reconstructions", "Documents read back", written.reconstructions),
    Section("samples", "Samples from the prior", written.samples),
    Section("documents", "All documents", sections.documents),
)


@dataclass(frozen=True)
class Diagnosis:
    """What was found of one run.

    Attributes:
        name: of the run.
        about: model, guide, corpus, and version, for the page's head.
        protocol: which documents, how many draws.
        evaluation: the table of `evaluate` on these documents.
        verdict: the same in words, with doubts and a cure.
        sections: results by the keys of `SECTIONS`.
        left_out: titles of the sections that do not apply, and why.
    """

    name: str
    about: dict[str, str]
    protocol: Protocol
    evaluation: Evaluation
    verdict: Verdict
    sections: dict[str, Any]
    left_out: dict[str, str]

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        found = self.evaluation.rows()
        last = found.pop("latents")
        if (weights := self.sections.get("weights")) is not None:
            found["k-hat above 0.7"] = f"{weights.summary.above:.1%} of documents"
            found["effective draws, median"] = f"{weights.summary.ess[0.5]:.0f} of {weights.draws}"
        if (found_topics := self.sections.get("topics")) is not None:
            found |= found_topics.rows()
        if (compressed := self.sections.get("compressions")) is not None:
            found |= compressed.rows()
        if (answers := self.sections.get("ranking")) is not None and answers.ranking is not None:
            found |= {f"{name}, whole split": str(value) for name, value in answers.ranking.intervals().items()}
        return found | {"latents": last}

    def compared_rows(self) -> dict[str, str]:
        """The same with one name for every kind of likelihood, as printed beside other runs."""
        found, rows = {}, self.rows()
        del rows["latents"]  # the verdict stands apart
        for measure, value in rows.items():
            if measure.startswith("NLL, "):
                found["NLL"] = f"{value}, exact" if measure == "NLL, exact" else value
            elif not (measure.startswith("KL of ") and self.evaluation.likelihood is None):
                found[measure] = value
        return found

    def why_left_out(self) -> list[str]:
        """A line for each reason, with the sections it keeps out."""
        reasons: dict[str, list[str]] = {}
        for title, why in self.left_out.items():
            reasons.setdefault(why, []).append(title)
        return [f"{why}; left out: {', '.join(titles)}" for why, titles in reasons.items()]


@dataclass(frozen=True)
class Diagnoses:
    """What was found of several runs, paired by document.

    Attributes:
        runs: one or more, in the order they were given.
        reference: the run that others are compared with: the first that has a density; None where fewer than two have.
        differences: of the NLL to the reference, `[N]` by run.
        agreements: of runs that differ by their seed alone, one for each recipe with several.
    """

    runs: list[Diagnosis]
    reference: str | None
    differences: dict[str, np.ndarray]
    agreements: list[SeedAgreement] = field(default_factory=list)

    @property
    def paired(self) -> dict[str, Difference]:
        """Mean difference of the NLL to the reference, and its standard error."""
        return {name: compare(values, np.zeros_like(values)) for name, values in self.differences.items()}

    def table(self) -> Table:
        """For a terminal: measures down, runs across."""
        protocol, first = self.runs[0].protocol, self.runs[0].evaluation
        title = f"{protocol.split} split, {first.documents:,} documents, nats per document"
        made = Table("measure", *(run.name for run in self.runs), title=title, title_justify="left")
        rows = [run.rows() if len(self.runs) == 1 else run.compared_rows() for run in self.runs]
        for measure in dict.fromkeys(key for row in rows for key in row):
            made.add_row(measure, *(row.get(measure, "") for row in rows))
        if self.reference is not None:
            made.add_row(f"NLL - {self.reference}, paired", *(str(self.paired.get(run.name, "")) for run in self.runs))
        return made

    def agreement_lines(self) -> list[str]:
        """What seeds agree on, a line each."""
        return [
            f"{', '.join(found.runs)}: {measure}: {value}"
            for found in self.agreements
            for measure, value in found.rows().items()
        ]


def diagnose(
    run: Run, split: str = "test", *, documents: int = 500, draws: int = 200, seed: int = 0, name: str = "run"
) -> Diagnosis:
    """Whether a run is to be believed.

    Example:
        found = diagnose(open_run("runs/vae")[0])
        print(found.verdict.headline, found.left_out)

    Args:
        run: of `fit` or `open_run`.
        split: train, valid or test.
        documents: most documents taken of it, by a permutation that the seed fixes.
        draws: importance samples per document.
        seed: of all draws.
        name: of the run, in tables.
    """
    return diagnose_runs({name: run}, split, documents=documents, draws=draws, seed=seed).runs[0]


def diagnose_runs(
    runs: Mapping[str, Run],
    split: str = "test",
    *,
    documents: int = 500,
    draws: int = 200,
    seed: int = 0,
    seeds: Sequence[Collection[str]] = (),
    progress: bool | None = None,
) -> Diagnoses:
    """Diagnose runs of one corpus on the same documents.

    Args:
        runs: by name; the others are compared with the first that has a density.
        split, documents, draws, seed: see `diagnose`.
        seeds: names of runs that differ by their seed alone, a group for each recipe; their agreement is measured.
        progress: show a bar; by default when standard error is a terminal.

    Raises:
        ValueError: the runs are of different corpora, or there are not two documents.
    """
    if not runs:
        raise ValueError("a diagnosis wants a run")
    protocol = Protocol(split, documents, draws, seed)
    _refuse_different(runs)
    found, subjects = [], {}
    with progress_bar(len(runs) * (len(SECTIONS) + 1), progress) as advance:
        for name, run in runs.items():
            whole: Split = getattr(run.corpus, split)
            rows = protocol.rows(whole)
            if len(rows) < FEWEST:
                raise ValueError(
                    f"a diagnosis compares documents, and there is {len(rows)} in the {split} split: it wants {FEWEST}"
                )
            subjects[name] = Subject.of(name, run, whole, rows, protocol)
            found.append(_one(subjects[name], advance))
    return replace(_paired(found), agreements=[_agreement(subjects, group) for group in seeds])


def _agreement(subjects: Mapping[str, Subject], group: Collection[str]) -> SeedAgreement:
    """Of runs of one recipe, in the order they were given."""
    chosen = {name: subject for name, subject in subjects.items() if name in group}
    return seed_agreement(
        {name: subject.run.history for name, subject in chosen.items()},
        {name: subject.posteriors for name, subject in chosen.items()},
    )


def _one(subject: Subject, advance: Callable[[str], None]) -> Diagnosis:
    results: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    advance(f"{subject.name}: likelihood")
    _ = subject.evaluation
    for section in SECTIONS:
        advance(f"{subject.name}: {section.title}")
        if not section.serves(subject):
            continue
        try:
            results[section.key] = section.measure(subject)
        except (LeftOut, NoDensityError, StructureError, NotImplementedError) as why:
            left_out[section.title] = " ".join(str(why).split())
    said = verdict(subject, results)
    return Diagnosis(subject.name, _about(subject), subject.protocol, subject.evaluation, said, results, left_out)


def _about(subject: Subject) -> dict[str, str]:
    guide = subject.run.guide
    return {
        "model": type(subject.model).__name__,
        "guide": "none" if guide is None else type(guide).__name__,
        "corpus": repr(subject.run.corpus),
        "documents": f"{len(subject.split):,} of the {subject.protocol.split} split{pairs.each(subject)}",
        "importance draws": f"{subject.protocol.draws:,} per document",
        "seed": str(subject.protocol.seed),
        "pyro-nlp": pyro_nlp.__version__,
    }


def _refuse_different(runs: Mapping[str, Run]) -> None:
    first, *others = runs
    for name in others:
        if runs[name].corpus.fingerprint != runs[first].corpus.fingerprint:
            raise ValueError(
                f"{first} and {name} are of different corpora ({runs[first].corpus.name}, {runs[name].corpus.name}): "
                "only runs on the same documents can be paired; diagnose them apart"
            )


def _paired(found: Sequence[Diagnosis]) -> Diagnoses:
    nll = {run.name: run.evaluation.likelihood.nll for run in found if run.evaluation.likelihood is not None}
    if len(nll) < 2:
        return Diagnoses(list(found), None, {})
    reference, *others = nll
    return Diagnoses(list(found), reference, {name: nll[name] - nll[reference] for name in others})
