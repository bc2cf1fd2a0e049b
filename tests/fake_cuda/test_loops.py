"""Loops over batches of frozen networks on the fake GPU: encoding for training and for a cache, features, samples."""

from contextlib import closing
from itertools import islice

import pytest
import torch

from fake_cuda.allowed import added
from smtool.data import encoded_batches, open_images
from smtool.data.latents.prepare import LatentPreparation
from smtool.devices import to_device
from smtool.evaluation.feature_pass import Wanted, table_of_features
from smtool.evaluation.image_sources import ImageSource
from smtool.features.load import load_extractor
from smtool.features.protocol import PROTOCOLS
from smtool.image_shape import ImageSize
from smtool.inference.features import pooled_features
from smtool.metrics.bootstrap import bootstrap_error
from smtool.metrics.frechet import Gaussian, finite_features
from smtool.networks.sd_vae import SDVAE
from smtool.tokenizers.encode import encoding_in

pytestmark = pytest.mark.fake_cuda


def _autoencoder():
    return SDVAE(downsample=2, latent_channels=2, channels=(4, 4), norm_groups=2, blocks_per_level=1, mid_attention=False).build()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return open_images("builtin:photos?train=6&val=2", "train", image_size=16, root=tmp_path_factory.mktemp("photos"))


def test_batches_that_are_encoded_for_training_wait_for_their_own_encoding_only(card, images):
    batches = encoded_batches(
        images, _autoencoder().to("cuda"), seed=0, batch=4, first=0, start=0, stop=4, workers=1, flip=True, encode_batch=2
    )
    with closing(batches):
        next(batches)
        card.waits.clear()
        found = list(islice(batches, 3))
    assert all(batch.mean.device.type == "cuda" and len(batch.ids) == 4 for batch in found)
    assert not added(card.waits, "batch encoded for training")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_the_thread_that_writes_a_cache_waits_for_the_encoding(card, images, precision):
    autoencoder = encoding_in(_autoencoder().to("cuda"), precision)
    preparation = LatentPreparation(autoencoder, images, autoencoder_digest="a" * 64, checkpoint="x")
    batch = images.read_stored(range(2)).pinned()
    preparation.outputs(batch, flipped=False)      # fills the caches of constants
    card.waits.clear()
    sides = [preparation.outputs(batch, flipped=flipped) for flipped in (False, True)]
    assert not added(card.waits, "batch encoded for a cache")
    assert all(side.begun.posterior.mean.dtype == torch.float32 for side in sides)
    assert all(later.value.device.type == "cpu" for side in sides for later in (side.mean, side.logvar, side.begun.finite))
    assert card.waits and not added(card.waits, "batch written to a cache")


def test_a_draw_of_a_bootstrap_waits_for_its_distance_only(card):
    """As `frechet_scores` draws: with fewer images than features, so that no root is computed."""
    samples, fixed = finite_features(torch.rand(6, 8).to("cuda")), Gaussian.of(torch.rand(6, 8).to("cuda"))
    card.waits.clear()
    distance = bootstrap_error(
        lambda chosen: Gaussian.of_finite(samples[to_device(chosen, "cuda")]).distance(fixed),
        torch.arange(6), replicates=3, draws=torch.Generator(),
    )
    assert distance >= 0
    assert not added(card.waits, "draw of a bootstrap") and max(card.waits.values()) == 3


@pytest.mark.parametrize("protocol", ["clean", "adm"])
def test_a_pass_of_features_waits_for_its_features_only(card, protocol):
    def read(positions: range, batch: int):
        return (torch.zeros(batch, 3, 40, 40, dtype=torch.uint8) for _ in range(0, len(positions), batch))

    extractor = load_extractor("random", protocol=PROTOCOLS[protocol]).to("cuda")
    extractor.size = 24      # the resize of the protocol is on the card too
    source, wanted = ImageSource("zeros", "digest", 4, [ImageSize(40, 40)], read), [Wanted(extractor)]
    table_of_features(source, wanted, PROTOCOLS[protocol], count=2, batch=2, folder=None)      # fills the caches of constants
    card.waits.clear()
    (found,) = table_of_features(source, wanted, PROTOCOLS[protocol], count=4, batch=2, folder=None).values()
    assert found.shape == (4, 64)
    assert not added(card.waits, "batch of features")
    assert pooled_features(extractor, read(range(4), 2)).shape == (4, 64)
