"""Records how REPA writes sampled images: python -m recorder.repa_pictures CHECKOUT OUT.

Runs main() of generate.py, which writes PNG files. Replaced are the GPU and the process group (one CPU process), the transformer
and its sampler, and the decoder, which returns known images with values outside [-1, 1].
"""

import importlib
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers.models  # noqa: F401  must precede the stand-ins, whose modules it looks for
import numpy as np
import torch
from given import float64, image_cases, recording
from given.summary import array
from PIL import Image
from torch import Tensor

from recorder import stand_ins
from recorder.checkouts import REPA


class OneProcess:
    """Replaces the number of GPUs: `rank % OneProcess()` is the device "cpu"."""

    def __rmod__(self, rank: int) -> str:
        return "cpu"


def main(checkout: Path, out: Path) -> None:
    stand_ins.stand_in("utils")
    sys.path.insert(0, str(checkout))
    generate = importlib.import_module("generate")
    with float64.everywhere(), tempfile.TemporaryDirectory() as folder:
        _replaced(generate)
        generate.main(_arguments(folder))
        paths = sorted(Path(folder).rglob("*.png"))
        pictures = torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in paths])
    command = "make parity REFERENCE=path: python -m recorder.repa_pictures"
    recording.write(out, {**REPA.source, "command": command, "pictures": array(pictures)})


def _replaced(generate: Any) -> None:
    _, decoded = image_cases.decodings()
    codec = SimpleNamespace(decode=lambda latents: SimpleNamespace(sample=decoded))
    codec.to = lambda device: codec
    network: Any = SimpleNamespace(in_channels=4, eval=lambda: None, load_state_dict=lambda state: None)
    network.parameters, network.projectors = list, SimpleNamespace(parameters=list)
    network.to = lambda device: network
    torch.cuda.is_available, torch.cuda.device_count = lambda: True, OneProcess  # type: ignore[assignment]
    torch.cuda.set_device = lambda device: None
    torch.load = lambda path, **keys: {"ema": {}}  # type: ignore[assignment]
    nothing = ("init_process_group", "barrier", "destroy_process_group")
    ones = {"get_rank": lambda: 0, "get_world_size": lambda: 1}
    generate.dist = SimpleNamespace(**{name: lambda *args: None for name in nothing}, **ones)
    generate.SiT_models = {"small": lambda **keys: network}
    generate.AutoencoderKL = SimpleNamespace(from_pretrained=lambda name: codec)
    generate.euler_sampler = _any_latents
    generate.create_npz_from_sample_folder = lambda folder, count: None


def _any_latents(latents: Tensor, **keys: Any) -> Tensor:
    return latents


def _arguments(folder: str) -> SimpleNamespace:
    count = len(image_cases.decodings()[1])
    return SimpleNamespace(
        tf32=False,
        global_seed=0,
        fused_attn=True,
        qk_norm=False,
        resolution=256,
        model="small",
        num_classes=1000,
        projector_embed_dims="24",
        encoder_depth=2,
        ckpt="small.pt",
        legacy=False,
        vae="mse",
        cfg_scale=1.0,
        mode="ode",
        sample_dir=folder,
        per_proc_batch_size=count,
        num_fid_samples=count,
        num_steps=1,
        heun=False,
        guidance_low=0.0,
        guidance_high=1.0,
        path_type="linear",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
