import errno
import json
import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from smtool.errors import CheckpointError, DiskError
from smtool.randomness import SCHEME
from smtool.training.checkpoint import Checkpoints
from smtool.training.distributed import Ranks
from smtool.training.ema import EMA
from smtool.training.loop import Plan, Training
from smtool.training.optimizer import AdamW
from smtool.training.precision import MixedPrecision
from smtool.training.terms import Loss


class Task:
    def __init__(self, width: int = 3) -> None:
        self.players = {"autoencoder": nn.Linear(width, 2), "discriminator": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))}

    def players_at(self, step: int) -> tuple[str, ...]:
        return ("autoencoder", "discriminator")

    def count_turns(self, player: str, steps: int) -> int:
        return steps

    def loss(self, player, batch, draws, step) -> Loss:
        raise NotImplementedError


def _training(seed: int, width: int = 3) -> Training:
    torch.manual_seed(seed)
    task = Task(width)
    optimizers = {name: AdamW(lr=0.1).build(m.named_parameters(), "cpu") for name, m in task.players.items()}
    for name, module in task.players.items():
        module(torch.randn(4, width if name == "autoencoder" else 2)).square().sum().backward()
        optimizers[name].torch.step()
        optimizers[name].updates = 7 + seed
    averages = {"autoencoder": EMA(decay=0.5).build(task.players["autoencoder"])}
    return Training(task, optimizers, averages, MixedPrecision("fp32", "cpu"), Ranks(0, 1, "cpu"), Plan(0, 4, 1, 10))


def _state(training: Training) -> dict[str, torch.Tensor]:
    state = {f"{name}.{k}": v for name, module in training.task.players.items() for k, v in module.state_dict().items()}
    state |= {f"{name}~{k}": v for name, optimizer in training.optimizers.items() for k, v in optimizer.state_dict().items()}
    return state | {f"ema.{k}": v for k, v in training.averages["autoencoder"].state_dict().items()}


def test_a_run_keeps_its_scheme_of_noise(tmp_path):
    checkpoints, training = Checkpoints(tmp_path, keep_last=2, keep_every=0), _training(0)
    assert checkpoints.randomness() == SCHEME == 2
    checkpoints.save(5, training)
    assert checkpoints.randomness() == 2
    checkpoints.save(6, replace(training, plan=replace(training.plan, randomness=1)))
    assert checkpoints.randomness() == 1
    path = tmp_path / "00000006/state.json"
    state = json.loads(path.read_text())
    for stated, found in ((None, 1), (3, None)):      # absent: a run of an old version; 3: of a version to come
        path.write_text(json.dumps({key: value for key, value in {**state, "randomness": stated}.items() if value is not None}))
        if found:
            assert checkpoints.randomness() == found
        else:
            with pytest.raises(CheckpointError, match=r"state\.json"):
                checkpoints.randomness()


def test_load_restores_everything(tmp_path):
    first, second = _training(0), _training(1)
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_every=0)
    checkpoints.save(5, first)
    checkpoints.load(5, second)
    before, after = _state(first), _state(second)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [optimizer.updates for optimizer in second.optimizers.values()] == [7, 7]


def test_the_last_checkpoints_and_multiples_of_keep_every_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_every=20)
    training = _training(0)
    for step in range(5, 55, 5):
        checkpoints.save(step, training)
    assert checkpoints.steps() == [20, 40, 45, 50]
    assert checkpoints.latest() == 50


def test_an_incompletely_written_folder_does_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_every=0)
    training = _training(0)
    checkpoints.save(5, training)
    (tmp_path / ".00000010.part").mkdir()
    (tmp_path / "00000015").mkdir()        # no state.json: not a complete checkpoint
    assert checkpoints.latest() == 5
    checkpoints.save(10, training)
    assert checkpoints.steps() == [5, 10]
    assert not list(tmp_path.glob(".*"))


def test_a_failed_write_leaves_the_existing_checkpoints(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_every=0)
    training = _training(0)
    checkpoints.save(5, training)
    monkeypatch.setattr(training.optimizers["autoencoder"], "state_dict", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        checkpoints.save(10, training)
    assert checkpoints.steps() == [5]
    assert [path.name for path in tmp_path.iterdir()] == ["00000005"]


def test_another_network_and_a_damaged_file_are_named(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_every=0)
    folder = checkpoints.save(5, _training(0))
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoints.load(5, _training(0, width=4))
    assert json.loads((folder / "state.json").read_text())["updates"] == {"autoencoder": 7, "discriminator": 7}
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a readable"):
        checkpoints.load(5, _training(0))


def test_no_folder_means_no_checkpoint(tmp_path):
    assert Checkpoints(tmp_path / "none", keep_last=2, keep_every=0).latest() is None


def test_a_run_is_not_resumed_with_another_frozen_network_of_the_same_name(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_every=0)
    training = _training(0)
    checkpoints.save(5, replace(training, frozen={"dinov2-b": "aaaa", "lpips_vgg": "cccc"}))
    checkpoints.load(5, replace(training, frozen={"dinov2-b": "aaaa"}))
    with pytest.raises(CheckpointError, match="dinov2-b with digest aaaa, but the digest of dinov2-b is now bbbb"):
        checkpoints.load(5, replace(training, frozen={"dinov2-b": "bbbb", "lpips_vgg": "cccc"}))
    state = tmp_path / "00000005/state.json"      # as written by versions without digests
    state.write_text(json.dumps({name: value for name, value in json.loads(state.read_text()).items() if name != "frozen"}))
    checkpoints.load(5, replace(training, frozen={"dinov2-b": "bbbb"}))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"step": 1}', b'{"step": 1, "updates": {"net": -3}, "precision": {}}',
     b'{"step": 1, "updates": {"net": []}, "precision": {}}', b'{"step": 1, "updates": {}, "precision": {}}'],
)  # fmt: skip
def test_a_damaged_state_is_named(tmp_path, text):
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_every=0)
    folder = checkpoints.save(1, _training(0))
    (folder / "state.json").write_bytes(text)
    with pytest.raises(CheckpointError, match="00000001"):
        checkpoints.load(1, _training(1))


def test_what_a_killed_run_left_of_other_checkpoints_is_removed_at_the_next_save(tmp_path):
    for name in ("00000001", ".00000002.part", "notes"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.safetensors").touch()
    Checkpoints(tmp_path, keep_last=1, keep_every=0).save(3, _training(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000003", "notes"]


def test_a_disk_that_is_full_at_the_rename_is_one_sentence_and_the_older_checkpoint_stays(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_every=0)
    checkpoints.save(1, _training(0))

    def rename(source, target):
        if str(target).endswith("00000002"):
            raise OSError(errno.ENOSPC, "No space left on device")
        os.rename(source, target)

    monkeypatch.setattr("smtool.training.checkpoint.os.replace", rename)
    with pytest.raises(DiskError, match=r"00000002.*No space left"):
        checkpoints.save(2, _training(0))
    assert checkpoints.latest() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
