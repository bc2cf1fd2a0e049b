import numpy as np
import pytest

from smtool.report.plots.transfer import Matrices, transfer_figure


def identity(name: str, bands: int = 8) -> Matrices:
    answered = [True] * (bands - 1) + [False]
    absolute = np.eye(bands, bands + 1) * np.array(answered)[:, None]
    return Matrices(f"{name}\nkappa 1.00", absolute, np.eye(bands), "relative, kappa 0.00", answered)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_decoder_has_two_matrices_and_all_share_one_scale(count, check_figure):
    figure = check_figure(lambda: transfer_figure([identity(f"decoder {index}") for index in range(count)]))
    assert len(figure.axes) == 2 * count + 1
    meshes = [mesh for axes in figure.axes[:-1] for mesh in axes.collections]
    assert {mesh.get_clim() for mesh in meshes} == {(0.0, 1.0)}


def test_a_faithful_decoder_is_a_rising_diagonal_and_a_row_without_response_is_labelled():
    axes = transfer_figure([identity("crop", bands=4)]).axes[0]
    cells = {text.get_text(): text.get_position() for text in axes.texts}
    assert cells["100"][0] == cells["100"][1]
    assert [text.get_text() for text in axes.texts] == ["100"] * 3 + ["no response"]
    assert axes.get_xticklabels()[-1].get_text() == "above"
