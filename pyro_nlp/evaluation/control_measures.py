"""What sentences written to order are measured by: judges, fluency, content, what z tells (layer: evaluation)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_nlp.data.batches import UNK
from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.left_out import Without
from pyro_nlp.data.overlap import normalised, reread
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.store import SPLITS
from pyro_nlp.data.text import TextCorpus
from pyro_nlp.evaluation.classifying import classed, classify, judges_classes
from pyro_nlp.evaluation.collapse import posteriors
from pyro_nlp.evaluation.controlling import texts_of
from pyro_nlp.evaluation.diversity import Gram, grams
from pyro_nlp.evaluation.intervals import Interval, ratio, share
from pyro_nlp.evaluation.latent import Probe, linear_probe
from pyro_nlp.evaluation.likelihood import importance_nll
from pyro_nlp.evaluation.uses import as_words, bleu_scorer
from pyro_nlp.inference.fit import Run

MOST = 0.01
"""Share of the sentences to be judged, or of train, that may stand in what a judge was trained on."""


def attribute_of(judge: Run, corpus: Corpus) -> str:
    """The attribute whose classes a judge tells apart."""
    _, told = classed(judge.model, judge.corpus, judge.corpus.train)
    for name, classes in corpus.attributes.items():
        if set(classes) == set(told):
            return name
    known = "; ".join(f"{name}: {', '.join(classes)}" for name, classes in corpus.attributes.items())
    raise ValueError(
        f"a judge of {', '.join(told) or 'no classes'} ({judge.corpus.called}) judges no attribute of "
        f"the run; these are {known}"
    )


def refuse_judge(judge: Run, run: Run, split: TextSplit) -> str:
    """Refuse a judge that knows no classes, or learnt from what it may not; what it is, as `refuse_seen`."""
    if not judges_classes(judge.model, judge.guide, classed(judge.model, judge.corpus, judge.corpus.train)[0]):
        raise ValueError(
            f"{type(judge.model).__name__} tells no classes apart that it was told of: give the run of a classifier as "
            "a judge"
        )
    return refuse_seen("judge", judge, run, split)


def refuse_seen(role: str, other: Run, run: Run, split: TextSplit) -> str:
    """Refuse a judge or language model that was trained or chosen on what the run learnt from, or on what it is to
    judge.

    Sentences are compared by normalised text: where a corpus keeps no texts, all but those with a word that its
    vocabulary lacks.

    Returns:
        Its model and corpus, and how many of the sentences of the split and of the run's training it has seen.
    """
    corpus = other.corpus
    who = f"the {role} was trained on {corpus.called}"
    if corpus.fingerprint == run.corpus.fingerprint:
        raise ValueError(f"{who}, the very corpus that the run learnt from ({corpus.fingerprint}): train one on others")
    seen = {text for part in (corpus.train, corpus.valid) for text in _known_texts(sentences_of(part), corpus)}
    learnt = set(_known_texts(sentences_of(run.corpus.train), run.corpus))
    told = _known_texts(split, run.corpus)
    if not seen or not learnt or not told:
        raise ValueError(
            f"{who}, whose sentences cannot be compared with the run's: one of the two corpora keeps no texts and has "
            "no sentence without unknown words; set its min_count to 1"
        )
    own = len(seen & learnt)
    if own > MOST * min(len(seen), len(learnt)):
        raise ValueError(
            f"{who}, where {own:,} of the {len(learnt):,} different sentences stand that the run learnt from: train "
            "one on others"
        )
    shared = sum(text in seen for text in told)
    if shared > MOST * len(told):
        raise ValueError(
            f"{who}, where {shared:,} of the {len(told):,} sentences stand that it is to judge: leave them out of its "
            "train and valid (see pyro_nlp.data.Without)"
        )
    left_out = f"; left out {sum(corpus.left_out):,}" if isinstance(corpus, Without) else ""
    return (
        f"{type(other.model).__name__} on {corpus.name}; saw {shared:,} of {len(told):,} here, {own:,} of "
        f"{len(learnt):,} of train{left_out}"
    )


def _known_texts(split: TextSplit, corpus: Corpus) -> list[str]:
    """The sentences of a split, normalised: as the corpus read them where it keeps their texts, else all but those with
    an unknown word or with none at all."""
    kept: Any = getattr(corpus, "texts", {})
    whole = next((n for n in SPLITS if getattr(corpus, n) is split and len(kept.get(n, ())) == len(split)), None)
    texts = kept[whole] if whole else [t for t in texts_of(split, corpus) if "<unk>" not in t.split()]
    return [normalised(text) for text in texts if text]


def content(written: TextSplit, source: TextSplit) -> Interval:
    """Corpus BLEU-4 of sentences with the ones they were made of, and its interval by sacrebleu's own bootstrap.

    Words are compared as the model knows them: an unknown one is like any other, so that a vocabulary with many of them
    flatters.
    """
    # an empty line cannot be resampled alone; a word that nothing matches stands for it
    lines = [line or "-" for line in as_words(written)]
    score = bleu_scorer().corpus_score(lines, [as_words(source)], n_bootstrap=1000)
    return Interval(float(score.score), float(score._mean - score._ci), float(score._mean + score._ci))


def refuse_language_model(language_model: Run, run: Run, split: TextSplit) -> str:
    """Refuse what has no exact density of words, or learnt from what it may not; what it is, as `refuse_seen`."""
    name = type(language_model.model).__name__
    if getattr(language_model.model, "foretells", "") == "labels":
        raise ValueError(f"{name} is no language model: it says nothing of the words")
    if language_model.guide is not None:
        raise ValueError(f"{name} has latents: fluency is by a model that has none, such as sentence_lm")
    return refuse_seen("language model", language_model, run, split)


def fluency(split: TextSplit, corpus: Corpus, language_model: Run) -> tuple[Interval, Interval]:
    """Perplexity under a language model, ends of sentence counted, and the share of the words that it does not know."""
    texts = reread(texts_of(split, corpus), _text_corpus(language_model))
    nll = importance_nll(language_model.model, None, texts).nll
    unknown = np.array([texts.words(row).count(UNK) for row in range(len(texts))])
    sums = [ratio(top, bottom) for top, bottom in ((nll, texts.lengths), (unknown, texts.lengths - 1))]
    perplexity = Interval(*np.exp([sums[0].mean, sums[0].low, sums[0].high]).tolist())
    return perplexity, sums[1]


def judged(judge: Run, split: TextSplit, corpus: Corpus, name: str, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log p(class) by a judge in the order of the run's classes, and the classes asked for."""
    texts = reread(texts_of(split, corpus), _text_corpus(judge))
    _, names = classed(judge.model, judge.corpus, judge.corpus.train)
    found = classify(judge.model, judge.guide, texts, names=names)
    order = [names.index(label) for label in corpus.attributes[name]]
    return found.log_probability[:, order], asked


def accuracy(log_p: np.ndarray, asked: np.ndarray) -> Interval:
    """Share of the sentences with a known class where it is the likeliest."""
    rows = np.flatnonzero(asked >= 0)
    return share(log_p[rows].argmax(1) == asked[rows])


def labels_of(split: TextSplit, name: str, corpus: Corpus) -> np.ndarray:
    column = list(corpus.attributes).index(name)
    if split.attributes is not None:
        return split.attributes[:, column]
    return np.full(len(split), -1) if split.labels is None else split.labels


def known_text(corpus: Corpus) -> tuple[set[Gram], set[Gram]]:
    """The sentences of train, and their runs of four words."""
    train = sentences_of(corpus.train)
    sentences = [tuple(train.words(row)) for row in range(len(train))]
    return set(sentences), {gram for words in sentences for gram in grams(words, 4)}


def sentences_of(split: Any) -> TextSplit:
    if not isinstance(split, TextSplit):
        raise ValueError(f"found a {type(split).__name__} where sentences are wanted")
    return split


def from_code(run: Run, split: TextSplit, most: int = 10_000) -> dict[str, Probe]:
    """How well each attribute is foretold from the mean of q(z | x) alone, by `linear_probe`.

    Fitted to at most `most` training sentences and judged on `split`. Where z and the attribute are independent, as is
    intended, accuracy is that of the commonest class. An attribute that is known of no sentence is left out.
    """
    assert run.guide is not None
    model: Any = run.model
    train = sentences_of(run.corpus.train)
    train = train.take(np.random.default_rng(0).permutation(len(train))[:most])
    codes = [posteriors(run.model, run.guide, part)["z"].mean for part in (train, split)]
    found = {}
    for name in model.attributes:
        labels = [labels_of(part, name, run.corpus) for part in (train, split)]
        if len(np.unique(labels[0][labels[0] >= 0])) > 1 and (labels[1] >= 0).any():
            found[name] = linear_probe(codes[0], labels[0], codes[1], labels[1])
    return found


def _text_corpus(run: Run) -> TextCorpus:
    if not isinstance(run.corpus, TextCorpus):
        raise ValueError(f"{type(run.model).__name__} on {run.corpus.called} reads no sentences: give a run that does")
    return run.corpus
