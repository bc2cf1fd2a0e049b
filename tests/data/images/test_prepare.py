import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import warm_process
from PIL import Image

from smtool.data import read_card
from smtool.data.images.decoding import Reading
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.reader import ImageShards
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule
from smtool.data.images.unfinished import alone_in
from smtool.errors import DataError, DiskError


def prepared(source, out, *, size=16, workers=1, max_bad=0.01, report=None, **settings):
    settings = {"val_fraction": 0.25, "images_per_shard": 8, **settings}
    preparation = Preparation(find_source(str(source)), Rule(size), **settings)
    return prepare_images(preparation, Path(out), workers=workers, max_bad=max_bad, report=report)


def contents(folder):
    """Every file in a folder and its subfolders, also hidden ones, with its digest."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def ids(folder, split):
    found = []
    for path in sorted(Path(folder).glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            found += [json.loads(tar.extractfile(member).read())["id"] for member in tar if member.name.endswith(".json")]
    return found


def test_every_image_is_in_exactly_one_split_and_the_card_counts_them(tmp_path, photo_folder):
    card = prepared(photo_folder(40), tmp_path / "out")
    train, val = ids(tmp_path / "out", "train"), ids(tmp_path / "out", "val")
    assert sorted(train + val) == [f"{number:04d}.png" for number in range(40)]
    assert len(val) == card.count("val") == 10
    assert len(train) == card.count("train") == 30
    assert train != sorted(train)    # shuffled
    assert card == read_card(tmp_path / "out")
    assert (card.source.images, card.image_size.stored, card.skipped, card.num_classes) == (40, 16, 0, 0)


def test_the_same_input_gives_the_same_bytes_whatever_the_worker_count_and_place(tmp_path, photo_folder):
    source = photo_folder(40)
    prepared(source, tmp_path / "a")
    prepared(source, tmp_path / "b", workers=3)
    (tmp_path / "deeper").mkdir()
    prepared(source.rename(tmp_path / "deeper" / source.name), tmp_path / "c")
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    shards = [f"train-{number:06d}" for number in range(4)] + [f"val-{number:06d}" for number in range(2)]
    assert set(contents(tmp_path / "a")) == {"dataset.json", *(f"{shard}.{end}" for shard in shards for end in ("tar", "npy"))}


KILLED = """
import os, signal, subprocess, sys
from pathlib import Path
from smtool.data.images.decoding import Reading
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.reader import ImageShards
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule

class Listed(subprocess.Popen):
    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        print(self.pid, flush=True)

def report(done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

subprocess.Popen = Listed
preparation = Preparation(find_source(sys.argv[1]), Rule(16), val_fraction=0.25, images_per_shard=8)
prepare_images(preparation, Path(sys.argv[2]), workers=int(sys.argv[4]), report=report)
"""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def killed_at(source, out, done, workers, tmp_path):
    """Prepare in a process that kills itself after `done` images; returns the ids of its worker processes."""
    (tmp_path / "killed.py").write_text(KILLED)
    command = [tmp_path / "killed.py", source, out, str(done), str(workers)]
    if workers == 1:
        run = warm_process.run(*command)
    else:      # worker processes of a fork would be forks too
        run = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=60
        )
    assert run.returncode == -signal.SIGKILL, run.stderr
    return [int(word) for word in run.stdout.split()]


@pytest.mark.slow
def test_a_run_killed_twice_and_resumed_gives_the_bytes_of_an_uninterrupted_one(tmp_path, photo_folder):
    source = photo_folder(40)
    prepared(source, tmp_path / "unbroken")
    killed_at(source, tmp_path / "out", 13, 1, tmp_path)    # in the middle of the second shard
    assert (tmp_path / "out" / "train-000000.tar").is_file()
    assert not (tmp_path / "out" / "train-000001.tar").exists()
    assert not (tmp_path / "out" / "dataset.json").exists()
    first = (tmp_path / "out" / "train-000000.tar").stat()
    workers = killed_at(source, tmp_path / "out", 24, 2, tmp_path)    # as the last image of the third shard is counted
    assert 1 <= len(workers) <= 2    # the second one starts only if the first is busy
    prepared(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "unbroken")
    assert (tmp_path / "out" / "train-000000.tar").stat().st_mtime_ns == first.st_mtime_ns    # finished shards were kept
    assert not any(_alive(pid) for pid in workers)


def _alive(pid):
    """Whether a process still runs after some seconds; a zombie process does not count."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.1)
    return True


def test_a_run_killed_between_a_shard_and_its_note_or_after_the_card_can_be_resumed(tmp_path, photo_folder):
    source = photo_folder(20)
    prepared(source, tmp_path / "unbroken")
    killed_at(source, tmp_path / "out", 12, 1, tmp_path)
    (tmp_path / "out" / ".unfinished" / "train-000000.json").unlink()
    (tmp_path / "out" / ".train-000001.tar.999.part").write_bytes(b"half")
    prepared(source, tmp_path / "out")
    (tmp_path / "out" / ".unfinished").mkdir()
    prepared(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "unbroken")


def test_progress_counts_up_to_the_total_also_after_a_restart(tmp_path, photo_folder):
    source, seen = photo_folder(20), []
    killed_at(source, tmp_path / "out", 12, 1, tmp_path)
    prepared(source, tmp_path / "out", report=lambda done, total: seen.append((done, total)))
    assert seen[0] == (8, 20)    # the finished shard at once
    assert seen[-1] == (20, 20)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_bad_images_are_left_out_listed_with_the_reason_and_counted(tmp_path, photo_folder):
    source = photo_folder(20)
    (source / "0003.png").write_bytes(b"")
    (source / "0007.png").write_text("no picture")
    card = prepared(source, tmp_path / "out", max_bad=0.1)
    lines = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    reasons = {line["id"]: line["reason"] for line in lines}
    assert reasons == {"0003.png": "empty file", "0007.png": "not an image of a known format"}
    assert card.skipped == 2
    assert card.count("train") + card.count("val") == 18
    assert "0003.png" not in ids(tmp_path / "out", "train") + ids(tmp_path / "out", "val")


def test_more_bad_images_than_allowed_is_an_error_after_which_the_run_can_be_resumed(tmp_path, photo_folder):
    source = photo_folder(20)
    for name in ("0003.png", "0007.png"):
        (source / name).write_bytes(b"")
    with pytest.raises(DataError, match="2 of 20 images cannot be used"):
        prepared(source, tmp_path / "out", max_bad=0.05)
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert len((tmp_path / "out" / "skipped.jsonl").read_text().splitlines()) == 2
    prepared(source, tmp_path / "out", max_bad=0.2)
    prepared(source, tmp_path / "other", max_bad=0.2)
    assert contents(tmp_path / "out") == contents(tmp_path / "other")


@pytest.mark.parametrize("count, val_fraction", [(1, 0.05), (2, 0.9)])
def test_one_image_at_least_is_for_training(tmp_path, photo_folder, count, val_fraction):
    card = prepared(photo_folder(count), tmp_path / "out", val_fraction=val_fraction)
    assert (card.count("train"), card.count("val")) == (1, count - 1)


def test_no_usable_image_is_an_error_whatever_the_allowed_fraction(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of .* images is usable for training"):
        prepared(tmp_path / "photos", tmp_path / "out", max_bad=1.0)


def test_a_folder_of_other_contents_or_settings_is_not_touched(tmp_path, photo_folder):
    source = photo_folder(12)
    prepared(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(DataError, match="other settings"):
        prepared(source, tmp_path / "out", size=24)
    killed_at(source, tmp_path / "cut", 10, 1, tmp_path)    # after the first shard
    with pytest.raises(DataError, match="unfinished preparation of other"):
        prepared(source, tmp_path / "cut", size=24)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"not empty \(thesis.txt\)"):
        prepared(source, tmp_path / "mine")
    with pytest.raises(DiskError, match="cannot be used as a folder"):
        prepared(source, tmp_path / "mine" / "thesis.txt")
    assert contents(tmp_path / "out") == before
    assert set(contents(tmp_path / "mine")) == {"thesis.txt"}


def test_all_unusable_images_are_listed_before_the_run_ends_with_their_number_by_reason(tmp_path, photo_folder):
    source = photo_folder(20)
    for number in (3, 7, 11):
        (source / f"{number:04d}.png").write_bytes(b"")
    (source / "0015.png").write_text("no picture")
    with pytest.raises(DataError, match=r"4 of 20 images cannot be used.*: 3 empty file; 1 not an image of a known format\."):
        prepared(source, tmp_path / "out")
    assert len((tmp_path / "out" / "skipped.jsonl").read_text().splitlines()) == 4


def test_a_run_refused_for_unusable_images_is_discarded_when_they_are_repaired(tmp_path, photo_folder):
    source = photo_folder(12)
    good = (source / "0003.png").read_bytes()
    (source / "0003.png").write_bytes(b"")
    with pytest.raises(DataError, match="1 of 12"):
        prepared(source, tmp_path / "out", images_per_shard=64, val_fraction=0.0)
    assert (tmp_path / "out" / "skipped.jsonl").is_file()
    (source / "0003.png").write_bytes(good)
    prepared(source, tmp_path / "out", size=24)
    prepared(source, tmp_path / "other", size=24)
    assert contents(tmp_path / "out") == contents(tmp_path / "other")


def test_preparing_again_verifies_what_is_there(tmp_path, photo_folder):
    source = photo_folder(12)
    prepared(source, tmp_path / "out")
    prepared(source, tmp_path / "out")
    shard = tmp_path / "out" / "train-000000.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"train-000000\.tar: damaged shard: its sha256"):
        prepared(source, tmp_path / "out")


def test_a_second_process_waits_and_then_verifies(tmp_path, photo_folder):
    source, out = photo_folder(24), tmp_path / "out"
    half, on, seen_by_second = threading.Event(), threading.Event(), []

    def pause_half_way(done, _total):
        if done == 12:
            half.set()
            on.wait()

    first = threading.Thread(target=prepared, args=(source, out), kwargs={"report": pause_half_way})
    second = threading.Thread(target=prepared, args=(source, out), kwargs={"report": lambda *step: seen_by_second.append(step)})
    first.start()
    half.wait()
    second.start()
    second.join(0.5)
    waited = second.is_alive()
    on.set()
    first.join()
    second.join()
    assert waited
    prepared(source, tmp_path / "alone")
    assert contents(out) == contents(tmp_path / "alone")
    assert seen_by_second == []


def test_a_full_disk_is_a_disk_error_and_leaves_no_partial_shard(tmp_path, photo_folder):
    source = photo_folder(12)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DiskError, match="no space left"):
            prepared(source, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".unfinished"]
    prepared(source, tmp_path / "out")
    prepared(source, tmp_path / "other")
    assert contents(tmp_path / "out") == contents(tmp_path / "other")


def test_no_space_while_a_shard_is_written_is_a_disk_error(tmp_path, photo_folder, monkeypatch):
    def full(*_args, **_keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(DiskError, match="no space left"):
        prepared(photo_folder(4), tmp_path / "out")


def test_the_cards_spectrum_is_the_mean_dct_power_over_rings(tmp_path, photo_folder):
    card = prepared(photo_folder(12), tmp_path / "out")
    powers = []
    for path in sorted((tmp_path / "out").glob("train-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".png"):
                    x = np.asarray(Image.open(tar.extractfile(member)), np.float64) / 127.5 - 1
                    powers.append((scipy.fft.dctn(x, axes=(0, 1), norm="ortho") ** 2).mean(-1))
    u = np.arange(16) / 32
    radius = np.hypot(u[:, None], u[None, :])
    lowest = np.mean([power[(radius > 0) & (radius < 1.5 / 32)].mean() for power in powers])    # (0,1), (1,0), (1,1)
    assert card.spectrum.images == len(powers) == 9
    assert card.spectrum.power[0] == pytest.approx(lowest, rel=1e-4)
    assert 0 < card.spectrum.frequency[0] < card.spectrum.frequency[-1] <= 0.5


def test_images_smaller_than_the_size_are_counted(tmp_path, photo_folder):
    assert prepared(photo_folder(8), tmp_path / "a", size=32).upscaled == 0
    assert prepared(tmp_path / "photographs", tmp_path / "b", size=33).upscaled == 8


def test_smaller_images_are_doubled_by_the_dct_or_left_out(tmp_path, photo_folder):
    source = photo_folder(8)
    side = min(Image.open(next(source.iterdir())).size)
    plain = Preparation(find_source(str(source)), Rule(2 * side))
    doubled = Preparation(find_source(str(source)), Rule(2 * side, upsample="dct"))
    assert "upsample" not in str(plain.plan()) and doubled.plan()["upsample"] == "dct"
    card = prepare_images(doubled, tmp_path / "dct", workers=1)
    assert (card.upscaled, card.upsample, card.skipped) == (8, "dct", 0)
    tripled = Preparation(find_source(str(source)), Rule(3 * side, upsample="dct"))
    with pytest.raises(DataError, match=r"8 of 8 images cannot be used(.|\n)*cannot be enlarged by the DCT, which doubles"):
        prepare_images(tripled, tmp_path / "none", workers=1)


def test_a_prepared_folder_can_be_prepared_again_smaller_and_keeps_splits_labels_and_groups(tmp_path):
    prepared("builtin:photos?train=24&val=12", tmp_path / "big", size=64)
    card = prepared(tmp_path / "big", tmp_path / "small", size=16)
    assert (card.count("train"), card.count("val"), card.photographs) == (24, 12, 12)


def test_the_worker_processes_do_not_import_torch():
    code = "import sys, smtool.data.images.workers, smtool.data.images.builtin; print({'torch', 'skimage'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_a_file_system_without_locks_can_be_used(tmp_path, monkeypatch):
    def refuse(handle, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with alone_in(tmp_path / "out"):
        assert (tmp_path / "out").is_dir()


def test_what_is_left_out_is_listed_and_counted_by_reason(tmp_path, photo_folder):
    source = photo_folder(30)
    for number in (3, 7):
        (source / f"{number:04d}.png").write_bytes((source / f"{number:04d}.png").read_bytes()[: 300 + number])
    (source / "notes.txt").write_text("")
    (source / ".hidden.png").write_text("")
    card = prepared(source, tmp_path / "out", max_bad=0.1)
    lines = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == {"0003.png", "0007.png", "notes.txt", ".hidden.png"}
    assert card.skipped == 2 and card.source.images == 30
    assert sum(card.left_out.values()) == len(lines) and list(card.left_out.values()) == [2, 1, 1]
    assert {"hidden", "not an image (.txt)"} < set(card.left_out)
    assert card.count("train") + card.count("val") + len(lines) == len(list(source.iterdir()))


def test_remarks_on_images_are_counted_also_over_interruptions(tmp_path, photo_folder, monkeypatch):
    source = photo_folder(20)
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    for number in range(0, 20, 4):
        frames[0].save(source / f"{number:04d}.png", "PNG", save_all=True, append_images=frames[1:])
    whole = prepared(source, tmp_path / "whole")
    assert whole.remarks == {"several frames or pages, the first is used": 5}

    def stop(done, total):
        if done == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(source, tmp_path / "out", report=stop)
    prepared(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_folder_prepared_before_color_profiles_were_converted_names_the_option_that_keeps_it(tmp_path, photo_folder):
    source = photo_folder(8)
    old = Rule(16, reading=Reading(icc="ignore"))
    card = prepare_images(Preparation(find_source(str(source)), old), tmp_path / "out", workers=1)
    assert card.icc == "ignore"
    with pytest.raises(DataError, match="--icc ignore keeps it"):
        prepare_images(Preparation(find_source(str(source)), Rule(16)), tmp_path / "out", workers=1)
    plan = Preparation(find_source(str(source)), old).plan()
    assert set(plan) == {"format", "source", "rule", "val_fraction", "images_per_shard"}     # as earlier versions wrote it
    assert set(plan["rule"]) == {"size", "crop", "image_format", "seed"}


@pytest.mark.parametrize("size", [8, 16, 17, 33, 96])
def test_the_cards_spectrum_equals_that_of_the_spectrum_room(tmp_path, photo_folder, size):
    from smtool.spectrum import PHYSICAL, spectrum_of

    card = prepared(photo_folder(5), tmp_path / "out", size=size)
    images = ImageShards(tmp_path / "out", card, "train")
    spectrum = spectrum_of(images.read(range(len(images))).images.double(), PHYSICAL)
    np.testing.assert_allclose(card.spectrum.power, spectrum.mean(), rtol=1e-5)
    np.testing.assert_allclose(card.spectrum.frequency, spectrum.frequency, rtol=1e-5)


def test_prepare_does_not_import_torch(tmp_path, photo_folder):
    arguments = ["prepare", str(photo_folder(3)), "--size", "16", "--out", str(tmp_path / "out")]
    code = f"import sys; from smtool.cli import app; app({arguments}, standalone_mode=False); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("lost", ["train-000000.npy", ".unfinished/train-000000.json", ".unfinished/plan.json"])
def test_a_shard_whose_index_or_note_was_damaged_is_written_again(tmp_path, photo_folder, lost):
    source, out = photo_folder(20), tmp_path / "out"
    prepared(source, tmp_path / "whole")

    def stop(done, total):
        if done == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(source, out, report=stop)
    (out / lost).write_bytes((out / lost).read_bytes()[:-20])
    if lost.endswith("plan.json"):
        with pytest.raises(DataError, match="holds an unfinished preparation of other data"):
            prepared(source, out)
        return
    prepared(source, out)
    assert contents(out) == contents(tmp_path / "whole")
