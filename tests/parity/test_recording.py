"""The comparison, the stored files, and the recorder's messages when something is missing."""

import math
import subprocess
from dataclasses import replace

import pytest
from given.recording import FOLDER, RTOL, differences, read
from recorder.__main__ import JOBS
from recorder.checkouts import SIT


def test_equal_up_to_the_tolerance():
    assert differences({"loss": [1.0, 0.0]}, {"loss": [1.0 + 0.9 * RTOL, 0.0]}) == []


@pytest.mark.parametrize(
    "found",
    [
        {"loss": [1.0 + 1.1 * RTOL, 0.0]},
        {"loss": [1.0, 1e-30]},
        {"loss": [math.nan, 0.0]},
        {"loss": [math.inf, 0.0]},
        {"loss": [1.0]},
        {},
        {"loss": [1.0, 0.0], "more": 1.0},
        {"loss": None},
    ],
)
def test_each_kind_of_difference_is_reported(found):
    assert len(differences({"loss": [1.0, 0.0]}, found)) == 1


def test_directions_are_compared_on_the_scale_of_1():
    assert differences({"direction": [1e-12]}, {"direction": [-1e-12]}) == []
    assert differences({"direction": [0.5]}, {"direction": [0.5 + 2 * RTOL]}) != []


def test_every_job_has_a_recording_and_every_recording_a_job():
    assert {job.name for job in JOBS} == {path.stem for path in FOLDER.glob("*.json")}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_recordings_are_small_and_name_their_source(job):
    found = read(job.name)
    assert {key: found[key] for key in ("repository", "branch", "commit")} == job.checkout.source
    assert " ".join([f"recorder.{job.module}", *job.case]) in found["command"]
    assert (FOLDER / f"{job.name}.json").stat().st_size < 10_000


def test_a_missing_checkout_another_commit_and_a_missing_package_are_named(tmp_path):
    with pytest.raises(SystemExit, match=r"SiT is missing: check out willisma/SiT, branch main"):
        SIT.open(tmp_path)
    folder = tmp_path / "SiT"
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x"]
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    with pytest.raises(SystemExit, match=r"is at commit [0-9a-f]{40}, but the recordings are of 947f95bd"):
        SIT.open(tmp_path)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    with pytest.raises(SystemExit, match=r"needs no_such_package: pip install no_such_package"):
        replace(SIT, commit=commit, packages=("no_such_package",)).open(tmp_path)
