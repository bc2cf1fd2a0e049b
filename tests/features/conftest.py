"""Weight files with the right names and shapes but random values, to test the loading code."""

import hashlib

import pytest
import torch


def save_under_its_hash(state, folder, stem, ending=".pth"):
    """torch's convention: the name contains the first eight digits of the file's sha256."""
    torch.save(state, folder / "aside")
    digest = hashlib.sha256((folder / "aside").read_bytes()).hexdigest()
    return (folder / "aside").rename(folder / f"{stem}-{digest[:8]}{ending}")


@pytest.fixture(autouse=True)
def no_network_and_no_cache(monkeypatch, tmp_path):
    """Tests must neither download weights nor find those of the user's machine."""

    def refuse(request, *args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("SMTOOL_WEIGHTS", raising=False)


@pytest.fixture(scope="session")
def squeezenet_file(tmp_path_factory):
    from torchvision.models import squeezenet1_1

    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = {name: value.half() for name, value in squeezenet1_1(weights=None).state_dict().items()}
    path = tmp_path_factory.mktemp("squeezenet") / "squeezenet1_1_torchvision_fp16.pth"
    torch.save(state, path)
    return path
