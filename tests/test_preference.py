"""The VAE small enough to enumerate whose exact optimum ignores z (`benchmarks/preference.py`)."""

from __future__ import annotations

import pytest
import torch

import tests.tiny  # noqa: F401 (PyTorch's first optimiser sets an environment variable, and there it is made)
from benchmarks.preference import Decoder, entropy, optimum, terms


@pytest.mark.parametrize("decoder", ["autoregressive", "independent"])
def test_no_bound_is_above_the_entropy_and_a_decoder_that_ignores_z_has_the_texts_own(decoder: Decoder) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        parameters = torch.randn(13, dtype=torch.float64, generator=generator)
        reconstruction, kl = terms(parameters, decoder)
        assert kl >= 0 and reconstruction + kl > entropy() - 1e-9
    silent = torch.zeros(13, dtype=torch.float64)  # q is the prior, no slope, no copying: four texts alike
    reconstruction, kl = terms(silent, decoder)
    assert float(kl) == pytest.approx(0, abs=1e-12)
    assert float(reconstruction) == pytest.approx(2 * torch.tensor(2.0).log().item(), abs=1e-6)


@pytest.mark.slow
def test_a_decoder_that_reads_the_words_has_no_use_for_z_and_one_that_does_not_has() -> None:
    reads, blind = optimum("autoregressive", starts=4), optimum("independent", starts=4)
    assert reads["-ELBO"] == pytest.approx(entropy(), abs=1e-6)
    assert optimum("autoregressive", 0.75, starts=4)["-ELBO"] > entropy() + 0.01
    assert (
        blind["KL"] > 0.5 and entropy() + 0.05 < blind["-ELBO"] < optimum("independent", 0.0, starts=4)["-ELBO"] - 0.2
    )
