"""Identify the kind of tokenizer that a name or path refers to, and open it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from smtool.checkpoints.autoencoder import read_autoencoder
from smtool.checkpoints.diffusion import KIND as DIFFUSION
from smtool.checkpoints.foreign.detect import format_of
from smtool.checkpoints.foreign.diffusers import class_of, read_diffusers
from smtool.checkpoints.foreign.inferred_classes import find_class
from smtool.checkpoints.foreign.taesd import encoder_in, half_of, read_taesd, without_half
from smtool.checkpoints.foreign.weights_file import read_weights
from smtool.checkpoints.learned_from import learned_from
from smtool.checkpoints.tensor_file import PICKLED, TensorFile
from smtool.errors import CheckpointError
from smtool.image_shape import ImageSize, SizeLike
from smtool.networks.layers import DownsamplePad
from smtool.networks.sd_vae import Autoencoder
from smtool.networks.tokenizer import Tokenizer
from smtool.storage import read_metadata
from smtool.tokenizers import specimens
from smtool.tokenizers.controls import control
from smtool.tokenizers.diffusers_classes import described, open_by_diffusers
from smtool.tokenizers.encoders import is_encoder, open_encoder
from smtool.tokenizers.objects import is_object, open_object
from smtool.tokenizers.pixels import PIXELS, Pixels

Kind = Literal["pixels", "control", "encoder", "object", "trained", "foreign", "diffusers", "diffusion", "other"]
"""trained: an autoencoder in a file of smtool; foreign: weights of another tool for a network of smtool; diffusers: weights that
diffusers runs; diffusion: a checkpoint of `train-dit`; other: any other file."""
_CONTROL, _TAESD = "control:", "TAESD"
_OURS: dict[str, Kind] = {"autoencoder": "trained", DIFFUSION: "diffusion"}


@dataclass(frozen=True)
class Found:
    """The tokenizer that a name refers to. path: its file or folder, or None; format: format of a foreign file, or the class of
    diffusers; metadata: that of a file of smtool."""

    name: str
    kind: Kind
    path: Path | None = None
    format: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Path of the file or folder if there is one, else the name; `open_tokenizer` accepts it."""
        return self.name if self.path is None else str(self.path)


def identify(name: str | Path) -> Found:
    """Identify a tokenizer without loading it. Raises CheckpointError if there is nothing of this name."""
    text = str(name)
    if text.startswith(specimens.PREFIX):
        return _file(text, specimens.find(text))
    if text == PIXELS and not Path(text).exists():
        return Found(text, "pixels")
    if text.startswith(_CONTROL):
        return Found(text, "control")
    if is_encoder(text):
        return Found(text, "encoder")
    if is_object(text):
        return Found(text, "object")
    path = _path(text)
    if (folder := described(path)) is not None:
        return Found(text, "diffusers", path, str(class_of(folder / "config.json")))
    return Found(text, "foreign", path, "diffusers") if path.is_dir() else _file(text, path)


def open_tokenizer(
    name: str | Path,
    *,
    device: str = "cpu",
    downsample_pad: DownsamplePad | None = None,
    image_size: SizeLike | None = None,
    image_channels: int = 3,
    weights_dir: Path | None = None,
) -> Tokenizer:
    """Open a tokenizer, frozen and in eval mode. Raises CheckpointError, RecipeError or WeightsError.

    name: a file, run or folder of an autoencoder, `specimen:plain` or `specimen:dsm`, `pixels`, `timm:MODEL`, `squeezenet`, a
    Python object `module:attribute`, or a control `control:NAME`. image_size: of the images to encode, for encoders whose grid
    depends on it; image_channels: of the images, for tokenizers that are made for any number of them. downsample_pad: padding of
    an SD-VAE; None: that of its file. weights_dir: searched first for weights of encoders.
    """
    found = identify(name)
    form = None if image_size is None else ImageSize.of(image_size), image_channels
    return _opened(found, device, downsample_pad, *form, weights_dir).to(device).eval().requires_grad_(False)


def load_autoencoder(
    path_or_name: str | Path, *, device: str = "cpu", downsample_pad: DownsamplePad | None = None
) -> Autoencoder:
    """Open a KL autoencoder to train or export. Raises CheckpointError for any other tokenizer.

    path_or_name: a ckpt.safetensors or run of smtool, a diffusers AutoencoderKL folder, or a file of weights (.safetensors, .pt,
    .ckpt, .bin) of diffusers, LDM or the paper's trainer, whose architecture is inferred. downsample_pad: None uses that of the
    recipe for files of smtool, "asymmetric" for diffusers and LDM, "symmetric" for the paper's trainer.
    """
    found = identify(path_or_name)
    what = {"diffusers": f"{found.format} of diffusers", "encoder": "a frozen encoder", "object": "a Python object"}
    if found.kind in ("trained", "foreign", "diffusion", "other"):
        opened = _opened(found, device, downsample_pad, None, 3, None)
        if isinstance(opened, Autoencoder):
            return opened
        what[found.kind] = opened.architecture
    raise CheckpointError(
        f"{found.place} is {what.get(found.kind, 'plain arithmetic')}, but only AutoencoderKL can be opened here.",
        hint="Commands that measure, encode and sample accept it; in Python, smtool.open_tokenizer opens it.",
    )


def _opened(
    found: Found, device: str, pad: DownsamplePad | None, size: ImageSize | None, channels: int, weights_dir: Path | None
) -> Tokenizer:
    if pad not in (None, *get_args(DownsamplePad)):
        raise ValueError(f'downsample_pad must be "asymmetric" or "symmetric", but is {pad!r}')
    if found.kind == "pixels":
        return Pixels(image_channels=channels).build()
    if found.kind == "control":
        return control(found.name.removeprefix(_CONTROL), channels)
    if found.kind == "encoder":
        return open_encoder(found.name, device=device, image_size=size, image_channels=channels, weights_dir=weights_dir)
    if found.kind == "object":
        return open_object(found.name, device=device, image_size=size, image_channels=channels)
    assert found.path is not None, "all others are files"
    if found.kind == "diffusers":
        return open_by_diffusers(found.path, source=found.name, device=device, image_size=size)
    return _network(found, found.path, device, pad)


def _network(found: Found, path: Path, device: str, pad: DownsamplePad | None) -> Tokenizer:
    """Open a network of smtool; its label is the name of the run or file."""
    opened: Tokenizer
    if path.is_dir():
        opened = read_diffusers(path, device, downsample_pad=pad)
    elif found.format == _TAESD:
        opened = read_taesd(path, device)
    elif found.kind in ("foreign", "other"):
        opened = read_weights(path, device, downsample_pad=pad)
    else:
        opened = read_autoencoder(path, device, downsample_pad=pad)
    recipe = found.metadata.get("recipe")
    named = path.resolve().parent if path.name == "ckpt.safetensors" else path.resolve()
    opened.label = without_half(named.stem) if found.format == _TAESD else named.stem
    if found.name.startswith(specimens.PREFIX):
        opened.label = found.name.replace(":", "-")
    opened.source, opened.recipe = found.name, recipe if isinstance(recipe, dict) else {}
    opened.learned_from = learned_from(found.metadata)
    return opened


def _path(name: str) -> Path:
    """The file, diffusers folder or encoder file of TAESD for a path, or for the name of a run in runs/."""
    for path in (Path(name), Path("runs") / name):
        if path.is_file():
            return path
        for inside in ("ckpt.safetensors", "model.safetensors"):
            if (path / inside).is_file():
                return path / inside
        for folder in (path, path / "vae"):
            if (folder / "config.json").is_file():
                return folder
        if path.is_dir() and (encoder := encoder_in(path)) is not None:
            return encoder
    raise CheckpointError(f"{name}: {_absence(Path(name))}", hint=_known_runs())


def _file(name: str, path: Path) -> Found:
    metadata = {} if path.suffix.lower() in PICKLED else read_metadata(path)
    kind = metadata.get("kind")
    if isinstance(kind, str) and kind in _OURS:
        return Found(name, _OURS[kind], path, metadata=metadata)
    if "smtool" in metadata:
        return Found(name, "other", path, metadata=metadata)
    shapes = TensorFile(path).shapes
    if half_of(shapes) is not None:
        return Found(name, "foreign", path, _TAESD)
    if (theirs := find_class(shapes)) is not None:
        return Found(name, "diffusers", path, theirs.name)
    family = format_of(shapes)
    return Found(name, "other", path, metadata=metadata) if family is None else Found(name, "foreign", path, family)


def _absence(path: Path) -> str:
    if path.is_dir():
        return "this folder holds no autoencoder (no ckpt.safetensors, and no config.json of a diffusers AutoencoderKL)."
    return "no such file, folder or run."


def _known_runs() -> str:
    runs = [str(path) for path in sorted(Path("runs").glob("*/ckpt.safetensors"))]
    if not runs:
        return "Train one with `smtool train-ae recipes/dsm.toml`, or pass the folder of a diffusers AutoencoderKL."
    return f"There {'is' if len(runs) == 1 else 'are'}: {', '.join(runs[:5])}{' ...' if len(runs) > 5 else ''}."
