"""Distributions over text, and what their log-probabilities need to be fast."""

from pyro_nlp.distributions.bag_of_words import BagOfWords
from pyro_nlp.distributions.fused import second_derivatives, target_log_prob, uneven_rows
from pyro_nlp.distributions.hidden_markov import HiddenMarkov
from pyro_nlp.distributions.word_sequence import WordSequence

__all__ = ["BagOfWords", "HiddenMarkov", "WordSequence", "second_derivatives", "target_log_prob", "uneven_rows"]
