"""Images in loose files: their order, subsets and digest."""

import shutil

import pytest
import torch
from PIL import Image

from smtool.errors import DataError
from smtool.evaluation.image_sources import open_source
from smtool.image_shape import ImageSize

CLASSES, EACH = "abcdef", 20


@pytest.fixture
def folder(tmp_path):
    """Six classes one after another by name, 20 one-coloured pictures of 4 px each; the red channel is the class."""
    for number, name in enumerate(CLASSES):
        (tmp_path / "real" / name).mkdir(parents=True)
        for index in range(EACH):
            Image.new("RGB", (4, 4), (number, index, 0)).save(tmp_path / "real" / name / f"{index:03d}.png")
    return tmp_path / "real"


def pixels(source, positions, batch=7):
    return torch.cat(list(source.read(positions, batch)))


def classes(images):
    return images[:, 0, 0, 0].tolist()


def test_the_first_images_of_a_sorted_folder_cover_all_classes(folder):
    source = open_source(str(folder))
    assert (source.count, source.side) == (len(CLASSES) * EACH, ImageSize(4, 4))
    found = classes(pixels(source, range(30)))
    assert {found.count(number) > 0 for number in range(6)} == {True}
    assert max(found.count(number) for number in range(6)) < EACH


def test_every_image_is_read_once_in_a_fixed_order(folder):
    source, again = open_source(str(folder)), open_source(str(folder))
    images = pixels(source, range(120))
    assert len({tuple(image[:, 0, 0].tolist()) for image in images}) == 120
    assert torch.equal(pixels(again, range(120), batch=50), images)
    assert torch.equal(pixels(source, range(40, 60)), images[40:60])
    assert again.digest == source.digest


def test_an_archive_is_mixed_as_its_folder_is(folder, tmp_path):
    shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    source = open_source(str(tmp_path / "packed.zip"))
    assert torch.equal(pixels(source, range(120)), pixels(open_source(str(folder)), range(120)))


def test_the_digest_changes_with_any_picture(folder):
    before = open_source(str(folder)).digest
    Image.new("RGB", (4, 4), (9, 9, 9)).save(folder / "c" / "007.png")
    assert open_source(str(folder)).digest != before


def test_grid_png_counts_as_an_image_except_in_a_sample_folder_of_smtool(folder):
    Image.new("RGB", (4, 4)).save(folder / "grid.png")
    assert open_source(str(folder)).count == 121
    (folder / "samples.json").write_text('{"num_images": 120}')
    ours = open_source(str(folder))
    assert ours.count == 120
    assert classes(pixels(ours, range(20))) == [0] * 20      # samples keep the order in which they were drawn


def test_other_images_in_a_sample_folder_of_smtool_are_counted_and_not_used(tmp_path):
    for name in ("000000.png", "000001.png", "00000001-samples.png", "grid.png", "sub/000002.png"):      # a run logs the third
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "samples.json").write_text('{"num_images": 2, "format": "png"}')
    (tmp_path / "labels.json").write_text("[0, 1]")
    source = open_source(str(tmp_path))
    assert (source.count, source.left_out) == (2, {"not written by `smtool sample`": 2})


@pytest.mark.parametrize("note", ['{"num_images": "many"}', "[1]", '{"num_images": 1'])
def test_a_damaged_samples_json_is_named(folder, note):
    (folder / "samples.json").write_text(note)
    with pytest.raises(DataError, match=r"samples\.json does not state how samples were drawn: "):
        open_source(str(folder))


def test_built_in_images_need_a_size(folder):
    with pytest.raises(DataError, match="the image size is unknown"):
        open_source("builtin:photos")
