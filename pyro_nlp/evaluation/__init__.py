"""One evaluation for all: likelihood, collapse, text, tables and pictures."""

from pyro_nlp.evaluation._arviz import read_netcdf, to_arviz, write_netcdf
from pyro_nlp.evaluation.agreement import SeedAgreement, adjusted_rand, linear_cka, seed_agreement
from pyro_nlp.evaluation.calibration import (
    Calibration,
    PredictiveCheck,
    checks_to_xarray,
    predictive_checks,
    simulation_based_calibration,
)
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
from pyro_nlp.evaluation.gaps import InferenceGaps, Refinement, inference_gaps
from pyro_nlp.evaluation.gradients import GradientCheck, exact_gradient, gradient_check, gradient_variance
from pyro_nlp.evaluation.history import training_history
from pyro_nlp.evaluation.importance import (
    ImportanceDiagnostics,
    ImportanceSummary,
    importance_diagnostics,
    pareto_smooth,
)
from pyro_nlp.evaluation.latent import (
    Aggregate,
    MeanSpace,
    Probe,
    aggregate,
    linear_probe,
    mean_space,
    neighbours,
    sensitivity,
    traverse,
)
from pyro_nlp.evaluation.leave_one_out import Loo, loo, loo_of_draws
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
from pyro_nlp.evaluation.references import GridPosterior, NutsPosterior, grid_posterior, nuts_posterior
from pyro_nlp.evaluation.report import Evaluation, evaluate
from pyro_nlp.evaluation.texts import analogy, as_split, codes, impute, interpolate, reconstruct, sample_prior
from pyro_nlp.evaluation.uses import (
    Diversity,
    diversity,
    forward_perplexity,
    interpolant_perplexity,
    reconstruction_bleu,
    reverse_perplexity,
)

__all__ = [
    "Aggregate",
    "Calibration",
    "Difference",
    "Diversity",
    "ElboTerms",
    "Evaluation",
    "GradientCheck",
    "GridPosterior",
    "ImportanceDiagnostics",
    "ImportanceSummary",
    "InferenceGaps",
    "Likelihood",
    "Loo",
    "MeanSpace",
    "MutualInformation",
    "NoDensityError",
    "NutsPosterior",
    "Posteriors",
    "PredictiveCheck",
    "Probe",
    "Refinement",
    "SeedAgreement",
    "active_units",
    "adjusted_rand",
    "aggregate",
    "analogy",
    "as_split",
    "checks_to_xarray",
    "class_posteriors",
    "codes",
    "compare",
    "diversity",
    "elbo_terms",
    "evaluate",
    "exact_gradient",
    "forward_perplexity",
    "gradient_check",
    "gradient_variance",
    "grid_posterior",
    "importance_diagnostics",
    "importance_nll",
    "impute",
    "inference_gaps",
    "interpolant_perplexity",
    "interpolate",
    "linear_cka",
    "linear_probe",
    "loo",
    "loo_of_draws",
    "many_to_one",
    "mcmc_to_arviz",
    "mean_space",
    "mutual_information",
    "neighbours",
    "nuts_posterior",
    "pareto_smooth",
    "perplexity",
    "posterior_to_arviz",
    "posteriors",
    "predictive_checks",
    "read_netcdf",
    "reconstruct",
    "reconstruction_bleu",
    "reverse_perplexity",
    "sample_prior",
    "seed_agreement",
    "sensitivity",
    "shuffled_rise",
    "simulation_based_calibration",
    "to_arviz",
    "training_history",
    "traverse",
    "v_measure",
    "write_netcdf",
]
