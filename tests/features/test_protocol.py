import io

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from cleanfid.resize import make_resizer
from PIL import Image
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from smtool.features.protocol import PROTOCOLS, jpeg_round_trip, resized
from smtool.randomness import generator

EPS = torch.finfo(torch.float32).eps


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator("noise", *shape))


@pytest.mark.parametrize("side", [32, 64, 256, 400])
def test_clean_resize_equals_clean_fids(side):
    image = noise(1, 3, side, side)
    expected = make_resizer("PIL", False, "bicubic", (299, 299))(image[0].permute(1, 2, 0).numpy())
    found = resized(image, 299, "bicubic-antialias")[0].permute(1, 2, 0).numpy()
    # Positions are float32 in torch and float64 in PIL: they differ by at most EPS * side. Along each axis the four weights
    # change in total by 3 times that (the slopes of the cubic) while their sum stays 1, and the level by half of 255 times as
    # much. There are two axes.
    np.testing.assert_allclose(found, expected, rtol=0, atol=255 * 3 * EPS * side)


@pytest.mark.parametrize("shape", [(64, 48), (256, 256), (320, 310)])
def test_adm_resize_equals_torch_fidelitys_imitation_of_tensorflow(shape):
    image = noise(2, 3, *shape).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(image, size=(299, 299), align_corners=False)
    # six roundings of levels up to 255 in each implementation, each of EPS / 2: a weight, a product and a sum along each axis
    torch.testing.assert_close(resized(image, 299, "bilinear-tf1"), expected, rtol=0, atol=6 * EPS * 255)


def test_paper_resize_equals_torchs_bilinear_on_unit_range():
    image = noise(2, 3, 256, 256)
    expected = F.interpolate(image / 255, size=(299, 299), mode="bilinear", align_corners=False)      # pytorch-fid's order
    torch.testing.assert_close(resized(image, 299, "bilinear") / 255, expected, rtol=0, atol=1e-5)


def test_the_three_rules_give_different_images():
    image = noise(1, 3, 400, 400)
    results = [resized(image, 299, protocol.resize) for protocol in PROTOCOLS.values()]
    assert min(float((a - b).abs().mean()) for a, b in ((results[0], results[1]), (results[1], results[2]))) > 1.0


@pytest.mark.parametrize("rule", ["bicubic-antialias", "bilinear", "bilinear-tf1"])
def test_images_of_the_right_size_are_unchanged(rule):
    image = noise(1, 3, 32, 32)
    assert torch.equal(resized(image, 32, rule), image.float())


def test_jpeg_round_trip_equals_a_saved_and_loaded_file():
    photograph = skimage.data.astronaut()[:64, :80]
    file = io.BytesIO()
    Image.fromarray(photograph).save(file, "JPEG")      # PIL's defaults: quality 75, 4:2:0
    found = jpeg_round_trip(torch.from_numpy(photograph).permute(2, 0, 1)[None], 75)
    assert torch.equal(found[0].permute(1, 2, 0), torch.from_numpy(np.asarray(Image.open(file)).copy()))
    assert not torch.equal(found[0].permute(1, 2, 0), torch.from_numpy(photograph))


def test_protocols_have_their_codec_and_posterior():
    assert PROTOCOLS["paper"].codec == "jpeg:75 4:2:0"
    assert PROTOCOLS["paper"].posterior == "sample"
    assert PROTOCOLS["clean"].codec == PROTOCOLS["adm"].codec == "none"
