"""`smtool quickstart` as a command."""

from pathlib import Path


def test_a_folder_is_passed_on(called):
    assert called("smtool.commands.quickstart.study.quickstart", "quickstart") == ((Path("runs/quickstart"),), {})
    assert called("smtool.commands.quickstart.study.quickstart", "quickstart", "--out", "here") == ((Path("here"),), {})
