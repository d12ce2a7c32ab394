"""How well a model compresses: ROUGE, kept words, and what the model itself says of what it wrote, in one table beside
`report`'s (layer: evaluation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from pyro_nlp.data.compression import CompressionCorpus
from pyro_nlp.evaluation.compressing import Compressions, compress
from pyro_nlp.evaluation.compression import (
    CompressionEvaluation,
    compression_rate,
    evaluate_compressions,
    keeping,
)
from pyro_nlp.evaluation.measured import Measured
from pyro_nlp.evaluation.surface import source_words, written_texts
from pyro_nlp.inference.training import Precision

BEAM = 8


@dataclass(frozen=True)
class CompressionReport(Measured):
    """What is known of a model's compressions of one split.

    Attributes:
        found: the compressions, by beam search.
        judged: against the references; None where rouge-score is not installed.
        missing: then what to do about it.
        f1: of the source's positions that are kept, the mean over texts, 0 to 1.
        rate: words over the source's words, the mean over texts.
    """

    found: Compressions
    judged: CompressionEvaluation | None
    missing: str
    f1: float
    rate: float

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        if self.judged is not None:
            rows = self.judged.rows()
        else:
            rows = {"ROUGE": self.missing, "kept words, F1": f"{self.f1:.4f}", "compression rate": f"{self.rate:.3f}"}
        rows["log q(c | s)"] = f"{self.found.log_q.mean():.2f} nats"
        rows["perplexity under the prior p(c)"] = f"{self.found.prior_perplexity:.1f}"
        rows["reconstruction, -log p(s | c)"] = f"{self.found.reconstruction:.2f} nats"
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Numbers for JSON; text by text they are left out."""
        made: dict[str, Any] = {"texts": len(self.found), "beam": BEAM, "rouge": None}
        made |= {"f1": self.f1, "rate": self.rate}
        if self.judged is not None:
            made |= self.judged.as_dict()
        return made | {
            "log_q": float(self.found.log_q.mean()),
            "prior_perplexity": self.found.prior_perplexity,
            "reconstruction": self.found.reconstruction,
        }


def report_compressions(
    model: nn.Module,
    guide: nn.Module,
    corpus: CompressionCorpus,
    split: str = "test",
    *,
    precision: Precision = "float32",
) -> CompressionReport:
    """Compress a split by beam search and judge it by the references, which the model does not see.

    Example:
        >>> found = report_compressions(run.model, run.guide, corpus)  # doctest: +SKIP
        >>> print(found.f1, found.prior_perplexity)  # doctest: +SKIP
        0.61 74.2

    Raises:
        TypeError: a guide that writes no compressions.
    """
    found = compress(model, guide, getattr(corpus, split), "beam", beam=BEAM, precision=precision)
    texts = corpus.texts[split]
    written = written_texts(found, source_words(corpus, split), corpus.vocabulary)
    judged, missing = None, ""
    try:
        judged = evaluate_compressions(texts, written)
        f1, rate = float(judged.f1.mean()), float(judged.rate.mean())
    except ImportError as error:
        missing = str(error)
        f1 = float(np.mean([one.f1 for one in keeping(texts, written)[0]]))
        rate = float(compression_rate([text.source for text in texts], written).mean())
    return CompressionReport(found, judged, missing, f1, rate)
