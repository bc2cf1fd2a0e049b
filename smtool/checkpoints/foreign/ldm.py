"""Files in the format of CompVis' latent diffusion: SD, SDXL, SD3, FLUX, VA-VAE, EQ-VAE.

Decoder levels are numbered by resolution, so the last one runs first. FLUX.2 has the 1x1 convolutions inside encoder and decoder.
"""

import re
from collections.abc import Iterable, Mapping

from smtool.checkpoints.foreign.diffusers import published_stats
from smtool.checkpoints.foreign.family import Family
from smtool.checkpoints.tensor_file import TensorFile
from smtool.networks.posterior import LatentStats

# Prefix of names that only full checkpoints of a family have -> the normalization of latents in the family's pipelines.
_SCALES = {
    "model.diffusion_model.joint_blocks.": {"scaling_factor": 1.5305, "shift_factor": 0.0609},      # Stable Diffusion 3
    "model.diffusion_model.double_blocks.": {"scaling_factor": 0.3611, "shift_factor": 0.1159},      # FLUX.1
    "conditioner.embedders.": {"scaling_factor": 0.13025},      # SDXL
    "cond_stage_model.transformer.": {"scaling_factor": 0.18215},      # Stable Diffusion 1; other LDMs have other conditioning
    "cond_stage_model.model.": {"scaling_factor": 0.18215},      # Stable Diffusion 2
}


def _levels_reversed(renamed: Mapping[str, str]) -> dict[str, str]:
    """Reverse the decoder's levels: LDM's decoder.up.0 has full resolution and runs last; smtool's up_blocks.0 runs first."""
    level = re.compile(r"(?<=^decoder\.up_blocks\.)\d+")
    last = max((int(found[0]) for name in renamed.values() if (found := level.search(name))), default=0)
    return {stored: level.sub(lambda found: str(last - int(found[0])), name) for stored, name in renamed.items()}


LDM = Family(
    title="LDM",
    mark="encoder.down.0.block.0.conv1.weight",
    renames=(
        (r"^encoder\.quant_conv\.", "quant_conv."),
        (r"^decoder\.post_quant_conv\.", "post_quant_conv."),
        (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
        (r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1."),
        (r"^decoder\.up\.(\d+)\.upsample\.", r"decoder.up_blocks.\1.upsamplers.0."),
        (r"^decoder\.up\.(\d+)\.", r"decoder.up_blocks.\1."),
        (r"(_blocks\.\d+)\.block\.", r"\1.resnets."),
        (r"(_blocks\.\d+)\.attn\.", r"\1.attentions."),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"(\.attentions\.\d+)\.norm\.", r"\1.group_norm."),
        (r"(\.attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
        (r"(\.attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"\.norm_out\.", ".conv_norm_out."),
    ),
    downsample_pad="asymmetric",
    reordered=_levels_reversed,
)


def averages(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Name of a weight with `prefix` -> name of its moving average, for weights whose average the file contains.

    LDM's trainer names the average model_ema.NAME, without the dots of NAME. {} for the first stage of a diffusion model, which
    is used without averaging.
    """
    if prefix.endswith("first_stage_model."):
        return {}
    names = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    beside = {name: f"model_ema.{name.replace('.', '')}" for name in names}
    return {f"{prefix}{name}": f"{prefix}{average}" for name, average in beside.items() if average in names}


def stats_beside(file: TensorFile, prefix: str) -> LatentStats | None:
    """Statistics of the diffusion model in the same file: its stored factor, else the published values of its family, or None."""
    root = prefix.removesuffix("first_stage_model.").removesuffix("vae.")
    if root == prefix:
        return None
    if file.shapes.get(f"{root}scale_factor") in ((), (1,)):
        factor = file.read({f"{root}scale_factor": "scale"})["scale"].item()
        return published_stats({"scaling_factor": factor})
    for sign, published in _SCALES.items():
        if any(name.startswith(f"{root}{sign}") for name in file.shapes):
            return published_stats(published)
    return None
