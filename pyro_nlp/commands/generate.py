"""`pyro-nlp generate`: sentences of all kinds, topics of a model of documents, a ranking of answers, compressions
(layer: cli)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pyro_nlp import recipe as recipes
from pyro_nlp.commands import compress as compressing
from pyro_nlp.commands import rank as ranking
from pyro_nlp.commands import topics as topic_kinds
from pyro_nlp.commands.options import positive, temperature, two_or_more
from pyro_nlp.commands.output import OUT
from pyro_nlp.data.batches import UNK, TextBatch
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.tokenise import detokenise
from pyro_nlp.evaluation import analogy, impute, interpolate, is_topic_model, reconstruct, sample_prior
from pyro_nlp.evaluation.controlling import (
    Ordered,
    classes_told,
    has_attributes,
    names_told,
    transfer,
    wanted,
    write_to_order,
)
from pyro_nlp.inference.fit import Run
from pyro_nlp.nn import BLANK


def generate_options(made: argparse.ArgumentParser) -> None:
    """The options of `pyro-nlp generate`."""
    made.add_argument("run_folder", metavar="RUN")
    made.add_argument(
        "--what",
        choices=(
            "samples",
            "reconstructions",
            "interpolations",
            "analogies",
            "imputations",
            "transfers",
            *topic_kinds.KINDS,
            ranking.KIND,
            compressing.KIND,
        ),
        help="by default samples, reconstructions and interpolations, topics of a model of documents, a ranking by one "
        "of answers, compressions by one of sentences; analogies: a is to b as c is to what is written; transfers: "
        "sentences with another class, or other attributes; nearest: the documents with most of each topic",
    )
    made.add_argument(
        "--sentence",
        action="append",
        default=[],
        metavar="TEXT",
        help="in place of test sentences; repeat it: two for interpolations, three for each analogy; "
        "`_` is a blank for imputations",
    )
    made.add_argument("--count", type=positive, help="how many; by default 5, and all topics")
    made.add_argument("--words", type=positive, default=10, help="of a topic")
    made.add_argument(
        "--method",
        choices=("ancestral", "greedy", "beam"),
        help="by default ancestral for samples, beam otherwise",
    )
    made.add_argument("--temperature", type=temperature, default=1.0, help="of ancestral sampling; 0 is greedy")
    made.add_argument("--beam", type=positive, default=10)
    made.add_argument("--steps", type=two_or_more, default=7, help="sentences of an interpolation, ends included")
    made.add_argument(
        "--attribute",
        action="append",
        default=[],
        metavar="NAME=CLASS",
        help="what samples or transfers are to be, as sentiment=positive, by a model that is told classes; "
        "repeat it for several attributes",
    )
    ranking.rank_options(made)
    compressing.compress_options(made)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--json", action="store_true", help="print JSON")


def generate(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp generate RUN`"""
    run, _ = recipes.open_run(options.run_folder)
    write(options, run)


def write(options: argparse.Namespace, run: Run) -> None:
    """Print what is asked for of a run, or what there is by default."""
    if ranking.asks_for_ranking(options) or ranking.is_ranking_run(run):
        _rank(options, run)
        return
    if compressing.asks_for_compression(options) or compressing.is_compressing_run(run):
        _compress(options, run)
        return
    what = _kinds(options, run)
    _refuse_unread(options, what)
    if options.count is None and not is_topic_model(run.model):
        options.count = 5
    found = {kind: _WRITERS[kind](options, run, run.corpus) for kind in what}
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for kind, lines in found.items():
        OUT.print(f"\n[bold]{kind}[/bold]")
        for line in lines:
            OUT.print(
                line if isinstance(line, str) else "\n".join(f"  {key:>13}  {value}" for key, value in line.items()),
                markup=False,
                highlight=False,
            )


def _rank(options: argparse.Namespace, run: Run) -> None:
    if options.what not in (None, ranking.KIND):
        raise ValueError(f"{type(run.model).__name__} ranks answers: it has no {options.what}")
    found = ranking.rank(options, run)
    if options.json:
        print(json.dumps({ranking.KIND: found.as_dict()}, indent=2, ensure_ascii=False))
    else:
        ranking.show(found)


def _compress(options: argparse.Namespace, run: Run) -> None:
    if options.what not in (None, compressing.KIND):
        raise ValueError(f"{type(run.model).__name__} compresses sentences: it has no {options.what}")
    found = compressing.compressions(options, run)
    if options.json:
        print(json.dumps({compressing.KIND: found.as_dict()}, indent=2, ensure_ascii=False))
    else:
        compressing.show(found)


def _kinds(options: argparse.Namespace, run: Run) -> list[str]:
    """What is asked for, or what there is by default, of what the model can."""
    name, latent, asked = type(run.model).__name__, run.guide is not None, options.what
    if is_topic_model(run.model):
        if asked and asked not in topic_kinds.KINDS:
            raise ValueError(
                f"{name} is a model of bags of words, which have no order: it has topics and nearest documents"
            )
        return [asked or "topics"]
    if not hasattr(run.model, "generate"):
        raise ValueError(f"{name} does not write text")
    if asked in topic_kinds.KINDS:
        raise ValueError(f"{name} has no topics: it writes sentences")
    if not classes_told(run.model) and (asked == "transfers" or options.attribute):
        raise ValueError(f"{name} has no attributes to write to order: train one that has, as controlled_sentence")
    if asked is None and (options.attribute or has_attributes(run.model)):
        asked = "transfers" if options.sentence else "samples" if options.attribute else None
    if asked == "transfers" and not latent:
        raise ValueError(
            f"{name} has no code z, so a sentence of another class would keep nothing: ask for samples, and leave out "
            "--sentence"
        )
    if not latent and asked in ("reconstructions", "interpolations", "analogies"):
        raise ValueError(f"{name} has no latents: it writes samples and imputations")
    if asked or not latent:
        return [asked or "samples"]
    if has_attributes(run.model):
        return ["samples", "transfers"]
    between = [] if len(options.sentence) == 1 else ["interpolations"]  # one sentence has no other end
    return ["samples", "reconstructions", *between]


def _refuse_unread(options: argparse.Namespace, what: list[str]) -> None:
    """Refuse options that nothing of what is asked for reads."""
    if options.attribute and not {"samples", "transfers"}.intersection(what):
        raise ValueError(f"--attribute is of samples and transfers: {what[0]} are not written to order")
    if options.sentence and {"samples", *topic_kinds.KINDS}.issuperset(what):
        raise ValueError(f"{what[0]} are not made of sentences: leave out --sentence, or choose another --what")


def _sentences(options: argparse.Namespace, corpus: Any, count: int) -> TextSplit:
    """The user's sentences, or test sentences of middling length, with what is known of their classes."""
    split: TextSplit = corpus.test
    if options.sentence:
        ids = [corpus.vocabulary.encode(corpus.tokenise(sentence)) for sentence in options.sentence]
        for sentence, words in zip(options.sentence, ids, strict=True):
            if not (words != UNK).any():
                as_here = " ".join(corpus.vocabulary.decode(split.words(0)))
                raise ValueError(
                    f"no known word in --sentence {sentence!r}; write as the corpus does, as in: {as_here}"
                )
        return TextSplit.from_sentences(ids)
    middling = np.flatnonzero((split.lengths >= 6) & (split.lengths <= 12))
    rows = np.random.default_rng(options.seed).permutation(middling if len(middling) >= count else len(split))[:count]
    return split.take(rows)


def _batch(sentences: TextSplit) -> TextBatch:
    return sentences.batch(np.arange(len(sentences)))


def _lines(corpus: Any, written: Any) -> list[str]:
    ids = [written.words(row) for row in range(len(written))] if isinstance(written, TextSplit) else written
    return [detokenise(corpus.vocabulary.decode(row)) for row in ids]


def _asked(options: argparse.Namespace, run: Run) -> dict[str, int]:
    """The classes of `--attribute`, by number."""
    pairs = [given.partition("=") for given in options.attribute]
    if wrong := next((given for given, (_, sign, _) in zip(options.attribute, pairs, strict=True) if not sign), None):
        raise ValueError(f"--attribute {wrong!r} is to be a name and a class, as sentiment=positive")
    names = [name for name, _, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"--attribute {twice} is given {names.count(twice)} times: a sentence has one class of it")
    told = names_told(run)
    found = wanted(dict(told.values()), {name: value for name, _, value in pairs})
    return {site: found[name] for site, (name, _) in told.items() if name in found}


def _by_name(found: Ordered, run: Run) -> list[str]:
    """The classes that were asked for of every sentence, by name."""
    told = names_told(run)
    names = [[told[site][1][c] for c in classes] for site, classes in found.asked.items()]
    return [", ".join(classes) for classes in zip(*names, strict=True)]


def _transfers(options: argparse.Namespace, run: Run, corpus: Any) -> list[dict[str, str]]:
    sentences = _sentences(options, corpus, options.count)
    assert run.guide is not None
    method = options.method or "beam"
    extra = {"beam": options.beam, "temperature": options.temperature}
    found = transfer(run.model, run.guide, sentences, _asked(options, run), seed=options.seed, method=method, **extra)
    triples = zip(_lines(corpus, sentences), _by_name(found, run), _lines(corpus, found.split), strict=True)
    return [{"sentence": a, "to be": b, "becomes": c} for a, b, c in triples]


def _ordered(options: argparse.Namespace, run: Run, corpus: Any, extra: dict[str, Any]) -> list[str]:
    found = write_to_order(run.model, options.count, _asked(options, run), seed=options.seed, **extra)
    lines = zip(_by_name(found, run), _lines(corpus, found.split), strict=True)
    return [f"{classes}: {line}" for classes, line in lines]


def _samples(options: argparse.Namespace, run: Run, corpus: Any) -> list[str]:
    extra = {
        "method": options.method or "ancestral",
        "temperature": options.temperature,
        "beam": options.beam,
    }
    if options.attribute or has_attributes(run.model):
        return _ordered(options, run, corpus, extra)
    return _lines(corpus, sample_prior(run.model, corpus.test, options.count, seed=options.seed, **extra))


def _reconstructions(options: argparse.Namespace, run: Run, corpus: Any) -> list[dict[str, str]]:
    sentences = _sentences(options, corpus, options.count)
    written = reconstruct(run.model, run.guide, _batch(sentences), method=options.method or "beam", beam=options.beam)
    pairs = zip(_lines(corpus, sentences), _lines(corpus, written), strict=True)
    return [{"sentence": a, "reconstructed": b} for a, b in pairs]


def _interpolations(options: argparse.Namespace, run: Run, corpus: Any) -> list[str]:
    sentences = _sentences(options, corpus, 2)
    if len(sentences) < 2:
        raise ValueError("an interpolation wants two sentences: give --sentence twice")
    assert run.guide is not None
    written = interpolate(
        run.model,
        run.guide,
        _batch(sentences.take(np.arange(2))),
        options.steps,
        method=options.method or "beam",
        beam=options.beam,
    )
    first, last = _lines(corpus, sentences)[:2]
    return [f"from  {first}", *(f"      {line}" for line in _lines(corpus, written[0])), f"to    {last}"]


def _analogies(options: argparse.Namespace, run: Run, corpus: Any) -> list[dict[str, str]]:
    sentences = _sentences(options, corpus, 3 * options.count)
    if len(sentences) % 3 and not options.sentence:
        sentences = sentences.take(np.arange(len(sentences) // 3 * 3))  # of a test split with fewer
    if len(sentences) % 3 or not len(sentences):
        raise ValueError("an analogy wants three sentences, a, b and c: give --sentence three times")
    method = options.method or "beam"
    written = analogy(run.model, run.guide, _batch(sentences), method=method, beam=options.beam)
    given = _lines(corpus, sentences)
    found = zip(given[0::3], given[1::3], given[2::3], _lines(corpus, written), strict=True)
    return [{"sentence": a, "becomes": b, "as": c, "would become": d} for a, b, c, d in found]


def _imputations(options: argparse.Namespace, run: Run, corpus: Any) -> list[dict[str, str]]:
    if not any(" _ " in f" {s} " for s in options.sentence):
        raise ValueError("imputations want a --sentence with `_` for every missing word")
    texts = [sentence.split() for sentence in options.sentence]
    ids = []
    for pieces in texts:
        row: list[int] = []
        for piece in pieces:
            row += [BLANK] if piece == "_" else corpus.vocabulary.encode(corpus.tokenise(piece)).tolist()
        ids.append(row)
    filled = _lines(corpus, impute(run.model, run.guide, ids, beam=options.beam))
    return [{"given": given, "filled": line} for given, line in zip(options.sentence, filled, strict=True)]


_WRITERS: dict[str, Callable[..., Any]] = {
    "topics": topic_kinds.topics,
    "nearest": topic_kinds.nearest,
    "samples": _samples,
    "reconstructions": _reconstructions,
    "interpolations": _interpolations,
    "analogies": _analogies,
    "imputations": _imputations,
    "transfers": _transfers,
}
