"""How good compressions are: ROUGE, the words of the source that are kept, and leads of equal length
(layer: evaluation).

All compare texts as they are written; what a model writes in ids is decoded first (`data.detokenise`). ROUGE is that of
rouge-score, in the extra `metrics`. Its words are runs of letters and digits, lower-cased, and so are the words that
are counted here: punctuation has no part in lengths, rates and kept words, and `they 're` is as long as `they're`.
`<unk>` is the word *unk*: a model that knows the place in the source should write the source's own word. In the
vocabulary of GoogleCompression at a `min_count` of 2, its own compressions of test have a ROUGE-1 of 90 against
themselves.

ROUGE rises with length, and the beginning of a sentence of news is a good summary of it: judge a system beside a lead
of its own length.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from pyro_nlp.data.compression import Summarised, align
from pyro_nlp.evaluation.intervals import Interval, PairedInterval, bootstrap, sign_flips
from pyro_nlp.evaluation.measured import Measured

ROUGES = ("ROUGE-1", "ROUGE-2", "ROUGE-L")
"""Overlap of words, of pairs of neighbours, and the longest common subsequence."""

Several = Literal["best", "mean"]

_RUN = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Rouge:
    """ROUGE-1, -2 and -L of N candidates, 0 to 100.

    Attributes:
        precision, recall, f1: by measure, `[N, 3]`; of the best of several references, or the mean over them.
        references: a hash of these, so that no difference is taken between other examples.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    references: str

    def __len__(self) -> int:
        return len(self.f1)

    @property
    def mean(self) -> dict[str, float]:
        """Mean F1 by measure."""
        return dict(zip(ROUGES, map(float, self.f1.mean(0)), strict=True))

    def intervals(self, resamples: int = 10_000, seed: int = 0) -> dict[str, Interval]:
        """Mean F1 with percentile bootstrap intervals over examples; one resampling serves all three.

        As that of `Ranking`, an interval tells how the mean would vary with other examples.
        """
        bounds = bootstrap(self.f1, resamples, seed)
        return {
            name: Interval(mean, *map(float, bound))
            for (name, mean), bound in zip(self.mean.items(), bounds, strict=True)
        }

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        return {f"{name} F1": _shown(value) for name, value in self.intervals().items()}


def rouge(
    candidates: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    stem: bool = True,
    several: Several = "best",
    max_bytes: int | None = None,
) -> Rouge:
    """ROUGE-1, -2 and -L of every candidate      Lin 2004 (W04-1013)

    Protocol: rouge-score's own tokenisation (lower-cased runs of a-z and 0-9), and the Porter stemmer for words of more
    than three letters. A mean of F1 over examples is what is published for Gigaword and for Google's sentences. That of
    DUC-2004 is mean recall of the first 75 bytes, and the mean over references:
    `rouge(..., several="mean", max_bytes=75).recall.mean(0)`; by the best of its four references it is much higher.
    ROUGE-1.5.5, in Perl, gives slightly other values.

    Example:
        >>> found = rouge(["the dog sat"], [["a dog sat down", "the dog sat"]])  # doctest: +SKIP
        >>> found.mean  # doctest: +SKIP
        {'ROUGE-1': 100.0, 'ROUGE-2': 100.0, 'ROUGE-L': 100.0}

    Args:
        candidates: the texts to be judged; one that is empty scores 0.
        references: one for each, or several.
        stem: take off the endings of words first.
        several: of several references take the one with the highest F1, measure by measure, or the mean over all.
        max_bytes: cut candidates after so many bytes of UTF-8; None to take them whole.

    Raises:
        ValueError: numbers that do not match, no example, or one without a reference.
        ImportError: rouge-score is not installed.
    """
    if several not in get_args(Several):
        raise ValueError(f"several is {several!r}; give best or mean")
    given = [(one,) if isinstance(one, str) else tuple(one) for one in references]
    if len(candidates) != len(given) or not given:
        raise ValueError(f"{len(candidates)} candidates and {len(given)} references: give one for each, at least one")
    for row, right in enumerate(given):
        if not right or not all(one.strip() for one in right):
            raise ValueError(f"example {row} has no reference, or an empty one: {list(right)!r}")
    if max_bytes is not None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}; it must be at least 1")
        candidates = [text.encode()[:max_bytes].decode(errors="ignore") for text in candidates]
    names = ("rouge1", "rouge2", "rougeL")
    scorer = _scorer(names, stem)
    found = []
    for text, right in zip(candidates, given, strict=True):
        if several == "best":
            best = scorer.score_multi(right, text)
            found.append([best[name] for name in names])
        else:
            every = [scorer.score(one, text) for one in right]
            found.append(np.mean([[one[name] for name in names] for one in every], 0))
    values = 100 * np.array(found, np.float64)
    return Rouge(values[..., 0], values[..., 1], values[..., 2], _hash(given))


def compare_rouge(
    first: Rouge, second: Rouge, *, resamples: int = 10_000, permutations: int = 9_999, seed: int = 0
) -> dict[str, PairedInterval]:
    """F1 of the first less the second, example by example, by measure.

    The interval is a percentile bootstrap over examples, and the p-value is of the paired randomisation test, as in
    `compare_rankings`.

    Raises:
        ValueError: the two were not judged by the same references.
    """
    if first.references != second.references:
        raise ValueError(
            f"{len(first)} and {len(second)} examples that have other references: judge both systems on the same ones"
        )
    difference = first.f1 - second.f1
    bounds = bootstrap(difference, resamples, seed)
    p_values = sign_flips(difference, permutations, seed)
    return {
        name: PairedInterval(float(mean), float(low), float(high), float(p))
        for name, mean, (low, high), p in zip(ROUGES, difference.mean(0), bounds, p_values, strict=True)
    }


class Kept(NamedTuple):
    """How well the kept words of a source were chosen, 0 to 1.

    Attributes:
        precision: share of the positions kept that the reference keeps; 0 where none is.
        recall: share of the reference's positions that were kept; 0 where it has none.
        f1: their harmonic mean.
        added: words of the candidate that the source does not have, or not so often.
    """

    precision: float
    recall: float
    f1: float
    added: int


def kept_tokens(source: Sequence[Hashable], candidate: Sequence[Hashable], reference: Sequence[Hashable]) -> Kept:
    """Precision, recall and F1 of the source's positions that are kept      Filippova et al. 2015 (D15-1042)

    Candidate and reference are each laid on the source by `data.compression.align`: a subsequence from left to right,
    each word at the first place after the one before; another text by its longest part that is a subsequence. Both
    follow one rule, so equal texts keep equal positions, whichever of two equal words was meant. Words that are not in
    the source are `added`; they have no position, and neither have words out of their order: precision does not suffer
    from them, ROUGE does.

    Example:
        >>> kept_tokens("a big dog sat down".split(), "a dog sat".split(), "dog sat down".split()).f1.__round__(2)
        0.67

    Args:
        source, candidate, reference: words, or ids.
    """
    kept, wanted = align(source, candidate), align(source, reference)
    both = len(set(kept) & set(wanted))
    precision, recall = both / max(1, len(kept)), both / max(1, len(wanted))
    added = (Counter(candidate) - Counter(source)).total()
    return Kept(precision, recall, 2 * both / max(1, len(kept) + len(wanted)), added)


def keeping(texts: Sequence[Summarised], candidates: Sequence[str]) -> tuple[list[Kept], np.ndarray, float]:
    """Of every candidate the words that are kept, by the reference with the highest F1; whether it is a reference, bool
    `[N]`; the share of texts with a reference that is a subsequence."""
    kept, exact, extractive = [], [], []
    for text, candidate in zip(texts, map(_words, candidates), strict=True):
        source, wanted = _words(text.source), [_words(one) for one in text.references]
        kept.append(max((kept_tokens(source, candidate, one) for one in wanted), key=lambda one: one.f1))
        exact.append(candidate in wanted)
        extractive.append(any(len(align(source, one)) == len(one) for one in wanted))
    return kept, np.array(exact), float(np.mean(extractive))


def lead(source: str, words: int) -> str:
    """The first so many words of a text, as spaces part them: "lead-8" and "lead-10" of the tables."""
    if words < 1:
        raise ValueError(f"a lead of {words} words; take at least 1")
    return " ".join(source.split()[:words])


def leads_of_length(sources: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """For each candidate, the beginning of its source that has as many words (runs of letters and digits)."""
    return [_first(source, len(_words(text))) for source, text in zip(sources, candidates, strict=True)]


def leads_of_rate(sources: Sequence[str], rate: float) -> list[str]:
    """Of each source the first `rate` of its words (runs of letters and digits), to the nearest, at least one."""
    if not rate > 0:
        raise ValueError(f"rate is {rate}; it must be above 0")
    return [_first(source, max(1, round(rate * len(_words(source))))) for source in sources]


def compression_rate(sources: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
    """Words of each candidate over those of its source, `[N]`.

    Raises:
        ValueError: numbers that do not match, or a source without a word.
    """
    if len(sources) != len(candidates):
        raise ValueError(f"{len(sources)} sources and {len(candidates)} candidates: give one for each")
    sizes = [len(_words(source)) for source in sources]
    if 0 in sizes:
        raise ValueError(f"source {sizes.index(0)} has no word: {sources[sizes.index(0)][:60]!r}")
    return np.array([len(_words(text)) / size for text, size in zip(candidates, sizes, strict=True)])


@dataclass(frozen=True)
class CompressionEvaluation(Measured):
    """What is known of a system's compressions of N texts.

    Attributes:
        rouge: against the references.
        precision, recall, f1: of the source's positions that are kept, against the reference with the highest F1,
            0 to 1, `[N]`. They mean something where references are `extractive`.
        exact: whether all words are a reference's, in its order, bool `[N]`.
        added: words that are not the source's, `[N]`.
        rate: words over the source's words, `[N]`.
        extractive: share of the texts with a reference that is a subsequence of the text.
        empty: candidates without a word.
        same_length: ROUGE of the lead that is as long as the candidate, text by text.
        same_rate: ROUGE of the lead of the mean rate.
    """

    rouge: Rouge
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    exact: np.ndarray
    added: np.ndarray
    rate: np.ndarray
    extractive: float
    empty: int
    same_length: Rouge
    same_rate: Rouge

    def __len__(self) -> int:
        return len(self.rate)

    def kept(self, resamples: int = 10_000, seed: int = 0) -> dict[str, Interval]:
        """Means of precision, recall and F1 of kept words, with intervals over texts."""
        values = np.stack([self.precision, self.recall, self.f1], 1)
        bounds = bootstrap(values, resamples, seed)
        return {
            name: Interval(float(mean), *map(float, bound))
            for name, mean, bound in zip(("precision", "recall", "f1"), values.mean(0), bounds, strict=True)
        }

    def over_lead(self) -> dict[str, PairedInterval]:
        """ROUGE less that of the lead of the same length, text by text."""
        return compare_rouge(self.rouge, self.same_length)

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        rows = self.rouge.rows()
        rows |= {f"{name} over a lead of its length": _shown(value) for name, value in self.over_lead().items()}
        rows["lead of the same length"] = " / ".join(f"{v:.2f}" for v in self.same_length.mean.values())
        rows["lead of the mean rate"] = " / ".join(f"{v:.2f}" for v in self.same_rate.mean.values())
        kept = self.kept()
        rows |= {f"kept words, {name}": str(kept[name]) for name in ("precision", "recall")}
        rows["kept words, F1"] = str(kept["f1"])
        rows["equal to a reference"] = f"{self.exact.mean():.1%}"
        rows["compression rate"] = f"{self.rate.mean():.3f}"
        rows["words that are not the source's"] = f"{self.added.mean():.2f} a text"
        rows["references that are subsequences"] = f"{self.extractive:.1%}"
        if self.empty:
            rows["without a word"] = f"{self.empty} of {len(self)}"
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Numbers for JSON; text by text they are left out."""
        return {
            "texts": len(self),
            "rouge": {name: asdict(value) for name, value in self.rouge.intervals().items()},
            "over_lead": {name: asdict(value) for name, value in self.over_lead().items()},
            "same_length": self.same_length.mean,
            "same_rate": self.same_rate.mean,
            "kept": {name: asdict(value) for name, value in self.kept().items()},
            "exact": float(self.exact.mean()),
            "added": float(self.added.mean()),
            "rate": float(self.rate.mean()),
            "extractive": self.extractive,
            "empty": self.empty,
        }


def evaluate_compressions(
    texts: Sequence[Summarised], candidates: Sequence[str], *, stem: bool = True
) -> CompressionEvaluation:
    """Judge a system's compressions, with a lead of equal length beside them.

    Example:
        >>> texts = read_headlines("gigaword_test/gigaword.jsonl")  # doctest: +SKIP
        >>> print(evaluate_compressions(texts, [lead(text.source, 8) for text in texts]).rouge.mean)  # doctest: +SKIP
        {'ROUGE-1': 21.30, 'ROUGE-2': 7.35, 'ROUGE-L': 19.95}

    Args:
        texts: with their references: `corpus.texts["test"]`, or from `read_headlines`.
        candidates: a compression for each, as text.
        stem: as in `rouge`.

    Raises:
        ValueError: numbers that do not match, or a text without a word or a reference.
        ImportError: rouge-score is not installed.
    """
    sources, references = [text.source for text in texts], [text.references for text in texts]
    rate = compression_rate(sources, candidates)
    found = rouge(candidates, references, stem=stem)
    kept, exact, extractive = keeping(texts, candidates)
    precision, recall, f1, added = np.array(kept, np.float64).T
    mean_rate = float(rate.mean())
    at_rate = leads_of_rate(sources, mean_rate) if mean_rate > 0 else [""] * len(sources)
    return CompressionEvaluation(
        found,
        precision,
        recall,
        f1,
        exact,
        added.astype(np.int64),
        rate,
        extractive,
        int((rate == 0).sum()),
        rouge(leads_of_length(sources, candidates), references, stem=stem),
        rouge(at_rate, references, stem=stem),
    )


def _words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits."""
    return _RUN.findall(text.lower())


def _first(text: str, count: int) -> str:
    """The text down to the end of its run number `count`, as it is written."""
    end = 0
    for found, _ in zip(_RUN.finditer(text), range(count), strict=False):
        end = found.end()
    return text[:end]


def _shown(value: Interval) -> str:
    """With two digits after the point, as ROUGE is published."""
    if isinstance(value, PairedInterval):
        return f"{value.mean:+.2f} ({value.low:+.2f} to {value.high:+.2f}), p {value.p_value:.3g}"
    return f"{value.mean:.2f} ({value.low:.2f} to {value.high:.2f})"


def _hash(references: Iterable[tuple[str, ...]]) -> str:
    return hashlib.sha256(repr(list(references)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _scorer(names: Sequence[str], stem: bool) -> Any:
    try:
        rouge_scorer = importlib.import_module("rouge_score.rouge_scorer")
        tokenizers = importlib.import_module("rouge_score.tokenizers")
    except ImportError:
        raise ImportError(
            "ROUGE needs the package rouge-score, which is not installed; pip install 'pyro-nlp[metrics]'"
        ) from None
    # given a tokeniser, it does not log that it takes this one
    return rouge_scorer.RougeScorer(list(names), tokenizer=tokenizers.DefaultTokenizer(stem))
