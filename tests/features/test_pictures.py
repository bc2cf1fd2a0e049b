"""Images of one to four channels and of several sizes, as feature networks get them."""

import numpy as np
import pytest
import skimage.data
import torch
from cleanfid.resize import make_resizer
from PIL import Image

from smtool.features.extractor import Extractor
from smtool.features.inception import Inception, fid_inception
from smtool.features.load import load_extractor
from smtool.features.perceptual import Perceptual
from smtool.features.pictures import as_rgb, seen_channels
from smtool.features.protocol import PROTOCOLS
from smtool.features.teachers import load_teacher
from smtool.randomness import generator

EPS = torch.finfo(torch.float32).eps
SIDES = [(40, 40), (64, 48), (30, 300), (299, 299), (40, 40)]


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator("noise", *shape))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_alpha_is_composited_on_grey_and_grey_repeated_as_in_pillow(mode):
    image = Image.fromarray(noise(24, 20, 4).numpy(), "RGBA").convert(mode)
    pixels = torch.from_numpy(np.asarray(image).reshape(24, 20, -1).copy()).permute(2, 0, 1)
    backdrop = Image.new("RGBA", image.size, (128, 128, 128, 255))
    expected = np.asarray(Image.alpha_composite(backdrop, image.convert("RGBA")).convert("RGB")).astype(int)
    found = as_rgb(pixels[None])[0].permute(1, 2, 0).numpy().astype(int)
    # the backdrop of 128 instead of 127.5 and two roundings
    np.testing.assert_allclose(found, expected, atol=1 if "A" in mode else 0)
    signed = as_rgb(pixels[None].double() / 127.5 - 1)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose((signed + 1) * 127.5, found, atol=0.5 + 1e-9 if "A" in mode else 1e-9)


def test_opaque_colors_are_unchanged_and_transparent_ones_do_not_count():
    colors = noise(2, 3, 8, 8)
    opaque, clear = (torch.cat([colors, torch.full((2, 1, 8, 8), level, dtype=torch.uint8)], 1) for level in (255, 0))
    assert torch.equal(as_rgb(opaque), colors)
    assert torch.equal(as_rgb(clear), torch.full_like(colors, 128))
    assert torch.equal(as_rgb(colors), colors)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ValueError, match=r"1 to 4 channels are needed, found \(1, 5, 8, 8\)"):
        as_rgb(torch.zeros(1, 5, 8, 8))


def test_passports_say_what_was_done_to_channels():
    assert [seen_channels(channels) for channels in (1, 2, 3, 4)] == [
        "grey repeated to three channels",
        "alpha composited on grey, grey repeated to three channels",
        "RGB",
        "alpha composited on grey",
    ]


@pytest.mark.slow
def test_inception_sees_grey_as_three_equal_channels_and_each_size_by_itself():
    network = Inception(fid_inception())
    facts = {"name": "inception", "digest": "0" * 64, "dim": 2048, "size": 299, "resize": "bicubic-antialias"}
    extractor = Extractor(network, **facts, mean=(128.0,) * 3, std=(128.0,) * 3)
    grey = noise(2, 1, 40, 56)
    found, expected = extractor.look(grey), extractor.look(grey.repeat(1, 3, 1, 1))
    assert set(found) == {"pooled", "spatial", "logits"}
    for view in found:
        torch.testing.assert_close(found[view], expected[view], rtol=0, atol=0)
    photograph = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)
    mixed = [photograph[:, : side[0], : side[1]] for side in SIDES[:3]]
    resize = make_resizer("PIL", False, "bicubic", (299, 299))
    resized = torch.stack([torch.from_numpy(resize(image.permute(1, 2, 0).numpy())) for image in mixed]).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network((resized - 128) / 128).flatten(1)
    torch.testing.assert_close(extractor.look(mixed)["pooled"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["bicubic-antialias", "bilinear", "bilinear-tf1"])
def test_each_image_of_several_sizes_is_resized_alone(rule):
    extractor = Extractor(torch.nn.Identity(), name="pixels", digest="0" * 64, dim=3 * 16 * 16, size=16, resize=rule)
    mixed = [noise(3, *side) for side in SIDES]
    alone = torch.cat([extractor(image[None]) for image in mixed])
    assert torch.equal(extractor(mixed), alone)
    assert torch.equal(extractor.look(mixed)["pooled"], alone)
    assert torch.equal(extractor(torch.stack([mixed[0], mixed[4]])), alone[[0, 4]])


def test_an_extractor_without_resize_has_a_pass_for_each_image():
    extractor = load_extractor("random")
    mixed = [noise(3, *side) for side in SIDES]
    torch.testing.assert_close(extractor.look(mixed)["pooled"], torch.cat([extractor(image[None]) for image in mixed]))


def test_clean_resize_of_rectangles_equals_clean_fids():
    resize = make_resizer("PIL", False, "bicubic", (32, 32))
    extractor = Extractor(torch.nn.Identity(), name="pixels", digest="0" * 64, dim=3072, size=32, resize="bicubic-antialias")
    mixed = [noise(3, *side) for side in SIDES]
    found = extractor(mixed).unflatten(1, (3, 32, 32)).permute(0, 2, 3, 1).numpy()
    for image, pixels in zip(mixed, found, strict=True):
        expected = resize(image.permute(1, 2, 0).numpy())
        # as in test_protocol: the rounding of float32 positions, times the slopes of the cubic
        np.testing.assert_allclose(pixels, expected, rtol=0, atol=255 * 3 * EPS * max(image.shape[1:]))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_other_networks_see_the_same_three_channels(channels, squeezenet_file):
    images, others = noise(2, channels, 40, 24), noise(2, channels, 40, 24).flip(0)
    teacher = load_teacher("squeezenet", token_grid=(2, 2), weights_dir=squeezenet_file.parent)
    torch.testing.assert_close(teacher(images), teacher(as_rgb(images)), rtol=0, atol=0)
    random = load_extractor("random")
    torch.testing.assert_close(random(images), random(as_rgb(images)), rtol=0, atol=0)
    distance = Perceptual(net="squeeze").build(squeezenet_file.parent)
    signed = (images / 127.5 - 1).requires_grad_(), others / 127.5 - 1
    found = distance(*signed)
    torch.testing.assert_close(found, distance(*map(as_rgb, signed)), rtol=0, atol=0)
    found.sum().backward()
    assert (signed[0].grad.abs().amax((0, 2, 3)) > 0).all()      # every channel, alpha too, is trained


def test_jpeg_codes_grey_as_pillow_and_alpha_after_compositing():
    paper, images = PROTOCOLS["paper"], noise(2, 4, 24, 16)
    assert torch.equal(paper.coded(images), paper.coded(as_rgb(images)))
    grey = noise(2, 1, 24, 16)
    # color conversion of equal channels leaves them equal, up to one rounding
    assert (paper.coded(grey).int() - paper.coded(as_rgb(grey)).int()).abs().max() <= 1
    mixed = paper.coded([grey[0], noise(1, 8, 30)])
    assert torch.equal(mixed[0], paper.coded(grey)[0]) and mixed[1].shape == (1, 8, 30)
