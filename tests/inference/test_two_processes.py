"""Two processes under gloo, as `torchrun` starts them, against one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pyro_nlp
from pyro_nlp.data.loading import plan, shard
from pyro_nlp.evaluation import elbo_terms
from tests.inference.two_processes import DRAWN, EXACT, LEARNT, ODD, gradients_of
from tests.tiny import Sentences, all_close, lm, same

ROOT = Path(pyro_nlp.__file__).parents[1]
Results = Callable[[str], list[dict[str, Any]]]

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What both processes found, by scenario; they are started once for all tests."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.inference.two_processes", str(folder)]
    processes = []
    for rank in range(2):
        environment = os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": str(ROOT)}
        log = (folder / f"log.{rank}").open("w")
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        log.close()
    try:
        status = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    logs = [(folder / f"log.{rank}").read_text()[-3000:] for rank in range(2)]
    assert status == [0, 0], "\n".join(logs)

    def load(name: str) -> list[dict[str, Any]]:
        return [torch.load(folder / f"{name}.{rank}.pt", weights_only=False) for rank in range(2)]

    return load


def test_documents_are_divided_and_none_is_seen_twice(results: Results) -> None:
    first, second = (found["steps"] for found in results("lm"))
    # 20 documents in batches of seven at most: 7, 7 and 6
    sizes = sorted((len(a[2]), len(b[2])) for a, b in zip(first, second, strict=True))
    assert sizes == [(3, 3), (4, 3), (4, 3)]
    seen = torch.cat([index for _, _, index in first + second])
    assert sorted(seen.tolist()) == list(range(20))


def test_the_gradient_of_a_language_model_is_that_of_one_process_also_for_odd_batches(results: Results) -> None:
    alone = gradients_of(lm(), None)
    for found in results("lm"):
        for (ours, _, _), (wanted, _, _) in zip(found["steps"], alone["steps"], strict=True):
            all_close(ours, wanted, 1e-5)
        all_close(found["parameters"], alone["parameters"], 1e-5)


def test_the_loss_is_that_of_one_process_weighed_by_documents(results: Results) -> None:
    alone = gradients_of(lm(), None)
    first, second = (found["steps"] for found in results("lm"))
    for a, b, (_, wanted, index) in zip(first, second, alone["steps"], strict=True):
        mean = (a[1] * len(a[2]) + b[1] * len(b[2])) / len(index)
        assert mean == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", EXACT)
def test_what_draws_nothing_has_the_gradient_of_one_process(results: Results, name: str) -> None:
    make, strategy = EXACT[name]
    alone = gradients_of(*make(), strategy)
    for found in results(name):
        for (ours, _, _), (wanted, _, _) in zip(found["steps"], alone["steps"], strict=True):
            # DDP gives zero to a guide that was not asked
            idle = {n for n in ours if n not in wanted and n.startswith("guide.") and not ours[n].any()}
            all_close({n: g for n, g in ours.items() if n not in idle}, wanted, 1e-5)
        all_close(found["parameters"], alone["parameters"], 1e-5)
    first, second = (found["steps"] for found in results(name))
    for a, b, (_, loss, index) in zip(first, second, alone["steps"], strict=True):
        assert (a[1] * len(a[2]) + b[1] * len(b[2])) / len(index) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("name", DRAWN)
def test_with_codes_it_is_the_average_over_the_shards_with_the_draws_of_each_process(
    results: Results, name: str
) -> None:
    found = results(name)
    make, strategy = DRAWN[name]
    corpus = Sentences(train=20, valid=3)
    rows = plan(corpus.train.lengths, ODD, seed=5, epoch=0)[0]
    total: dict[str, torch.Tensor] = {}
    for rank in range(2):
        model, guide = make()
        batch = corpus.train.batch(shard(rows, rank, 2))
        objective = strategy.compile(model, guide, batch)
        torch.manual_seed(5 + rank)
        objective(batch).backward()
        for parameter_name, parameter in objective.named_parameters():
            assert parameter.grad is not None
            share = len(batch) / len(rows)
            total[parameter_name] = total.get(parameter_name, 0) + share * parameter.grad
    for each in found:
        all_close(each["steps"][0][0], total, 1e-5)


@pytest.mark.parametrize("name", LEARNT)
def test_a_baseline_learns_in_both_processes_alike(results: Results, name: str) -> None:
    first, second = results(name)
    for (a, loss, _), (b, other, _) in zip(first["steps"], second["steps"], strict=True):
        assert np.isfinite([loss, other]).all()
        assert a.keys() == b.keys() and any(key.startswith("state.") for key in a) == (name == "neural")
        all_close(a, b, 1e-6)  # the guide's and the baseline's gradients are averaged like all others
    assert all(value.isfinite().all() for value in first["parameters"].values())


def test_both_processes_end_with_the_same_parameters(results: Results) -> None:
    for name in ("lm", *EXACT, *DRAWN, *LEARNT, "stopped"):
        first, second = (found["parameters"] for found in results(name))
        assert same(first, second), name


def test_the_validation_bound_is_that_of_the_whole_split_with_fewer_documents_than_both_can_share(
    results: Results,
) -> None:
    (first, second) = results("lm")
    model = lm()
    model.load_state_dict({k[2:]: v for k, v in first["parameters"].items()})
    wanted = -elbo_terms(model, None, Sentences(train=20, valid=3).valid).elbo.mean()
    assert first["valid"][0]["valid.loss"] == pytest.approx(wanted, rel=1e-5)
    assert first["valid"] == second["valid"]


def test_ctrl_c_in_one_process_stops_both_after_the_same_step(results: Results) -> None:
    first, second = results("stopped")
    assert first["message"].startswith("training was interrupted; go on with --resume --out ")
    assert second["message"] == "training was interrupted"  # the first alone writes
    assert first["step"] == second["step"] == 3


def test_a_number_that_is_not_finite_in_one_process_stops_both(results: Results) -> None:
    first, second = results("broken")
    assert first["message"] == "step 2 (epoch 0, batch 2): the loss is not finite in another process"
    assert second["message"].startswith("step 2 (epoch 0, batch 2): the loss is not finite for training documents [")


def test_a_class_that_cannot_be_drawn_in_one_process_stops_both(results: Results) -> None:
    first, second = results("unsampled")
    assert first["message"] == "step 2 (epoch 0, batch 2): the loss is not finite in another process"
    assert second["message"].startswith(
        "step 2 (epoch 0, batch 2): the loss is not finite because the parameter guide."
    )


def test_every_process_draws_noise_of_its_own_also_after_resuming(results: Results) -> None:
    first, second = results("noise")
    assert not torch.equal(first["fresh"], second["fresh"])
    assert not torch.equal(first["resumed"], second["resumed"])


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 1 cannot be divided between 2 processes"):
        shard(np.arange(1), 0, 2)
