"""Writing text with a decoder: ancestral sampling, greedy and beam search, filling blanks (layer: nn)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, EOS, PAD
from pyro_nlp.nn.decoders import Decoder

Method = Literal["ancestral", "greedy", "beam"]
BLANK = -1
"""Marks a position to be filled in the `template` of `write`."""


@torch.no_grad()
def write(
    decoder: Decoder,
    head: nn.Linear,
    z: Tensor,
    method: Method = "greedy",
    max_length: int = 60,
    beam: int = 10,
    temperature: float = 1.0,
    template: Tensor | None = None,
) -> Tensor:
    """Sentences from codes: z `[R, latent]` to ids `[R, L]`, each ended by `</s>` and then padded.

    Args:
        decoder: gives the states.
        head: the vocabulary layer.
        z: a code per sentence; `[R, 0]` for a language model.
        method: `ancestral` draws from the model, `greedy` takes the likeliest word, `beam` searches.
        max_length: longest sentence, its end counted; a sentence that has not ended by then is ended there.
        beam: hypotheses kept per sentence by `beam`.
        temperature: divides the logits of `ancestral`.
        template: ids `[R, L]` to be kept, with `BLANK` where a word is to be filled in; fixes the length.
    """
    if method not in ("ancestral", "greedy", "beam"):
        raise ValueError(f"method is 'ancestral', 'greedy' or 'beam', not {method!r}")
    if template is not None:
        max_length = template.shape[1]
    was_training = decoder.training
    decoder.eval()
    try:
        if method == "beam":
            return _beam(decoder, head, z, max_length, beam, template)
        return _one_by_one(decoder, head, z, max_length, temperature if method == "ancestral" else 0.0, template)
    finally:
        decoder.train(was_training)


def write_softly(
    decoder: Decoder, head: nn.Linear, z: Tensor, temperature: float, max_length: int, hard: bool = False
) -> tuple[Tensor, Tensor]:
    """Sentences as points of the simplex, softmax(logits / T) word by word, each read by the next.

    Gradients reach z and the decoder. Hu et al. 2017 (arXiv:1703.00955), section 3.2.

    Args:
        decoder: a recurrent one, which reads such points.
        head: the vocabulary layer.
        z: a code per sentence, `[R, latent]`.
        temperature: T; towards 0 the points become words.
        max_length: longest sentence, its end counted.
        hard: straight-through: the words themselves, with the gradient of the points.

    Returns:
        Words `[R, L, V]`, and the mask `[R, L]`: a sentence ends where `</s>` is the likeliest word.
    """
    never = torch.zeros(head.out_features, device=z.device)
    never[[PAD, BOS]] = -1e4
    words = nn.functional.one_hot(torch.full((len(z),), BOS, device=z.device), head.out_features).to(z.dtype)
    ended = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    state, written, mask = decoder.start(z), [], []
    for _ in range(max_length):
        hidden, state = decoder.step(state, words)
        words = ((head(hidden).float() + never) / temperature).softmax(-1)
        likeliest = words.argmax(-1)
        if hard:
            words = nn.functional.one_hot(likeliest, words.shape[-1]) + (words - words.detach())
        written.append(words)
        mask.append(~ended)
        ended = ended | (likeliest == EOS)
        if bool(ended.all()):
            break
    return torch.stack(written, 1), torch.stack(mask, 1)


def _log_probs(head: nn.Linear, hidden: Tensor, position: int, max_length: int, template: Tensor | None) -> Tensor:
    """log p(next word) `[R, V]`, with what may not stand at this position at -inf."""
    log_p = head(hidden).float().log_softmax(-1)
    log_p[:, [PAD, BOS]] = -torch.inf
    if template is None:
        if position == max_length - 1:
            end = log_p[:, EOS].clone()
            log_p.fill_(-torch.inf)[:, EOS] = end
        return log_p
    fixed = template[:, position]
    kept = log_p.gather(1, fixed.clamp(min=0)[:, None])
    kept = torch.where(torch.isfinite(kept), kept, torch.zeros_like(kept))  # padding after the end costs nothing
    only = torch.full_like(log_p, -torch.inf).scatter_(1, fixed.clamp(min=0)[:, None], kept)
    log_p[:, EOS] = -torch.inf  # a blank is a word
    return torch.where((fixed == BLANK)[:, None], log_p, only)


def _one_by_one(
    decoder: Decoder, head: nn.Linear, z: Tensor, max_length: int, temperature: float, template: Tensor | None
) -> Tensor:
    rows = len(z)
    words = torch.full((rows,), BOS, device=z.device)
    ended = torch.zeros(rows, dtype=torch.bool, device=z.device)
    state, written = decoder.start(z), []
    for t in range(max_length):
        hidden, state = decoder.step(state, words)
        log_p = _log_probs(head, hidden, t, max_length, template)
        words = log_p.argmax(-1) if temperature == 0 else draw((log_p / temperature).softmax(-1))
        words = words.masked_fill(ended, PAD)
        written.append(words)
        ended = ended | (words == EOS)
        if bool(ended.all()):
            break
    return torch.stack(written, 1)


def draw(probabilities: Tensor) -> Tensor:
    """A class for every row, `[R, K]` to ids `[R]`, by the inverse of the cumulative sum: a random number a row, where
    `torch.multinomial` takes one for every class, and nearly all of the time of writing."""
    cumulative = probabilities.double().cumsum(-1)
    point = torch.rand(len(probabilities), 1, dtype=torch.double, device=probabilities.device) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, point, right=True).squeeze(1).clamp(max=probabilities.shape[1] - 1)


def _beam(decoder: Decoder, head: nn.Linear, z: Tensor, max_length: int, beam: int, template: Tensor | None) -> Tensor:
    """The best finished hypothesis by total log-probability, all sentences searched at once."""
    rows, device = len(z), z.device
    state = decoder.start(z.repeat_interleave(beam, 0))
    template = None if template is None else template.repeat_interleave(beam, 0)
    words = torch.full((rows * beam,), BOS, device=device)
    score = torch.full((rows, beam), -torch.inf, device=device)
    score[:, 0] = 0.0  # all hypotheses start alike: keep one
    ended = torch.zeros(rows, beam, dtype=torch.bool, device=device)
    written = torch.empty(rows, beam, 0, dtype=torch.long, device=device)
    for t in range(max_length):
        hidden, state = decoder.step(state, words)
        log_p = _log_probs(head, hidden, t, max_length, template).view(rows, beam, -1)
        stay = torch.full_like(log_p, -torch.inf)
        stay[..., PAD] = 0.0  # a finished hypothesis goes on as padding, at no cost
        log_p = torch.where(ended[..., None], stay, log_p)
        score, flat = (score[..., None] + log_p).flatten(1).topk(beam)
        parent, words = flat.div(log_p.shape[-1], rounding_mode="floor"), flat % log_p.shape[-1]
        ended = ended.gather(1, parent) | (words == EOS)
        written = torch.cat([written.gather(1, parent[..., None].expand_as(written)), words[..., None]], -1)
        if bool(ended.all()):
            break
        row = (torch.arange(rows, device=device)[:, None] * beam + parent).flatten()
        state = tuple(s[row] for s in state)
        words = words.flatten()
    return written[:, 0]
