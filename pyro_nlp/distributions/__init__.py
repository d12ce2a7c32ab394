"""Distributions over text, and what their log-probabilities need to be fast."""

from pyro_nlp.distributions.autoregressive_normal import AutoregressiveNormal
from pyro_nlp.distributions.bag_of_words import BagOfWords, TopicMixture
from pyro_nlp.distributions.flow import Flow
from pyro_nlp.distributions.fused import second_derivatives, target_log_prob, uneven_rows
from pyro_nlp.distributions.hidden_markov import HiddenMarkov
from pyro_nlp.distributions.von_mises_fisher import HypersphericalUniform, VonMisesFisher
from pyro_nlp.distributions.word_sequence import WordSequence
from pyro_nlp.distributions.written import Written

__all__ = [
    "AutoregressiveNormal",
    "BagOfWords",
    "Flow",
    "HiddenMarkov",
    "HypersphericalUniform",
    "TopicMixture",
    "VonMisesFisher",
    "WordSequence",
    "Written",
    "second_derivatives",
    "target_log_prob",
    "uneven_rows",
]
