"""Inference as a value: estimators, bounds, KL weights and shapes, schedules, updates, and the training loop."""

from pyro_nlp.inference.bounds import ELBO, Bound, Loss, PyroELBO
from pyro_nlp.inference.divergence import KL, FreeBits, Shape
from pyro_nlp.inference.estimators import Estimator, Pathwise
from pyro_nlp.inference.fit import Run, fit
from pyro_nlp.inference.folder import RunError, RunFolder
from pyro_nlp.inference.loop import Interrupted, NumericalError
from pyro_nlp.inference.schedules import (
    Constant,
    Cyclical,
    Exponential,
    Join,
    Linear,
    Logistic,
    Schedule,
)
from pyro_nlp.inference.strategy import Objective, Strategy
from pyro_nlp.inference.terms import SiteTerms, StructureError, Terms, terms
from pyro_nlp.inference.training import SGD, Adam, Optimizer, Plateau, Training
from pyro_nlp.inference.updates import Joint, Updates
