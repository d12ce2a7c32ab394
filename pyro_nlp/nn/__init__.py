"""Networks: encoders, decoders, and writing with them. All take any left batch dimensions."""

from pyro_nlp.nn.cat import cat
from pyro_nlp.nn.decoders import Decoder, GRUDecoder, InputlessDecoder, LSTMDecoder
from pyro_nlp.nn.encoders import CategoricalHead, Encoder, GaussianHead, GRUEncoder, LSTMEncoder, pool
from pyro_nlp.nn.writing import BLANK, write

__all__ = [
    "BLANK",
    "CategoricalHead",
    "Decoder",
    "Encoder",
    "GRUDecoder",
    "GRUEncoder",
    "GaussianHead",
    "InputlessDecoder",
    "LSTMDecoder",
    "LSTMEncoder",
    "cat",
    "pool",
    "write",
]
