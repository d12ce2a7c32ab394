"""pyro-nlp: write a text model once, choose how to infer it in one line, know whether to believe the answer.

Importing it sets one global: Pyro's `module_local_params`, so that parameters live in modules and nowhere
else. Modules built before the import do not have it.
"""

import pyro

pyro.settings.set(module_local_params=True)

from pyro_nlp.data import Corpus, TextBatch, Vocabulary  # noqa: E402 (the setting comes first)
from pyro_nlp.evaluation import compare, elbo_terms, evaluate, gradient_check, importance_nll  # noqa: E402
from pyro_nlp.inference import (  # noqa: E402
    ELBO,
    IWAE,
    KL,
    REBAR,
    Adam,
    Cyclical,
    DisARM,
    Enumerate,
    Exponential,
    FreeBits,
    LeaveOneOut,
    Linear,
    LocalExpectation,
    Logistic,
    Marginalize,
    Neural,
    Pathwise,
    Plateau,
    PyroELBO,
    Relax,
    Run,
    RunningMean,
    ScoreFunction,
    Strategy,
    Subset,
    Training,
    WakeSleep,
    fit,
    terms,
)

__version__ = "0.1.0"

__all__ = [
    "ELBO",
    "IWAE",
    "KL",
    "REBAR",
    "Adam",
    "Corpus",
    "Cyclical",
    "DisARM",
    "Enumerate",
    "Exponential",
    "FreeBits",
    "LeaveOneOut",
    "Linear",
    "LocalExpectation",
    "Logistic",
    "Marginalize",
    "Neural",
    "Pathwise",
    "Plateau",
    "PyroELBO",
    "Relax",
    "Run",
    "RunningMean",
    "ScoreFunction",
    "Strategy",
    "Subset",
    "TextBatch",
    "Training",
    "Vocabulary",
    "WakeSleep",
    "compare",
    "elbo_terms",
    "evaluate",
    "fit",
    "gradient_check",
    "importance_nll",
    "terms",
]
