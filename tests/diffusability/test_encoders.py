"""Encoders without a decoder, such as DINOv2 (paper Fig. 7): spectra and delta, and a reason for each decoding section."""

import pytest
import torch

from smtool.diffusability.page import tables
from smtool.diffusability.report import Report
from smtool.diffusability.sections.parts import Reason
from smtool.diffusability.spectrum import spectrum
from smtool.image_shape import ImageSize
from smtool.networks.tokenizer import point_posterior
from smtool.report.console import Console
from smtool.tokenizers import Tokenizer
from smtool.tokenizers.functions import FunctionTokenizer

pytestmark = pytest.mark.slow

NO_DECODER = Reason(reason="it has no decoder")


@pytest.fixture(scope="module")
def result(data, tmp_path_factory):
    patches = torch.nn.Conv2d(3, 48, 4, stride=4, bias=False)
    torch.nn.init.normal_(patches.weight, std=0.1, generator=torch.Generator().manual_seed(0))

    def opened(name: str, **_) -> Tokenizer:
        facts = {"source": name, "architecture": "patches", "digest": "0" * 64, "downsample": 4, "latent_channels": 48}
        facts |= {"label": "tokens", "network": patches.requires_grad_(False), "deterministic": True}
        facts["image_size"] = ImageSize(32, 32)
        return FunctionTokenizer(lambda x: point_posterior(patches(x)), None, **facts)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("smtool.diffusability.inputs.subjects.open_tokenizer", opened)
        out = tmp_path_factory.mktemp("encoder")
        found = spectrum(["timm:tokens"], data=data, plot=True, out=out, console=Console(quiet=True))
    return found, out


def test_decoding_sections_state_that_there_is_no_decoder(result):
    encoder = result[0].autoencoders[0]
    assert (encoder.can_decode, encoder.deterministic) == (False, True)
    assert encoder.transfer == NO_DECODER
    assert encoder.low_pass == NO_DECODER
    assert encoder.health.grid == NO_DECODER
    assert encoder.health.shift.reconstruction is None
    assert encoder.health.shift.latent > 0


def test_the_best_fitting_delta_has_an_interval_and_a_target(result):
    head = result[0].autoencoders[0].physical[0]
    assert (head.posterior, head.latents, head.headline) == ("deterministic", "normalized", True)
    assert head.delta.half_width > 0
    assert head.fitted_target.delta == head.delta.value
    assert len(head.channels.power) == 48


def test_the_report_is_valid_and_drawn(result):
    found, out = result
    assert Report.model_validate(found.to_json()).to_json() == found.to_json()
    assert (out / "report.html").is_file()
    assert not (out / "transfer.png").exists()


def test_tables_show_the_measured_parts(result):
    by_name = {table.columns[0]: table for table in tables(result[0])}
    assert "LOW-PASS" not in by_name
    row = dict(zip(by_name["DECODER"].columns, by_name["DECODER"].rows[0], strict=True))
    assert (row["kappa"], row["grid"], row["cell"]) == ("-", "-", "-")
    assert float(row["latent"]) > 0
    assert row["rank"].endswith("/48")
    assert "point, norm." in by_name["PHYSICAL"].rows[1]
