"""Uses of a latent space: BLEU of reconstructions, perplexity of what is written (layer: evaluation).

Sentences are compared as ids, as the corpus tokenised them: an unknown word equals any other unknown word. BLEU is that
of sacrebleu, in the extra `metrics`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.loading import plan
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation.documents import device_of
from pyro_nlp.evaluation.likelihood import importance_nll, perplexity
from pyro_nlp.evaluation.texts import as_split, interpolate, reconstruct
from pyro_nlp.inference.fit import fit
from pyro_nlp.inference.training import Training


def reconstruction_bleu(
    model: Any,
    guide: nn.Module | None,
    split: TextSplit,
    *,
    batch_size: int = 128,
    max_length: int | None = None,
    **options: Any,
) -> float:
    """Corpus BLEU-4 of sentences rewritten from their posterior means against themselves, 0 to 100.

    Protocol: every sentence is encoded, decoded greedily from its posterior mean, and is its one reference; BLEU of
    Papineni et al. 2002 over the whole split, counts added up before precisions are taken, on the corpus's own tokens
    (sacrebleu, tokenize none, case as it is, smoothing exp, which acts only where no n-gram of an order matches). Ends
    of sentence are not counted as words.

    Args:
        model, guide: what is judged.
        split: the sentences.
        batch_size: of like length, taken together.
        max_length: longest sentence written, its end counted; by default that of the split's longest.
        options: as in `nn.write`, to search otherwise.

    Raises:
        ValueError: a model without latents, or no sentence of four words.
        ImportError: sacrebleu is not installed.
    """
    bleu = bleu_scorer()
    if int(split.lengths.max(initial=0)) <= bleu.max_ngram_order:
        raise ValueError("BLEU-4 wants sentences of at least four words, and there is none: take a larger split")
    longest = int(split.lengths.max()) if max_length is None else max_length
    written, given = [], []
    for rows in plan(split.lengths, batch_size, seed=0, epoch=0, shuffle=False):
        batch = split.batch(rows).to(device_of(model))
        written += as_words(as_split(reconstruct(model, guide, batch, max_length=longest, **options)))
        given += as_words(split.take(rows))
    return float(bleu.corpus_score(written, [given]).score)


def forward_perplexity(lm: nn.Module, samples: TextSplit, *, batch_size: int = 64) -> float:
    """Perplexity of written sentences under a language model trained on real ones, ends of sentence counted.

    Low where samples are fluent, and also where they are all the same: read it beside `reverse_perplexity` or
    `diversity`. With prior samples, Zhao et al. 2018 (arXiv:1706.04223), Cífka et al. 2018 (arXiv:1804.07972).

    Args:
        lm: without latents, or with ones that can be summed out; shares the vocabulary of the samples.
        samples: `as_split(sample_prior(...))`.
        batch_size: sentences taken together.
    """
    return perplexity(importance_nll(lm, None, samples, batch_size=batch_size).nll, samples.tokens)


def reverse_perplexity(
    samples: TextSplit,
    corpus: Corpus,
    make_lm: Callable[[], nn.Module],
    training: Training | None = None,
    seed: int = 0,
    *,
    split: Literal["valid", "test"] = "test",
) -> float:
    """Perplexity of real sentences under a new language model that was trained on written ones.

    It rises where samples are not fluent and where they miss part of the corpus. It depends on the number of samples
    and on the language model: compare at equal ones, and with as many real sentences in the samples' place.
    Zhao et al. 2018 (arXiv:1706.04223), Cífka et al. 2018 (arXiv:1804.07972).

    Args:
        samples: what it is trained on; as many as can be, drawn in batches by `sample_prior`.
        corpus: its own validation split chooses the epoch (and slows training down, as `training` says).
        make_lm: a new language model without latents, for the vocabulary of the corpus.
        training: of the language model.
        seed: of its first weights and its training.
        split: the real sentences it is judged on.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        lm = make_lm()
    run = fit(lm, None, _Written(samples, corpus), training=training, seed=seed)
    return forward_perplexity(run.model, getattr(corpus, split))


def interpolant_perplexity(
    model: Any,
    guide: nn.Module,
    lm: nn.Module,
    split: TextSplit,
    steps: int = 7,
    *,
    batch_size: int = 64,
    **options: Any,
) -> float:
    """Perplexity under a language model of the sentences between pairs of documents, both ends left out.

    Documents 0 and 1, 2 and 3 ... of the split are the ends; a last one without a partner is left out. Greedy.

    Args:
        model, guide: what writes.
        lm: as in `forward_perplexity`.
        split: the documents, in an order in which neighbours have nothing to do with each other.
        steps: sentences of a line, ends included; at least 3.
        batch_size: lines taken together.
        options: as in `nn.write`.

    Raises:
        ValueError: nothing between the ends, no pair, or a model without latents.
    """
    if steps < 3 or len(split) < 2:
        raise ValueError(f"{steps} steps between {len(split)} documents: nothing is between; take 3 or more, and 2")
    ends, found = np.arange(len(split) // 2 * 2), []
    for start in range(0, len(ends), 2 * batch_size):
        batch = split.batch(ends[start : start + 2 * batch_size]).to(device_of(model))
        between = as_split(interpolate(model, guide, batch, steps, **options)[:, 1:-1].flatten(0, 1))
        found += [between.words(row) for row in range(len(between))]
    return forward_perplexity(lm, TextSplit.from_sentences(found))


class _Written(Corpus):
    """Written sentences to train on beside a corpus's real ones to choose and judge by."""

    def __init__(self, samples: TextSplit, corpus: Corpus) -> None:
        self.name, self.reference = f"samples for {corpus.name}", corpus.reference
        self.train, self.valid, self.test = samples, corpus.valid, corpus.test
        self.vocabulary = corpus.vocabulary


def as_words(split: TextSplit) -> list[str]:
    """Every sentence as its ids with spaces between."""
    return [" ".join(map(str, split.words(row))) for row in range(len(split))]


def bleu_scorer(**options: Any) -> Any:
    try:
        sacrebleu = importlib.import_module("sacrebleu")
    except ImportError:
        raise ImportError(
            "BLEU needs the package sacrebleu, which is not installed; pip install 'pyro-nlp[metrics]'"
        ) from None
    # `force`: no warning that text looks tokenised, as it is
    return sacrebleu.BLEU(tokenize="none", force=True, **options)
