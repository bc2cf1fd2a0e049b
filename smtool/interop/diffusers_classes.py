"""Autoencoders that smtool has no network for, run by diffusers itself: AutoencoderDC and AutoencoderTiny."""

from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from smtool.errors import CheckpointError
from smtool.interop.codec import Codec
from smtool.interop.diffusers import class_of, published_stats, read_config, weights_in
from smtool.interop.inferred_classes import config_of, find_class
from smtool.interop.load import is_ours
from smtool.interop.objects import object_codec
from smtool.interop.tensor_file import TensorFile

CLASSES = ("AutoencoderDC", "AutoencoderTiny")


def runs_by_diffusers(path: Path) -> bool:
    """Whether this is the folder of such an autoencoder, its file of weights beside config.json, or such weights alone."""
    if _described(path) is not None:
        return True
    return path.is_file() and not is_ours(path) and find_class(TensorFile(path).shapes) is not None


def open_by_diffusers(path: Path, *, source: str, device: str = "cpu", image_size: int | None = None) -> Codec:
    """The codec of a folder or file; scale and shift in config.json become its LatentStats, weights alone have none."""
    folder = _described(path)
    if folder is None:
        made, stats, label = _from_weights(path), None, path.stem
    else:
        made, label = _from_folder(folder), folder.resolve().stem
        stats = published_stats({"scaling_factor": None, **read_config(folder / "config.json")})
    return object_codec(made.float(), label=label, source=source, device=device, image_size=image_size, stats=stats)


def _described(path: Path) -> Path | None:
    """The folder whose config.json says that diffusers runs these weights."""
    folder = path if path.is_dir() else path.parent
    config = folder / "config.json"
    return folder if config.is_file() and class_of(config) in CLASSES else None


def _from_folder(folder: Path) -> nn.Module:
    name = class_of(folder / "config.json") or ""
    diffusers = _diffusers(folder, name)
    file = weights_in(folder)
    try:
        return getattr(diffusers, name).from_pretrained(
            folder,
            local_files_only=True,
            low_cpu_mem_usage=False,
            variant="fp16" if ".fp16." in file.name else None,
            use_safetensors=file.suffix == ".safetensors",
        )
    except Exception as error:      # diffusers, torch and safetensors each raise their own
        raise _refused(folder, name, error, "Copy the folder again.") from error


def _from_weights(path: Path) -> nn.Module:
    file = TensorFile(path)
    found = find_class(file.shapes)
    assert found is not None, "asked before by runs_by_diffusers"
    diffusers = _diffusers(path, found.name)
    names = {name: name.removeprefix(found.prefix) for name in file.shapes if name.startswith(found.prefix)}
    tensors = file.read(names)
    if found.by_authors:
        tensors = _renamed_by_diffusers(tensors)
    try:
        config = config_of(found.name, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"{path} has key names of {found.name}, but is not a whole one.") from error
    try:
        made: nn.Module = getattr(diffusers, found.name)(**config)
        made.load_state_dict(tensors)
    except Exception as error:      # as the weights do not fit
        raise _refused(path, found.name, error, "Put the config.json of these weights beside them.") from error
    return made


def _renamed_by_diffusers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of DC-AE's authors become diffusers' by its own conversion."""
    from diffusers.loaders.single_file_utils import convert_autoencoder_dc_checkpoint_to_diffusers

    renamed: dict[str, Tensor] = convert_autoencoder_dc_checkpoint_to_diffusers(tensors)
    return renamed


def _diffusers(path: Path, name: str) -> ModuleType:
    try:
        import diffusers
    except ImportError as error:
        raise CheckpointError(
            f"{path} holds an {name}, which diffusers runs, and diffusers is not installed here.", hint="pip install diffusers"
        ) from error
    module: Any = diffusers
    return module


def _refused(path: Path, name: str, error: Exception, hint: str) -> CheckpointError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]      # torch announces its list of keys
    reason = reason if len(reason) < 160 else f"{reason[:160]} ..."
    return CheckpointError(f"{path} could not be opened as {name}: {reason}", hint=hint)
