"""`smtool inspect` as a command."""


def test_a_name_is_passed_on(called):
    assert called("smtool.commands.inspect.inspection.inspect", "inspect", "runs/x") == (("runs/x",), {})
