"""Folders saved by diffusers can be opened and give the results of diffusers."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from diffusers.models.autoencoders.vae import Decoder
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from smtool.errors import CheckpointError
from smtool.tokenizers import load_autoencoder, open_tokenizer

IMAGES = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def tiny(**config) -> AutoencoderKL:
    levels = config.pop("levels", 3)
    return AutoencoderKL(
        **{
            "block_out_channels": (8, 8, 16, 16)[:levels],
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "norm_num_groups": 4,
            "latent_channels": 3,
            **config,
        }
    )


def assert_same_function(autoencoder, theirs: AutoencoderKL) -> None:
    """Compared in float64, because rounding in float32 differs between processors."""
    autoencoder, theirs, close = autoencoder.double(), theirs.double(), {"rtol": 1e-9, "atol": 1e-11}
    with torch.no_grad():
        moments = theirs.encode(IMAGES.double()).latent_dist
        posterior = autoencoder.encode(IMAGES.double())
        assert_close(posterior.mean, moments.mean, **close)
        assert_close(posterior.logvar, moments.logvar, **close)
        assert_close(autoencoder.decode(moments.mean), theirs.decode(moments.mean).sample, **close)


@pytest.mark.parametrize(
    "config",
    [{}, {"layers_per_block": 2, "levels": 4}, {"use_quant_conv": False, "use_post_quant_conv": False}, {"levels": 1}],
)
def test_a_saved_folder_computes_what_diffusers_computes(config, tmp_path):
    theirs = tiny(**config)
    theirs.save_pretrained(tmp_path)
    assert_same_function(load_autoencoder(tmp_path), theirs)


def test_a_pipeline_folder_is_opened_at_its_vae(tmp_path):
    theirs = tiny()
    theirs.save_pretrained(tmp_path / "vae")
    assert_same_function(load_autoencoder(str(tmp_path)), theirs)


def test_a_folder_of_pickled_tensors_is_opened_without_running_anything(tmp_path):
    theirs = tiny()
    theirs.save_pretrained(tmp_path, safe_serialization=False)
    assert not (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    assert_same_function(load_autoencoder(tmp_path), theirs)


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("old_names", [False, True])
def test_old_names_of_attention_are_read(old_names, convolutions, tmp_path):
    """Projections were named query, key, value, proj_attn in old versions, and were 1x1 convolutions in LDM."""
    theirs = tiny()
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {}
    for name, tensor in load_file(path).items():
        if "attentions" in name and convolutions and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        if "attentions" in name and old_names:
            for new, former in OLD_NAMES.items():
                name = name.replace(f".{new}.", f".{former}.")
        old[name] = tensor
    save_file({name: tensor.contiguous() for name, tensor in old.items()}, path)
    assert_same_function(load_autoencoder(tmp_path), theirs)


def test_half_precision_weights_become_float32(tmp_path):
    tiny().half().save_pretrained(tmp_path, variant="fp16")
    autoencoder = load_autoencoder(tmp_path)
    assert {parameter.dtype for parameter in autoencoder.parameters()} == {torch.float32}
    assert torch.isfinite(autoencoder.encode(IMAGES).mean).all()


def test_published_scale_and_shift_normalize_as_diffusers_pipelines_do(tmp_path):
    tiny(scaling_factor=0.25, shift_factor=0.5).save_pretrained(tmp_path)
    stats = load_autoencoder(tmp_path).stats
    assert (stats.kind, stats.count, stats.data) == ("scalar", 0, "published")
    latents = torch.randn(2, 3, 4, 4)
    assert_close(stats.normalize(latents), (latents - 0.5) * 0.25)


def test_published_channel_statistics_normalize_as_diffusers_pipelines_do(tmp_path):
    mean, std = [0.5, 0.0, -0.5], [1.0, 2.0, 4.0]
    tiny(scaling_factor=0.5, latents_mean=mean, latents_std=std).save_pretrained(tmp_path)
    latents = torch.randn(2, 3, 4, 4)
    expected = (latents - torch.tensor(mean).view(1, 3, 1, 1)) * 0.5 / torch.tensor(std).view(1, 3, 1, 1)
    assert_close(load_autoencoder(tmp_path).stats.normalize(latents), expected)


def test_flux2_is_the_same_network_and_its_untrained_batch_norm_gives_no_statistics(tmp_path):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    theirs = AutoencoderKLFlux2(block_out_channels=(8, 16), norm_num_groups=4, latent_channels=3, **blocks)
    theirs.save_pretrained(tmp_path)
    autoencoder = load_autoencoder(tmp_path)
    assert_same_function(autoencoder, theirs)
    assert autoencoder.stats is None


@pytest.mark.parametrize("alone", [False, True])
def test_flux2s_batch_norm_normalizes_latents_as_2x2_patches(alone, tmp_path):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    theirs = AutoencoderKLFlux2(block_out_channels=(8, 16), norm_num_groups=4, latent_channels=3, **blocks).eval()
    theirs.bn.running_mean.copy_(torch.linspace(-1, 1, 12))
    theirs.bn.running_var.copy_(torch.linspace(0.01, 2, 12))
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    if alone:
        (tmp_path / "config.json").unlink()
    stats = load_autoencoder(f"{file},norm_groups=4" if alone else tmp_path).stats
    assert (stats.kind, stats.data) == ("patch", "published")
    latents = torch.randn(2, 3, 4, 6)
    assert_close(torch.pixel_unshuffle(stats.normalize(latents), 2), theirs.bn(torch.pixel_unshuffle(latents, 2)))
    save_file({name: tensor[:8].clone() if name.startswith("bn.running") else tensor for name, tensor in load_file(file).items()},
              file)
    with pytest.raises(CheckpointError, match=r"bn.running_mean has the shape \(8,\), but 2x2 patches of 3 .* have 12 values"):
        load_autoencoder(f"{file},norm_groups=4" if alone else tmp_path)


@pytest.mark.parametrize("alone", [False, True])
def test_flux2s_small_decoder_has_its_own_widths(alone, tmp_path):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"block_out_channels": (8, 16), "decoder_block_out_channels": (4, 12), "norm_num_groups": 4, "latent_channels": 3}
    theirs = AutoencoderKLFlux2(**sizes, **blocks)
    theirs.save_pretrained(tmp_path)
    if alone:
        (tmp_path / "config.json").unlink()
    name = f"{tmp_path}/diffusion_pytorch_model.safetensors,norm_groups=4" if alone else tmp_path
    autoencoder = load_autoencoder(name)
    assert autoencoder.config.decoder_channels == (4, 12)
    assert_same_function(autoencoder, theirs)


@pytest.mark.parametrize("alone", [False, True])
def test_without_attention_in_the_middle(alone, tmp_path):
    theirs = tiny(mid_block_add_attention=False)
    theirs.save_pretrained(tmp_path)
    if alone:
        (tmp_path / "config.json").unlink()
    name = f"{tmp_path}/diffusion_pytorch_model.safetensors,norm_groups=4" if alone else tmp_path
    autoencoder = load_autoencoder(name)
    assert not autoencoder.config.mid_attention
    assert_same_function(autoencoder, theirs)


@pytest.mark.parametrize("stated", ["config", "name of the folder", "setting"])
def test_reflected_edges_are_those_of_the_published_patch(stated, tmp_path):
    """kohya-ss/sd-scripts#2189: every padded convolution of diffusers' module reflects."""
    folder = tmp_path / ("MS-LC-EQ-D-VR_VAE" if stated == "name of the folder" else "vae")
    theirs = tiny()
    theirs.save_pretrained(folder)
    if stated == "config":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "padding": "reflect"}))
    autoencoder = load_autoencoder(f"{folder},padding=reflect" if stated == "setting" else folder)
    plain = load_autoencoder(f"{folder},padding=zeros")
    assert autoencoder.digest != plain.digest and "edges reflected" in autoencoder.architecture
    assert_same_function(plain, theirs)
    for module in theirs.modules():
        if isinstance(module, torch.nn.Conv2d) and max(module.padding) > 0:
            module.padding_mode = "reflect"
    assert_same_function(autoencoder, theirs)


@pytest.mark.parametrize("name", ["diffusion_pytorch_model", "model"])
def test_a_sharded_folder_computes_what_diffusers_computes(name, tmp_path):
    theirs = tiny()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("diffusion_pytorch_model-*.safetensors"))
    assert len(shards) > 2
    for path in tmp_path.glob("diffusion_pytorch_model*"):
        path.rename(tmp_path / path.name.replace("diffusion_pytorch_model", name))
    index = tmp_path / f"{name}.safetensors.index.json"
    index.write_text(index.read_text().replace("diffusion_pytorch_model", name))
    assert_same_function(load_autoencoder(tmp_path), theirs)
    assert_same_function(load_autoencoder(f"{index}"), theirs)
    first, second = sorted(tmp_path.glob(f"{name}-*.safetensors"))[:2]
    assert load_autoencoder(first).digest == load_autoencoder(index).digest      # one shard stands for all
    second.rename(tmp_path / "elsewhere")
    words = rf"index\.json names \d+ shards, of which 1 cannot be found beside it: {second.name}\."
    for what in (tmp_path, index, first):
        with pytest.raises(CheckpointError, match=words):
            load_autoencoder(what)
    index.unlink()
    with pytest.raises(CheckpointError, match=r"is shard 1 of \d+ of a file, and its index .* is not beside it"):
        load_autoencoder(first)


def test_an_index_of_other_shards_is_refused(tmp_path):
    tiny().save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    placed = json.loads(index.read_text())
    first, last = (sorted(placed["weight_map"].items(), key=lambda one: one[1])[i] for i in (0, -1))
    placed["weight_map"][first[0]] = last[1]
    index.write_text(json.dumps(placed))
    with pytest.raises(CheckpointError, match=rf"says that {last[1]} holds {first[0]}, but it does not"):
        load_autoencoder(tmp_path)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="is not an index of shards"):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny"])
def test_a_pointer_of_git_lfs_is_called_one(kind, ending, tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1b909373b28f2137098b0fd9dbc6f97f\nsize 334643276\n"
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": kind}))
    path = tmp_path / f"diffusion_pytorch_model{ending}"
    path.write_text(pointer)
    for what in (tmp_path, path):
        with pytest.raises(CheckpointError, match=r"is a Git LFS pointer, not the file of 334\.6 MB[\s\S]*git lfs pull"):
            open_tokenizer(what)


def test_half_an_autoencoder_is_called_so(tmp_path):
    weights = tiny().state_dict()
    decoder = {name: value for name, value in weights.items() if name.startswith(("decoder.", "post_quant"))}
    bare = {name.removeprefix("decoder."): value for name, value in decoder.items() if name.startswith("decoder.")}
    encoder = {name: value for name, value in weights.items() if name.startswith(("encoder.", "quant"))}
    for tensors, half, other in ((decoder, "decoder", "encoder"), (bare, "decoder", "encoder"), (encoder, "encoder", "decoder")):
        save_file(tensors, tmp_path / "half.safetensors")
        with pytest.raises(CheckpointError, match=rf"holds only the {half} of an autoencoder; its {other} is missing"):
            open_tokenizer(tmp_path / "half.safetensors")


def test_padding_can_be_overridden_and_is_asymmetric_otherwise(tmp_path):
    tiny().save_pretrained(tmp_path)
    assert load_autoencoder(tmp_path).config.downsample_pad == "asymmetric"
    assert load_autoencoder(tmp_path, downsample_pad="symmetric").config.downsample_pad == "symmetric"
    with pytest.raises(ValueError, match="downsample_pad"):
        load_autoencoder(tmp_path, downsample_pad="reflect")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "AutoencoderTiny"}, "AutoencoderTiny of diffusers, but only AutoencoderKL"),
        ({"act_fn": "relu"}, "act_fn is 'relu', but must be 'silu'"),
        ({"decoder_block_out_channels": [8, 16]}, "the decoder has 2 levels, but the encoder has 3"),
        ({"down_block_types": ["DownBlock2D"] * 3}, r"it has DownBlock2D, .*but only \(Attn\)DownEncoderBlock2D"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 3}, r"attention at levels \(0, 1, 2\), the decoder at \(\)"),
        ({"use_quant_conv": False}, "differ"),
        ({"norm_num_groups": 3}, "not a positive multiple"),
        ({"latent_channels": 5}, "the weights do not fit"),
    ],
)
def test_another_network_is_refused_with_what_differs(change, message, tmp_path):
    tiny().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=message):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_damaged_config_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_autoencoder(tmp_path)


def test_a_folder_without_weights_or_with_damaged_ones_is_refused(tmp_path):
    tiny().save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.rename(tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not a readable file of plain tensors"):
        load_autoencoder(tmp_path)
    (tmp_path / "diffusion_pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"no diffusion_pytorch_model\.safetensors"):
        load_autoencoder(tmp_path)


def test_encoder_and_decoder_of_unlike_depth(tmp_path):
    theirs = tiny()
    sizes = {"block_out_channels": (8, 8, 16), "norm_num_groups": 4, "up_block_types": ("UpDecoderBlock2D",) * 3}
    theirs.decoder = Decoder(in_channels=3, out_channels=3, layers_per_block=3, **sizes)      # it has one block more
    save_file(theirs.state_dict(), tmp_path / "vae.safetensors")
    autoencoder = load_autoencoder(f"{tmp_path}/vae.safetensors,norm_groups=4")
    assert (autoencoder.config.blocks_per_level, autoencoder.config.decoder_blocks) == (1, 4)
    assert_same_function(autoencoder, theirs)


@pytest.mark.parametrize(
    "change",
    [
        {"block_out_channels": 255},
        {"block_out_channels": None},
        {"up_block_types": -1.5},
        {"up_block_types": [["UpDecoderBlock2D"]] * 3},
        {"down_block_types": {"x": 1}},
        {"scaling_factor": "0.18"},
        {"scaling_factor": 0},
        {"latents_mean": 1.0, "latents_std": 1.0},
        {"_class_name": ["AutoencoderKL"]},
        {"layers_per_block": 1000},
        {"norm_num_groups": "x"},
        {"act_fn": "x" * 5000},
    ],
    ids=str,
)
def test_values_of_another_type_in_the_config_are_refused_in_a_short_sentence(change, tmp_path):
    tiny().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError) as found:
        load_autoencoder(tmp_path)
    assert len(str(found.value)) < 1000
