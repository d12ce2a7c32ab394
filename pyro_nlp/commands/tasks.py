"""What `pyro-nlp evaluate` says beside likelihood and latents, by what a model is for (layer: cli)."""

from __future__ import annotations

import argparse
from typing import Any

from pyro_nlp import recipe as recipes
from pyro_nlp.data.compression import CompressionCorpus
from pyro_nlp.data.counts import CountCorpus
from pyro_nlp.data.parsed_trees import TreeSplit
from pyro_nlp.data.splits import Split, TextSplit
from pyro_nlp.evaluation import (
    Evaluation,
    classify,
    evaluate_answers,
    evaluate_parses,
    evaluate_tags,
    evaluate_topics,
    induces_trees,
    is_compressor,
    is_topic_model,
    judges_answers,
    judges_classes,
    report_compressions,
    tags_words,
)
from pyro_nlp.evaluation.classifying import DRAWS, classed
from pyro_nlp.evaluation.control_report import report_control
from pyro_nlp.evaluation.controlling import has_attributes
from pyro_nlp.inference import Run


def parts(run: Run, split: Split, found: Evaluation, options: argparse.Namespace) -> dict[str, tuple[str, Any]]:
    """The title and the result of every task that a model serves, by name in JSON.

    Args:
        run: what is judged.
        split: of its corpus.
        found: the table of likelihood and latents.
        options: of `evaluate`.
    """
    model, guide, corpus = run.model, run.guide, run.corpus
    name, seed, precision = options.split, options.seed, options.precision
    done: dict[str, tuple[str, Any]] = {}
    if guide is not None and is_topic_model(model) and isinstance(corpus, CountCorpus):
        more = {"samples": options.samples, "seed": seed, "precision": precision, "likelihood": found.likelihood}
        topics = evaluate_topics(model, guide, corpus, name, **more)
        done["topics"] = f"topics, {name} split; NPMI in the train split", topics
    if judges_answers(model, split):
        answers = evaluate_answers(model, split, seed=seed, precision=precision)
        done["answers"] = f"answers, {name} split; 95 % intervals over questions", answers
    labelled, names = classed(model, corpus, split)
    if judges_classes(model, guide, labelled):
        draws = min(options.samples, DRAWS)
        classes = classify(model, guide, labelled, names=names, samples=draws, seed=seed)
        done["classes"] = f"classes, {name} split; 95 % intervals over documents", classes
    if guide is not None and has_attributes(model) and isinstance(split, TextSplit):
        judges = [recipes.open_run(judge)[0] for judge in options.judge]
        fluency = None if options.fluency is None else recipes.open_run(options.fluency)[0]
        control = report_control(run, split, judges, fluency, seed=seed)
        done["control"] = f"control, {name} split; 95 % intervals over sentences", control
    elif options.judge or options.fluency:
        raise ValueError(f"{type(model).__name__} writes nothing to order: leave out --judge and --fluency")
    if isinstance(split, TreeSplit) and induces_trees(model, split):
        trees = evaluate_parses(model, guide, split, seed=seed)
        done["trees"] = f"trees, {name} split; 95 % intervals over sentences", trees
    if isinstance(split, TextSplit) and tags_words(model, split):
        done["tags"] = f"tags of words by the likeliest states, {name} split", evaluate_tags(model, split)
    compresses = guide is not None and is_compressor(model, guide, split)
    if isinstance(corpus, CompressionCorpus) and guide is not None and compresses and corpus.judges(name):
        compressions = report_compressions(model, guide, corpus, name, precision=precision)
        done["compressions"] = f"compressions by beam search, {name} split", compressions
    return done
