"""Short names of published autoencoders, where they are on the Hugging Face hub, and how their latents are normalized."""

from dataclasses import dataclass

from smtool.checkpoints.foreign.diffusers import published_stats
from smtool.networks.posterior import LatentStats


@dataclass(frozen=True)
class Published:
    """place: name on the hub; what: one line; scale, shift: normalized latents are (z - shift) * scale in its pipelines, None if
    only the files say it (per channel, or not at all)."""

    place: str
    what: str
    scale: float | None = None
    shift: float | None = None

    @property
    def stats(self) -> LatentStats | None:
        return None if self.scale is None else published_stats({"scaling_factor": self.scale, "shift_factor": self.shift})

    @property
    def normalization(self) -> str:
        """The normalization as text."""
        if self.scale is None:
            return "as its files say"
        return f"(z - {self.shift:g}) * {self.scale:g}" if self.shift else f"z * {self.scale:g}"


PUBLISHED = {
    "sd-vae-ft-mse": Published("stabilityai/sd-vae-ft-mse", "SD 1 and 2, f8, 4 channels", 0.18215),
    "sd-vae-ft-ema": Published("stabilityai/sd-vae-ft-ema", "SD 1 and 2, f8, 4 channels", 0.18215),
    "sdxl": Published("stabilityai/sdxl-vae", "SDXL, f8, 4 channels", 0.13025),
    "sdxl-fp16-fix": Published("madebyollin/sdxl-vae-fp16-fix", "SDXL, safe in fp16, f8, 4 channels", 0.13025),
    "sd3": Published("stabilityai/stable-diffusion-3-medium-diffusers:vae", "SD 3, f8, 16 channels", 1.5305, 0.0609),
    "flux1": Published("black-forest-labs/FLUX.1-schnell:vae", "FLUX.1, f8, 16 channels", 0.3611, 0.1159),
    "flux2": Published(
        "black-forest-labs/FLUX.2-klein-4B:vae", "FLUX.2, f8, 32 channels, normalized as 2x2 patches"
    ),
    "flux2-small-decoder": Published(
        "black-forest-labs/FLUX.2-small-decoder", "FLUX.2 with a narrower decoder, f8, 32 channels, normalized as 2x2 patches"
    ),
    "dc-ae-f32c32": Published("mit-han-lab/dc-ae-f32c32-in-1.0-diffusers", "DC-AE, f32, 32 channels"),
    "dc-ae-f64c128": Published("mit-han-lab/dc-ae-f64c128-in-1.0-diffusers", "DC-AE, f64, 128 channels"),
    "dc-ae-f128c512": Published("mit-han-lab/dc-ae-f128c512-in-1.0-diffusers", "DC-AE, f128, 512 channels"),
    "dc-ae-sana": Published("mit-han-lab/dc-ae-f32c32-sana-1.0-diffusers", "DC-AE of Sana, f32, 32 channels", 0.41407),
    "va-vae": Published("hustvl/vavae-imagenet256-f16d32-dinov2", "VA-VAE, aligned with DINOv2, f16, 32 channels"),
    "eq-vae": Published("zelaki/eq-vae", "EQ-VAE, fine-tuned SD-VAE, f8, 4 channels"),
    "eq-sdxl": Published("KBlueLeaf/EQ-SDXL-VAE", "EQ-VAE, fine-tuned SDXL, f8, 4 channels"),
    "e2e-sd-vae": Published("REPA-E/e2e-sdvae-hf", "REPA-E, SD-VAE trained with its transformer, f8, 4 channels"),
    "taesd": Published("madebyollin/taesd", "tiny autoencoder of SD's latents, f8, 4 channels", 1.0),
    "taesdxl": Published("madebyollin/taesdxl", "tiny autoencoder of SDXL's latents, f8, 4 channels", 1.0),
    "taef1": Published("madebyollin/taef1", "tiny autoencoder of FLUX.1's latents, f8, 16 channels"),
    "qwen-image": Published("Qwen/Qwen-Image:vae", "Qwen-Image, one frame, f8, 16 channels, normalized per channel"),
    "wan2.1": Published("Wan-AI/Wan2.1-T2V-1.3B-Diffusers:vae", "Wan 2.1, one frame, f8, 16 channels, normalized per channel"),
    "wan2.2": Published("Wan-AI/Wan2.2-TI2V-5B-Diffusers:vae", "Wan 2.2, one frame, f16, 48 channels, normalized per channel"),
    "cogvideox": Published("THUDM/CogVideoX-2b:vae", "CogVideoX 2B, one frame, f8, 16 channels", 1.15258426),
    "hunyuan-video": Published("hunyuanvideo-community/HunyuanVideo:vae", "HunyuanVideo, one frame, f8, 16 channels"),
}
"""Scale and shift are those of the pipelines (SD: arXiv 2112.10752; SDXL: 2307.01952; SD 3: 2403.03206; FLUX.1, Sana, CogVideoX:
configuration of their published models). They are used if the files state none."""
