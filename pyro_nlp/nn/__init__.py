"""Networks: encoders, decoders, and writing with them. All take any left batch dimensions."""

from pyro_nlp.nn.attention import AnswerAttention
from pyro_nlp.nn.batch_norm import BatchNorm
from pyro_nlp.nn.block_emissions import BlockEmissions
from pyro_nlp.nn.cat import cat
from pyro_nlp.nn.chains import (
    Emissions,
    LowRankTransitions,
    LSTMTransitions,
    SecondOrderTransitions,
    SpelledEmissions,
    StateTransitions,
    TableEmissions,
    TableTransitions,
    Transitions,
    WordEmissions,
)
from pyro_nlp.nn.count_encoder import CountEncoder, NormalisedHead
from pyro_nlp.nn.decoders import Decoder, GRUDecoder, InputlessDecoder, LSTMDecoder
from pyro_nlp.nn.dilated import DilatedCNNDecoder
from pyro_nlp.nn.encoders import CNNEncoder, Encoder, GRUEncoder, LSTMEncoder, StateEncoder, pool
from pyro_nlp.nn.heads import BatchNormHead, CategoricalHead, CommittedHead, GaussianHead, Head
from pyro_nlp.nn.meeting import meet_corpus
from pyro_nlp.nn.priors import AutoregressivePrior, MixturePrior, Prior, StandardNormal, UniformSphere, VampPrior
from pyro_nlp.nn.spelling import CharacterCNN
from pyro_nlp.nn.transformer import TransformerDecoder
from pyro_nlp.nn.writing import BLANK, write, write_softly

__all__ = [
    "BLANK",
    "AnswerAttention",
    "AutoregressivePrior",
    "BatchNorm",
    "BatchNormHead",
    "BlockEmissions",
    "CNNEncoder",
    "CategoricalHead",
    "CharacterCNN",
    "CommittedHead",
    "CountEncoder",
    "Decoder",
    "DilatedCNNDecoder",
    "Emissions",
    "Encoder",
    "GRUDecoder",
    "GRUEncoder",
    "GaussianHead",
    "Head",
    "InputlessDecoder",
    "LSTMDecoder",
    "LSTMEncoder",
    "LSTMTransitions",
    "LowRankTransitions",
    "MixturePrior",
    "NormalisedHead",
    "Prior",
    "SecondOrderTransitions",
    "SpelledEmissions",
    "StandardNormal",
    "StateEncoder",
    "StateTransitions",
    "TableEmissions",
    "TableTransitions",
    "TransformerDecoder",
    "Transitions",
    "UniformSphere",
    "VampPrior",
    "WordEmissions",
    "cat",
    "meet_corpus",
    "pool",
    "write",
    "write_softly",
]
