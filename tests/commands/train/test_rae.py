"""RAE in whole runs: what is stored, how it is opened, and what is refused; transformers on its latents."""

import io

import pytest
import torch
from safetensors.torch import load_file

from smtool.checkpoints.autoencoder import read_autoencoder
from smtool.commands.train import training
from smtool.errors import RecipeError, WeightsError
from smtool.recipe import TrainAE, load
from smtool.report.console import Console
from smtool.storage import read_metadata
from smtool.tokenizers import open_tokenizer

MODEL = "model={{kind='rae',encoder='{}',downsample=4,size='custom',depth=1,width=8,heads=2,hidden=8}}"
RECIPE = """
steps = 4
log_every = 1
evaluate_every = 4
save_every = 2
[data]
train = "data/classes"
validation = "data/classes"
image_size = 32
batch = 4
[model]
kind = "rae"
encoder = "random"
downsample = 4
size = "custom"
depth = 1
width = 8
heads = 2
hidden = 8
[optimizer]
lr = 1e-3
warmup = 0
[ema]
decay = 0.5
[regularizers.latent_noise]
kind = "rae"
level = 0.8
[validation]
num_images = 8
grid = 4
[tracking]
tensorboard = false
"""


@pytest.fixture
def recipe(studio, tmp_path) -> str:
    (tmp_path / "rae.toml").write_text(RECIPE)
    return str(tmp_path / "rae.toml")


@pytest.fixture
def run(recipe, tmp_path):
    """(changes) -> the folder of a finished run."""

    def finished(*changes: str, weights_dir=None):
        loaded = load(recipe, TrainAE, changes)
        return training.train(loaded, console=Console(file=io.StringIO()), out=tmp_path / "run", weights_dir=weights_dir)

    return finished


def test_only_the_decoder_is_optimized_averaged_and_stored(run):
    folder = run()
    stored = load_file(folder / "ckpt.safetensors")
    assert {name.split(".")[0] for name in stored} == {"decoder", "mean", "std"}
    newest = folder / "checkpoints" / "00000004"
    for name in ("optimizer", "ema", "model"):
        names = {key.removeprefix("autoencoder/autoencoder.").split(".")[0] for key in load_file(newest / f"{name}.safetensors")}
        assert "decoder" in names and names <= {"decoder", "mean", "std"}, name
    metadata = read_metadata(folder / "ckpt.safetensors")
    assert metadata["learned_from"] == ["random"]
    assert (metadata["model"]["encoder"], metadata["model"]["latent_channels"]) == ("random", 128)
    opened = open_tokenizer(folder)
    assert metadata["model"]["encoder_digest"] == opened.encoder.digest and metadata["digest"] == opened.digest
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert opened.decode(opened.encode(images).mode()).shape == images.shape


def test_training_goes_on_from_it_with_the_same_encoder(run, recipe, tmp_path):
    folder = run()
    tables = load(recipe, TrainAE, [f"model={{init='{folder}'}}"]).tables
    assert tables.model.encoder == "random" and tables.model.encoder_digest and not tables.trains_encoder
    said = io.StringIO()
    loaded = load(recipe, TrainAE, [f"model={{init='{folder}'}}", "steps=2"])
    training.train(loaded, console=Console(file=said), out=tmp_path / "more")
    assert "the encoder is frozen: latents stay those of" in " ".join(said.getvalue().split())
    assert torch.equal(open_tokenizer(tmp_path / "more").encode(torch.zeros(1, 3, 8, 8)).mean,
                       open_tokenizer(folder).encode(torch.zeros(1, 3, 8, 8)).mean)


def test_without_the_encoders_weights_a_checkpoint_is_refused_with_the_file_to_fetch(run, weights, no_network):
    folder = run(MODEL.format("squeezenet"), weights_dir=weights)
    assert open_tokenizer(folder, weights_dir=weights).latent_channels == 512
    with pytest.raises(WeightsError, match="an RAE needs its frozen encoder squeezenet") as found:
        open_tokenizer(folder)
    assert "ckpt.safetensors" in found.value.message and "squeezenet1_1-b8a52dc0.pth" in found.value.hint
    with pytest.raises(WeightsError, match="squeezenet"):
        read_autoencoder(folder / "ckpt.safetensors")


def test_the_encoder_of_the_start_comes_from_the_given_folder(run, recipe, command, weights, no_network, tmp_path):
    folder = run(MODEL.format("squeezenet"), weights_dir=weights)
    more = ["train-ae", recipe, "--set", f"model={{init='{folder}'}}", "--set", "steps=2", "--out", str(tmp_path / "more")]
    code, _, said = command(*more)
    assert code == WeightsError.exit_code and "model.init: " in said and "squeezenet1_1-b8a52dc0.pth" in said
    code, _, said = command(*more, "--weights-dir", str(weights))
    assert code == 0, said
    assert open_tokenizer(tmp_path / "more", weights_dir=weights).encoder.digest == open_tokenizer(
        folder, weights_dir=weights
    ).encoder.digest


def test_other_weights_of_the_encoder_are_refused(run, weights, tmp_path, no_network):
    folder = run(MODEL.format("squeezenet"), weights_dir=weights)
    (tmp_path / "others").mkdir()
    for path in weights.glob("squeezenet*"):
        state = torch.load(path, weights_only=True)
        torch.save({name: 2 * value for name, value in state.items()}, tmp_path / "others" / path.name)
    with pytest.raises(WeightsError, match=r"ckpt\.safetensors: the weights of the encoder squeezenet have the digest"):
        open_tokenizer(folder, weights_dir=tmp_path / "others")


@pytest.mark.parametrize(("changes", "said"), [
    (["regularizers.kl={}"], r"regularizers\.kl: cannot be used: RAE is deterministic"),
    (["regularizers.esm={}"], r'regularizers\.esm: has no effect with model\.kind = "rae", because the encoder is frozen'),
    (["regularizers.va_vae={}"], r'regularizers\.va_vae: has no effect with model\.kind = "rae"'),
    (["regularizers.uae={teacher='squeezenet'}", "regularizers.latent_noise="], r"regularizers\.uae: cannot be used with"),
    (["data.image_size=30"], r"data\.image_size: an image of 30x30 cannot be encoded: both sides must be multiples of"),
    (["model.encoder=dinov3"], r"model\.encoder: no encoder is called 'dinov3'"),
    (["model.encoder=timm:vit_tinny_patch16_224"], r"model\.encoder: timm has no model called 'vit_tinny_patch16_224'. Did you"),
    (["model.encoder=timm:resnet10t"], r"model\.encoder: timm:resnet10t is no plain vision transformer"),
    (["model.latent_channels=64"], r"model\.latent_channels: is 64, but random has 128; leave the key out"),
    (["train=encoder"], r"train: 'encoder' matches no parameter"),
    (["model.size=B"], r'model\.depth: is 12 in size "B", but is 1'),
    (["model.encoder=3"], r"model\.encoder: "),
])
def test_what_cannot_work_is_refused_with_its_key(recipe, changes, said):
    with pytest.raises(RecipeError, match=said):
        load(recipe, TrainAE, changes)


def test_an_absent_encoder_ends_training_with_exit_code_4(recipe, command, no_network, tmp_path):
    code, _, said = command("train-ae", recipe, "--set", "model.encoder=squeezenet", "--out", str(tmp_path / "run"))
    assert code == WeightsError.exit_code
    assert "model.encoder: an RAE needs its frozen encoder squeezenet" in said and "squeezenet1_1-b8a52dc0.pth" in said


def test_inspect_shows_the_counts_of_decoder_and_encoder(run, command):
    code, said, _ = command("inspect", str(run()))
    assert code == 0
    assert "of the decoder; frozen encoder random with 119,648, digest" in said and "not in the file" in said


def test_diffusers_export_is_refused(run, command, tmp_path):
    code, _, said = command("export", str(run()), "--to", "diffusers", "--out", str(tmp_path / "out"))
    assert code == 3 and "only AutoencoderKL can be opened here" in said


@pytest.mark.slow
def test_a_transformer_learns_its_latents_and_sampling_needs_no_encoder(run, studio, tmp_path, weights, command, monkeypatch):
    """The checkpoint of the transformer holds the decoder; the encoder's weights are gone when images are drawn."""
    folder = run(MODEL.format("squeezenet"), weights_dir=weights)
    monkeypatch.setenv("SMTOOL_WEIGHTS", str(weights))
    done = studio.train(tmp_path / "dit", f"latents.autoencoder={folder}", "latents.online=true", "steps=4")
    monkeypatch.delenv("SMTOOL_WEIGHTS")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    code, _, said = command("sample", str(done), "--num-images", "4", "--out", str(tmp_path / "samples"))
    assert code == 0, said
    assert len(list((tmp_path / "samples").rglob("*.png"))) >= 4
