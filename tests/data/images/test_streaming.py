import functools
import http.server
import tarfile
import threading
from dataclasses import replace

import pytest
import torch

from smtool.data import open_images, stream_images
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.remote import Patience
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule
from smtool.errors import DataError

IMPATIENT = Patience(timeout=0.2, attempts=3, pause=0.01)


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


class Faulty(http.server.BaseHTTPRequestHandler):
    """Serves `content`. Each request meets the next fault; after the last one, none. ranges: whether it knows them."""

    content, ranges, faults, asked = b"", True, [], []

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")) if self.ranges else 0
        fault = self.faults.pop(0) if self.faults else "none"
        self.asked.append(start)
        rest = self.content[start:]
        if fault == "busy":
            self.send_error(503)
            return
        self.send_response(206 if self.ranges and "Range" in self.headers else 200)
        if fault != "no length":
            self.send_header("Content-Length", str(len(rest) + (fault == "another length")))
        self.end_headers()
        sent = rest if fault in ("none", "no length") else rest[: len(rest) // 8]
        self.wfile.write(sent)
        self.wfile.flush()
        if fault == "stalls":
            self.server.released.wait(10)
        self.close_connection = True      # "drops", "truncates": fewer bytes than were announced

    def log_message(self, *_args):
        pass


@pytest.fixture
def faulty(served):
    """(address, handler class) of a server of the first shard."""

    class Handler(Faulty):
        content, faults, asked = (served[1] / "train-000000.tar").read_bytes(), [], []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.released = threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", Handler
        server.released.set()
        server.shutdown()


@pytest.mark.parametrize("ranges", [True, False])
def test_stalls_drops_and_busy_servers_are_overcome_without_losing_or_repeating_a_byte(served, faulty, ranges):
    address, handler = faulty
    handler.ranges, handler.faults[:] = ranges, ["truncates", "stalls", "busy", "drops"]
    (batch,) = streamed(address, "a.tar", batch=5, patience=replace(IMPATIENT, attempts=5))
    (expected,) = streamed(served[0], "train-000000.tar", batch=5)
    assert batch.ids == expected.ids and torch.equal(batch.images, expected.images)
    assert len(handler.asked) == 5
    assert (handler.asked == [0] * 5) is not ranges


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (["stalls"] + ["busy"] * 9, "503 Service Unavailable, 3 times"),
        (["drops"] + ["another length"] * 9, "bytes, and has"),
        (["busy"] * 9, "503"),
    ],
)
def test_a_server_that_stays_faulty_ends_in_one_sentence(faulty, faults, said):
    address, handler = faulty
    handler.faults[:] = faults
    with pytest.raises(DataError, match="cannot be streamed") as caught:
        streamed(address, "a.tar", batch=1, patience=IMPATIENT)
    assert f"{address}/a.tar: " in caught.value.message and said in caught.value.message
    assert "\n" not in caught.value.message


def test_a_server_that_tells_no_length_is_read_to_its_end(served, faulty):
    address, handler = faulty
    handler.faults[:] = ["no length"]
    (batch,) = streamed(address, "a.tar", batch=5, patience=IMPATIENT)
    assert batch.ids == streamed(served[0], "train-000000.tar", batch=5)[0].ids and handler.asked == [0]
