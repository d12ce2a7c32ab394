"""Inference as a value: estimators, bounds, KL weights and shapes, schedules, updates, and the training loop."""

from pyro_nlp.inference.auxiliary import Auxiliary, BagOfWords, Fraternal, KnownLabels, KnownSequences
from pyro_nlp.inference.baselines import Baseline, LeaveOneOut, Neural, RunningMean
from pyro_nlp.inference.bounds import ELBO, IWAE, Bound, Loss, WakeSleep
from pyro_nlp.inference.control import Control, Dreams
from pyro_nlp.inference.divergence import KL, Capacity, FreeBits, Shape
from pyro_nlp.inference.estimators import (
    REBAR,
    DisARM,
    Enumerate,
    Estimator,
    LocalExpectation,
    Marginalize,
    Pathwise,
    Relax,
    ScoreFunction,
    Signal,
    Subset,
)
from pyro_nlp.inference.fit import Run, fit
from pyro_nlp.inference.folder import RunError, RunFolder
from pyro_nlp.inference.known_tags import KnownTags
from pyro_nlp.inference.loop import Interrupted, NumericalError
from pyro_nlp.inference.pyro_bounds import PyroELBO
from pyro_nlp.inference.schedules import (
    Constant,
    Cyclical,
    Exponential,
    Join,
    Linear,
    Logistic,
    Schedule,
)
from pyro_nlp.inference.semi_amortized import Refined, SemiAmortized
from pyro_nlp.inference.sites import Drawn, SiteTerms, StructureError
from pyro_nlp.inference.strategy import Objective, Strategy
from pyro_nlp.inference.terms import Terms, terms
from pyro_nlp.inference.training import SGD, Adam, Optimizer, Plateau, Training
from pyro_nlp.inference.updates import Aggressive, Alternating, Joint, ResetModel, Updates, WakeSleepPhases
