"""Latent caches: contents, order, statistics, and errors."""

import hashlib
import io
import json
import math
import shutil
import signal
import struct
import tarfile
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
import warm_process
import webdataset

from smtool.data import encoded_batches, latent_batches, measure_latents, open_images, open_latents, training_batches
from smtool.data.batches import LatentBatch
from smtool.data.cache.shards import packed, unpacked
from smtool.data.cache.write import estimated_bytes
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule
from smtool.data.latents.prepare import LatentNote, LatentPreparation, write_latents
from smtool.data.latents.statistics import LatentMoments, Spectral
from smtool.data.order import batch_flips, batch_indices
from smtool.errors import DataError, DiskError
from smtool.networks.posterior import Posterior
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import generator, initializing

SECTION = SDVAE(downsample=4, latent_channels=3, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1)
ORDER = {"seed": 5, "batch": 6, "first": 2, "start": 0, "stop": 6, "workers": 2}


def small_autoencoder(seed=0):
    with initializing("test", seed):
        return SECTION.build()


@pytest.fixture(scope="module")
def autoencoder():
    return small_autoencoder()


def written(out, autoencoder, images, *, batch=4, report=None, **settings):
    settings = {"autoencoder_digest": "a" * 64, "checkpoint": "runs/x/ckpt.safetensors", "images_per_shard": 8, **settings}
    write_latents(LatentPreparation(autoencoder, images, **settings), Path(out), batch=batch, workers=2, report=report)
    return Path(out)


def opened(folder, **asked):
    return open_latents(folder, **{"autoencoder": None, "data": None, **asked})


@pytest.fixture(scope="module")
def exact(tmp_path_factory, autoencoder, images):
    """A float32 cache with flips."""
    return opened(written(tmp_path_factory.mktemp("exact") / "cache", autoencoder, images, dtype="fp32"))


def some(batches, count):
    with closing(batches):
        return list(islice(batches, count))


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).rglob("*") if path.is_file()}


def test_the_order_of_numbers_in_memory_does_not_change_the_bytes():
    value = torch.randn(2, 3, 4, 5)
    assert packed({"mean": value.to(memory_format=torch.channels_last)}, "bf16") == packed({"mean": value}, "bf16")


def test_the_moments_are_those_of_the_image_and_of_the_mirrored_image(exact, autoencoder, images):
    chosen, flipped = [17, 0, 8, 9], [False, True, True, False]
    found = exact.read(chosen, flipped)
    read = images.read(chosen)
    for k, mirrored in enumerate(flipped):
        x = read.images[k : k + 1]
        with torch.no_grad():
            expected = autoencoder.encode(torch.flip(x, [3]) if mirrored else x)
        torch.testing.assert_close(found.mean[k : k + 1], expected.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.logvar[k : k + 1], expected.logvar, rtol=0, atol=1e-5)
    assert found.ids == read.ids
    assert torch.equal(found.labels, read.labels)
    # the latent of a mirrored image is not the mirrored latent
    assert (exact.read([0], [True]).mean - exact.read([0], [False]).mean.flip(-1)).abs().max() > 1e-2


def test_a_cache_records_its_shape_its_origin_and_its_count(exact, images):
    assert exact.latent_shape == (3, 4, 4)
    assert len(exact) == exact.card.count == len(images) == 18
    assert [shard.images for shard in exact.card.shards] == [8, 8, 2]
    assert (exact.autoencoder, exact.data, exact.num_classes) == ("a" * 64, images.digest, 3)
    assert exact.card.shards[0].sha256 == hashlib.sha256((exact.folder / "train-000000.tar").read_bytes()).hexdigest()


def test_webdataset_and_an_independent_safetensors_reader_find_the_same_numbers(exact):
    url = str(exact.folder / "train-{000000..000002}.tar")
    samples = list(webdataset.WebDataset(url, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in samples] == [f"{number:08d}" for number in range(18)]
    expected = exact.read(range(18), [False] * 18)
    mirrored = exact.read(range(18), [True] * 18)
    for number, sample in enumerate(samples):
        assert int(sample["cls"]) == expected.labels[number]
        for suffix, moments in (("safetensors", expected), ("flip.safetensors", mirrored)):
            values = parsed(sample[suffix])
            assert np.array_equal(values["mean"], moments.mean[number].numpy())
            assert np.array_equal(values["logvar"], moments.logvar[number].numpy())


def parsed(data):
    """Parse the safetensors format by its specification: 8 bytes of length, a JSON header, then the data."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"]) for name, entry in header.items()
    }


def test_packing_keeps_float32_exactly_and_bf16_to_a_256th():
    generator = torch.Generator().manual_seed(0)
    draws = {"mean": torch.randn(2, 3, 5, 7, generator=generator), "logvar": torch.randn(2, 3, 5, 7, generator=generator) - 9}
    exact, rough = (unpacked(packed(draws, dtype)) for dtype in ("fp32", "bf16"))
    assert exact.keys() == rough.keys() == draws.keys()
    for name, original in draws.items():
        assert torch.equal(exact[name], original)
        assert rough[name].dtype == torch.bfloat16
        assert 0 < ((rough[name] - original) / original).abs().max() <= 1 / 256


def sampled(cache, *, seed):
    """All latents of a cache, sampled with the noise used for the statistics, (2N, C, h, w) float64."""
    rows = []
    for flipped, side in ((False, "plain"), (True, "flipped")):
        moments = cache.read(range(len(cache)), [flipped] * len(cache))
        for n in range(len(cache)):
            noise = torch.randn(cache.latent_shape, generator=generator("latent statistics", seed, n, side)).double().numpy()
            rows.append(moments.mean[n].double().numpy() + np.exp(moments.logvar[n].double().numpy() / 2) * noise)
    return np.stack(rows)


def test_statistics_equal_numpys_over_all_sampled_latents_with_mirrored_ones(exact):
    latents = sampled(exact, seed=0)
    assert exact.stats.kind == "channel"
    np.testing.assert_allclose(exact.stats.mean.numpy(), latents.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(exact.stats.std.numpy(), latents.std((0, 2, 3)), rtol=1e-5)
    scalar = opened(exact.folder, stats="scalar").stats
    assert scalar.mean.tolist() == [0.0]      # the released trainers multiply by 1 / std and subtract no mean
    np.testing.assert_allclose(scalar.std.numpy(), [latents.std()], rtol=1e-5)
    np.testing.assert_allclose(scalar.residual.numpy(), [latents.mean() / latents.std()], rtol=1e-5)
    normalized = scalar.normalize(torch.from_numpy(latents))
    np.testing.assert_allclose(normalized.numpy(), latents / latents.std(), rtol=1e-6)
    assert (scalar.kind, scalar.count, scalar.data) == ("scalar", 36, exact.data)
    rms, size = opened(exact.folder, stats="rms").stats, np.sqrt(np.mean(latents**2))
    assert (rms.kind, rms.mean.tolist()) == ("scalar", [0.0])
    np.testing.assert_allclose(rms.std.numpy(), [size], rtol=1e-5)
    np.testing.assert_allclose(rms.residual.numpy(), [latents.mean() / size], rtol=1e-5)


def test_spectral_statistics_whiten_the_sampled_latents_with_mirrored_ones_from_a_cache_and_online(exact, images, autoencoder):
    latents = torch.from_numpy(sampled(exact, seed=0))
    stats = opened(exact.folder, stats=Spectral("white")).stats
    assert (stats.kind, stats.count, stats.recolouring.size) == ("spectral", 36, (4, 4))
    normalized = stats.normalize(latents).numpy()
    power = (scipy.fft.dctn(normalized, axes=(-2, -1), norm="ortho") ** 2).mean(0)
    np.testing.assert_allclose(power.mean((1, 2)), 1.0, atol=0.02)
    radius = np.hypot(*np.mgrid[:4, :4])
    for low, high in ((-1, 0), (0, 1.5), (1.5, 2.5), (2.5, 4), (4, 6)):
        np.testing.assert_allclose(power[:, (radius > low) & (radius <= high)].mean(1), 1.0, atol=0.03)
    online = measure_latents(images, autoencoder, kind=Spectral("white"), count=None, flip=True, batch=5, workers=1)
    torch.testing.assert_close(online.normalize(latents), stats.normalize(latents), rtol=0, atol=1e-4)
    assert torch.equal(stats.mean, exact.stats.mean) and torch.equal(stats.std, exact.stats.std)


def test_the_measured_image_spectrum_is_that_of_the_images(exact, images):
    found = exact.card.measured.power
    pixels = images.read(range(18)).images.double().numpy()
    cells = (scipy.fft.dctn(pixels, axes=(-2, -1), norm="ortho")[..., :4, :4] ** 2).mean((0, 1)) * (4 * 4) / (16 * 16)
    assert (found.num_latents, found.num_images, found.size, found.source) == (36, 18, (4, 4), (16, 16))
    lowest = (cells[0, 1] + cells[1, 0] + cells[1, 1]) / 3
    assert found.images[0] / 18 == pytest.approx(lowest)
    assert found.images[-1] / 18 == pytest.approx(cells[3, 3])      # the corner


def test_a_cache_of_an_earlier_version_opens_but_cannot_be_recoloured(tmp_path, exact):
    shutil.copytree(exact.folder, tmp_path / "old")
    card = json.loads((exact.folder / "latents.json").read_text())
    del card["measured"]["power"]
    (tmp_path / "old" / "latents.json").write_text(json.dumps(card))
    assert torch.equal(opened(tmp_path / "old").stats.std, exact.stats.std)
    with pytest.raises(DataError, match=r"spectrum of these latents was not measured(.|\n)*delete its folder"):
        opened(tmp_path / "old", stats=Spectral("white"))


def test_a_power_law_on_too_few_cells_is_an_error(exact):
    with pytest.raises(DataError, match=r"flatten = 1.0 needs latents of at least 8x8 cells, not 4x4"):
        opened(exact.folder, stats=Spectral(1.0))


def test_a_shard_that_an_earlier_version_finished_leaves_the_spectrum_unmeasured(exact):
    note = LatentNote.of(exact.card.shards[0], measured_part(exact, range(8)))
    old = LatentNote.model_validate(note.model_dump(exclude={"power"}))
    assert note.moments.power is not None and old.moments.power is None
    assert (note.moments + old.moments).power is None
    again = LatentNote.model_validate_json(note.model_dump_json()).moments.power
    assert torch.equal(again.latents, note.moments.power.latents) and again.num_images == 8


def measured_part(cache, numbers):
    posterior = cache.read(numbers, [False] * len(numbers)).posterior
    return LatentMoments.of(posterior, torch.rand(len(numbers), 3, 16, 16), numbers, flipped=False, seed=0)


def test_statistics_of_fewer_images_record_their_count(tmp_path, autoencoder, images, exact):
    cache = opened(written(tmp_path / "few", autoencoder, images, dtype="fp32", stats_images=10, batch=3))
    latents = sampled(exact, seed=0)[[*range(10), *range(18, 28)]]
    assert cache.stats.count == 20
    np.testing.assert_allclose(cache.stats.std.numpy(), latents.std((0, 2, 3)), rtol=1e-5)
    again = measure_latents(images, autoencoder, kind="channel", count=10, flip=True, batch=5, workers=1)
    torch.testing.assert_close(again.mean, cache.stats.mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(again.std, cache.stats.std, rtol=1e-5, atol=1e-6)
    assert (again.count, again.data) == (20, images.digest)


def test_a_constant_channel_is_an_error_for_statistics_per_channel(tmp_path, images):
    dead = small_autoencoder()
    with torch.no_grad():
        dead.quant_conv.weight[[1, 4]] = 0.0
        dead.quant_conv.bias[[1, 4]] = torch.tensor([200.0, -200.0])    # too large for the clamped std, exp(-15), to change
    folder = written(tmp_path / "dead", dead, images, dtype="bf16")
    with pytest.raises(DataError, match="Latent channel 1 has the same value everywhere"):
        opened(folder)
    assert opened(folder, stats="scalar").stats.std > 0


def test_cached_and_online_batches_are_the_same_order_mirrored_alike_and_equal_to_rounding(exact, autoencoder, images):
    cached = some(latent_batches(exact, images=images, flip=True, **ORDER), 4)
    online = some(encoded_batches(images, autoencoder, flip=True, encode_batch=4, **ORDER), 4)
    plain = some(training_batches(images, **ORDER), 4)
    for k, (a, b, c) in enumerate(zip(cached, online, plain, strict=True)):
        assert isinstance(a, LatentBatch)
        assert a.ids == b.ids == c.ids
        assert torch.equal(a.labels, c.labels)
        torch.testing.assert_close(a.mean, b.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(a.logvar, b.logvar, rtol=0, atol=1e-5)
        assert torch.equal(a.images, b.images)
        flips = batch_flips(seed=5, batch=6, index=2 + k)
        for n, mirrored in enumerate(flips):
            picture = c.images[n]
            assert torch.equal(a.images[n], picture.flip(-1) if mirrored else picture)
    assert 0 < sum(sum(batch_flips(seed=5, batch=6, index=2 + k)) for k in range(4)) < 24


def test_ranks_worker_counts_and_a_later_start_do_not_change_the_batches(exact):
    whole = some(latent_batches(exact, flip=True, **ORDER), 3)
    shares = [{**ORDER, "start": start, "stop": stop, "workers": 1} for start, stop in ((0, 4), (4, 6))]
    halves = [some(latent_batches(exact, flip=True, **share), 3) for share in shares]
    for one, left, right in zip(whole, *halves, strict=True):
        assert one.ids == left.ids + right.ids
        assert torch.equal(one.mean, torch.cat([left.mean, right.mean]))
        assert torch.equal(one.slice(4, 6).logvar, right.logvar)
    (later,) = some(latent_batches(exact, flip=True, **{**ORDER, "first": 4}), 1)
    assert torch.equal(later.mean, whole[2].mean)
    assert later.images is None and later.features is None


def test_batches_of_a_bf16_cache_are_bf16_and_have_the_values_that_read_returns(tmp_path, autoencoder, images):
    cache = opened(written(tmp_path / "rough", autoencoder, images, dtype="bf16"))
    (batch,) = some(latent_batches(cache, flip=False, **ORDER), 1)
    read = cache.read(batch_indices(18, seed=5, batch=6, index=2), [False] * 6)
    assert (batch.mean.dtype, batch.logvar.dtype, read.mean.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert torch.equal(batch.posterior.mean, read.mean) and torch.equal(batch.in_float32().logvar, read.logvar)


def test_without_flip_every_latent_is_the_images_own(exact):
    (batch,) = some(latent_batches(exact, flip=False, **ORDER), 1)
    indices = batch_indices(18, seed=5, batch=6, index=2)
    assert torch.equal(batch.mean, exact.read(indices, [False] * 6).mean)


def test_flips_are_even_and_differ_between_batches_and_seeds():
    draws = np.array([[batch_flips(seed=seed, batch=64, index=k) for k in range(50)] for seed in range(2)], float)
    assert abs(draws.mean() - 0.5) < 4 * 0.5 / math.sqrt(draws.size)
    assert abs(np.corrcoef(draws[0].ravel(), draws[1].ravel())[0, 1]) < 0.1
    assert len({tuple(row) for row in draws.reshape(100, 64)}) == 100


def test_positions_outside_the_batch_are_refused(exact, images, autoencoder):
    with pytest.raises(ValueError, match="positions 0:7"):
        latent_batches(exact, flip=False, **{**ORDER, "stop": 7})
    with pytest.raises(ValueError, match="positions 3:3"):
        encoded_batches(images, autoencoder, flip=False, **{**ORDER, "start": 3, "stop": 3})


def test_flips_from_a_cache_without_them_are_an_error(tmp_path, autoencoder, images):
    cache = opened(written(tmp_path / "plain", autoencoder, images, flip=False))
    assert (cache.stats.count, cache.flip) == (18, False)
    with pytest.raises(DataError, match=r"no latents of flipped images(.|\n)*--latents runs/x/ckpt\.safetensors"):
        latent_batches(cache, flip=True, **ORDER)
    with pytest.raises(DataError, match="no latents of flipped images"):
        cache.read([0, 1], [False, True])
    some(latent_batches(cache, flip=False, **ORDER), 1)


def test_the_error_of_a_stale_cache_names_both_digests_and_the_command(exact, images):
    opened(exact.folder, autoencoder="a" * 64, data=images.digest)
    with pytest.raises(DataError) as caught:
        opened(exact.folder, autoencoder="b" * 64, data=images.digest)
    assert "stale latent cache: made with autoencoder aaaaaaaa (runs/x/ckpt.safetensors)" in str(caught.value)
    assert "autoencoder bbbbbbbb" in str(caught.value)
    assert f"smtool prepare {images.folder} --latents runs/x/ckpt.safetensors" in str(caught.value)
    with pytest.raises(DataError, match=f"images {images.digest[:8]}.*images cccccccc"):
        opened(exact.folder, autoencoder="a" * 64, data="c" * 64)


def test_latents_cannot_be_joined_with_other_images(exact, tmp_path, photo_folder):
    preparation = Preparation(find_source(str(photo_folder(4))), Rule(16), val_fraction=0.0)
    prepare_images(preparation, tmp_path / "other", workers=1)
    other = open_images(str(tmp_path / "other"), "train", image_size=16)
    with pytest.raises(DataError, match="stale latent cache: made with images"):
        latent_batches(exact, images=other, flip=False, **ORDER)


def test_no_cache_an_unfinished_one_and_a_broken_card_have_different_errors(tmp_path, exact):
    with pytest.raises(DataError, match=r"is not a latent cache(.|\n)*--latents ckpt\.safetensors --out"):
        opened(tmp_path)
    (tmp_path / ".unfinished").mkdir()
    with pytest.raises(DataError, match="interrupted"):
        opened(tmp_path)
    card = json.loads((exact.folder / "latents.json").read_text())
    (tmp_path / "latents.json").write_text(json.dumps({**card, "dtype": "fp8"}))
    with pytest.raises(DataError, match=r"latents\.json: dtype"):
        opened(tmp_path)


def test_a_flipped_bit_a_cut_shard_and_a_lost_index_are_damage(tmp_path, autoencoder, images):
    folder = written(tmp_path / "cache", autoencoder, images)
    shard = folder / "train-000001.tar"
    data = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        place = tar.getmember("00000009.flip.safetensors").offset_data + 200
    data[place] ^= 1
    shard.write_bytes(data)
    cache = opened(folder)
    cache.read([9], [False])
    with pytest.raises(DataError, match=r"train-000001\.tar: damaged shard: the bytes of the latent of image 00000009"):
        cache.read([9], [True])
    with pytest.raises(DataError, match="its sha256 differs"):
        written(folder, autoencoder, images)
    shard.write_bytes(data[:-512])
    with pytest.raises(DataError, match="but the card says"):
        opened(folder)
    (folder / "train-000001.npy").unlink()
    with pytest.raises(DataError, match="it is missing"):
        opened(folder)


KILLED = """
import importlib.util, os, signal, sys
import torch
spec = importlib.util.spec_from_file_location("here", {file!r})
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)
torch.set_num_threads({threads})
images = here.open_images(sys.argv[1], "train", image_size=16)

def report(done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

here.written(sys.argv[2], here.small_autoencoder(), images, report=report)
"""


def killed_at(images, out, done, tmp_path):
    """Encode in a process that kills itself after `done` images."""
    script = KILLED.format(file=__file__, threads=torch.get_num_threads())
    (tmp_path / "killed.py").write_text(script)
    run = warm_process.run(tmp_path / "killed.py", images.folder, out, done)
    assert run.returncode == -signal.SIGKILL, run.stderr


@pytest.mark.slow
def test_a_run_killed_twice_and_resumed_gives_the_bytes_of_an_uninterrupted_one(tmp_path, autoencoder, images):
    written(tmp_path / "unbroken", autoencoder, images)
    killed_at(images, tmp_path / "out", 12, tmp_path)    # in the middle of the second shard
    assert (tmp_path / "out" / "train-000000.tar").is_file()
    assert not (tmp_path / "out" / "train-000001.tar").exists()
    first = (tmp_path / "out" / "train-000000.tar").stat()
    killed_at(images, tmp_path / "out", 18, tmp_path)    # as the last image is counted, before its shard is complete
    (tmp_path / "out" / ".train-000002.tar.999.part").write_bytes(b"half")
    with pytest.raises(DataError, match="interrupted"):
        opened(tmp_path / "out")
    seen = []
    written(tmp_path / "out", autoencoder, images, report=lambda done, total: seen.append((done, total)))
    assert seen == [(16, 18), (18, 18)]
    assert contents(tmp_path / "out") == contents(tmp_path / "unbroken")
    assert set(contents(tmp_path / "out")) == {"latents.json"} | {f"train-00000{n}.{s}" for n in range(3) for s in ("tar", "npy")}
    assert (tmp_path / "out" / "train-000000.tar").stat().st_mtime_ns == first.st_mtime_ns    # a finished shard was kept


def test_an_unfinished_cache_is_not_resumed_with_another_autoencoder(tmp_path, autoencoder, images):
    killed_at(images, tmp_path / "out", 12, tmp_path)
    with pytest.raises(DataError, match="unfinished preparation of other data or with other settings"):
        written(tmp_path / "out", autoencoder, images, autoencoder_digest="b" * 64)


def test_an_encoding_that_is_not_finite_or_an_interruption_leaves_finished_shards_only(tmp_path, images):
    broken, count = small_autoencoder(), 0
    encode = broken.encode

    def failing(batch):
        nonlocal count
        count += 1
        posterior = encode(batch)
        if count == 6:      # of the second shard, with mirrored images
            posterior.mean[1] = torch.nan
        return posterior

    broken.encode, first = failing, ["train-000000.npy", "train-000000.tar"]
    with pytest.raises(DataError, match="encoding of image 00000009 is not finite"):
        written(tmp_path / "out", broken, images)
    assert sorted(path.name for path in (tmp_path / "out").glob("*") if path.is_file()) == first

    def interrupted(batch):
        raise KeyboardInterrupt

    broken.encode = interrupted
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "out", broken, images)
    assert sorted(path.name for path in (tmp_path / "out").glob("*") if path.is_file()) == first
    broken.encode = encode
    written(tmp_path / "out", broken, images)
    written(tmp_path / "unbroken", broken, images)
    assert contents(tmp_path / "out") == contents(tmp_path / "unbroken")


def test_a_finished_cache_of_other_settings_is_left_alone(tmp_path, autoencoder, images):
    folder = written(tmp_path / "out", autoencoder, images)
    before = contents(folder)
    written(folder, autoencoder, images, batch=7)    # the same again: verified
    for change in ({"dtype": "fp32"}, {"flip": False}, {"autoencoder_digest": "b" * 64}, {"stats_images": 5}, {"seed": 1}):
        name = {"autoencoder_digest": "autoencoder"}.get(*change, next(iter(change)))
        with pytest.raises(DataError, match=f"already holds latents with {name} = "):
            written(folder, autoencoder, images, **change)
    assert contents(folder) == before


def test_the_estimated_size_is_that_of_the_files(tmp_path, autoencoder, images):
    for dtype, flip in (("bf16", True), ("fp32", False)):
        folder = written(tmp_path / dtype, autoencoder, images, dtype=dtype, flip=flip, images_per_shard=1024)
        size = sum(path.stat().st_size for path in folder.glob("train-*"))
        told = estimated_bytes(LatentPreparation(autoencoder, images, "a", "b", flip, dtype))
        assert 0 <= size - told <= 10240 + 512    # a tar ends in zeros, to a multiple of 10240 bytes; an .npy has a header


def test_too_small_a_disk_is_an_error_before_anything_is_encoded(tmp_path, autoencoder, images, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("smtool.data.cache.write.shutil.disk_usage", lambda path: usage)
    with pytest.raises(DiskError, match="the latents need"):
        written(tmp_path / "out", autoencoder, images)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".unfinished"]


def test_an_autoencoder_that_overflows_names_the_image(tmp_path, images):
    class Overflowing(type(small_autoencoder())):
        """Overflows float32 on one image."""

        def encode(self, pictures):
            posterior = super().encode(pictures)
            hit = (pictures - images.read([13]).images).flatten(1).abs().amax(1) < 1e-6
            return Posterior(posterior.mean * torch.where(hit, 1e38, 1.0).view(-1, 1, 1, 1) * 1e5, posterior.logvar)

    with pytest.raises(DataError, match=r"encoding of image 00000013 is not finite \(1 of 4"):
        written(tmp_path / "out", Overflowing(SECTION), images)
    assert not (tmp_path / "out" / "latents.json").exists()
    with pytest.raises(DataError, match="image 00000013 is not finite"):
        some(encoded_batches(images, Overflowing(SECTION), flip=False, **{**ORDER, "batch": 18, "stop": 18}), 1)


def test_images_of_a_size_that_the_autoencoder_cannot_encode_are_refused(tmp_path, photo_folder, autoencoder):
    preparation = Preparation(find_source(str(photo_folder(4))), Rule(18), val_fraction=0.0)
    prepare_images(preparation, tmp_path / "odd", workers=1)
    odd = open_images(str(tmp_path / "odd"), "train", image_size=18)
    with pytest.raises(DataError, match="must be multiples of 4, such as"):
        written(tmp_path / "out", autoencoder, odd)


def _swap_index(folder, change):
    """Replace the index of the first shard, and its digest in the card, as a tool that rewrites both would do."""
    path = folder / "train-000000.npy"
    path.write_bytes(change(np.load(path)))
    card = json.loads((folder / "latents.json").read_text())
    card["shards"][0]["index_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "latents.json").write_text(json.dumps(card))


def _stored(rows):
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def _with(field, value):
    def change(rows):
        rows[field][1] = value
        return _stored(rows)

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: b"",
        lambda rows: b"not an array",
        lambda rows: _stored(rows)[:-20],
        lambda rows: _stored(rows[:-1]),
        lambda rows: _stored(rows["key"]),
        _with("offset", 2**64 - 1),
        _with("bytes", 2**31 - 1),
        _with("label", 7),
        _with("label", -5),
    ],
)
def test_an_index_that_does_not_fit_its_shard_is_refused(tmp_path, autoencoder, images, change):
    folder = written(tmp_path / "cache", autoencoder, images)
    _swap_index(folder, change)
    with pytest.raises(DataError, match=r"train-000000\.npy"):
        opened(folder)


def test_a_cache_without_shards_is_refused(tmp_path, autoencoder, images):
    folder = written(tmp_path / "cache", autoencoder, images)
    card = json.loads((folder / "latents.json").read_text())
    (folder / "latents.json").write_text(json.dumps({**card, "shards": []}))
    with pytest.raises(DataError, match="holds no latents"):
        opened(folder)
