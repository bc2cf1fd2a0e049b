"""Set-up and fixtures for all tests: few threads per test worker, the command line, a folder with a tiny trained SiT."""

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import squeezenet1_1
from undrawn import leave_out_drawings

from smtool import cli
from smtool.checkpoints import write_autoencoder
from smtool.commands.prepare.images import prepare
from smtool.commands.train import training
from smtool.commands.train.run_diffusion import diffusion_run
from smtool.data import open_images
from smtool.data.batches import to_uint8
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing
from smtool.recipe import TrainDiT, load
from smtool.report.console import Console
from smtool.report.grids import png_bytes

torch.set_num_threads(max(1, (os.cpu_count() or 2) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "2"))))


AUTOENCODER = SDVAE(downsample=4, latent_channels=2, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1)
DINOV2_S = "vit_small_patch14_dinov2.lvd142m"
RECIPE = """
steps = 8
log_every = 1
evaluate_every = 1000
save_every = 4
[latents]
autoencoder = "runs/tiny"
[data]
batch = 8
[model]
kind = "sit"
size = "custom"
depth = 2
width = 32
heads = 2
patch = 2
[labels]
[optimizer]
lr = 1e-2
warmup = 0
[ema]
decay = 0.9
[sampler]
kind = "euler"
steps = 4
[validation]
num_images = 8
grid = 4
[tracking]
tensorboard = false
"""


@dataclass(frozen=True)
class Studio:
    """A working folder with data/classes (42 photographs of 32 px, 3 classes), runs/tiny (an autoencoder) and dit.toml."""

    folder: Path

    @property
    def recipe(self) -> str:
        return str(self.folder / "dit.toml")

    def train(self, out: Path, *changes: str, weights_dir: Path | None = None) -> Path:
        """`smtool train-dit dit.toml --out ...` in this process."""
        console = Console(file=io.StringIO())
        loaded = load(self.recipe, TrainDiT, changes)
        return training.train(loaded, diffusion_run, console=console, out=out, weights_dir=weights_dir)

    def write_autoencoder(self, path: Path, seed: int) -> None:
        """Write random weights; those of the last layer are large, so that images use the whole range of intensities."""
        with initializing("test", seed):
            autoencoder = AUTOENCODER.build()
        with torch.no_grad():
            autoencoder.decoder_last_layer.mul_(2)
        write_autoencoder(path, autoencoder, {"recipe": {"data": {"train": "data/classes", "image_size": 32}}})


@pytest.fixture(scope="session")
def _studio(tmp_path_factory) -> Studio:
    folder = tmp_path_factory.mktemp("studio")
    photos = open_images("builtin:photos?train=42&val=2", "train", image_size=32, root=folder / "photos")
    for number, image in enumerate(to_uint8(photos.read(range(42)).images)):
        place = folder / "pictures" / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04d}.png").write_bytes(png_bytes(image))
    prepare(str(folder / "pictures"), out=folder / "data" / "classes", size=32, val_fraction=0.0, workers=1)
    (folder / "dit.toml").write_text(RECIPE)
    studio = Studio(folder)
    studio.write_autoencoder(folder / "runs" / "tiny" / "ckpt.safetensors", 0)
    return studio


@pytest.fixture
def studio(_studio, monkeypatch) -> Studio:
    """The shared folder as the working directory; files written into it remain for later tests."""
    monkeypatch.chdir(_studio.folder)
    return _studio


@pytest.fixture(scope="session")
def finished(_studio) -> Path:
    """A finished run of dit.toml; tests must not change it."""
    before = os.getcwd()
    os.chdir(_studio.folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            leave_out_drawings(patch.setattr)
            return _studio.train(_studio.folder / "runs" / "dit")
    finally:
        os.chdir(before)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Networks and inputs that a test makes without a seed of its own are the same in any order of tests, on any worker."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _drawings(request, monkeypatch) -> None:
    """Runs in this process draw nothing, but for tests that are marked `draws`."""
    if request.node.get_closest_marker("draws") is None:
        leave_out_drawings(monkeypatch.setattr)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def command(monkeypatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """smtool's command line in this process: arguments -> (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["smtool", *arguments])
        monkeypatch.setenv("COLUMNS", "500")
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def frechet():
    """Frechet distance of features (N, D) and (M, D), numpy, by scipy's matrix square root."""

    def distance(x, y):
        a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
        shift = x.mean(0) - y.mean(0)
        return shift @ shift + np.trace(a) + np.trace(b) - 2 * np.trace(scipy.linalg.sqrtm(a @ b).real)

    return distance


@pytest.fixture
def screen():
    """A console, and a function that returns its text."""
    file = io.StringIO()
    return Console(file=file), file.getvalue


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No weights on this machine, and no network to download them."""

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch-home"))
    monkeypatch.delenv("SMTOOL_WEIGHTS", raising=False)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A folder with random weights of teachers, with the file names and shapes of the published ones."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model(DINOV2_S, num_classes=0).state_dict(), folder / f"{DINOV2_S}.safetensors")
        save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), folder / "resnet10t.safetensors")
        tiny = "vit_tiny_patch16_224"
        save_file(timm.create_model(tiny, num_classes=0).state_dict(), folder / f"{tiny}.safetensors")
        state = {name: value.half() for name, value in squeezenet1_1(weights=None).state_dict().items()}
        torch.save(state, folder / "squeezenet1_1_torchvision_fp16.pth")
    return folder


@pytest.fixture(scope="session")
def published():
    """(name of a published shape, seed) -> a narrow autoencoder of diffusers of that structure, with random weights."""
    from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLWan

    kl = {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4,
          "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    without_quant = {"use_quant_conv": False, "use_post_quant_conv": False, "latent_channels": 16}
    dc = {
        f"{half}_{key}": value for half in ("encoder", "decoder")
        for key, value in {"block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"), "block_out_channels": (8, 8, 16),
                           "layers_per_block": (1, 1, 1), "qkv_multiscales": ((), (), (5,))}.items()
    }
    shapes = {
        "SD": (AutoencoderKL, {**kl, "scaling_factor": 0.18215}),
        "SDXL": (AutoencoderKL, {**kl, "scaling_factor": 0.13025}),
        "FLUX.1": (AutoencoderKL, {**kl, **without_quant, "scaling_factor": 0.3611, "shift_factor": 0.1159}),
        "FLUX.2": (AutoencoderKLFlux2, {**kl, "latent_channels": 8}),
        "FLUX.2 small decoder": (AutoencoderKLFlux2, {**kl, "latent_channels": 8, "decoder_block_out_channels": (4, 8, 12, 12)}),
        "DC-AE": (AutoencoderDC, {**dc, "latent_channels": 8, "attention_head_dim": 4, "scaling_factor": 0.5}),
        "Wan": (AutoencoderKLWan, {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1,
                                   "latents_mean": [0.5] * 4, "latents_std": [2.0] * 4}),
    }
    formats = {"SD": torch.float32, "SDXL": torch.float16, "FLUX.1": torch.bfloat16, "FLUX.2": torch.bfloat16,
               "FLUX.2 small decoder": torch.float32, "DC-AE": torch.float32, "Wan": torch.bfloat16}

    def make(shape: str, seed: int = 0):
        kind, sizes = shapes[shape]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = kind(**sizes).eval()
        if kind is AutoencoderKLFlux2:
            made.bn.running_mean.copy_(torch.linspace(-1, 1, 32))
            made.bn.running_var.copy_(torch.linspace(0.5, 2, 32))
        return made.to(formats[shape])

    return make
