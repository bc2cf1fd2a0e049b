"""Passes shared among ranks: parts, joined files, and `smtool eval` on two ranks against one."""

import json
import os
import shutil

import pytest
import torch
import warm_process

from smtool.devices import one_thread
from smtool.inference import rank_files as rank_shares
from smtool.inference.rank_files import shared_pass
from smtool.training.distributed import ALONE, Ranks

SINGLE_THREADED = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _squares(positions):
    return {"squares": torch.tensor([position**2 for position in positions], dtype=torch.float64)}


@pytest.mark.parametrize(("count", "world"), [(100, 3), (30, 2), (7, 4), (5, 1)])
def test_the_results_of_all_ranks_are_joined_in_order_on_the_first(tmp_path, monkeypatch, count, world):
    """The ranks run one after another, the first rank last; parts end at multiples of the batch."""
    monkeypatch.setattr(rank_shares, "wait_for_all", lambda: None)
    seen = []

    def measure(positions):
        seen.append(positions)
        return _squares(positions)

    for rank in reversed(range(world)):
        found = shared_pass(measure, count, batch=4, ranks=Ranks(rank, world, "cpu"), folder=tmp_path)
        assert rank == 0 or found == {}
    assert found["squares"].tolist() == [float(position**2) for position in range(count)]
    assert all(share.start % 4 == 0 for share in seen)
    assert not list(tmp_path.iterdir())


def test_one_rank_writes_nothing_and_several_need_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shared_pass(_squares, 3, batch=2, ranks=ALONE, folder=None)["squares"].tolist() == [0, 1, 4]
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no folder is given"):
        shared_pass(_squares, 3, batch=2, ranks=Ranks(0, 2, "cpu"), folder=None)


SAMPLES = ["--num-images", "22", "--features", "random", "--kid"]
IMAGES = ["--data", "data/classes", "--psnr", "--features", "random", "--protocol", "paper"]


@pytest.mark.slow
@pytest.mark.parametrize(("what", "options"), [("dit", SAMPLES), ("tiny", IMAGES)])
def test_two_ranks_give_the_scores_of_one(studio, finished, command, tmp_path, what, options):
    """Scores of generated samples, and of reconstructions from sampled posteriors: equal batches give bitwise equal scores."""
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    arguments = ["eval", str(studio.folder / "runs" / what), *options, "--batch", "4", "--device", "cpu", "--json"]
    features = studio.folder / "data" / "features"
    shutil.rmtree(features, ignore_errors=True)
    with one_thread():      # as on the ranks, because the order of sums depends on the number of threads
        code, _, err = command(*arguments, str(one))
    assert code == 0, err
    kept = sorted(features.glob("*"))
    shutil.rmtree(features, ignore_errors=True)
    ended = warm_process.run(*arguments, two, ranks=2)
    assert two.exists(), ended.stderr[-2000:]
    expected, found = (json.loads(path.read_text())["scores"] for path in (one, two))
    assert found == expected
    assert ended.stdout.count("Protocol ") == 1      # only the first rank prints
    assert sorted(features.glob("*")) == kept
