"""Whether text written to order obeys, keeps its content, is fluent and differs (layer: evaluation).

Who judges decides what accuracy means. The discriminator in the loop taught the model, so that its opinion says how far
training got; a judge is a classifier of its own, trained on **other** texts, and its accuracy on real sentences is what
it would give to a perfect writer. Both are named wherever they are printed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
from rich.table import Table

from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation.control_measures import (
    accuracy,
    attribute_of,
    content,
    fluency,
    from_code,
    judged,
    known_text,
    labels_of,
    refuse_judge,
    refuse_language_model,
)
from pyro_nlp.evaluation.controlling import Ordered, read_attributes, transfer, write_to_order
from pyro_nlp.evaluation.diversity import Diversity, Gram, diversity, new_grams
from pyro_nlp.evaluation.intervals import Interval, share
from pyro_nlp.evaluation.latent import Probe
from pyro_nlp.inference.fit import Run

T = TypeVar("T")


@dataclass(frozen=True)
class Written:
    """What a model wrote to order, R sentences, measured; intervals tell how it would vary with other sentences.

    Attributes:
        sentences: R.
        in_loop: accuracy by the run's own discriminator, by attribute.
        judged: accuracy by judges, by attribute; without a judge there is none.
        perplexity: under a language model of its own, ends of sentence counted; None without one.
        unknown: share of the words that the language model does not know.
        bleu: BLEU-4 with the sentences that were transferred; None where nothing was.
        copied: share that stands in the training text of the run.
        new_fourgrams: share of different runs of four words that do not stand there.
        diversity: distinct words and pairs, self-BLEU; None where sacrebleu is not installed.
    """

    sentences: int
    in_loop: dict[str, Interval]
    judged: dict[str, Interval]
    perplexity: Interval | None
    unknown: Interval | None
    bleu: Interval | None
    copied: Interval
    new_fourgrams: Interval
    diversity: Diversity | None


@dataclass(frozen=True)
class ControlReport:
    """A controlled writer on one split.

    Attributes:
        samples: sentences from the prior, attributes asked for in turn.
        transferred: sentences of the split with the first attribute changed.
        real: accuracy on the sentences of the split themselves, by the discriminator in the loop and by judges, under
            `in the loop, NAME` and `judge, NAME`.
        from_code: accuracy of each attribute foretold from the mean of q(z | x) alone, and that of naming the commonest
            class: alike where z says nothing of it.
        judge: what judged each attribute: its model and corpus, and how many sentences of the split, and of those that
            the run learnt from, it had seen.
        language_model: what judged fluency, likewise; None without one.
        missing: what was left out, as a package is not installed, and the cure.
    """

    samples: Written
    transferred: Written
    real: dict[str, Interval]
    from_code: dict[str, Probe]
    judge: dict[str, str] = field(default_factory=dict)
    language_model: str | None = None
    missing: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All of it as numbers by name."""
        return asdict(self)

    def rows(self) -> dict[str, tuple[str, str]]:
        """Measure, and its value for samples and for transfer, as printed."""
        both = (self.samples, self.transferred)
        rows = {"sentences": tuple(f"{w.sentences:,}" for w in both)}
        for name in self.samples.in_loop:
            said = tuple(str(w.in_loop[name]) if name in w.in_loop else "" for w in both)
            rows[f"{name} obeyed, by the discriminator in the loop"] = said
        for name in self.samples.judged:
            said = tuple(str(w.judged[name]) if name in w.judged else "" for w in both)
            rows[f"{name} obeyed, by the judge"] = said
        rows["BLEU with the source"] = tuple(_said(w.bleu, 1) for w in both)
        rows["perplexity under the language model"] = tuple(_said(w.perplexity, 1) for w in both)
        rows["unknown to the language model"] = tuple(_percent(w.unknown) for w in both)
        rows["copied from train"] = tuple(_percent(w.copied) for w in both)
        rows["four-grams not in train"] = tuple(_percent(w.new_fourgrams) for w in both)
        rows["distinct words"] = tuple(_said(w.diversity.distinct_1, 3) if w.diversity else "" for w in both)
        rows["distinct pairs"] = tuple(_said(w.diversity.distinct_2, 3) if w.diversity else "" for w in both)
        rows["self-BLEU"] = tuple(_said(w.diversity.self_bleu, 1) if w.diversity else "" for w in both)
        return {name: (pair[0], pair[1]) for name, pair in rows.items() if any(pair)}

    def table(self, title: str = "") -> Table:
        """As printed by `pyro-nlp evaluate`."""
        table = Table("written to order", "samples", "transfer", title=title or None, title_justify="left")
        for name, pair in self.rows().items():
            table.add_row(name, *pair)
        table.add_section()
        for name, found in self.real.items():
            table.add_row(f"real sentences, {name}", str(found), "")
        for name, probe in self.from_code.items():
            table.add_row(f"{name} foretold from z", str(probe), "")
        for name, who in self.judge.items():
            table.add_row(f"judge of {name}", who, "")
        if self.language_model:
            table.add_row("language model", self.language_model, "")
        for why in self.missing:
            table.add_row("left out", why, "")
        return table


def _said(found: Interval | None, digits: int) -> str:
    if found is None:
        return ""
    return f"{found.mean:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def _percent(found: Interval | None) -> str:
    return "" if found is None else f"{found.mean:.1%} ({found.low:.1%} to {found.high:.1%})"


def report_control(
    run: Run,
    split: TextSplit,
    judges: Sequence[Run] = (),
    language_model: Run | None = None,
    *,
    count: int = 1000,
    sentences: int = 1000,
    seed: int = 0,
    method: str = "greedy",
    probe: bool = True,
) -> ControlReport:
    """Let a run write to order and judge what it wrote.

    Args:
        run: of a model with attributes, and its guide.
        split: of its corpus; whose sentences are transferred.
        judges: runs of classifiers trained on other texts, whose labels are the classes of one of the attributes.
        language_model: a run of a language model without latents, trained on other texts, for fluency.
        count: of samples, with the classes in turn.
        sentences: to be transferred, a fixed choice by chance.
        seed: of z, of the choice of sentences, and of ancestral writing.
        method: of writing; see `nn.write`.
        probe: whether to foretell the attributes from z, which reads the training split.

    Raises:
        ValueError: a judge or language model that was trained on the run's corpus or on sentences of the split, or a
            judge whose labels are the classes of no attribute or of one that another judges.
    """
    assert run.guide is not None
    model: Any = run.model
    corpus = run.corpus
    chosen = split.take(np.random.default_rng(seed).permutation(len(split))[:sentences])
    by_attribute: dict[str, Run] = {}
    for judge in judges:
        if (name := attribute_of(judge, corpus)) in by_attribute:
            raise ValueError(f"two judges of {name}: an attribute has one; judge once more with the other")
        by_attribute[name] = judge
    named = {name: refuse_judge(judge, run, split) for name, judge in by_attribute.items()}
    fluent = None if language_model is None else refuse_language_model(language_model, run, split)
    longest = int(corpus.train.lengths.max())
    orders = write_to_order(model, count, seed=seed, method=method, max_length=longest)
    moved = transfer(model, run.guide, chosen, seed=seed, method=method, max_length=longest)
    known = known_text(corpus)
    missing: dict[str, None] = {}
    measured = [
        _measure(written, source, run, by_attribute, language_model, known, missing)
        for written, source in ((orders, None), (moved, chosen))
    ]
    real = {}
    known_classes = {name: labels_of(chosen, name, corpus) for name in model.attributes}
    known_classes = {name: labels for name, labels in known_classes.items() if (labels >= 0).any()}
    for name, log_q in read_attributes(model, run.guide, chosen).items():
        if name in known_classes:
            real[f"in the loop, {name}"] = accuracy(log_q, known_classes[name])
    for name, judge in by_attribute.items():
        if name in known_classes:
            real[f"judge, {name}"] = accuracy(*judged(judge, chosen, corpus, name, known_classes[name]))
    codes = from_code(run, chosen) if probe else {}
    return ControlReport(measured[0], measured[1], real, codes, named, fluent, tuple(missing))


def _measure(
    written: Ordered,
    source: TextSplit | None,
    run: Run,
    judges: Mapping[str, Run],
    language_model: Run | None,
    known: tuple[set[Gram], set[Gram]],
    missing: dict[str, None],
) -> Written:
    assert run.guide is not None
    loop = read_attributes(run.model, run.guide, written.split)
    by_judge = {
        name: accuracy(*judged(judges[name], written.split, run.corpus, name, asked))
        for name, asked in written.asked.items()
        if name in judges
    }
    sentences = [tuple(written.split.words(row)) for row in range(len(written.split))]
    fluent, unknown = (None, None) if language_model is None else fluency(written.split, run.corpus, language_model)
    return Written(
        sentences=len(sentences),
        in_loop={name: accuracy(loop[name], asked) for name, asked in written.asked.items()},
        judged=by_judge,
        perplexity=fluent,
        unknown=unknown,
        bleu=None if source is None else _installed(lambda: content(written.split, source), missing),
        copied=share(np.array([words in known[0] for words in sentences])),
        new_fourgrams=new_grams(sentences, known[1], 4),
        diversity=_installed(lambda: diversity(written.split), missing),
    )


def _installed(measure: Callable[[], T], missing: dict[str, None]) -> T | None:
    """What a measure finds; None where it wants a package that is not installed, which is added to `missing`."""
    try:
        return measure()
    except ImportError as error:
        missing[str(error)] = None
        return None
