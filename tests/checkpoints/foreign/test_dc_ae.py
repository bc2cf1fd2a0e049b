"""AutoencoderDC in, smtool's own network, and out again: folders, files, the names of DC-AE's authors."""

import json
import re

import pytest
import torch
from diffusers import AutoencoderDC
from diffusers.loaders.single_file_utils import convert_autoencoder_dc_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from smtool.checkpoints.foreign.dc_ae import fused, names_in
from smtool.checkpoints.foreign.export_dc_ae import described, write_dc_ae
from smtool.checkpoints.foreign.origin import Origin, write_like
from smtool.checkpoints.tensor_file import TensorFile
from smtool.errors import CheckpointError, RecipeError
from smtool.networks.dc_ae import DCAE, DeepCompressionAutoencoder
from smtool.networks.posterior import LatentStats
from smtool.randomness import initializing
from smtool.tokenizers import identify, open_tokenizer

SMALL = {"downsample": 4, "latent_channels": 4, "channels": (16, 16, 32), "encoder_blocks": (0, 1, 2),
         "decoder_blocks": (0, 2, 1), "attention": (2,), "head_channels": 32}
SANA = {**SMALL, "encoder_blocks": (1, 1, 1), "decoder_blocks": (2, 1, 1), "head_channels": 8, "attention_scales": (5,),
        "batch_norm": (), "resampling": "convolution"}


def made(keys=SMALL) -> DeepCompressionAutoencoder:
    with initializing(0, "dc-ae"):
        network = DCAE(**keys).build()
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_mean", "norm.bias")):
                tensor.normal_(std=0.2)
    return network.eval()


def by_authors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under the names of DC-AE's release, written from its layout of modules."""
    renamed = {}
    for name, tensor in fused(tensors).items():
        if re.search(r"attn\.(qkv|to_out)\.weight$", name):
            tensor = tensor[:, :, None, None]
        for pattern, replacement in (
            (r"(blocks\.\d+)\.(\d+)\.", r"\1.op_list.\2."),
            (r"(op_list\.\d+)\.attn\.", r"\1.context_module.main."),
            (r"(op_list\.\d+)\.conv_out\.", r"\1.local_module.main."),
            (r"(op_list\.\d+)\.(conv[12]?|norm)\.", r"\1.main.\2."),
            (r"main\.qkv\.", "main.qkv.conv."),
            (r"main\.to_out\.", "main.proj.conv."),
            (r"main\.norm_out\.", "main.proj.norm."),
            (r"main\.to_qkv_multiscale\.(\d)\.proj_in\.", r"main.aggreg.\1.0."),
            (r"main\.to_qkv_multiscale\.(\d)\.proj_out\.", r"main.aggreg.\1.1."),
            (r"main\.conv_(inverted|depth|point)\.", r"main.\1_conv.conv."),
            (r"local_module\.main\.norm\.", "local_module.main.point_conv.norm."),
            (r"(op_list\.\d+)\.main\.norm\.", r"\1.main.conv2.norm."),
            (r"main\.(conv[12]?)\.(weight|bias)", r"main.\1.conv.\2"),
            (r"(encoder|decoder)\.(down|up)_blocks", r"\1.stages"),
            (r"conv_in\.", "project_in.conv."),
            (r"^encoder\.conv_out\.", "encoder.project_out.main.op_list.0.conv."),
            (r"^decoder\.norm_out\.", "decoder.project_out.op_list.0."),
            (r"^decoder\.conv_out\.", "decoder.project_out.op_list.2.conv."),
        ):
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor.contiguous()
    return renamed


@pytest.mark.parametrize("keys", [SMALL, SANA])
def test_names_of_the_authors_are_converted_as_diffusers_does(keys, tmp_path):
    network = made(keys)
    stored = by_authors(network.state_dict())
    save_file(stored, tmp_path / "dc.safetensors")
    theirs = convert_autoencoder_dc_checkpoint_to_diffusers(dict(stored))
    assert theirs.keys() == network.state_dict().keys()
    opened = open_tokenizer(tmp_path / "dc.safetensors")
    assert isinstance(opened, DeepCompressionAutoencoder)
    for name, tensor in opened.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    # with one scale of attention, the channels of a head are not visible: 32 is the published number
    assert opened.config == network.config and opened.digest == network.digest


@pytest.mark.parametrize("keys", [SMALL, SANA])
def test_a_folder_for_diffusers_and_back(keys, tmp_path):
    network = made(keys)
    network.stats = LatentStats("scalar", torch.zeros(1), torch.tensor([2.5]), 7, "abc")
    write_dc_ae(tmp_path / "dc", network)
    theirs = AutoencoderDC.from_pretrained(tmp_path / "dc").eval()
    assert theirs.config.scaling_factor == pytest.approx(0.4)
    images = torch.rand(1, 3, 32, 24) * 2 - 1
    with torch.no_grad():
        assert_close(theirs.encode(images).latent, network.encode(images).mean, rtol=1e-4, atol=1e-5)
    again = open_tokenizer(tmp_path / "dc")
    assert (again.digest, again.stats.std.item()) == (network.digest, 2.5) and identify(tmp_path / "dc").kind == "foreign"


def test_half_precision_is_read_as_float32_and_counters_stay_integers(tmp_path):
    write_dc_ae(tmp_path / "dc", made(), dtype=torch.float16)
    formats = {str(tensor.dtype) for tensor in load_file(tmp_path / "dc" / "diffusion_pytorch_model.safetensors").values()}
    assert formats == {"torch.float16", "torch.int64"}
    opened = open_tokenizer(tmp_path / "dc")
    assert {tensor.dtype for tensor in opened.state_dict().values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("layout", ["folder", "file", "authors"])
def test_a_changed_network_goes_back_into_the_form_of_its_original(layout, tmp_path):
    network, keys = made(), made().state_dict()
    path = tmp_path / "in" / "dc.safetensors"
    path.parent.mkdir()
    if layout == "folder":
        path = path.parent
        write_dc_ae(path, network)
    else:
        save_file({f"vae.{name}": t for name, t in keys.items()} if layout == "file" else by_authors(keys), path)
    changed = open_tokenizer(path)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(1.5)
    changed.stats = LatentStats("scalar", torch.zeros(1), torch.tensor([4.0]), 7, "abc")
    written = write_like(Origin(str(path), network.digest), path, changed, tmp_path / "out")
    old = TensorFile(path / "diffusion_pytorch_model.safetensors" if path.is_dir() else path)
    new = TensorFile(written[0])
    assert old.shapes == new.shapes and names_in(old) == names_in(new)
    again = open_tokenizer(tmp_path / "out" if layout == "folder" else written[0])
    assert again.digest == changed.digest
    if layout == "folder":
        assert json.loads((tmp_path / "out" / "config.json").read_text())["scaling_factor"] == 0.25


def test_a_variant_that_only_diffusers_has_is_run_by_diffusers(tmp_path):
    config = {**described(DCAE(**SMALL)), "decoder_conv_act_fn": "gelu"}
    del config["_class_name"]
    AutoencoderDC(**config).save_pretrained(tmp_path / "dc")
    assert identify(tmp_path / "dc").kind == "diffusers"
    assert open_tokenizer(tmp_path / "dc", image_size=32).latent_channels == 4


def test_settings_and_half_a_network_are_refused(tmp_path):
    write_dc_ae(tmp_path / "dc", made())
    with pytest.raises(RecipeError, match="takes no settings"):
        identify(f"{tmp_path / 'dc'},norm_groups=4")
    kept = {name: tensor for name, tensor in made().state_dict().items() if name.startswith("encoder")}
    save_file(kept, tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match="only the encoder"):
        open_tokenizer(tmp_path / "half.safetensors")
