"""Whether a run is to be believed: all that can be measured of it, as data and as one page (layer: recipe)."""

from pyro_nlp.diagnosis.diagnoses import Diagnoses, Diagnosis, diagnose, diagnose_runs
from pyro_nlp.diagnosis.files import as_dict, save, save_posteriors
from pyro_nlp.diagnosis.page import page

__all__ = ["Diagnoses", "Diagnosis", "as_dict", "diagnose", "diagnose_runs", "page", "save", "save_posteriors"]
