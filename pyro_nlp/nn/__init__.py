"""Networks: encoders, decoders, and writing with them. All take any left batch dimensions."""

from pyro_nlp.nn.attention import AnswerAttention
from pyro_nlp.nn.batch_norm import BatchNorm
from pyro_nlp.nn.cat import cat
from pyro_nlp.nn.count_encoder import CountEncoder, NormalisedHead
from pyro_nlp.nn.decoders import Decoder, GRUDecoder, InputlessDecoder, LSTMDecoder
from pyro_nlp.nn.dilated import DilatedCNNDecoder
from pyro_nlp.nn.encoders import CNNEncoder, Encoder, GRUEncoder, LSTMEncoder, StateEncoder, pool
from pyro_nlp.nn.heads import BatchNormHead, CategoricalHead, CommittedHead, GaussianHead, Head
from pyro_nlp.nn.priors import AutoregressivePrior, MixturePrior, Prior, StandardNormal, UniformSphere, VampPrior
from pyro_nlp.nn.transformer import TransformerDecoder
from pyro_nlp.nn.writing import BLANK, write

__all__ = [
    "BLANK",
    "AnswerAttention",
    "AutoregressivePrior",
    "BatchNorm",
    "BatchNormHead",
    "CNNEncoder",
    "CategoricalHead",
    "CommittedHead",
    "CountEncoder",
    "Decoder",
    "DilatedCNNDecoder",
    "Encoder",
    "GRUDecoder",
    "GRUEncoder",
    "GaussianHead",
    "Head",
    "InputlessDecoder",
    "LSTMDecoder",
    "LSTMEncoder",
    "MixturePrior",
    "NormalisedHead",
    "Prior",
    "StandardNormal",
    "StateEncoder",
    "TransformerDecoder",
    "UniformSphere",
    "VampPrior",
    "cat",
    "pool",
    "write",
]
