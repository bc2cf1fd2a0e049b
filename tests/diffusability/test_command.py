import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from smtool.checkpoints import write_autoencoder
from smtool.networks.sd_vae import SDVAE


class Trap:
    """A malicious pickle: opening it creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.sprung = str(folder / "sprung")

    def __reduce__(self):
        return os.mkdir, (self.sprung,)


def _cut(folder: Path, runs: Path) -> Path:
    whole = (runs / "plain" / "ckpt.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:len(whole) // 2])
    return folder / "cut.safetensors"


def _pickled(folder: Path, runs: Path) -> Path:
    (folder / "model.pt").write_bytes(pickle.dumps({"state_dict": Trap(folder)}))
    return folder / "model.pt"


def _pickled_by_torch(folder: Path, runs: Path) -> Path:
    torch.save({"state_dict": Trap(folder)}, folder / "model.ckpt")
    return folder / "model.ckpt"


def _of_another_network(folder: Path, runs: Path) -> Path:
    save_file({"layers.0.weight": torch.zeros(3, 3)}, folder / "other.safetensors")
    return folder / "other.safetensors"


def _for_grey_images(folder: Path, runs: Path) -> Path:
    section = SDVAE(downsample=4, latent_channels=3, channels=(32, 32, 32), blocks_per_level=1)
    tensors = {name: value.clone() for name, value in section.build().state_dict().items()}
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        tensors[name] = tensors[name][:1].clone()
    tensors["encoder.conv_in.weight"] = tensors["encoder.conv_in.weight"][:, :1].clone()
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    config = {"_class_name": "AutoencoderKL", "in_channels": 1, "out_channels": 1, "block_out_channels": [32, 32, 32],
              "latent_channels": 3, "layers_per_block": 1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _of_large_cells(folder: Path, runs: Path) -> Path:
    section = SDVAE(downsample=64, latent_channels=2, channels=(4,) * 7, blocks_per_level=1, norm_groups=2)
    write_autoencoder(folder / "deep.safetensors", section.build(), {})
    return folder / "deep.safetensors"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (_cut, "cut"),
        (_pickled, "model.pt"),
        (_pickled_by_torch, "model.ckpt"),
        (_of_another_network, "other.safetensors"),
        (_for_grey_images, "encodes images of 1 channel (L), but those of"),
        (_of_large_cells, "32x32 is smaller than one latent cell"),
    ],
)
def test_a_file_that_cannot_be_measured_gives_a_one_line_error(made, said, command, runs, data, tmp_path):
    path = made(tmp_path, runs)
    code, out, err = command("spectrum", str(path), "--data", data, "--num-images", "4", "--device", "cpu")
    assert code == 3, err
    assert out == ""
    assert err.startswith("smtool: ")
    assert path.name in err
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["control:nothing"], "crop, "),
        (["control:crop", "--reference", "stretch"], "They are crop."),
        (["control:crop", "--budget", "soon"], "90s, 2m or 1h"),
        (["images", "--published", "celeba/none"], "celeba/dsm"),
    ],
)
def test_a_wrong_argument_is_a_usage_error_that_lists_valid_ones(arguments, said, command, data):
    code, _, err = command("spectrum", *arguments, "--data", data, "--num-images", "4", "--device", "cpu")
    assert code == 2
    assert said in err


def test_several_are_measured_side_by_side_against_a_named_reference(command, runs, data, tmp_path):
    file = tmp_path / "both.json"
    what = ["control:crop", str(runs / "plain")]
    code, out, _ = command(
        "spectrum", *what, "--reference", "plain", "--data", data, "--num-images", "6", "--device", "cpu", "--json", str(file)
    )
    assert code == 0
    assert "point, norm." in out
    crop, plain = json.loads(file.read_text())["autoencoders"]
    assert [crop["label"], plain["label"]] == ["crop", "plain"]
    assert crop["lens"]["shift"]["reference"] == "plain"
    assert plain["lens"]["shift"] == {"reason": "it is the reference"}
    assert crop["transfer"]["kappa"] > 0.99
