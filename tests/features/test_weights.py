import hashlib
import urllib.request
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch.hub
import torchvision.models

from smtool.errors import WeightsError
from smtool.features.weights import WEIGHTS, find_weights


def put(folder, name="squeezenet1_1_torchvision_fp16.pth", content=b"weights"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def test_weights_are_searched_in_the_given_folder_then_the_environment_then_the_cache(tmp_path, monkeypatch):
    cached = put(tmp_path / "torch-home/hub/checkpoints")
    assert find_weights("squeezenet", purpose="a test") == cached
    from_environment = put(tmp_path / "environment")
    monkeypatch.setenv("SMTOOL_WEIGHTS", str(tmp_path / "environment"))
    assert find_weights("squeezenet", purpose="a test") == from_environment
    named = put(tmp_path / "named")
    assert find_weights("squeezenet", tmp_path / "named", purpose="a test") == named


def test_the_error_for_missing_weights_states_name_purpose_size_and_place(tmp_path):
    with pytest.raises(WeightsError) as caught:
        find_weights("vgg16", tmp_path, purpose="LPIPS with the vgg network")
    text = str(caught.value)
    assert "VGG16" in text and "LPIPS with the vgg network" in text and "528 MB" in text
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in text
    assert str(tmp_path / "torch-home/hub/checkpoints") in text and "--weights-dir" in text


def test_a_damaged_file_is_an_error_with_its_name(tmp_path):
    path = put(tmp_path, "vgg16-397923af.pth")
    with pytest.raises(WeightsError, match=f"{path.name} is damaged") as caught:
        find_weights("vgg16", tmp_path, purpose="a test")
    assert hashlib.sha256(b"weights").hexdigest()[:8] in str(caught.value)


def test_a_folder_that_was_named_must_exist(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="no such folder"):
        find_weights("squeezenet", tmp_path / "absent", purpose="a test")
    monkeypatch.setenv("SMTOOL_WEIGHTS", str(tmp_path / "absent"))
    with pytest.raises(WeightsError, match="no such folder"):
        find_weights("squeezenet", purpose="a test")


def test_a_download_is_announced_with_its_size_and_checked(tmp_path, monkeypatch, capsys):
    content = b"the real weights"
    name = f"squeezenet1_1-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setitem(WEIGHTS, "squeezenet", replace(WEIGHTS["squeezenet"], files=(name,), url=f"https://example.org/{name}"))
    monkeypatch.setattr(urllib.request, "urlopen", lambda request, timeout: BytesIO())
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path, progress: Path(path).write_bytes(content))
    path = find_weights("squeezenet", purpose="a test")
    assert path.read_bytes() == content
    assert path.parent == tmp_path / "torch-home/hub/checkpoints"
    assert "5 MB" in capsys.readouterr().err
    path.unlink()
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path, progress: Path(path).write_bytes(b"cut off"))
    with pytest.raises(WeightsError, match="is damaged"):
        find_weights("squeezenet", purpose="a test")


@pytest.mark.parametrize(("name", "weights"), [("vgg16", "VGG16"), ("alexnet", "AlexNet"), ("squeezenet", "SqueezeNet1_1")])
def test_addresses_and_sizes_are_torchvisions(name, weights):
    published = getattr(torchvision.models, f"{weights}_Weights").IMAGENET1K_V1
    assert WEIGHTS[name].url == published.url
    assert WEIGHTS[name].files[0] == published.url.rsplit("/", 1)[1]
    assert WEIGHTS[name].megabytes == pytest.approx(published.meta["_file_size"], abs=1)
