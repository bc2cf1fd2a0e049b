"""Identify the kind of tokenizer that a name or path refers to, and open it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from smtool.checkpoints.autoencoder import read_autoencoder
from smtool.checkpoints.diffusion import KIND as DIFFUSION
from smtool.checkpoints.foreign.dc_ae import DC_AE, read_dc_ae, supported
from smtool.checkpoints.foreign.detect import format_of
from smtool.checkpoints.foreign.diffusers import class_of, read_diffusers
from smtool.checkpoints.foreign.inferred_classes import find_class
from smtool.checkpoints.foreign.settings import AS_STATED, Settings, split_settings
from smtool.checkpoints.foreign.taesd import encoder_in, half_of, read_taesd, without_half
from smtool.checkpoints.foreign.weights_file import read_weights
from smtool.checkpoints.hub.fetch import fetched, hub_name
from smtool.checkpoints.hub.published import PUBLISHED
from smtool.checkpoints.learned_from import learned_from
from smtool.checkpoints.shards import INDEX, index_of, is_index
from smtool.checkpoints.tensor_file import PICKLED, TensorFile
from smtool.errors import CheckpointError, RecipeError
from smtool.image_shape import ImageSize, SizeLike
from smtool.networks.layers import DownsamplePad
from smtool.networks.sd_vae import Autoencoder
from smtool.networks.tokenizer import Tokenizer
from smtool.storage import read_metadata
from smtool.tokenizers import specimens
from smtool.tokenizers.controls import control
from smtool.tokenizers.dct import dct, is_dct
from smtool.tokenizers.diffusers_classes import described, open_by_diffusers
from smtool.tokenizers.encoders import is_encoder, open_encoder
from smtool.tokenizers.objects import is_object, open_object
from smtool.tokenizers.pixels import PIXELS, Pixels

Kind = Literal["pixels", "control", "dct", "encoder", "object", "trained", "foreign", "diffusers", "diffusion", "other"]
"""trained: an autoencoder in a file of smtool; foreign: weights of another tool for a network of smtool; diffusers: weights that
diffusers runs; diffusion: a checkpoint of `train-dit`; other: any other file."""
_CONTROL, _TAESD = "control:", "TAESD"
_OURS: dict[str, Kind] = {"autoencoder": "trained", DIFFUSION: "diffusion"}


@dataclass(frozen=True)
class Found:
    """The tokenizer that a name refers to. path: its file or folder, or None; format: format of a foreign file, or the class of
    diffusers; metadata: that of a file of smtool; settings: those given behind the name; on_hub: whether the file is one of the
    hub's cache."""

    name: str
    kind: Kind
    path: Path | None = None
    format: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    settings: Settings = AS_STATED
    on_hub: bool = False

    @property
    def place(self) -> str:
        """Path of a local file or folder with the given settings, else the name; `open_tokenizer` accepts it."""
        return self.name if self.path is None or self.on_hub else f"{self.path}{self.settings.suffix}"


def identify(name: str | Path) -> Found:
    """Identify a tokenizer without loading it; files on the hub are downloaded.

    Raises CheckpointError if there is nothing of this name, WeightsError if it is on the hub only and cannot be downloaded,
    RecipeError for settings that it does not take.
    """
    if is_dct(str(name)):
        return Found(str(name), "dct")
    plain, settings = split_settings(str(name))
    found = _identified(plain)
    takes = found.kind in ("trained", "foreign", "other")
    if settings.given and (not takes or found.format in (_TAESD, DC_AE) or (settings.norm_groups and found.kind == "trained")):
        raise RecipeError(f"{name}: {plain} takes no settings such as {settings.suffix[1:]}.", hint="Leave them out.")
    return replace(found, name=str(name), settings=settings)


def _identified(text: str) -> Found:
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
    path, on_hub = _path(text)
    if (folder := described(path)) is not None:
        name = str(class_of(folder / "config.json"))
        return Found(text, "foreign" if name == DC_AE and supported(path) else "diffusers", path, name, on_hub=on_hub)
    found = Found(text, "foreign", path, "diffusers") if path.is_dir() else _file(text, path)
    return replace(found, on_hub=on_hub)


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

    name: a file, run or folder of an autoencoder, a repository on the hub (`org/name`, `org/name:subfolder`, `org/name@revision`,
    or a short name of `smtool.checkpoints.hub`), `specimen:plain` or `specimen:dsm`, `pixels`, blocks of DCT coefficients such as
    `dct:2x4` (`smtool.tokenizers.dct`), `timm:MODEL`, `squeezenet`, a Python object `module:attribute`, or a control
    `control:NAME`. Settings of an SD-VAE that its file does not show may follow the name:
    `vae.safetensors,padding=reflect,norm_groups=16`. image_size: of the images to encode, for encoders whose grid depends on it;
    image_channels: of the images, for tokenizers that are made for any number of them. downsample_pad: padding of
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
    opened = _of_kind(found, device, pad, size, channels, weights_dir)
    if found.on_hub:
        plain = split_settings(found.name)[0]
        published = PUBLISHED.get(plain.partition("@")[0])
        opened.label = plain if published is not None else str(hub_name(plain)).partition("/")[2]
        opened.stats = opened.stats or (None if published is None else published.stats)
    return opened


def _of_kind(
    found: Found, device: str, pad: DownsamplePad | None, size: ImageSize | None, channels: int, weights_dir: Path | None
) -> Tokenizer:
    if pad not in (None, *get_args(DownsamplePad)):
        raise ValueError(f'downsample_pad must be "asymmetric" or "symmetric", but is {pad!r}')
    if found.kind == "pixels":
        return Pixels(image_channels=channels).build()
    if found.kind == "control":
        return control(found.name.removeprefix(_CONTROL), channels)
    if found.kind == "dct":
        made = dct(found.name).build()
        made.source = found.name
        return made
    if found.kind == "encoder":
        return open_encoder(found.name, device=device, image_size=size, image_channels=channels, weights_dir=weights_dir)
    if found.kind == "object":
        return open_object(found.name, device=device, image_size=size, image_channels=channels)
    assert found.path is not None, "all others are files"
    if found.kind == "diffusers":
        return open_by_diffusers(found.path, source=found.name, device=device, image_size=size)
    return _network(found, found.path, device, pad, weights_dir)


def _network(found: Found, path: Path, device: str, pad: DownsamplePad | None, weights_dir: Path | None) -> Tokenizer:
    """Open a network of smtool; its label is the name of the run or file."""
    opened: Tokenizer
    settings = found.settings if pad is None else replace(found.settings, downsample_pad=pad)
    if found.format == DC_AE:
        opened = read_dc_ae(path, device)
    elif path.is_dir():
        opened = read_diffusers(path, device, settings)
    elif found.format == _TAESD:
        opened = read_taesd(path, device)
    elif found.kind in ("foreign", "other"):
        opened = read_weights(path, device, settings)
    else:
        opened = read_autoencoder(path, device, settings.given, weights_dir=weights_dir)
    recipe = found.metadata.get("recipe")
    named = path.resolve().parent if path.name == "ckpt.safetensors" else path.resolve()
    stem = named.name.removesuffix(INDEX) if is_index(path) else named.stem
    opened.label = without_half(stem) if found.format == _TAESD else stem
    if found.name.startswith(specimens.PREFIX):
        opened.label = found.name.replace(":", "-")
    opened.source, opened.recipe = found.name, recipe if isinstance(recipe, dict) else {}
    opened.learned_from = learned_from(found.metadata)
    return opened


def _path(name: str) -> tuple[Path, bool]:
    """(file or folder, whether it is on the hub) for a path, a run in runs/, or a name on the hub."""
    if (path := _local(name)) is not None:
        return path, False
    asked = None if Path(name).exists() else hub_name(name)
    if asked is None:
        raise CheckpointError(f"{name}: {_absence(Path(name))}", hint=_known_runs())
    place = fetched(asked)
    path = _local(str(place))
    assert path is not None, f"the files of an autoencoder were downloaded to {place}"
    return path, True


def _local(name: str) -> Path | None:
    """The file, diffusers folder or encoder file of TAESD for a path, or for the name of a run in runs/."""
    for path in (Path(name), Path("runs") / name):
        if path.is_file():
            return index_of(path)
        for inside in ("ckpt.safetensors", "model.safetensors", f"model{INDEX}"):
            if (path / inside).is_file():
                return path / inside
        for folder in (path, path / "vae"):
            if (folder / "config.json").is_file():
                return folder
        if path.is_dir() and (encoder := encoder_in(path)) is not None:
            return encoder
    return None


def _file(name: str, path: Path) -> Found:
    metadata = {} if path.suffix.lower() in PICKLED or is_index(path) else read_metadata(path)
    kind = metadata.get("kind")
    if isinstance(kind, str) and kind in _OURS:
        return Found(name, _OURS[kind], path, metadata=metadata)
    if "smtool" in metadata:
        return Found(name, "other", path, metadata=metadata)
    shapes = TensorFile(path).shapes
    if half_of(shapes) is not None:
        return Found(name, "foreign", path, _TAESD)
    if (theirs := find_class(shapes)) is not None:
        return Found(name, "foreign" if theirs.name == DC_AE and supported(path) else "diffusers", path, theirs.name)
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
