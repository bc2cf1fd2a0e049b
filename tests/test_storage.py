import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import warm_process
from safetensors.torch import load_file

from smtool import storage
from smtool.errors import CheckpointError, DiskError


def test_tensors_and_metadata_come_back_and_other_tools_can_read_them(tmp_path):
    path = tmp_path / "deep" / "file.safetensors"
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3, dtype=torch.int64)}
    storage.write_tensors(path, tensors, {"kind": "test", "values": [1, None]})
    assert storage.read_metadata(path) == {"kind": "test", "values": [1, None]}
    for read in (storage.read_tensors(path), load_file(path)):
        assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert storage.read_shapes(path) == {"a": (3, 2), "b": ()}


def test_shared_and_strided_tensors_are_stored_separately(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    storage.write_tensors(tmp_path / "f.safetensors", {"x": base, "y": base[:, ::2], "z": base}, {})
    assert torch.equal(storage.read_tensors(tmp_path / "f.safetensors")["y"], base[:, ::2])


def test_a_failed_write_leaves_the_old_file_and_no_temporary_file(tmp_path):
    path = tmp_path / "card.json"
    storage.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        storage.write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError), storage.replacing(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["card.json"]


@pytest.mark.parametrize("content", [b"", b"just some text, nothing else", b"\x40" + b"\0" * 7 + b"{" * 20])
def test_the_error_names_a_file_that_is_not_safetensors(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors is not a readable safetensors file"):
        storage.read_tensors(path)


def test_a_truncated_file_and_a_missing_one_are_refused(tmp_path):
    path = tmp_path / "f.safetensors"
    storage.write_tensors(path, {"x": torch.ones(1000)}, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a readable"):
        storage.read_tensors(path)
    with pytest.raises(CheckpointError, match="no such file"):
        storage.read_metadata(tmp_path / "none.safetensors")


def test_a_full_disk_is_a_disk_error_and_the_old_file_remains(tmp_path):
    """Files are limited to 64 kB, so that a write really fails, as on a full disk."""
    storage.write_tensors(tmp_path / "f.safetensors", {"x": torch.ones(4)}, {})
    (tmp_path / "full.py").write_text(
        "import resource, signal, torch; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path; from smtool import storage, errors\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))\n"
        f"path = Path({str(tmp_path)!r}) / 'f.safetensors'\n"
        "try: storage.write_tensors(path, {'x': torch.ones(1_000_000)}, {})\n"
        "except errors.DiskError as error: print(error)"
    )
    done = warm_process.run(tmp_path / "full.py")
    assert "no space left on the disk" in done.stdout, done.stderr
    assert torch.equal(storage.read_tensors(tmp_path / "f.safetensors")["x"], torch.ones(4))
    assert sorted(os.listdir(tmp_path)) == ["f.safetensors", "full.py"]


def test_a_folder_in_the_way_of_a_file_is_an_error_with_its_path(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises((DiskError, OSError), match="file"):
        storage.write_text(tmp_path / "file" / "below.txt", "y")


def test_digests_depend_on_values_names_and_shapes_but_not_on_order():
    a, b = torch.ones(2, 3), torch.zeros(4, dtype=torch.bfloat16)
    digest = storage.tensor_digest({"a": a, "b": b})
    assert digest == storage.tensor_digest({"b": b.clone(), "a": a})
    changed = [{"a": a.T, "b": b}, {"c": a, "b": b}, {"a": a + 1, "b": b}, {"a": a, "b": b.float()}, {"a": a}]
    assert digest not in [storage.tensor_digest(tensors) for tensors in changed]


def test_file_digest_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    published = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"       # FIPS 180-2, appendix B.1
    assert storage.file_digest(Path(tmp_path / "abc")) == published


def test_a_file_of_tensors_has_the_same_rights_as_any_other_file(tmp_path):
    storage.write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(1)}, {})
    storage.write_text(tmp_path / "a.txt", "a")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "a.txt").stat().st_mode


def test_equal_contents_give_equal_bytes_whatever_the_order_and_the_characters_of_the_metadata(tmp_path):
    tensors = {"b": torch.ones(2, 3), "a": torch.zeros(1, dtype=torch.float16)}
    metadata = {"recipe": {"name": 'é "quoted" \\ \u2028 \x7f'}, "step": 3, "kind": "x", "data": None, "weights": [1.5]}
    for number in range(8):      # the library draws an order for each file
        ordered = dict(sorted(metadata.items(), reverse=number % 2 == 0))
        storage.write_tensors(tmp_path / f"{number}.safetensors", tensors, ordered)
    assert len({(tmp_path / f"{number}.safetensors").read_bytes() for number in range(8)}) == 1
    assert storage.read_metadata(tmp_path / "0.safetensors") == metadata
    assert torch.equal(load_file(tmp_path / "0.safetensors")["b"], tensors["b"])


def test_a_folder_in_the_place_of_a_file_is_one_sentence(tmp_path):
    (tmp_path / "card.json").mkdir()
    with pytest.raises(DiskError, match=r"card\.json: could not be written \(Is a directory\)"):
        storage.write_json(tmp_path / "card.json", {})
    assert os.listdir(tmp_path) == ["card.json"]


@pytest.mark.parametrize(
    "error", [KeyError("x"), TypeError("x"), ValueError("x"), IndexError("x"), EOFError("x"), RecursionError("x")], ids=repr
)
def test_contents_of_another_form_are_named_with_their_file(error):
    with pytest.raises(CheckpointError, match=r"file\.json does not have the form .*x"), storage.parsing(Path("file.json")):
        raise error


def test_errors_that_already_say_what_is_wrong_pass_unchanged():
    with pytest.raises(DiskError, match="full"), storage.parsing(Path("file.json")):
        raise DiskError("full")


def test_temporary_files_of_killed_processes_are_removed_and_those_of_running_ones_kept(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    left = f".card.json.{killed.pid}.part"
    names = [left, f".card.json.{os.getpid()}.part", ".unfinished.part", "card.json", f"x.{killed.pid}.part"]
    for name in names:
        (tmp_path / name).touch()
    storage.remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(names[1:])
    storage.remove_leftovers(tmp_path / "absent")
