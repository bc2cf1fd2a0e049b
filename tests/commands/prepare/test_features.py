"""`prepare --features`: from a teacher's name and a source to a cache that is found again, with console output and errors."""

from pathlib import Path

import pytest
import torch
from torchvision.models import squeezenet1_1

from smtool.commands.prepare.features import cached_features, prepare_features, token_grid
from smtool.commands.prepare.images import prepare
from smtool.data import open_images
from smtool.errors import RecipeError
from smtool.features.teachers import load_teacher

SOURCE = "builtin:photos?train=12&val=4"


def write_squeezenet(folder, seed):
    """Random weights with the file name and shapes of the real ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = {name: value.half() for name, value in squeezenet1_1(weights=None).state_dict().items()}
    torch.save(state, folder / "squeezenet1_1_torchvision_fp16.pth")


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """A working folder with data/photos and a folder of weights; nothing can be downloaded."""

    def refuse(request, *args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch-home"))
    monkeypatch.delenv("SMTOOL_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    prepare(SOURCE, out=tmp_path / "data" / "photos", size=32, workers=1)
    folder = tmp_path / "weights"
    folder.mkdir()
    write_squeezenet(folder, 0)
    return folder


def made(weights, **settings):
    return prepare_features("squeezenet", data="data/photos", weights_dir=weights, workers=1, **{"tokens": (2, 2), **settings})


def test_the_folder_of_a_cache_follows_from_teacher_data_and_grid(weights):
    told = []
    folder = made(weights, announce=lambda *said: told.append(said))
    images = open_images("data/photos", "train", image_size=32)
    teacher = load_teacher("squeezenet", token_grid=(2, 2), weights_dir=weights)
    assert str(folder) == f"data/teacher-features/photos-squeezenet-{teacher.digest[:8]}-{images.digest[:8]}-2x2"
    assert told == [(folder, told[0][1])]
    assert 12 * 2 * 512 * 2 * 2 * 2 < told[0][1] < sum(path.stat().st_size for path in folder.iterdir()) < told[0][1] + 20_000
    found = cached_features(teacher, images, flip=True)
    assert found.folder == folder
    expected = teacher((images.read([3]).images * 127.5 + 127.5).round().to(torch.uint8))
    # stored in bfloat16: one rounding, 2^-8 of the value; computed in another batch by 25 float32 convolutions of up to 576
    # products, whose rounding errors grow as the root of their number
    bound = torch.finfo(torch.float32).eps * (25 * 576) ** 0.5 * expected.max().item()
    torch.testing.assert_close(found.read([3], [False]), expected, rtol=2**-8, atol=bound)


def test_only_a_matching_cache_is_found(weights):
    images = open_images("data/photos", "train", image_size=32)
    teacher = load_teacher("squeezenet", token_grid=(2, 2), weights_dir=weights)
    assert cached_features(teacher, images, flip=False) is None
    made(weights, flip=False)
    assert cached_features(teacher, images, flip=True) is None
    assert cached_features(teacher, images, flip=False).card.flip is False
    fine = made(weights, dtype="fp32")
    assert cached_features(teacher, images, flip=True).folder == fine
    write_squeezenet(weights, 1)      # other weights under the same name, or another grid: there is no cache for them
    for grid in ((2, 2), (1, 1)):
        assert cached_features(load_teacher("squeezenet", token_grid=grid, weights_dir=weights), images, flip=True) is None


def test_caches_of_two_grids_and_two_precisions_coexist(weights):
    folders = [made(weights, **each) for each in ({}, {"tokens": (1, 2)}, {"dtype": "fp32"}, {"flip": False})]
    assert len(set(folders)) == 4
    assert [folder.name.rsplit("-", 1)[1] for folder in folders] == ["2x2", "1x2", "fp32", "noflip"]


@pytest.mark.parametrize(("text", "grid"), [("16", (16, 16)), ("8x16", (8, 16)), ("4X4", (4, 4))])
def test_tokens_are_a_number_per_side_or_rows_by_columns(text, grid):
    assert token_grid(text) == grid


@pytest.mark.parametrize("text", ["", "x", "0", "-1x4", "4x", "4x0x2", "four"])
def test_invalid_tokens_are_an_error(text):
    with pytest.raises(RecipeError, match="--tokens"):
        token_grid(text)


def test_the_command_prints_the_size_first_and_computes_only_once(weights, command):
    options = {"--features": "squeezenet", "--tokens": "2", "--weights-dir": str(weights), "--device": "cpu"}
    arguments = ["prepare", "data/photos", *(word for pair in options.items() for word in pair)]
    code, out, err = command(*arguments)
    assert code == 0, err
    lines = out.splitlines()
    assert "bytes (" in lines[0] and lines[0].startswith("data/teacher-features/photos-squeezenet-")
    assert lines[-1] == lines[0].split(":")[0]
    before = {path: path.stat().st_mtime_ns for path in Path(lines[-1]).iterdir()}
    assert command(*arguments)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in Path(lines[-1]).iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--features", "squeezenet"], 2, "16 for 256 px, an f8 autoencoder and patch = 2"),
        (["--tokens", "4"], 2, "--features needs --tokens N, and --tokens needs --features"),
        (["--features", "squeezenet", "--tokens", "4", "--latents", "x"], 2, "cannot be combined"),
        (["--latents", "x", "--crop", "random"], 2, "--crop has no effect on a cache of latents or features"),
        (["--latents", "x", "--size", "64"], 2, "--size has no effect on a cache"),
        (["--dtype", "fp32"], 2, "--dtype is an option of caches"),
        (["--features", "dinov9", "--tokens", "4"], 2, "no teacher is called 'dinov9'"),
        (["--features", "squeezenet", "--tokens", "2"], 4, "SqueezeNet 1.1 (torchvision, ImageNet) is needed for the teacher"),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(weights, command, arguments, code, words):
    found, _, err = command("prepare", "data/photos", "--device", "cpu", *arguments)
    assert (found, words in err) == (code, True), err
    assert "Traceback" not in err
