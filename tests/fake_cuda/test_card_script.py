"""benchmarks/card on the fake GPU, whose numbers are made up: rows differ, but none fails."""

import json
from unittest import mock

import pytest

from benchmarks.card.__main__ import main

pytestmark = pytest.mark.fake_cuda
_MISSING = ("empty_cache", "reset_peak_memory_stats")


@pytest.mark.parametrize(("only", "names"), [
    ("regularizer kl", ["regularizer kl, fp32", "regularizer kl, tf32", "regularizer kl, bf16"]),
    ("head*bfloat16", ["head of LPIPS (2, 32, 8, 12) bfloat16"]),
    ("samples*", ["bf16 matrix product", "samples of SiT-XL/2, guidance 1.8"]),
])
def test_the_script_runs_on_a_card(card, tmp_path, monkeypatch, only, names):
    for name in _MISSING:
        monkeypatch.setattr(f"torch.cuda.{name}", mock.Mock())
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device=None: "NVIDIA H200")
    path = tmp_path / "card.json"
    made_up = names[0] != "bf16 matrix product"
    with pytest.raises(SystemExit) if made_up else mock.MagicMock():
        main(["--tiny", "--compile", "off", "--json", str(path), "--only", only, "--peak", "790"])
    rows = json.loads(path.read_text())["rows"]
    assert [row["name"] for row in rows] == names
    assert {row["outcome"] for row in rows} == ({"differs"} if made_up else {"ok"})
    assert made_up or (rows[0]["used_tflops"] == 790 and rows[1]["predicted_ms"] > 0)
