"""Spectrum Matching's crops, transform, JPEG files, PSNR, SSIM, LPIPS, Frechet distance and spectra; REPA's PNG files."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from given import image_cases as cases
from given import numbers, recording
from given.summary import array
from replay.autoencoder import RandomPerceptual
from torch import Tensor

from smtool.data.batches import to_signed, to_uint8
from smtool.data.images.transform import Rule, to_size
from smtool.features.extractor import Extractor
from smtool.features.inception import Inception, fid_inception
from smtool.features.protocol import PROTOCOLS, jpeg_round_trip
from smtool.metrics.frechet import frechet_distance_of_features
from smtool.metrics.reconstruction import psnr, ssim_reflected
from smtool.spectrum import REFERENCE, esm_loss, radial_power
from smtool.spectrum.esm import spectral_distribution
from smtool.spectrum.psd import ring_frequency

PAPER = PROTOCOLS["paper"]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return recording.read("images")


def files() -> tuple[Tensor, Tensor]:
    """Images and reconstructions after they are written to and read from the JPEG files of the paper's protocol."""
    assert PAPER.jpeg is not None
    images, reconstructions = (jpeg_round_trip(to_uint8(side), PAPER.jpeg) for side in cases.decodings())
    return images, reconstructions


def test_centre_crops_are_equal(recorded):
    found = [array(_pixels(size, "center")) for size in cases.CROPS]
    assert recording.differences(recorded["crops"], found) == []


def test_whole_pictures_are_squeezed_alike(recorded):
    found = torch.stack([to_signed(_pixels(size, "none")) for size in cases.CROPS])
    assert recording.differences(recorded["transform"], array(found)) == []


def test_jpeg_files_are_equal(recorded):
    assert recording.differences(recorded["jpeg"], array(files()[1])) == []


def test_psnr_is_equal(recorded):
    assert recording.differences(recorded["psnr"], psnr(*files()).tolist()) == []


def test_ssim_is_equal(recorded):
    images, reconstructions = cases.decodings()
    assert recording.differences(recorded["ssim"], float(ssim_reflected(reconstructions, images).mean())) == []


def test_lpips_of_unclamped_numbers_is_equal(recorded):
    """Unclamped numbers, because --protocol paper passes the decoder's output to LPIPS unchanged."""
    images, reconstructions = cases.decodings()
    assert recording.differences(recorded["lpips"], RandomPerceptual()(reconstructions, images).tolist()) == []


def test_inception_features_are_equal(recorded):
    whole = fid_inception()
    numbers.fill({name: p for name, p in whole.named_parameters() if not name.startswith("AuxLogits")}, "inception", gain=2**0.5)
    extractor = Extractor(
        Inception(whole),
        name="inception",
        digest="",
        dim=2048,
        size=299,
        resize=PAPER.resize,
        mean=(PAPER.offset,) * 3,
        std=(PAPER.offset,) * 3,
    )
    assert recording.differences(recorded["inception"], array(extractor(files()[1]))) == []


def test_frechet_distance_is_equal(recorded):
    assert recording.differences(recorded["frechet"], frechet_distance_of_features(*cases.features())) == []


@pytest.mark.parametrize("side", [8, 16, 32])
@pytest.mark.parametrize(("name", "delta"), [("loss", 1.0), ("curve", 0.0)])
def test_spectra_are_equal(recorded, side, name, delta):
    estimator = getattr(REFERENCE, name)
    images, latents = cases.spectrum_pair(side)
    target = spectral_distribution(radial_power(images, estimator, (side, side)), estimator, delta=delta)
    found = spectral_distribution(radial_power(latents, estimator), estimator)
    divergence = esm_loss(images, latents, delta, estimator)
    assert recording.differences(recorded["spectra"][str(side)][name], cases.spectra(target, found, divergence)) == []


def test_sampled_pictures_are_written_as_by_repa():
    _, decoded = cases.decodings()
    found = to_uint8(decoded, PROTOCOLS["adm"].rounding)
    assert recording.differences(recording.read("repa-pictures")["pictures"], array(found)) == []


@pytest.mark.single_precision
@pytest.mark.parametrize(("side", "bins"), cases.RINGS)
def test_rings_hold_the_same_cells(recorded, side, bins):
    _, count = ring_frequency(side, side, replace(REFERENCE.curve, bins=bins))
    assert recorded["rings"][str(side)] == count.long().tolist()


def _pixels(size: tuple[int, int], crop: str) -> Tensor:
    return torch.from_numpy(np.array(to_size(cases.picture(*size), Rule(cases.SIZE, crop), ""))).permute(2, 0, 1)
