"""pyro-nlp: write a text model once, choose how to infer it in one line, know whether to believe the answer.

Importing it sets one global: Pyro's `module_local_params`, so that parameters live in modules and nowhere
else. Modules built before the import do not have it.
"""

import pyro

pyro.settings.set(module_local_params=True)

from pyro_nlp.data import Corpus, TextBatch, Vocabulary  # noqa: E402 (the setting comes first)
from pyro_nlp.evaluation import compare, elbo_terms, evaluate, importance_nll  # noqa: E402
from pyro_nlp.inference import (  # noqa: E402
    ELBO,
    KL,
    Adam,
    Cyclical,
    FreeBits,
    Linear,
    Logistic,
    Pathwise,
    Plateau,
    PyroELBO,
    Run,
    Strategy,
    Training,
    fit,
    terms,
)

__version__ = "0.1.0"

__all__ = [
    "ELBO",
    "KL",
    "Adam",
    "Corpus",
    "Cyclical",
    "FreeBits",
    "Linear",
    "Logistic",
    "Pathwise",
    "Plateau",
    "PyroELBO",
    "Run",
    "Strategy",
    "TextBatch",
    "Training",
    "Vocabulary",
    "compare",
    "elbo_terms",
    "evaluate",
    "fit",
    "importance_nll",
    "terms",
]
