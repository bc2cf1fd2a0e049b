"""Inception with random weights in files of the published layouts, to test loading, resizing and the network."""

import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from smtool.errors import WeightsError
from smtool.features.inception import fid_inception
from smtool.features.load import load_extractor
from smtool.features.protocol import PROTOCOLS
from smtool.features.weights import WEIGHTS, Weights
from smtool.randomness import generator
from smtool.storage import file_digest


@pytest.fixture(scope="module")
def state_file(tmp_path_factory):
    """A state dict in pytorch-fid's layout, with batch norms that are not the identity."""
    network = fid_inception()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    path = tmp_path_factory.mktemp("inception") / "inception-random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def known_file(state_file, monkeypatch):
    known = Weights("Inception of random weights", (state_file.name,), 91, "https://example.org")
    monkeypatch.setitem(WEIGHTS, "inception", known)
    return state_file


def test_adm_features_equal_torch_fidelitys_of_the_same_weights(known_file):
    images = torch.randint(0, 256, (2, 3, 72, 64), dtype=torch.uint8, generator=generator("images"))
    found = load_extractor("inception", weights_dir=known_file.parent, protocol=PROTOCOLS["adm"])(images)
    judge = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(known_file))
    (expected,) = judge(images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


def test_map_and_logits_of_the_same_pass_equal_torch_fidelitys(known_file):
    images = torch.randint(0, 256, (2, 3, 80, 80), dtype=torch.uint8, generator=generator("images"))
    extractor = load_extractor("inception", weights_dir=known_file.parent, protocol=PROTOCOLS["adm"])
    found = extractor.look(images)
    judge = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(known_file)
    )
    maps = []
    judge.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: maps.append(output))
    pooled, logits = judge(images)
    assert maps[0].shape == (2, 192, 17, 17)
    spatial = maps[0].movedim(1, -1)[..., :7].reshape(2, -1)
    for view, expected in (("pooled", pooled), ("logits", logits), ("spatial", spatial)):
        assert expected.std() > 1e-3
        torch.testing.assert_close(found[view], expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
    torch.testing.assert_close(found["pooled"], extractor(images))


def test_only_the_published_weights_give_an_fid(known_file, monkeypatch):
    extractor = load_extractor("inception", weights_dir=known_file.parent)
    digest = file_digest(known_file)
    assert extractor.digest == digest
    assert extractor.score == f"fd_inception_{digest[:8]}"
    assert extractor.resize == "bicubic-antialias to 299"
    published = Weights("as if published", (known_file.name,), 91, "https://example.org", published=(digest,))
    monkeypatch.setitem(WEIGHTS, "inception", published)
    assert load_extractor("inception", weights_dir=known_file.parent).score == "fid"


def test_published_digests_match_the_file_names():
    assert WEIGHTS["inception"].files[0].endswith(f"-{WEIGHTS['inception'].published[0][:8]}.pth")
    assert all(len(digest) == 64 for digest in WEIGHTS["inception"].published)


class Layers(nn.Module):
    """A stand-in for the TorchScript file's inner network: input of 299 px, output (B, 2048, 1, 1)."""

    def __init__(self):
        super().__init__()
        self.pick = nn.Conv2d(3, 2048, 1)

    def forward(self, x):
        return self.pick(x.mean((2, 3), keepdim=True))


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = Layers()

    def forward(self, x):
        return self.layers(x)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_the_torchscript_file_gives_the_features_of_clean_fid(tmp_path):
    from cleanfid.inception_torchscript import InceptionV3W

    torch.jit.script(Whole()).save(tmp_path / "inception-2015-12-05.pt")
    extractor = load_extractor("inception", weights_dir=tmp_path)
    images = torch.randint(0, 256, (2, 3, 299, 299), dtype=torch.uint8, generator=generator("images"))
    with torch.no_grad():
        expected = InceptionV3W(str(tmp_path), download=False)(images.float())
    torch.testing.assert_close(extractor(images), expected, rtol=1e-4, atol=1e-5)
    assert extractor.score.startswith("fd_inception_")


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_absent_or_foreign_weights_are_an_error(tmp_path):
    with pytest.raises(WeightsError, match=r"Inception v3 .* is needed for FID"):
        load_extractor("inception", weights_dir=tmp_path)
    torch.jit.script(Layers()).save(tmp_path / "inception-2015-12-05.pt")
    with pytest.raises(WeightsError, match="is not the TorchScript Inception"):
        load_extractor("inception", weights_dir=tmp_path)
