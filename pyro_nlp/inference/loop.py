"""One training loop for every model and strategy (layer: inference).

The loop knows nothing of models: it moves batches through a compiled objective, steps torch optimisers, validates,
and can be stopped and resumed after any step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pyro_nlp.data.batches import Batch, PairBatch, TextBatch, drop_words
from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.loading import plan, shard
from pyro_nlp.data.splits import Split
from pyro_nlp.inference.auxiliary import Auxiliary
from pyro_nlp.inference.schedules import at
from pyro_nlp.inference.strategy import Objective
from pyro_nlp.inference.terms import StructureError, not_finite
from pyro_nlp.inference.training import Training, choose_precision


class NumericalError(ArithmeticError):
    """Training met a number that is not finite; names site, step and batch."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop and saved its state first."""


class Loop:
    """The state of one training, and the steps that change it. Implements `updates.Engine`."""

    def __init__(
        self,
        objective: Objective,
        corpus: Corpus,
        training: Training,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.objective, self.corpus, self.training = objective, corpus, training
        self.seed, self.rank, self.world = seed, rank, world
        self.device = next(objective.parameters()).device
        self.dtype = choose_precision(training.precision, self.device)
        # a guide's parameters for a site that is summed out; those that a KL of weight 0 alone reaches
        unused = bool(objective.marginal) or not all(objective.kl(n).weight == 1.0 for n in objective.estimators)
        unused = unused or any(auxiliary.phase == "sleep" for auxiliary in objective.strategy.auxiliary)
        self.compute: Callable[[Batch], Tensor] = (
            objective if world == 1 else DistributedDataParallel(objective, find_unused_parameters=unused)
        )
        if training.keep not in (known := ("best", "last", *measures(objective, corpus.train))):
            raise StructureError(f"Training: keep is one of {', '.join(known)}, not {training.keep!r}")
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        learnt = {id(p) for p in objective.state.parameters()}
        self.clipped = [p for p in self.parameters if id(p) not in learnt]  # a baseline's gradient drowns all others
        own = {id(p) for module in (objective.model, objective.helpers) for p in module.parameters()}
        groups = {
            "model": [p for p in self.clipped if id(p) in own],
            "guide": [p for p in self.clipped if id(p) not in own],
            "baselines": [p for p in self.parameters if id(p) in learnt],
        }
        self.optimizers = {k: training.optimizer.build(v) for k, v in groups.items() if v}
        self.epoch, self.row, self.slowdown, self.stalled, self.decays, self.drawn = 0, 0, 1.0, 0, 0, 0
        self.best: dict[str, Any] | None = None
        self.gradient_norm = math.nan
        self.finished = False
        self._checked, self._all_count = False, True
        self.order = self._order()
        objective.steps_per_epoch = len(self.order)

    # ---- what an Updates asks for -----------------------------------------------------------------------------

    def gradients(self, batch: Batch) -> Tensor:
        """Clear all gradients, take those of the loss on `batch`, clip them; the detached loss."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        found = None
        try:
            with self.precision():
                loss = self.compute(batch)
        except (ValueError, RuntimeError):
            # Pyro's validation, on in the first step, has a page to say of a number that is not finite, and so has
            # PyTorch of a class to be drawn
            found = self._not_finite(batch)
            if found is None:
                raise
            loss = torch.tensor(math.nan)
        good = math.isfinite(loss.item())
        if self.anywhere(not good):
            where = f"{self._where()}: the loss is not finite"
            elsewhere = f"{where} in another process"
            documents = f"{where} for training documents {batch.index[:5].tolist()} ..."
            raise NumericalError(elsewhere if good else found or self._not_finite(batch) or documents)
        share = len(batch) * self.world / self.total(len(batch)) if self.world > 1 else 1.0
        if loss.requires_grad:  # asleep, with all weights at 0, there is nothing to learn yet
            (loss * share if share != 1.0 else loss).backward()
        self._clip()
        return loss.detach()

    def apply(self, who: str = "both") -> None:
        """Let the optimiser of `model`, `guide` or `both` step; baselines learn from every gradient."""
        rate = at(self.training.optimizer.learning_rate, int(self.objective.step), self.objective.steps_per_epoch)
        for name, optimizer in self.optimizers.items():
            if who in (name, "both") or name == "baselines":
                for group in optimizer.param_groups:
                    group["lr"] = rate * self.slowdown
                optimizer.step()

    def draw(self) -> Batch:
        """Another training batch, uniformly at random; the same in every process."""
        self.drawn += 1
        return self._batch(self.order[np.random.default_rng((self.seed, self.drawn)).integers(len(self.order))])

    def total(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.world == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        return float(summed)

    def validation(self) -> Iterator[Batch]:
        """The validation split in batches of the training's size, without gradients or dropout."""
        with self.quietly():
            torch.manual_seed(0)
            for rows in plan(self.corpus.valid.lengths, self.training.batch_size, seed=0, epoch=0, shuffle=False):
                own = rows[self.rank :: self.world]
                if len(own):
                    yield self.corpus.valid.batch(own).to(self.device)

    def restart(self, module: nn.Module) -> None:
        """Forget what the optimisers remember of a module, and which parameters were the best."""
        fresh = {id(p) for p in module.parameters()}
        for optimizer in self.optimizers.values():
            for parameter in [p for p in optimizer.state if id(p) in fresh]:
                del optimizer.state[parameter]
        self.best, self.stalled, self.decays, self.slowdown, self.finished = None, 0, 0, 1.0, False

    def anywhere(self, flag: bool) -> bool:
        """Whether a flag is up in any process: all of them stop together, or the others would wait for ever."""
        if self.world == 1:
            return flag
        up = torch.tensor(float(flag), device=self.device)
        torch.distributed.all_reduce(up, torch.distributed.ReduceOp.MAX)
        return bool(up)

    # ---- steps ------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[tuple[Tensor, Batch]]:
        """Train to the end of the epoch, giving the loss and batch of every step."""
        self.objective.train()
        while self.row < len(self.order):
            batch = self._batch(self.order[self.row])
            self._all_count = all(self.objective.weight(name) > 0 for name in self.objective.estimators)
            loss = self.objective.strategy.updates.step(self, batch)
            self.objective.advance()
            self.row += 1
            yield loss, batch

    def next_epoch(self) -> None:
        """Turn to the next epoch's order."""
        self.epoch, self.row = self.epoch + 1, 0
        self.order = self._order()

    def check_gradients(self) -> None:
        """After the first step that says: a trainable parameter without gradient is a mistake in model or guide.

        A KL of weight 0 says nothing about the parameters that only it reaches.
        """
        if self._checked or not self._all_count:
            return
        self._checked = True
        missing = [n for n, p in self.objective.named_parameters() if p.requires_grad and p.grad is None]
        if self.objective.marginal:  # the guide's share in a site that is summed out is idle by right
            missing = [n for n in missing if not n.startswith("guide.")]
        if missing:
            raise StructureError(
                f"no gradient reaches {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}: "
                "use them in forward, or freeze them with requires_grad_(False)"
            )

    def _order(self) -> list[np.ndarray]:
        return plan(self.corpus.train.lengths, self.training.batch_size, seed=self.seed, epoch=self.epoch)

    def _batch(self, rows: np.ndarray) -> Batch:
        batch = self.corpus.train.batch(shard(rows, self.rank, self.world)).to(self.device)
        rate = at(self.training.word_dropout, int(self.objective.step), self.objective.steps_per_epoch)
        if rate and isinstance(batch, PairBatch):
            if getattr(self.objective.model, "foretells", "") == "first":
                return batch.replace(first=drop_words(batch.first, rate))
            return batch.replace(second=drop_words(batch.second, rate))
        return drop_words(batch, rate) if rate and isinstance(batch, TextBatch) else batch

    def _clip(self) -> None:
        gradients = [p.grad for p in self.clipped if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self.gradient_norm = norm.item()
        if not math.isfinite(self.gradient_norm):
            bad = [
                n for n, p in self.objective.named_parameters() if p.grad is not None and not p.grad.isfinite().all()
            ]
            raise NumericalError(f"{self._where()}: the gradient of {', '.join(bad[:3])} is not finite")
        if self.training.clip is not None and self.gradient_norm > self.training.clip:
            torch._foreach_mul_(gradients, self.training.clip / (self.gradient_norm + 1e-6))

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Autocast to bf16 if asked."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            yield

    # ---- validation -------------------------------------------------------------------------------------------

    def validate(self) -> dict[str, float]:
        """The unweighted bound on the validation split, per document; always the same draws of the latents."""
        with self.quietly():
            torch.manual_seed(0)
            size = max(1, 4 * self.training.batch_size // self.objective.strategy.bound.judged_particles)
            return validation_bound(self.objective, self.corpus, size, self)

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Evaluation inside training: no gradient, no dropout, no trace left in the random stream."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.no_grad(), self.precision():
            self.objective.eval()
            try:
                yield
            finally:
                self.objective.train()

    def judge(self, found: dict[str, float]) -> bool:
        """Keep the best by the bound and the auxiliary losses that judge, or by one measure, or the last; act on a
        plateau; whether these are the ones kept."""
        _, loss = judged_by(found, self.training.keep)
        if not math.isfinite(loss):
            raise NumericalError(f"{self._where()}: the validation bound is not finite")
        plateau = self.training.plateau
        if self.best is None or loss < self.best["loss"] or self.training.keep == "last":
            self.best = copy.deepcopy({"loss": loss, "step": int(self.objective.step), **self._parameters()})
            self.stalled = 0
            return True
        if plateau is None or self.epoch < max(plateau.start, self.objective.strategy.updates.first):
            return False
        self.stalled += 1
        if self.stalled > plateau.patience - 1:
            if self.decays >= plateau.decays:
                self.finished = True
                return False
            self.decays, self.stalled = self.decays + 1, 0
            self.slowdown *= plateau.factor
            self._load_parameters(self.best)
        return False

    # ---- state ------------------------------------------------------------------------------------------------

    _COUNTERS = ("epoch", "row", "slowdown", "stalled", "decays", "drawn", "finished")

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "counters": {name: getattr(self, name) for name in self._COUNTERS},
            "seed": self.seed,
            "fingerprint": self.corpus.fingerprint,
            "step": int(self.objective.step),
            "objective": self.objective.state_dict(),
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        if state["fingerprint"] != self.corpus.fingerprint:
            raise StructureError(
                f"the corpus has changed since the run began (fingerprint {self.corpus.fingerprint}, was "
                f"{state['fingerprint']}): restore it, or begin a new run"
            )
        for name, value in state["counters"].items():
            setattr(self, name, value)
        self.objective.load_state_dict(state["objective"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"])
        self.best = state["best"]
        self.order = self._order()

    def _parameters(self) -> dict[str, Any]:
        return {
            "objective": self.objective.state_dict(),
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
        }

    def _load_parameters(self, state: dict[str, Any]) -> None:
        now = self.objective.state_dict().items()
        kept = {name: value.clone() for name, value in now if name == "step" or name.startswith("turns.")}
        self.objective.load_state_dict(state["objective"] | kept)  # schedules and turns go on from where they are
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(copy.deepcopy(state["optimizers"][name]))

    # ---- errors -----------------------------------------------------------------------------------------------

    def _where(self) -> str:
        return f"step {int(self.objective.step)} (epoch {self.epoch}, batch {self.row})"

    def _not_finite(self, batch: Batch) -> str | None:
        """The first number that is not finite, from what a batch starts with to what follows from it."""
        bad = [n for n, p in self.objective.named_parameters() if not p.isfinite().all()]
        if bad:
            return f"{self._where()}: the loss is not finite because the parameter {bad[0]} is not"
        with torch.no_grad(), self.precision(), pyro.validation_enabled(False):
            try:
                terms = self.objective.terms(batch)
            except (ValueError, RuntimeError):
                what = not_finite(self.objective.model, self.objective.guide, batch)
                return f"{self._where()}: {what}" if what else None
        values = [(f"log-probability of '{n}'", v) for n, v in terms.observed.items()]
        for name, site in terms.sites.items():
            events = len(site.q.event_shape)
            value = site.value.flatten(-events).sum(-1) if events else site.value
            value = site.scope.per_document(value, site.guide)
            values += [(f"value of '{name}'", value), (f"KL of '{name}'", site.kl)]
        for what, value in sorted(values, key=lambda pair: "value" not in pair[0]):
            rows = (~value.isfinite()).flatten(0, -2).any(0).nonzero().flatten().tolist()
            if rows:
                documents = batch.index[rows[:5]].tolist() if value.shape[-1] == len(batch) else "all"
                return f"{self._where()}: the {what} is not finite for training documents {documents}"
        return None


def judging(objective: Objective, train: Split) -> dict[str, Auxiliary]:
    """The auxiliary losses that judge on the validation split, by name."""
    named = zip(objective.called, objective.strategy.auxiliary, strict=True)
    return {name: auxiliary for name, auxiliary in named if auxiliary.judges(train)}


def measures(objective: Objective, train: Split) -> list[str]:
    """What `validation_bound` finds, by name."""
    sites = [name for name in objective.estimators if name not in objective.marginal]
    kls, auxiliaries = (f"kl.{name}" for name in sites), (f"auxiliary.{name}" for name in judging(objective, train))
    return ["loss", "reconstruction", *kls, *auxiliaries]


def judged_by(found: dict[str, float], keep: str) -> tuple[str, float]:
    """What epochs are compared by, by name: a measure of `validation_bound`, or the loss and the auxiliary ones."""
    names = [keep] if keep in found else ["loss", *(name for name in found if name.startswith("auxiliary."))]
    return " + ".join(names), sum(found[name] for name in names)


def validation_bound(objective: Objective, corpus: Corpus, batch_size: int, loop: Loop) -> dict[str, float]:
    """Minus the bound, minus the log-likelihood and KL per document of the validation split, as the bound judges them,
    and the auxiliary losses that judge."""
    split, judges = corpus.valid, judging(objective, corpus.train)
    sums = dict.fromkeys(measures(objective, corpus.train), 0.0)
    for rows in plan(split.lengths, batch_size, seed=0, epoch=0, shuffle=False):
        own = rows[loop.rank :: loop.world]
        if not len(own):
            continue
        batch = split.batch(own).to(loop.device)
        found = objective.strategy.bound.judge(objective, batch)
        sums["loss"] += found.value.item() * len(own)
        for name, auxiliary in judges.items():
            assert found.terms is not None
            loss = auxiliary.judge(objective, found.terms, batch)
            sums[f"auxiliary.{name}"] += 0.0 if loss is None else loss.item() * len(own)
        if found.log_likelihood is not None:
            sums["reconstruction"] -= found.log_likelihood.item() * len(own)
        for name, kl in found.kl.items():
            sums[f"kl.{name}"] += kl.item() * len(own)
    if loop.world > 1:
        totals = torch.tensor(list(sums.values()), dtype=torch.float64, device=loop.device)
        torch.distributed.all_reduce(totals)
        sums = dict(zip(sums, totals.tolist(), strict=True))
    return {name: value / len(split) for name, value in sums.items()}
