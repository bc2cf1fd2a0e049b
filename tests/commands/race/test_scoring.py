"""What a trial's scores are read from."""

import json

import pytest

from smtool.commands.race.scoring import _losses
from smtool.errors import DataError


def test_a_race_that_ends_before_a_loss_was_logged_says_so(tmp_path):
    """Only rows up to the race's last step count."""
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 50, "diffusion": 1.0}) + "\n")
    with pytest.raises(DataError, match=r"no loss was logged by step 20, at which the race ends\."):
        _losses(tmp_path, 20, None, None)
