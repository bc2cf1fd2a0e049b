"""The application's own options."""

from smtool import __version__


def test_without_a_command_there_is_help(output):
    assert output("--version") == f"smtool {__version__}\n"
    for text in ("train-ae", "spectrum", "smtool quickstart"):
        assert text in output("--help")
