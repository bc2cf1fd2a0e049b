
import pytest
import warm_process

from smtool.data import batch_indices


@pytest.mark.parametrize("length, batch", [(10, 4), (10, 10), (7, 16), (1, 3)])
def test_concatenated_batches_are_permutations(length, batch):
    flat = [i for index in range(20) for i in batch_indices(length, seed=1, batch=batch, index=index)]
    assert len(flat) == 20 * batch
    for start in range(0, len(flat) - length + 1, length):
        assert sorted(flat[start : start + length]) == list(range(length))


def test_epochs_and_seeds_have_different_orders():
    first, second = (batch_indices(50, seed=0, batch=50, index=index) for index in (0, 1))
    assert first != second
    assert first != batch_indices(50, seed=1, batch=50, index=0)
    assert first != list(range(50))


def test_the_order_does_not_depend_on_how_it_is_cut_into_batches():
    large, small = (
        [i for index in range(36 // batch) for i in batch_indices(13, seed=5, batch=batch, index=index)] for batch in (12, 4)
    )
    assert large == small


def test_a_late_batch_is_fast_and_is_the_same_in_another_process(tmp_path):
    late = batch_indices(1000, seed=3, batch=8, index=10**9)
    code = "from smtool.data import batch_indices; print(batch_indices(1000, seed=3, batch=8, index=10**9))"
    (tmp_path / "late.py").write_text(code)
    assert warm_process.run(tmp_path / "late.py").stdout.strip() == str(late)


@pytest.mark.parametrize("wrong", [{"length": 0}, {"batch": 0}, {"index": -1}])
def test_no_data_or_no_batch_is_an_error(wrong):
    with pytest.raises(ValueError, match="positive"):
        batch_indices(**{"length": 4, "seed": 0, "batch": 2, "index": 0, **wrong})
