"""The GPU of each rank under torchrun, and how NCCL starts, on a machine without GPUs: by what torch is asked for."""

from datetime import timedelta
from unittest import mock

import pytest
import torch
from torch import distributed as dist

from smtool.errors import RecipeError
from smtool.training import distributed
from smtool.training.distributed import device_of_rank, joined


@pytest.fixture
def torchrun(monkeypatch):
    """(number on its machine, processes on its machine, processes, GPUs) -> this process is such a rank."""

    def start(local: int, here: int, world: int, gpus: int) -> None:
        for name, value in (("LOCAL_RANK", local), ("LOCAL_WORLD_SIZE", here), ("WORLD_SIZE", world), ("RANK", local)):
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    return start


@pytest.mark.parametrize("local", range(4))
def test_every_rank_of_a_machine_has_a_gpu_of_its_own(torchrun, local):
    torchrun(local, 4, 8, 4)
    assert device_of_rank("cuda") == f"cuda:{local}"
    assert device_of_rank("cpu") == "cpu"


def test_a_numbered_gpu_is_for_one_process_per_machine(torchrun):
    torchrun(0, 1, 2, 4)
    assert device_of_rank("cuda:3") == "cuda:3"
    torchrun(1, 2, 2, 4)
    with pytest.raises(RecipeError, match="--device cuda:0: all 2 processes of this machine would use this GPU") as caught:
        device_of_rank("cuda:0")
    assert "--device cuda," in str(caught.value)


def test_without_the_number_of_processes_on_the_machine_all_count(torchrun, monkeypatch):
    torchrun(0, 1, 2, 4)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")      # as under srun
    with pytest.raises(RecipeError, match="all 2 processes"):
        device_of_rank("cuda:0")


def test_more_processes_than_gpus_are_an_error(torchrun):
    torchrun(1, 2, 2, 1)
    with pytest.raises(RecipeError, match="process 1 of this machine has no GPU of its own, because only 1 can be seen"):
        device_of_rank("cuda")


def test_nccl_gets_the_device_of_its_rank(torchrun, monkeypatch):
    torchrun(1, 2, 2, 2)
    asked = mock.Mock()
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(dist, name, getattr(asked, name))
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    store = dist.HashStore()      # that of the group, which is not started
    monkeypatch.setattr(distributed, "_store", lambda: store)
    monkeypatch.setattr(torch.cuda, "set_device", asked.set_device)
    with joined("cuda") as ranks:
        assert (ranks.rank, ranks.world, ranks.device) == (1, 2, "cuda:1")
    assert asked.mock_calls == [
        mock.call.set_device("cuda:1"),      # before NCCL starts, which would use the current device
        mock.call.init_process_group("nccl", timeout=timedelta(minutes=30), device_id=torch.device("cuda:1")),
        mock.call.destroy_process_group(),
    ]


def test_one_process_computes_on_the_gpu_that_was_asked_for(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    with joined("cuda:1") as ranks:
        assert (ranks.world, ranks.device, chosen) == (1, "cuda:1", ["cuda:1"])
