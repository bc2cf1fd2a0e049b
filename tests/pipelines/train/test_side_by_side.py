from smtool.cli import EXIT_CODES
from smtool.pipelines.train.side_by_side import _ERRORS


def test_every_exit_code_of_a_child_comes_back_as_an_error_of_that_code():
    assert {code: EXIT_CODES[kind] for code, kind in _ERRORS.items()} == {code: code for code in EXIT_CODES.values()}
