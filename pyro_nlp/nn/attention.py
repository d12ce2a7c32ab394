"""Where a vector looks in a text (layer: nn)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AnswerAttention(nn.Module):
    """A question's vector reads an answer: Miao et al. 2016 (arXiv:1511.06038), eq. 12 to 15.

    e_i = w . tanh(A h + B s_i), alpha = softmax(e), z = tanh(C sum_i alpha_i s_i + D s_last).

    Args:
        question: size of h.
        answer: size of a state s_i.
        width: size of the layer that compares them.
        out: size of z.
    """

    def __init__(self, question: int, answer: int, width: int, out: int) -> None:
        super().__init__()
        self.of_question, self.of_state = nn.Linear(question, width, bias=False), nn.Linear(answer, width)
        self.energy = nn.Linear(width, 1, bias=False)
        self.of_context, self.of_last = nn.Linear(answer, out, bias=False), nn.Linear(answer, out)

    def forward(self, h: Tensor, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The answer as the question sees it, `[..., B, out]`, and where it looked, `[..., B, T]`.

        Args:
            h: `[..., B, question]`.
            states: `[B, T, answer]`.
            mask: real positions, `[B, T]`; what is not has no weight.
        """
        energy = self.energy((self.of_question(h)[..., None, :] + self.of_state(states)).tanh()).squeeze(-1)
        where = energy.float().masked_fill(~mask, -torch.inf).softmax(-1).to(states.dtype)
        context = (where[..., None, :] @ states).squeeze(-2)
        last = states[torch.arange(len(states), device=states.device), mask.sum(-1) - 1]
        return (self.of_context(context) + self.of_last(last)).tanh(), where
