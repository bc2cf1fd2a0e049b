import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from smtool.data.images.builtin import PhotoCrop
from smtool.data.images.decoding import Decoded, Reading, UnusableImage
from smtool.data.images.entries import Entry, Sample, Skipped
from smtool.data.images.transform import Rule
from smtool.data.images.workers import made_samples
from smtool.errors import DataError


@dataclass(frozen=True, slots=True)
class Deadly:
    """An image whose decoder ends its process."""

    def decoded(self, reading: Reading) -> Decoded:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise UnusableImage("unreachable")


@dataclass(frozen=True, slots=True)
class Flat:
    """An image of one gray level; level 13 cannot be read."""

    level: int

    def decoded(self, reading: Reading) -> Decoded:
        print("a library may print")
        if self.level == 13:
            raise UnusableImage("unlucky")
        return Decoded(Image.new("RGB", (8, 8), (self.level,) * 3))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Workers unpickle the classes of this file, so it must be importable there under the same module name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setitem(sys.modules, "test_workers", sys.modules[__name__])
    for kind in (Deadly, Flat):
        monkeypatch.setattr(kind, "__module__", "test_workers")


def test_samples_come_in_the_order_of_the_entries_whatever_the_number_of_workers():
    entries = [Entry(str(level), Flat(level)) for level in range(100)]
    results = []
    for workers in (1, 3):
        with made_samples(entries, Rule(8), workers) as made:
            results.append(list(made))
    assert results[0] == results[1]
    assert [result.entry.id for result in results[0]] == [str(level) for level in range(100)]
    assert {result.entry.id: result.reason for result in results[0] if isinstance(result, Skipped)} == {"13": "unlucky"}
    assert isinstance(results[0][12], Sample)


def test_an_error_in_a_worker_is_raised_in_the_caller_with_its_hint():
    entry = Entry("x", PhotoCrop("absent.png", 0, 0, 8))
    with pytest.raises(DataError, match=r"needs absent\.png") as caught, made_samples([entry], Rule(8), 2) as made:
        list(made)
    assert caught.value.hint == "Install scikit-image 0.24 or newer."


def test_a_worker_that_dies_is_an_error_and_not_a_hang():
    entry = Entry("x", Deadly())
    with pytest.raises(DataError, match="worker process of `prepare` died"), made_samples([entry], Rule(8), 2) as made:
        list(made)


def test_workers_end_when_the_results_are_no_longer_wanted(monkeypatch):
    processes = []

    class Listed(subprocess.Popen):
        def __init__(self, *args, **keywords):
            super().__init__(*args, **keywords)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Listed)
    with made_samples((Entry(str(n), Flat(n % 7)) for n in range(10**6)), Rule(8), 2) as made:
        next(made)
    assert [process.poll() is None for process in processes] == [False, False]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["script", "stdin"])
def test_a_script_needs_no_main_guard(tmp_path, how):
    """multiprocessing would run the script again in each worker, and wait forever for the folder's lock."""
    code = (
        "from pathlib import Path\nfrom smtool.commands.prepare.images import prepare\n"
        f"prepare('builtin:photos?train=24&val=12', out=Path({str(tmp_path / 'out')!r}), size=16, workers=2)\n"
    )
    (tmp_path / "script.py").write_text(code)
    command = [sys.executable, str(tmp_path / "script.py")] if how == "script" else [sys.executable, "-"]
    subprocess.run(command, input=code if how == "stdin" else None, text=True, check=True, timeout=120)
    assert (tmp_path / "out" / "dataset.json").is_file()
