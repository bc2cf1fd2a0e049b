"""What a path or a name stands for, and which reader opens it."""

from pathlib import Path
from typing import get_args

from smtool.errors import CheckpointError
from smtool.interop.diffusers import read_diffusers
from smtool.interop.native import read_autoencoder
from smtool.interop.tensor_file import PICKLED
from smtool.interop.weights_file import read_weights
from smtool.networks.autoencoder import Autoencoder
from smtool.networks.layers import DownsamplePad
from smtool.storage import read_metadata


def load_autoencoder(
    path_or_name: str | Path, *, device: str = "cpu", downsample_pad: DownsamplePad | None = None
) -> Autoencoder:
    """Open a KL autoencoder: a ckpt.safetensors or a run of ours, a diffusers AutoencoderKL folder, or a file of weights of
    diffusers, LDM or the paper's own trainer, .safetensors or .pt, .ckpt, .bin, whose architecture is inferred.

    downsample_pad: None is what the file means: its recipe's, "asymmetric" for diffusers and LDM, "symmetric" for the paper's.
    """
    if downsample_pad not in (None, *get_args(DownsamplePad)):
        raise ValueError(f'downsample_pad must be "asymmetric" or "symmetric", but is {downsample_pad!r}')
    path = find_autoencoder(path_or_name)
    if path.is_dir():
        return read_diffusers(path, device, downsample_pad=downsample_pad)
    if is_ours(path):
        return read_autoencoder(path, device, downsample_pad=downsample_pad)
    return read_weights(path, device, downsample_pad=downsample_pad)


def is_ours(path: Path) -> bool:
    """Whether smtool wrote this file, and so says in it what it is."""
    return path.suffix.lower() not in PICKLED and "smtool" in read_metadata(path)


def find_autoencoder(path_or_name: str | Path) -> Path:
    """The file, or the diffusers folder, that a path or the name of a run under runs/ stands for."""
    for path in (Path(path_or_name), Path("runs") / path_or_name):
        if path.is_file():
            return path
        for name in ("ckpt.safetensors", "model.safetensors"):
            if (path / name).is_file():
                return path / name
        for folder in (path, path / "vae"):
            if (folder / "config.json").is_file():
                return folder
    raise CheckpointError(f"{path_or_name}: {_absence(Path(path_or_name))}", hint=_known_runs())


def _absence(path: Path) -> str:
    if path.is_dir():
        return "this folder holds no autoencoder (no ckpt.safetensors, and no config.json of a diffusers AutoencoderKL)."
    return "no such file, folder or run."


def _known_runs() -> str:
    runs = [str(path) for path in sorted(Path("runs").glob("*/ckpt.safetensors"))]
    if not runs:
        return "Train one with `smtool train-ae recipes/dsm.toml`, or pass the folder of a diffusers AutoencoderKL."
    return f"There {'is' if len(runs) == 1 else 'are'}: {', '.join(runs[:5])}{' ...' if len(runs) > 5 else ''}."
