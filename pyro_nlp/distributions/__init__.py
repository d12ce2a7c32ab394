"""Distributions over text, and what their log-probabilities need to be fast."""

from pyro_nlp.distributions.bag_of_words import BagOfWords
from pyro_nlp.distributions.fused import second_derivatives, target_log_prob
from pyro_nlp.distributions.word_sequence import WordSequence

__all__ = ["BagOfWords", "WordSequence", "second_derivatives", "target_log_prob"]
