"""Autoencoders that smtool has no network for, run by diffusers itself: AutoencoderDC and AutoencoderTiny."""

from pathlib import Path

from smtool.errors import CheckpointError
from smtool.interop.codec import Codec
from smtool.interop.diffusers import class_of, published_stats, read_config, weights_in
from smtool.interop.objects import object_codec

CLASSES = ("AutoencoderDC", "AutoencoderTiny")


def runs_by_diffusers(path: Path) -> bool:
    """Whether this is the folder of such an autoencoder, or its file of weights beside config.json."""
    config = (path if path.is_dir() else path.parent) / "config.json"
    return config.is_file() and class_of(config) in CLASSES


def open_by_diffusers(path: Path, *, source: str, device: str = "cpu", image_size: int | None = None) -> Codec:
    """The codec of a folder, or of the file in it; scale and shift in config.json become its LatentStats."""
    folder = path if path.is_dir() else path.parent
    name = class_of(folder / "config.json") or ""
    try:
        import diffusers
    except ImportError as error:
        raise CheckpointError(
            f"{folder} holds an {name}, which diffusers runs, and diffusers is not installed here.", hint="pip install diffusers"
        ) from error
    file = weights_in(folder)
    variant = "fp16" if ".fp16." in file.name else None
    try:
        made = getattr(diffusers, name).from_pretrained(
            folder,
            local_files_only=True,
            low_cpu_mem_usage=False,
            variant=variant,
            use_safetensors=file.suffix == ".safetensors",
        )
    except Exception as error:      # diffusers, torch and safetensors each raise their own
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{folder} could not be opened as {name}: {reason}", hint="Copy the folder again.") from error
    stats = published_stats({"scaling_factor": None, **read_config(folder / "config.json")})
    label = folder.resolve().stem
    return object_codec(made.float(), label=label, source=source, device=device, image_size=image_size, stats=stats)
