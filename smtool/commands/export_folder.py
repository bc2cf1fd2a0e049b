"""`smtool export --to diffusers`: the folder that diffusers opens, with a model card."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smtool.checkpoints.foreign.dc_ae import DC_AE
from smtool.checkpoints.foreign.diffusers import weights_in
from smtool.checkpoints.foreign.export_dc_ae import write_dc_ae
from smtool.checkpoints.foreign.export_diffusers import (
    diffusers_class,
    notes_for_diffusers,
    refuse_for_diffusers,
    write_diffusers,
)
from smtool.checkpoints.foreign.settings import split_settings
from smtool.checkpoints.hub.fetch import hub_name
from smtool.checkpoints.tensor_file import TensorFile
from smtool.commands.align import Alignment
from smtool.commands.model_card import Origin, write_card
from smtool.errors import CheckpointError
from smtool.networks.dc_ae import DeepCompressionAutoencoder
from smtool.networks.layers import DownsamplePad
from smtool.networks.tokenizer import Tokenizer
from smtool.storage import write_json
from smtool.tokenizers import Found, identify, load_autoencoder, open_tokenizer

_BATCH_NORM = re.compile(r"(?:^|\.)(bn\.(?:running_mean|running_var|num_batches_tracked))$")


def write_folder(
    what: str,
    out: Path,
    *,
    unlike_padding: bool,
    downsample_pad: DownsamplePad | None,
    half: bool,
    alignment: Alignment | None = None,
) -> tuple[Tokenizer, list[Path]]:
    """Write the folder; returns the autoencoder and the files. Weights keep the number format of the file they come from.

    what: an SD-VAE or DC-AE in any format, or an autoencoder that diffusers runs. unlike_padding: see `write_diffusers`. half:
    store float16. alignment: to fold into an SD-VAE, which is then stored as float32 unless half.
    """
    found = identify(what)
    if found.kind == "diffusers":
        return _by_diffusers(found, out, half=half)
    if found.format == DC_AE or found.metadata.get("model", {}).get("kind") == "dc-ae":
        return _deep(found, out, half=half, aligned=alignment is not None)
    opened = load_autoencoder(what, downsample_pad=downsample_pad)
    refuse_for_diffusers(opened.config, unlike_padding=unlike_padding)
    dtype = number_format(found) if alignment is None else torch.float32
    batch_norm = _batch_norm(found, torch.float32 if half else dtype)
    if alignment is not None:
        if batch_norm:
            raise CheckpointError(f"{found.place} normalizes 2x2 patches of its own latents, which --align would change.")
        opened = alignment.folded(opened)
    dtype = round_to_half(what, opened) if half else dtype
    written = write_diffusers(out, opened, unlike_padding=unlike_padding, dtype=dtype, batch_norm=batch_norm)
    kind, notes = diffusers_class(opened, batch_norm), notes_for_diffusers(opened.config)
    notes += [] if alignment is None else [alignment.card_section()]
    return opened, written + write_card(out, opened, _origin(found), kind=kind, notes=notes)


def _deep(found: Found, out: Path, *, half: bool, aligned: bool) -> tuple[Tokenizer, list[Path]]:
    if aligned:
        raise CheckpointError(f"{found.place} is DC-AE, into which --align cannot be folded.", hint="Leave out --align.")
    autoencoder = open_tokenizer(found.name)
    assert isinstance(autoencoder, DeepCompressionAutoencoder)
    dtype = round_to_half(found.name, autoencoder) if half else number_format(found)
    written = write_dc_ae(out, autoencoder, dtype=dtype)
    return autoencoder, written + write_card(out, autoencoder, _origin(found), kind=DC_AE)


def number_format(found: Found) -> torch.dtype:
    """The number format in which the weights of a file or folder are stored."""
    return TensorFile(_file(found)).number_format


def round_to_half(what: str, network: nn.Module) -> torch.dtype:
    """Round the weights, in place, to the values that float16 holds."""
    largest = max(float(weight.abs().max()) for weight in network.state_dict().values() if weight.is_floating_point())
    if largest > torch.finfo(torch.float16).max:
        raise CheckpointError(f"{what}: a weight of {largest:.3g} is beyond float16's largest, 65,504.", hint="Leave out --half.")
    network.half().float()
    return torch.float16


def _by_diffusers(found: Found, out: Path, *, half: bool) -> tuple[Tokenizer, list[Path]]:
    """An autoencoder that diffusers runs is written by diffusers. A scale that its file does not state stays unknown."""
    tokenizer = open_tokenizer(found.name)
    network: Any = tokenizer.network
    network = getattr(network, "network", network)      # inside an adapter for images in [0, 1] or for one frame
    dtype = round_to_half(found.name, network) if half else number_format(found)
    stored = network if dtype == torch.float32 else network.to(dtype)
    stored.save_pretrained(out)
    network.float()
    config = json.loads((out / "config.json").read_text())
    if tokenizer.stats is None and "scaling_factor" in config:
        write_json(out / "config.json", {**config, "scaling_factor": None})
    written = sorted(path for path in out.iterdir() if path.is_file())
    return tokenizer, written + write_card(out, tokenizer, _origin(found), kind=type(network).__name__)


def _file(found: Found) -> Path:
    assert found.path is not None, "an autoencoder with weights"
    return weights_in(found.path) if found.path.is_dir() else found.path


def _batch_norm(found: Found, dtype: torch.dtype) -> Mapping[str, Tensor]:
    """FLUX.2's batch norm of 2x2 patches, from the file; {} if it has none."""
    if found.kind != "foreign":
        return {}
    file = TensorFile(_file(found))
    names = {name: match[1] for name in file.shapes if (match := _BATCH_NORM.search(name))}
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in file.read(names).items()}


def _origin(found: Found) -> Origin:
    assert found.path is not None, "an autoencoder with weights"
    if found.on_hub:
        repository = hub_name(split_settings(found.name)[0])
        return Origin(found.name, None, found.metadata, None if repository is None else repository.repository)
    folder = found.path if found.path.is_dir() else found.path.parent
    return Origin(f"`{Path(found.place).name}`", folder, found.metadata)
