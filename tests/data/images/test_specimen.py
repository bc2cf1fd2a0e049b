"""The committed specimen of the format is complete, small, and equal to what `prepare` writes now."""

from pathlib import Path

import pytest
import torch

from smtool.commands.prepare.images import prepare
from smtool.data import open_images, read_card, verify

SPECIMEN = Path(__file__).parents[3] / "data" / "specimen"


def test_the_specimen_is_whole_and_small():
    card = read_card(SPECIMEN)
    verify(SPECIMEN, card)
    assert (card.count("train"), card.count("val"), card.photographs) == (48, 16, 12)
    assert sum(path.stat().st_size for path in SPECIMEN.iterdir()) < 600_000


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_specimen_is_what_prepare_writes(tmp_path, split):
    """Pixels, not bytes: another zlib may pack the same pixels differently."""
    out = prepare("builtin:photos?train=48&val=16", out=tmp_path / "out", size=32, workers=1)
    old, new = (open_images(str(folder), split, image_size=32) for folder in (SPECIMEN, out))
    assert (old.groups, old.num_classes) == (new.groups, new.num_classes)
    assert torch.equal(old.read(range(len(old))).images, new.read(range(len(new))).images)
    assert old.card.spectrum.power == pytest.approx(new.card.spectrum.power, rel=1e-4)
