import functools
import http.server
import shutil
import tarfile
import threading

import pytest
import torch

from smtool.data import open_images, stream_images
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule
from smtool.errors import DataError

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset fetches http by curl")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args):
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(address, folder) of a prepared folder of four training shards of five images, behind a web server on this machine."""
    folder = tmp_path_factory.mktemp("served") / "photos"
    source = find_source("builtin:photos?train=20&val=4")
    prepare_images(Preparation(source, Rule(16), images_per_shard=5), folder, workers=1)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


def streamed(address, shards="train-{000000..000003}.tar", **settings):
    settings = {"batch": 4, "seed": 0, "epoch": 0, "shuffle": 10, **settings}
    return list(stream_images(f"{address}/{shards}", **settings))


def test_an_epoch_of_the_stream_is_every_image_once_with_the_pixels_of_the_local_reader(served):
    address, folder = served
    local = open_images(str(folder), "train", image_size=16).read(range(20))
    pixels = dict(zip(local.ids, local.images, strict=True))
    batches = streamed(address)
    ids = [name for batch in batches for name in batch.ids]
    assert sorted(ids) == sorted(pixels) and ids != sorted(ids)
    for batch in batches:
        for name, image in zip(batch.ids, batch.images, strict=True):
            assert torch.equal(image, pixels[name])


def test_the_order_is_fixed_by_seed_and_epoch(served):
    runs = ((0, 0), (0, 0), (0, 1), (1, 0))
    orders = [[batch.ids for batch in streamed(served[0], seed=seed, epoch=epoch)] for seed, epoch in runs]
    assert orders[0] == orders[1]
    assert len({str(order) for order in orders}) == 3


def test_each_shard_is_read_by_one_rank(served):
    parts = [{name for batch in streamed(served[0], batch=5, rank=rank, ranks=2) for name in batch.ids} for rank in (0, 1)]
    assert [len(part) for part in parts] == [10, 10]
    assert not parts[0] & parts[1]
    with pytest.raises(DataError, match="cannot be shared"):
        streamed(served[0], rank=4, ranks=5)


@pytest.mark.parametrize("pattern", ["pipe:cat /etc/passwd", "/etc/passwd", "file:///etc/passwd", "ftp://host/x.tar"])
def test_pipes_and_local_paths_are_refused(pattern):
    with pytest.raises(DataError, match="can be streamed"):
        list(stream_images(pattern, batch=1, seed=0, epoch=0))


def test_a_missing_or_truncated_shard_is_an_error_and_not_a_shorter_epoch(served):
    address, folder = served
    with pytest.raises(DataError, match="cannot be streamed"):
        streamed(address, "train-{000002..000005}.tar")
    with tarfile.open(folder / "train-000000.tar") as tar:
        image = tar.getmember("00000002.png")
    whole = (folder / "train-000000.tar").read_bytes()
    (folder / "cut.tar").write_bytes(whole[: image.offset_data + image.size // 2])
    with pytest.raises(DataError, match="cannot be streamed"):
        streamed(address, "cut.tar", batch=1)
