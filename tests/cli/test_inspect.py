"""`smtool inspect` as a command."""


def test_the_argument_is_passed_on(called):
    assert called("smtool.commands.inspect.inspection.inspect", "inspect", "runs/x") == (("runs/x",), {})
