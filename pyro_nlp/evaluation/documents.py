"""Going through a split without gradients, in batches of like length (layer: evaluation)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
import pyro
import torch
from pyro.distributions import Delta, Independent
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch
from pyro_nlp.data.loading import plan
from pyro_nlp.data.splits import Split
from pyro_nlp.inference.terms import Terms, terms
from pyro_nlp.inference.training import Precision, choose_precision


class NoDensityError(ValueError):
    """A point guide has no density, so it gives no bound and no importance weights."""


@contextmanager
def judging(model: nn.Module, guide: nn.Module | None, seed: int, precision: Precision = "float32") -> Iterator[None]:
    """No gradient, no dropout, draws that depend on `seed` only; everything is put back afterwards."""
    modules = [m for m in (model, guide) if m is not None]
    was_training = [m.training for m in modules]
    device = device_of(model)
    autocast = torch.autocast(
        device.type, torch.bfloat16, enabled=choose_precision(precision, device) == torch.bfloat16
    )
    random = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with random, torch.no_grad(), autocast, pyro.validation_enabled(False):
        torch.manual_seed(seed)
        for module in modules:
            module.eval()
        try:
            yield
        finally:
            for module, training in zip(modules, was_training, strict=True):
                module.train(training)


def device_of(model: nn.Module) -> torch.device:
    """Where the model lives."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def batches(model: nn.Module, split: Split, batch_size: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Rows and batch, from short to long."""
    device = device_of(model)
    for rows in plan(split.lengths, batch_size, seed=0, epoch=0, shuffle=False):
        yield rows, split.batch(rows).to(device)


def per_document(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    particles: int,
    batch_size: int,
    marginal: Collection[str] = (),
) -> Iterator[tuple[np.ndarray, Terms]]:
    """Rows and terms of every batch, the sites in `marginal` summed out."""
    for rows, batch in batches(model, split, batch_size):
        yield rows, terms(model, guide, batch, particles=particles, marginal=marginal)


def require_density(terms: Terms) -> None:
    """Raise NoDensityError, naming the site, if the guide puts all mass on a point."""
    for name, site in terms.sites.items():
        fn = site.q
        while isinstance(fn, Independent):
            fn = fn.base_dist
        if isinstance(fn, Delta):
            raise NoDensityError(
                f"site '{name}' has a point guide (Delta): it has no density, so there is no likelihood to estimate"
            )


def as_float64(value: Tensor) -> np.ndarray:
    """A tensor as a float64 array on the CPU."""
    return value.detach().double().cpu().numpy()
