"""Sizes against tar files that are written; hours against arithmetic."""

import io
import tarfile

import pytest

from smtool.cost.storage import RATES, Latents, data_cost, image_bytes
from smtool.data.images.shards import INDEX, add_member
from smtool.image_shape import ImageSize


@pytest.mark.parametrize("size", [32, 64, 256])
def test_an_image_takes_what_its_members_take_in_a_tar(size):
    """1,000 images, so that the padding at the end of the tar does not count."""
    file, data = io.BytesIO(), bytes(int(RATES["png"].bytes * size**2))
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key in range(1000):
            for suffix, content in (("png", data), ("cls", b"7"), ("json", b"{}")):
                add_member(tar, f"{key:08d}.{suffix}", content)
    expected = len(file.getvalue()) / 1000 + INDEX.itemsize
    assert image_bytes(ImageSize(size, size), 3, "png") == pytest.approx(expected, rel=0.005)


def test_hours_scale_with_images_and_pixels_and_mirrored_latents_count_twice():
    latents = Latents((4, 32, 32), "bf16", True, encode_seconds=1e-3)
    one = data_cost(ImageSize(256, 256), 3, images_per_second=1000, latents=latents)
    assert one.prepare_core_hours == pytest.approx(1e9 * 256**2 * RATES["png"].prepare_seconds / 3600)
    assert one.encode_gpu_hours == pytest.approx(2e6 / 3600)
    assert one.readers == pytest.approx(1000 * 256**2 * RATES["png"].read_seconds)
    assert 2 * 2 * 2 * 4096 < one.latent_bytes < 2 * 2 * 2 * 4096 + 4096      # mean and logvar, plain and mirrored, 2 bytes each
    half = data_cost(ImageSize(128, 256), 3, images_per_second=1000, latents=None, images=10**9)
    assert half.read_core_hours == pytest.approx(one.read_core_hours / 2)
    assert half.latent_bytes is None and half.encode_gpu_hours is None
