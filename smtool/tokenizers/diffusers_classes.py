"""Autoencoders that smtool does not implement, run by diffusers: AutoencoderDC, AutoencoderTiny, VQModel, video autoencoders."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smtool.checkpoints.foreign.diffusers import OURS, WEIGHTS, class_of, published_stats, read_config, weights_in
from smtool.checkpoints.foreign.halves import refuse_half
from smtool.checkpoints.foreign.inferred_classes import Found, config_of, find_class
from smtool.checkpoints.foreign.vector_quantized import vq_tensors
from smtool.checkpoints.shards import INDEX, is_index
from smtool.checkpoints.tensor_file import TensorFile
from smtool.errors import CheckpointError
from smtool.image_shape import ImageSize
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import point_posterior
from smtool.storage import refuse_pointer
from smtool.tokenizers.functions import FunctionTokenizer
from smtool.tokenizers.objects import object_tokenizer

_ONE_VIDEO = ("AutoencoderKLHunyuanVideo15",)
"""Classes whose attention mask does not allow several videos at once (diffusers 0.42)."""


def described(path: Path) -> Path | None:
    """The folder with a config.json of such a class, if `path` is the folder or its file of weights; else None."""
    if not path.is_dir() and re.fullmatch(rf"{WEIGHTS}((\.fp16)?\.(safetensors|bin)|{re.escape(INDEX)})", path.name) is None:
        return None
    folder = path if path.is_dir() else path.parent
    config = folder / "config.json"
    name = class_of(config) if config.is_file() else None
    return folder if name not in (None, *OURS) and ("Autoencoder" in str(name) or name == "VQModel") else None


def open_by_diffusers(
    path: Path, *, source: str, device: str = "cpu", image_size: ImageSize | None = None
) -> FunctionTokenizer:
    """The tokenizer of a folder or file. LatentStats come from scale and shift in config.json; a file alone has none.

    Raises CheckpointError if diffusers is missing or cannot open the weights.
    """
    folder = described(path)
    if folder is None:
        made, stats, label = _from_weights(path), None, path.stem
    else:
        made, label = _from_folder(folder, path), folder.resolve().stem
        stats = published_stats(read_config(folder / "config.json"))
    kind, image_channels = type(made).__name__, getattr(getattr(made, "config", None), "in_channels", 3)
    if kind == "VQModel":
        kind += f" (latents before quantization to the nearest of {made.quantize.n_e} codes)"  # type: ignore[union-attr]
    if kind == "AutoencoderRAE":
        made, stats = _ZeroToOne(made), None      # it normalizes latents internally
    if any(isinstance(layer, nn.Conv3d) for layer in made.modules()):
        made, image_channels = _OneFrame(made), 3      # in_channels counts those of patches (Wan 2.2) or of features (Mochi)
    opened: dict[str, Any] = {"label": label, "source": source, "kind": kind, "device": device, "stats": stats}
    return object_tokenizer(made.float(), **opened, image_size=image_size, image_channels=image_channels)


class _ZeroToOne(nn.Module):
    """Adapts an autoencoder of images in [0, 1] to images in [-1, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def encode(self, images: Tensor) -> Any:
        return self.network.encode(images / 2 + 0.5)

    def decode(self, latents: Tensor) -> Tensor:
        images: Tensor = self.network.decode(latents).sample
        return 2 * images - 1


class _OneFrame(nn.Module):
    """Adapts an autoencoder of videos (B, C, T, H, W), such as Qwen-Image's, to still images: videos of one frame."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network
        self.alone = type(network).__name__ in _ONE_VIDEO

    def encode(self, images: Tensor) -> Posterior:
        return Posterior.joined(self._encoded(part) for part in (images.split(1) if self.alone else [images]))

    def decode(self, latents: Tensor) -> Tensor:
        parts = latents.split(1) if self.alone else [latents]
        return torch.cat([self.network.decode(part.unsqueeze(2)).sample.squeeze(2) for part in parts])

    def _encoded(self, images: Tensor) -> Posterior:
        gaussian = self.network.encode(images.unsqueeze(2)).latent_dist
        if not hasattr(gaussian, "mean"):      # Cosmos has no variance
            return point_posterior(gaussian.mode().squeeze(2).float())
        return Posterior(gaussian.mean.squeeze(2).float(), gaussian.logvar.squeeze(2).float())


def _from_folder(folder: Path, path: Path) -> nn.Module:
    """Open a diffusers folder. path: the folder, or the file of weights in it to use."""
    name = class_of(folder / "config.json") or ""
    kind = _class(folder, name)
    file = path if path.is_file() else weights_in(folder)
    if is_index(file):
        TensorFile(file)      # raises an error that names a missing shard
    else:
        refuse_pointer(file)
    try:
        return kind.from_pretrained(
            folder,
            local_files_only=True,
            low_cpu_mem_usage=False,
            variant="fp16" if ".fp16." in file.name else None,
            use_safetensors=file.suffix != ".bin",
        )
    except Exception as error:      # diffusers, torch and safetensors raise different types
        raise _refused(folder, name, error, "Copy the folder again.") from error


def _from_weights(path: Path) -> nn.Module:
    file = TensorFile(path)
    found = find_class(file.shapes)
    assert found is not None, "checked by the caller"
    refuse_half(path, file.shapes)
    kind = _class(path, found.name)
    tensors = _tensors(file, found)
    try:
        config = config_of(found.name, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"{path} has key names of {found.name}, but is incomplete.") from error
    try:
        made: nn.Module = kind(**config)
        made.load_state_dict(tensors)
    except Exception as error:      # the type depends on how the weights do not fit
        hint = f"It is a variant of the published network; diffusers may open it if named {WEIGHTS}, with its config.json."
        raise _refused(path, found.name, error, hint) from error
    return made


def _tensors(file: TensorFile, found: Found) -> dict[str, Tensor]:
    """The weights under diffusers' names."""
    if found.layout == "vq":
        return vq_tensors(file, found.prefix)
    names = {name: name.removeprefix(found.prefix) for name in file.shapes if name.startswith(found.prefix)}
    return _renamed_by_diffusers(file.read(names)) if found.layout == "dc-ae" else file.read(names)


def _renamed_by_diffusers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the names of DC-AE's authors to diffusers' names, by diffusers' own conversion."""
    from diffusers.loaders.single_file_utils import convert_autoencoder_dc_checkpoint_to_diffusers

    renamed: dict[str, Tensor] = convert_autoencoder_dc_checkpoint_to_diffusers(tensors)
    return renamed


def _class(path: Path, name: str) -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise CheckpointError(
            f"{path} holds weights of {name}, which diffusers runs, and diffusers is not installed here.",
            hint="pip install diffusers",
        ) from error
    try:
        return getattr(diffusers, name)
    except AttributeError as error:
        raise CheckpointError(
            f"{path} holds weights of {name}, which diffusers {diffusers.__version__} does not have.",
            hint="pip install --upgrade diffusers",
        ) from error


def _refused(path: Path, name: str, error: Exception, hint: str) -> CheckpointError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]      # torch's first line is a heading
    reason = reason if len(reason) < 160 else f"{reason[:160]} ..."
    return CheckpointError(f"{path} could not be opened as {name}: {reason}", hint=hint)
