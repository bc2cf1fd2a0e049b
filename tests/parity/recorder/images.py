"""Records the image processing and the scores of Spectrum Matching's code: python -m recorder.images CHECKOUT OUT.

Crops, the data set's transform, JPEG files, PSNR, SSIM and LPIPS as in the trainer's evaluation, Inception's features (generated
weights), the Frechet distance, the spectra of figures and losses, and the number of cells of their rings (in single precision,
because rounding determines the ring of some cells).
"""

import importlib
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers.optimization  # noqa: F401  must precede the stand-in for transformers, which diffusers looks for
import numpy as np
import torch
from given import float64, numbers, recording
from given import image_cases as cases
from given.perceptual import random_lpips
from given.summary import array
from PIL import Image
from torch import Tensor, nn
from torchmetrics.image import StructuralSimilarityIndexMeasure

from recorder import stand_ins
from recorder.checkouts import ESM_TRAINER


def main(checkout: Path, out: Path) -> None:
    stand_ins.stand_in("transformers", "datasets")
    sys.path.insert(0, str(checkout))
    modules = SimpleNamespace(
        utils=importlib.import_module("utils"),
        dataset=importlib.import_module("dataset"),
        spectra=importlib.import_module("utils_DCT"),
        fid_score=importlib.import_module("eval_utils.fid_score"),
        inception=importlib.import_module("eval_utils.inception"),
        scores=importlib.import_module("eval_utils.utils"),
    )
    rings = _rings(modules.spectra)
    with float64.everywhere(), torch.no_grad():
        found = {
            "crops": [array(_pixels(modules.utils.center_crop_arr(cases.picture(*size), cases.SIZE))) for size in cases.CROPS],
            "transform": array(_transformed(modules.dataset)),
            **_evaluated(modules),
            "frechet": _frechet(modules.fid_score),
            "spectra": {str(side): _spectra(modules.spectra, side) for side in (8, 16, 32)},
            "rings": rings,
        }
    command = "make parity REFERENCE=path: python -m recorder.images"
    recording.write(out, {**ESM_TRAINER.source, "command": command, **found})


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _transformed(dataset: Any) -> Tensor:
    transform = dataset.image_transforms(img_size=cases.SIZE, random_resize=False, random_flip_p=0.0)
    return torch.stack([transform(cases.picture(*size)) for size in cases.CROPS])


def _evaluated(modules: Any) -> dict[str, Any]:
    """The trainer's evaluation: JPEG files of images and reconstructions; PSNR of the files, SSIM and LPIPS of the floats."""
    sides = dict(zip(("images", "reconstructions"), cases.decodings(), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        for name, images in sides.items():
            (Path(folder) / name).mkdir()
            for number, image in enumerate(modules.utils.convert_to_PIL_imgs(images)):
                image.save(Path(folder) / name / f"{number}.jpg")
        paths = {name: [Path(folder) / name / f"{number}.jpg" for number in range(len(images))] for name, images in sides.items()}
        files = {name: torch.stack([_pixels(Image.open(path)) for path in found]) for name, found in paths.items()}
        pairs = zip(paths["images"], paths["reconstructions"], strict=True)
        psnr = [modules.scores.calculate_psnr_for_pair(*pair) for pair in pairs]
        features = modules.fid_score.get_activations(
            paths["reconstructions"], _inception(modules), batch_size=4, num_workers=0
        )
    ssim = StructuralSimilarityIndexMeasure(data_range=(-1.0, 1.0))
    return {
        "jpeg": array(files["reconstructions"]),
        "psnr": psnr,
        "ssim": float(ssim(sides["reconstructions"], sides["images"])),
        "lpips": random_lpips()(sides["reconstructions"], sides["images"]).flatten().tolist(),
        "inception": array(torch.from_numpy(features)),
    }


def _inception(modules: Any) -> nn.Module:
    """The released network, with generated weights instead of the downloaded ones."""
    load, network = nn.Module.load_state_dict, modules.inception
    nn.Module.load_state_dict = lambda self, state, **keys: numbers.fill(dict(self.named_parameters()), "inception", gain=2**0.5)  # type: ignore
    network.load_state_dict_from_url = lambda *args, **kwargs: {}
    try:
        return network.InceptionV3([3])
    finally:
        nn.Module.load_state_dict = load  # type: ignore[method-assign]


def _frechet(fid_score: Any) -> float:
    moments = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (part.numpy() for part in cases.features())]
    return float(fid_score.calculate_frechet_distance(*moments[0], *moments[1]))


def _spectra(module: Any, side: int) -> dict[str, Any]:
    """Normalized bins of images and latents and their divergence, for the loss (no DC, delta 1) and figures (DC, delta 0)."""
    keys = {"n_bins": 16, "log_power": True, "return_dist": True}
    loss = module.latent_spectral_reg_dct(*cases.spectrum_pair(side), center="mean", remove_dc=True, delta=1.0, **keys)
    curve = module.latent_spectral_reg_dct(*cases.spectrum_pair(side), center="none", remove_dc=False, delta=0.0, **keys)
    return {name: cases.spectra(*found) for name, found in (("loss", loss), ("curve", curve))}


def _rings(module: Any) -> dict[str, list[int]]:
    maps = {side: module.radial_bin_map(side, side, bins).flatten() for side, bins in cases.RINGS}
    return {str(side): torch.bincount(maps[side], minlength=bins).tolist() for side, bins in cases.RINGS}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
