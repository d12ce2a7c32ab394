"""The posterior over the positions that a decoder looks at, given the word that it wrote there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.data.batches import PairBatch
from pyro_nlp.nn import LSTMEncoder, StateEncoder


class LatentAttentionGuide(PyroModule):
    """q(a_t | x, y) = softmax(g_t W s_i), g_t a state of the target up to and with word t      Deng et al. 2018

    The paper's reads the target in both directions.

    Sites    a  OneHotCategorical, event [S], one for each word of the target
    Plates   words (dim -2), documents (dim -1): the pairs

    Args:
        vocabulary: number of words.
        source: `source(vocabulary)` reads the source, with a state at every word.
        target: `target(vocabulary)` reads the target.
    """

    def __init__(
        self,
        vocabulary: int,
        source: Callable[[int], StateEncoder] = LSTMEncoder,
        target: Callable[[int], StateEncoder] = LSTMEncoder,
    ) -> None:
        super().__init__()
        self.source, self.target = source(vocabulary), target(vocabulary)
        self.query = nn.Linear(self.target.width, self.source.width, bias=False)

    def forward(self, batch: PairBatch) -> None:
        source = self.source.states(batch.first)[batch.group]
        logits = self.query(self.target.states(batch.second)) @ source.transpose(1, 2) / source.shape[-1] ** 0.5
        logits = logits.float().masked_fill(~batch.first.mask[batch.group][:, None], -1e4).transpose(0, 1)
        present: Any = batch.second.mask.T
        with batch.documents(), pyro.plate("words", len(logits), dim=-2), poutine.mask(mask=present):
            pyro.sample("a", dist.OneHotCategorical(logits=logits))
