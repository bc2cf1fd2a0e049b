from dataclasses import replace

import pytest
import torch

from smtool import storage
from smtool.errors import DiskError
from smtool.evaluation import feature_pass
from smtool.evaluation.feature_pass import Wanted, table_of_features
from smtool.evaluation.image_sources import ImageSource
from smtool.features.load import load_extractor
from smtool.features.protocol import PROTOCOLS
from smtool.image_shape import ImageSize
from smtool.randomness import generator

COUNT = 12


class Pictures:
    """Random images; `reads` counts how often they are read."""

    def __init__(self):
        self.reads = 0

    def source(self, digest="a" * 64):
        return ImageSource("pictures", digest, COUNT, [ImageSize(16, 16)], self.read)

    def read(self, positions, batch):
        self.reads += 1
        yield from pixels()[positions.start : positions.stop].split(batch)


def pixels():
    return torch.randint(0, 256, (COUNT, 3, 16, 16), dtype=torch.uint8, generator=generator("pixels"))


def features(source, folder, *, extractor=None, protocol=PROTOCOLS["clean"], count=COUNT, batch=5, say=print):
    extractor = extractor or load_extractor("random")
    table = table_of_features(source, [Wanted(extractor)], protocol, count=count, batch=batch, folder=folder, say=say)
    return table[extractor.score, "pooled"]


def test_features_are_those_of_the_extractor_and_are_cached(tmp_path):
    pictures = Pictures()
    first = features(pictures.source(), tmp_path)
    torch.testing.assert_close(first, load_extractor("random")(pixels()))
    said = []
    assert torch.equal(features(pictures.source(), tmp_path, batch=3, say=said.append), first)
    assert pictures.reads == 1
    assert "features of fd_random reused" in said[0]
    features(pictures.source(), None)
    assert pictures.reads == 2


def other_weights():
    extractor = load_extractor("random")
    extractor.digest = "b" * 64
    return extractor


def other_resize():
    extractor = load_extractor("random")
    extractor.size = 16
    return extractor


@pytest.mark.parametrize(
    "changed",
    [
        lambda: {"protocol": replace(PROTOCOLS["clean"], jpeg=75)},
        lambda: {"protocol": replace(PROTOCOLS["clean"], offset=127.5)},
        lambda: {"count": 7},
        lambda: {"extractor": other_weights()},
        lambda: {"extractor": other_resize()},
        lambda: {"source": "c" * 64},
    ],
    ids=["codec", "offset", "count", "weights", "resize", "images"],
)
def test_a_change_of_anything_that_features_depend_on_gives_another_file(tmp_path, changed):
    pictures, options = Pictures(), changed()
    features(pictures.source(), tmp_path)
    source = pictures.source(options.pop("source", "a" * 64))
    features(source, tmp_path, **options)
    assert pictures.reads == 2
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["facts", "length", "cut", "empty"])
def test_a_damaged_or_foreign_cache_file_is_not_used(tmp_path, damage):
    pictures = Pictures()
    first = features(pictures.source(), tmp_path)
    (path,) = tmp_path.iterdir()
    facts = storage.read_metadata(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        rows = COUNT - (damage == "length")
        name = "nothing" if damage == "empty" else "features"
        facts |= {"weights": "others"} if damage == "facts" else {}
        storage.write_tensors(path, {name: torch.zeros(rows, 64)}, facts)
    assert torch.equal(features(pictures.source(), tmp_path), first)
    assert pictures.reads == 2
    features(pictures.source(), tmp_path)
    assert pictures.reads == 2      # the file was replaced


def test_a_full_disk_prevents_the_cache_file_but_not_the_scores(tmp_path, monkeypatch):
    def full(*args):
        raise DiskError("no room left")

    monkeypatch.setattr(feature_pass, "write_tensors", full)
    said = []
    assert len(features(Pictures().source(), tmp_path, say=said.append)) == COUNT
    assert said == ["The features of random are not cached: no room left"]
