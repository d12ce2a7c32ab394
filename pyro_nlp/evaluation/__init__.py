"""One evaluation for all: likelihood, collapse, text, tables and pictures."""

from pyro_nlp.evaluation.clustering import many_to_one, v_measure
from pyro_nlp.evaluation.collapse import (
    MutualInformation,
    Posteriors,
    active_units,
    mutual_information,
    posteriors,
    shuffled_rise,
)
from pyro_nlp.evaluation.discrete import class_posteriors
from pyro_nlp.evaluation.documents import NoDensityError
from pyro_nlp.evaluation.gradients import GradientCheck, exact_gradient, gradient_check, gradient_variance
from pyro_nlp.evaluation.likelihood import (
    Difference,
    ElboTerms,
    Likelihood,
    compare,
    elbo_terms,
    importance_nll,
    perplexity,
)
from pyro_nlp.evaluation.report import Evaluation, evaluate
from pyro_nlp.evaluation.texts import as_split, codes, impute, interpolate, reconstruct, sample_prior

__all__ = [
    "Difference",
    "ElboTerms",
    "Evaluation",
    "GradientCheck",
    "Likelihood",
    "MutualInformation",
    "NoDensityError",
    "Posteriors",
    "active_units",
    "as_split",
    "class_posteriors",
    "codes",
    "compare",
    "elbo_terms",
    "evaluate",
    "exact_gradient",
    "gradient_check",
    "gradient_variance",
    "importance_nll",
    "impute",
    "interpolate",
    "many_to_one",
    "mutual_information",
    "perplexity",
    "posteriors",
    "reconstruct",
    "sample_prior",
    "shuffled_rise",
    "v_measure",
]
