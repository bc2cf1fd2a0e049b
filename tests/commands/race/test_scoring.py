"""Losses of a trial, read from its log."""

import json

import pytest

from smtool.commands.race.scoring import _losses
from smtool.errors import DataError


def test_a_race_that_ends_before_a_loss_was_logged_says_so(tmp_path):
    """Rows after the last step of the race are not used."""
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 50, "diffusion": 1.0}) + "\n")
    with pytest.raises(DataError, match=r"no loss was logged until step 20, where the race ends\."):
        _losses(tmp_path, 20, None, None)
