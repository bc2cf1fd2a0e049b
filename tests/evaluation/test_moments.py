"""Moments of a reference in an npz file: keys of other tools, equal scores when read back, and the features they apply to."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from smtool.commands.sample.files import write_npz
from smtool.errors import DataError
from smtool.evaluation.image_sources import open_source
from smtool.evaluation.moments import read_moments, write_moments
from smtool.features.load import load_extractor
from smtool.features.protocol import PROTOCOLS
from smtool.metrics.frechet import FeatureStats

IMAGES = 300


def _pixels(count, seed):
    draws = torch.Generator().manual_seed(seed)
    base = torch.randint(0, 256, (count, 3, 1, 1), generator=draws)
    return (base + torch.randint(-40, 40, (count, 3, 16, 16), generator=draws)).clamp(0, 255).to(torch.uint8)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """samples.npz and real.npz, 300 images each."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("samples", "real")):
        write_npz(tmp_path / f"{name}.npz", _pixels(IMAGES, number).permute(0, 2, 3, 1).numpy(), None)
    return tmp_path


def _scores(command, *arguments):
    code, out, err = command("eval", "samples.npz", *arguments, "--json", "scores.json")
    assert code == 0, err
    with open("scores.json") as file:
        return json.load(file)["scores"], out


def test_a_saved_reference_gives_the_scores_of_its_images(files, command):
    direct, out = _scores(command, "--reference", "real.npz", "--features", "random", "--save-reference", "moments.npz")
    assert "moments.npz: moments of random features of 300 images" in out
    (files / "real.npz").unlink()
    again, _ = _scores(command, "--reference", "moments.npz", "--features", "random")
    assert again["fd_random"]["value"] == pytest.approx(direct["fd_random"]["value"], rel=1e-9)
    assert again["fd_random"]["half_width"] == pytest.approx(direct["fd_random"]["half_width"], rel=1e-9)
    assert again["fd_random"]["passport"]["num_reference"] == 300


def test_the_keys_are_those_that_other_tools_read(files, command):
    """pytorch-fid and clean-fid read mu and sigma, and compute the distance as below."""
    direct, _ = _scores(command, "--reference", "real.npz", "--features", "random", "--save-reference", "moments.npz")
    features = load_extractor("random")(_pixels(IMAGES, 0)).double().numpy()
    with np.load(files / "moments.npz") as stored:
        assert (stored["mu"].dtype, stored["sigma"].dtype) == (np.float64, np.float64)
        mean, covariance = features.mean(0), np.cov(features, rowvar=False)
        root = sqrtm(covariance @ stored["sigma"]).real
        distance = ((mean - stored["mu"]) ** 2).sum() + np.trace(covariance + stored["sigma"] - 2 * root)
    assert direct["fd_random"]["value"] == pytest.approx(distance, rel=1e-5)


def test_they_are_used_for_the_same_features_and_protocol_only(files, command):
    _scores(command, "--reference", "real.npz", "--features", "random", "--save-reference", "moments.npz")
    for arguments in (["--features", "random", "--protocol", "paper"], ["--features", "random", "--kid"],
                      ["--features", "random", "--mind"], ["--pr"]):
        arguments = arguments if "--pr" not in arguments else ["--features", "random", "--pr"]
        code, _, err = command("eval", "samples.npz", "--reference", "moments.npz", *arguments)
        assert (code, "holds only moments, and no images: random features by protocol clean" in err) == (3, True), err


def test_sfid_moments_are_stored_under_adms_keys(tmp_path):
    extractor = load_extractor("random")
    stats = {"pooled": FeatureStats.of(torch.randn(9, 3)), "spatial": FeatureStats.of(torch.randn(9, 4))}
    write_moments(tmp_path / "m.npz", stats, extractor, PROTOCOLS["adm"], count=9, images_sha256="-")
    with np.load(tmp_path / "m.npz") as stored:
        assert set(stored.files) == {"mu", "sigma", "mu_s", "sigma_s", "smtool"}
    found = read_moments(tmp_path / "m.npz")
    assert found.comparable(extractor, PROTOCOLS["adm"]).keys() == {"pooled", "spatial"}
    assert found.comparable(extractor, PROTOCOLS["paper"]) == {}
    assert found.stats["spatial"].count == 9
    torch.testing.assert_close(found.stats["spatial"].scatter, stats["spatial"].scatter)


def test_a_file_with_an_invalid_description_of_its_features_is_refused(tmp_path):
    np.savez(tmp_path / "m.npz", mu=np.zeros(4), sigma=np.eye(4), smtool=np.array('{"extractor": "random"}'))
    with pytest.raises(DataError, match=r"m\.npz has no valid description of the features of its moments"):
        read_moments(tmp_path / "m.npz")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--features", "random", "--features", "squeezenet"], "writes moments of one extractor, but of random, squeezenet"),
        (["--features", "random", "--reference", "moments.npz"], "already holds moments"),
    ],
)
def test_moments_that_cannot_be_saved_are_an_error_before_any_pass(files, command, tmp_path, arguments, words):
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1(weights=None).half().state_dict(), tmp_path / "squeezenet1_1_torchvision_fp16.pth")
    np.savez("moments.npz", mu=np.zeros(4), sigma=np.eye(4))
    options = ["--reference", "real.npz", *arguments, "--save-reference", "out.npz", "--weights-dir", str(tmp_path)]
    code, _, err = command("eval", "samples.npz", *options)
    assert (code, words in err) == (2, True), err
    assert not (tmp_path / "out.npz").exists()


def test_a_limit_is_given_with_the_distance_or_a_note_states_why_not(files, command):
    scores, _ = _scores(command, "--reference", "real.npz", "--features", "random", "--infinity")
    limit, distance = scores["fd_random_infinity"], scores["fd_random"]
    assert 0 < limit["value"] < distance["value"]
    assert limit["half_width"] > 0
    assert "from N = 150 and 300 samples" in limit["notes"][0]
    scores, _ = _scores(command, "--reference", "real.npz", "--features", "random", "--infinity", "--num-images", "200")
    assert "fd_random_infinity" not in scores
    assert any("not extrapolated to N = infinity, which needs 256 samples" in note for note in scores["fd_random"]["notes"])


@pytest.mark.parametrize(
    "arrays",
    [
        {"mu": np.zeros(3), "sigma": np.eye(2)},
        {"mu": np.array(1.0), "sigma": np.eye(2)},
        {"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)},
        {"mu": np.array("text"), "sigma": np.eye(2)},
        {"mu": np.array([{"x": 1}], dtype=object), "sigma": np.eye(2)},
    ],
    ids=["shapes", "scalar", "nan", "text", "objects"],
)
def test_arrays_that_are_no_moments_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "given.npz", **arrays)
    with pytest.raises(DataError, match=r"given\.npz is not a readable npz file"):
        open_source(str(tmp_path / "given.npz"))


def test_a_flipped_bit_and_a_cut_npz_are_refused(tmp_path):
    np.savez(tmp_path / "whole.npz", mu=np.zeros(30), sigma=np.eye(30))
    data = (tmp_path / "whole.npz").read_bytes()
    for number in range(0, len(data), 97):
        for damaged in (data[:number], data[:number] + bytes([data[number] ^ 4]) + data[number + 1 :]):
            (tmp_path / "damaged.npz").write_bytes(damaged)
            try:
                open_source(str(tmp_path / "damaged.npz"))
            except DataError as error:
                assert "damaged.npz" in str(error)


def test_images_whose_data_end_early_are_refused_when_they_are_read(tmp_path):
    file = io.BytesIO()
    np.save(file, np.zeros((4, 8, 8, 3), dtype=np.uint8))
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("arr_0.npy", file.getvalue()[:-300])
    source = open_source(str(tmp_path / "short.npz"))
    with pytest.raises(DataError, match=r"short\.npz"):
        list(source.read(range(4), 2))
