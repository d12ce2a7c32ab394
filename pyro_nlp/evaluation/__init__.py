"""One evaluation for all: likelihood, collapse, text, tables and pictures."""

from pyro_nlp.evaluation._arviz import read_netcdf, to_arviz, write_netcdf
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
from pyro_nlp.evaluation.importance import (
    ImportanceDiagnostics,
    ImportanceSummary,
    importance_diagnostics,
    pareto_smooth,
)
from pyro_nlp.evaluation.likelihood import (
    Difference,
    ElboTerms,
    Likelihood,
    compare,
    elbo_terms,
    importance_nll,
    perplexity,
)
from pyro_nlp.evaluation.posterior import mcmc_to_arviz, posterior_to_arviz
from pyro_nlp.evaluation.report import Evaluation, evaluate
from pyro_nlp.evaluation.texts import as_split, codes, impute, interpolate, reconstruct, sample_prior

__all__ = [
    "Difference",
    "ElboTerms",
    "Evaluation",
    "GradientCheck",
    "ImportanceDiagnostics",
    "ImportanceSummary",
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
    "importance_diagnostics",
    "importance_nll",
    "impute",
    "interpolate",
    "many_to_one",
    "mcmc_to_arviz",
    "mutual_information",
    "pareto_smooth",
    "perplexity",
    "posterior_to_arviz",
    "posteriors",
    "read_netcdf",
    "reconstruct",
    "sample_prior",
    "shuffled_rise",
    "to_arviz",
    "v_measure",
    "write_netcdf",
]
