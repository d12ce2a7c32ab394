"""Grammars of sentences whose rules come from networks: the neural PCFG, and the compound one with a code per sentence.

No layer reads a symbol and the code together but by their sum, so that what is made of the symbol is made once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, EOS, PAD, TextBatch
from pyro_nlp.distributions.charts import Tree
from pyro_nlp.distributions.emissions import Emissions
from pyro_nlp.distributions.grammars import BLANK
from pyro_nlp.distributions.pcfg import PCFG
from pyro_nlp.nn.sizes import refuse_none


class CompoundPCFG(PyroModule):
    """p(z) sum over trees of p(root | z) prod p(A -> b c | z) prod p(word | T, z)   Kim et al. 2019 (arXiv:1906.10225)

    Every sentence has a grammar of its own, by z. The trees leave the model: `x` is their exact marginal given z. A
    tree says by itself where a sentence ends, so `</s>` is no part of `x`; perplexity still divides by words and ends
    of sentence, as is published for grammars. `parse` finds the likeliest tree.

    Sites    z  Normal(0, 1), event [latent]
             x  PCFG, event [T - 1]: the words, without `</s>` and padding
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z.
        nonterminals: symbols of two words and more.
        preterminals: symbols of one word.
        width: size of the vectors of symbols.
        single_words: let the root be a preterminal, so that a sentence may be one word; in the paper's grammar it may
            not, and such a sentence is an error.
    """

    plates = 1

    def __init__(
        self,
        vocabulary: int,
        latent: int = 64,
        nonterminals: int = 30,
        preterminals: int = 60,
        width: int = 256,
        single_words: bool = False,
    ) -> None:
        super().__init__()
        if latent < 1 and not isinstance(self, NeuralPCFG):
            raise ValueError(f"CompoundPCFG: latent is {latent}; a grammar without z and guide is NeuralPCFG")
        refuse_none(self, nonterminals=nonterminals, preterminals=preterminals)
        symbols = nonterminals + preterminals
        self.latent, self.nonterminals = latent, nonterminals
        self.root_symbol = nn.Parameter(torch.empty(1, width))
        self.nonterminal_symbols = nn.Parameter(torch.empty(nonterminals, width))
        self.preterminal_symbols = nn.Parameter(torch.empty(preterminals, width))
        self.rules = nn.Linear(width, symbols**2)
        self.root = _Residual(width, latent)
        self.root_head = nn.Linear(width, symbols if single_words else nonterminals)
        self.words = _Residual(width, latent)
        self.words_head = nn.Linear(width, vocabulary)
        if latent:
            self.rules_of_code = nn.Linear(latent, symbols**2, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, batch: TextBatch) -> None:
        with batch.documents():
            z = self._code()
            pyro.sample("x", self.sentences(z, batch.mask[:, 1:]), obs=batch.targets[:, :-1])

    def _code(self) -> Tensor | None:
        prior = dist.Normal(self.root_symbol.new_zeros(self.latent), 1.0).to_event(1)
        found: Tensor = pyro.sample("z", prior)
        return found

    def sentences(self, z: Tensor | None, mask: Tensor) -> PCFG:
        """The grammars by z `[..., B, latent]`, for sentences whose words the mask `[B, T]` has."""
        root = self.root_head(self.root(self.root_symbol, z)).squeeze(-2)
        rules = self.rules(self.nonterminal_symbols)
        shift = None if z is None else self.rules_of_code(z)
        states = self.words(self.preterminal_symbols, z)
        return PCFG(root, rules, Emissions(states, self.words_head.weight, self.words_head.bias), mask, shift)

    def parse(self, batch: TextBatch, z: Tensor | None = None) -> tuple[list[Tree], Tensor]:
        """The likeliest tree of each sentence, as in the paper, and its log-probability with the words, `[B]`.

        Args:
            batch: sentences of two words and more.
            z: what their grammars are made of, `[B, latent]`: the posterior mean, `codes(model, guide, batch)["z"]`.
        """
        if self.latent and z is None:
            raise ValueError(
                f"{type(self).__name__}.parse: give z, the mean of q(z | x): codes(model, guide, batch)['z']"
            )
        return self.sentences(z, batch.mask[:, 1:]).viterbi(batch.targets[:, :-1])

    @torch.no_grad()
    def generate(
        self,
        latents: Mapping[str, Tensor],
        count: int = 1,
        method: str = "ancestral",
        max_length: int = 30,
        temperature: float = 1.0,
        template: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Sentences from codes: `z` `[R, latent]` to ids `[R, L]`, each ended by `</s>` and then padded.

        Args:
            latents: `z`; without it `count` sentences are written.
            count: how many, where there are no latents.
            method: `ancestral` draws a length of at most max_length, a tree of that length, and its words; `greedy` and
                `beam` alike give the likeliest words and tree together of the likeliest length: no search is needed.
            max_length: longest sentence, `</s>` counted; at least 3.
            temperature: divides all logits of `ancestral`; 0 is greedy.
            template: ids `[R, L]` with `</s>`, to be kept, and -1 where a word is to be filled in; fixes the lengths.
        """
        if max_length < 3:
            raise ValueError(f"max_length is {max_length}; two words and their end are the least")
        z = latents.get("z")
        rows = count if z is None else len(z)
        hot = temperature if method == "ancestral" and temperature else 1.0
        size = (max_length if template is None else template.shape[1]) - 1
        mask = torch.ones(rows, size, dtype=torch.bool, device=self.root_symbol.device)
        grammar = _writing(self.sentences(z, mask), hot)
        if template is not None:
            mask = ((template != EOS) & (template != PAD))[:, :-1]
            words = _over(grammar, mask).complete(template[:, :-1])
            return _ended(words, mask)
        lengths = grammar.log_lengths(size)
        if z is None:
            lengths = lengths.expand(rows, -1)
        if method == "ancestral" and temperature:
            drawn = dist.Categorical(logits=lengths).sample() + 1
            mask = torch.arange(size, device=mask.device) < drawn[:, None]
            return _ended(_over(grammar, mask).sample(), mask)
        mask = torch.arange(size, device=mask.device) < lengths.argmax(1)[:, None] + 1
        return _ended(_over(grammar, mask).complete(torch.full_like(mask, BLANK, dtype=torch.long)), mask)


class NeuralPCFG(CompoundPCFG):
    """sum over trees of p(root) prod p(A -> b c) prod p(word | T)                   Kim et al. 2019 (arXiv:1906.10225)

    The compound PCFG without a code: one grammar for all sentences, and no guide. Its likelihood is exact.

    Sites    x  PCFG, event [T - 1]: the words, without `</s>` and padding
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        nonterminals: symbols of two words and more.
        preterminals: symbols of one word.
        width: size of the vectors of symbols.
        single_words: let the root be a preterminal, so that a sentence may be one word.
    """

    def __init__(
        self,
        vocabulary: int,
        nonterminals: int = 30,
        preterminals: int = 60,
        width: int = 256,
        single_words: bool = False,
    ) -> None:
        super().__init__(vocabulary, 0, nonterminals, preterminals, width, single_words)

    def _code(self) -> None:
        return None


class _Residual(nn.Module):
    """A linear layer over a symbol and z, and two residual layers of two linear ones with ReLU."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.symbol = nn.Linear(width, width)
        self.code = nn.Linear(latent, width, bias=False) if latent else None
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, symbols: Tensor, z: Tensor | None) -> Tensor:
        """Symbols `[S, width]` and z `[..., latent]` to `[..., S, width]`; without z `[S, width]`."""
        hidden = self.symbol(symbols)
        if z is not None and self.code is not None:
            hidden = hidden + self.code(z)[..., None, :]
        for first, second in zip(self.layers[0::2], self.layers[1::2], strict=True):
            hidden = hidden + F.relu(second(F.relu(first(hidden))))
        return hidden


def _writing(grammar: PCFG, temperature: float) -> PCFG:
    """The grammar with its logits divided, and without the words that are none."""
    states, weight, bias = grammar.emissions
    assert weight is not None and bias is not None
    bias = bias / temperature
    bias[[PAD, BOS, EOS]] = -torch.inf
    shift = None if grammar.shift is None else grammar.shift / temperature
    root, rules = grammar.root / temperature, grammar.rules / temperature
    return PCFG(root, rules, Emissions(states, weight / temperature, bias), grammar.mask_, shift)


def _over(grammar: PCFG, mask: Tensor) -> PCFG:
    return PCFG(grammar.root, grammar.rules, grammar.emissions, mask, grammar.shift)


def _ended(words: Tensor, mask: Tensor) -> Tensor:
    """Words `[R, T]` with `</s>` after the last and padding after that, `[R, T + 1]`."""
    words = F.pad(words.masked_fill(~mask, PAD), (0, 1), value=PAD)
    return words.scatter(1, mask.sum(1, keepdim=True), EOS)
