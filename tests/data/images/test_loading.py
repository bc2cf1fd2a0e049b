import tarfile
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from smtool.data import batch_indices, open_images, to_signed, training_batches, validation_batches
from smtool.data.batches import signed
from smtool.errors import DataError


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return open_images("builtin:photos?train=30&val=11", "train", image_size=16, root=root)


def taken(images, count, **settings):
    settings = {"seed": 0, "batch": 8, "first": 0, "start": 0, "stop": 8, "workers": 2, **settings}
    batches = training_batches(images, **settings)
    found = [next(batches) for _ in range(count)]
    batches.close()
    return found


def same(a, b):
    return a.ids == b.ids and torch.equal(a.images, b.images)


def test_images_are_the_pixels_of_the_shard_in_the_requested_order(images):
    with tarfile.open(images.folder / "train-000000.tar") as tar:
        pixels = {m.name[:8]: np.array(Image.open(tar.extractfile(m))) for m in tar if m.name.endswith(".png")}
    batch = images.read([7, 3, 29, 3])
    assert batch.ids == ("00000007", "00000003", "00000029", "00000003")
    assert batch.images.shape == (4, 3, 16, 16) and batch.images.dtype == torch.float32 and batch.labels is None
    for image, name in zip(batch.images, batch.ids, strict=True):
        np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), pixels[name] / 127.5 - 1, atol=1e-6)
        assert torch.equal(image, to_signed(torch.from_numpy(pixels[name])).permute(2, 0, 1))
    stored, mirrored = images.read_stored([7, 3]), images.read_stored([7, 3], [False, True])
    assert stored.images.dtype == torch.uint8 and stored.ids == mirrored.ids == batch.ids[:2]
    assert torch.equal(signed(stored.images), batch.images[:2])      # bit for bit
    assert torch.equal(mirrored.images, torch.stack([stored.images[0], stored.images[1].flip(-1)]))
    assert signed(batch.images) is batch.images


@pytest.mark.parametrize("workers", [1, 5])
def test_the_batches_follow_the_stateless_order_whatever_the_number_of_threads(images, workers):
    batches = taken(images, 9, workers=workers)
    for index, batch in enumerate(batches):
        assert same(batch, images.read_stored(batch_indices(30, seed=0, batch=8, index=index)))


def test_the_order_holds_when_early_batches_are_the_slowest_to_read(images, monkeypatch):
    read, lock, started = images.read_stored, threading.Lock(), iter(range(100))

    def slow_first(indices):
        with lock:
            number = next(started)
        time.sleep(0.05 if number < 3 else 0)
        return read(indices)

    monkeypatch.setattr(images, "read_stored", slow_first)
    assert [batch.ids for batch in taken(images, 6, workers=4)] == [batch.ids for batch in taken(images, 6, workers=1)]


def test_a_resumed_run_reads_the_batches_of_an_uninterrupted_one(images):
    unbroken = taken(images, 7)
    resumed = taken(images, 3, first=4)
    assert all(same(a, b) for a, b in zip(unbroken[4:], resumed, strict=True))


def test_the_slices_of_the_ranks_make_up_the_whole_batch(images):
    whole = taken(images, 5)
    left, right = taken(images, 5, stop=3), taken(images, 5, start=3)
    for a, b, c in zip(whole, left, right, strict=True):
        assert a.ids == b.ids + c.ids
        assert torch.equal(a.images, torch.cat([b.images, c.images]))


def test_validation_shows_every_image_once_and_a_limit_shows_the_first(images):
    val = open_images("builtin:photos?train=30&val=11", "val", image_size=16, root=images.folder.parent)
    assert len(val) == 11
    batches = list(validation_batches(val, batch=4))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert sum((batch.ids for batch in batches), ()) == tuple(f"{number:08d}" for number in range(11))
    limited = list(validation_batches(val, batch=4, limit=6))
    assert [batch.ids for batch in limited] == [batches[0].ids, batches[1].ids[:2]]
    assert len(list(validation_batches(val, batch=4, limit=100))) == 3


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_closing_ends_the_threads(images):
    batches = training_batches(images, seed=0, batch=8, first=0, start=0, stop=8, workers=3)
    next(batches)
    assert reading_threads()
    batches.close()
    assert not reading_threads()


def test_positions_outside_the_batch_are_an_error(images):
    with pytest.raises(ValueError, match="0:9"):
        taken(images, 1, stop=9)


@pytest.fixture
def copy(images, tmp_path):
    import shutil

    return shutil.copytree(images.folder, tmp_path / "copy")


def test_a_shard_with_a_flipped_bit_is_named_when_that_image_is_read(copy):
    shards = open_images(str(copy), "train", image_size=16)
    row = shards._rows[5]
    data = bytearray((copy / "train-000000.tar").read_bytes())
    data[int(row["offset"]) + int(row["bytes"]) // 2] ^= 4
    (copy / "train-000000.tar").write_bytes(data)
    shards.read([4, 6])
    with pytest.raises(DataError, match=r"train-000000\.tar: damaged shard: the bytes of image 00000005") as caught:
        shards.read([4, 5, 6])
    assert "Copy train-000000.tar again" in str(caught.value)
    with pytest.raises(DataError, match="damaged shard"):
        taken(shards, 10)    # an error in a reading thread reaches the caller
    assert not reading_threads()


def test_a_truncated_and_a_missing_shard_are_named_before_training(copy):
    shard = copy / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"train-000000\.tar: damaged shard: it has 20000 bytes, but the card says"):
        open_images(str(copy), "train", image_size=16)
    assert len(open_images(str(copy), "val", image_size=16)) == 11    # the other split is complete
    shard.unlink()
    with pytest.raises(DataError, match=r"train-000000\.tar: damaged shard: it is missing"):
        open_images(str(copy), "train", image_size=16)


def test_a_shard_that_vanishes_while_it_is_read_is_named(copy):
    shards = open_images(str(copy), "train", image_size=16)
    (copy / "train-000000.tar").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        shards.read([0])
