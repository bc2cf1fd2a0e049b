import re

import torch

from smtool.commands.train.aligned import Aligned
from smtool.commands.train.teacher_summary import teacher_summary
from smtool.data import open_images
from smtool.diffusion import Alignment
from smtool.diffusion.alignment import Repa
from smtool.spectrum import rmsc, spatial_normalize


class Colours:
    """A teacher whose features are the mean colours of a 6 x 6 grid."""

    name, digest, dim, grid, device = "colours", "abcdef0123", 3, (6, 6), torch.device("cpu")

    def __call__(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 6)


def summary(teacher, target, images, *, flip=True):
    alignment = Alignment(torch.nn.Identity(), target, (6, 6))
    return teacher_summary(Aligned(Repa(teacher="colours"), alignment, teacher, cache=None), images, flip=flip)


def test_measures_are_those_of_the_features_before_and_after_the_filter(tmp_path):
    images = open_images("builtin:photos?train=8&val=4", "train", image_size=24, root=tmp_path)
    lines = summary(Colours(), lambda x: spatial_normalize(x, 0.6), images)
    pixels = (images.read(range(8)).images + 1) * 127.5
    features = Colours()(pixels.round())
    found = [float(re.search(r"RMSC ([\d.]+)", line)[1]) for line in lines[1:]]
    expected = [rmsc(features).mean().item(), rmsc(spatial_normalize(features, 0.6)).mean().item()]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=0, atol=1e-3)
    assert "CDS" in lines[1]
    assert found[1] > found[0]        # directions differ more after most of the mean is removed


def test_a_measure_that_needs_a_larger_grid_is_named(tmp_path):
    class Small(Colours):
        def __call__(self, images):
            return torch.nn.functional.adaptive_avg_pool2d(images.float(), 3)

    images = open_images("builtin:photos?train=4&val=4", "train", image_size=24, root=tmp_path)
    line = summary(Small(), lambda x: x, images)[1]
    assert "LDS (d >= 6) needs a larger grid" in line
    assert re.search(r"LDS \(r = H/2\) -?\d", line)      # never in place of the other
