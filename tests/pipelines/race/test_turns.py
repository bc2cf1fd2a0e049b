"""The order of a race, played without doing any work."""

from smtool.errors import DataError
from smtool.pipelines.race.turns import Piece, Turns


def _played(turns: Turns, workers: int = 1, breaking: str = "") -> list[list[Piece]]:
    """All workers take a piece, then all finish, until there is none; `breaking`: a key whose first piece fails."""
    rounds = []
    while True:
        taken = [piece for _ in range(workers) if (piece := turns.next()) is not None]
        if not taken:
            return rounds
        rounds.append(taken)
        for piece in taken:
            turns.finished(piece, DataError("broken") if piece.key == breaking else None)


def _flat(rounds):
    return [piece for pieces in rounds for piece in pieces]


def _turns(plan, reached=None, steps=9, may_open=lambda rounds: True):
    return Turns(plan, reached or {}, steps=steps, may_open=may_open)


def test_all_racers_of_a_seed_take_their_turn_before_the_next_and_nobody_is_two_rounds_ahead(planned):
    order = _flat(_played(_turns(planned())))
    training = [(piece.key, piece.step) for piece in order if piece.stage == "train-ae"]
    runs = ["plain-seed0", "dsm-seed0", "plain-seed1", "dsm-seed1"]
    assert training == [(run, step) for step in (4, 8, 10) for run in runs]
    transformers = [(piece.key, piece.step) for piece in order if piece.stage == "train-dit"]
    assert transformers == [(run, step) for step in (4, 8, 9) for run in runs]
    assert [piece.stage for piece in order[-4:]] == ["score"] * 4


def test_several_workers_never_do_two_pieces_of_one_run_and_never_before_what_they_need(planned):
    plan = planned("judge.predictors=true", "racers.again={recipe='dsm', transformer=['labels={}']}")
    owner = {cell.key: cell.autoencoder.key for cell in plan.cells}
    done: set[tuple[str, str, int]] = set()
    for pieces in _played(_turns(plan), workers=16):
        assert len({piece.key for piece in pieces}) == len(pieces)
        for piece in pieces:
            if piece.stage == "encode":
                assert ("train-ae", piece.key, 3) in done
            if piece.stage == "train-dit":
                assert ("encode", owner[piece.key], 1) in done
            if piece.turn > 1:
                assert (piece.stage, piece.key, piece.turn - 1) in done
            if piece.stage == "score":
                assert ("train-dit", piece.key, 3) in done
        done |= {(piece.stage, piece.key, piece.turn) for piece in pieces}
    assert len(done) == 4 * (3 + 1 + 1) + 6 * (3 + 1)


def test_what_is_on_the_disk_is_not_done_again(planned):
    plan = planned()
    order = _flat(_played(_turns(plan, {("train-ae", "plain-seed0"): 10, ("train-ae", "dsm-seed0"): 8})))
    keys = [(piece.key, piece.step) for piece in order if piece.stage == "train-ae"]
    assert keys == [("plain-seed1", 4), ("dsm-seed1", 4), ("plain-seed1", 8), ("dsm-seed1", 8),
                    ("dsm-seed0", 10), ("plain-seed1", 10), ("dsm-seed1", 10)]  # fmt: skip


def test_a_budget_that_ends_leaves_all_at_the_same_step_and_still_scores(planned):
    asked = []

    def may_open(rounds):
        asked.append(rounds)
        return rounds < 2

    turns = _turns(planned(), may_open=may_open)
    order = _flat(_played(turns, workers=2))
    assert {piece.step for piece in order if piece.stage == "train-dit"} == {4, 8}
    assert sum(piece.stage == "train-dit" for piece in order) == 8
    assert sum(piece.stage == "score" for piece in order) == 4
    assert asked == [0, 1, 2]
    assert turns.step == 8


def test_a_broken_autoencoder_takes_its_transformer_along_and_nobody_else(planned):
    turns = _turns(planned())
    order = _flat(_played(turns, breaking="dsm-seed1"))
    assert set(turns.broken) == {"dsm-seed1"}
    assert sum(piece.key == "dsm-seed1" for piece in order) == 1
    assert {piece.key for piece in order if piece.stage == "score"} == {"plain-seed0", "dsm-seed0", "plain-seed1"}


def test_racers_that_share_an_autoencoder_break_together(planned):
    turns = _turns(planned("racers.again={recipe='dsm', transformer=['labels={}']}"))
    _played(turns, breaking="dsm-seed0")
    assert set(turns.broken) == {"dsm-seed0", "again-seed0"}


def test_more_steps_than_before_go_on_from_there(planned):
    plan = planned()
    reached = {("train-ae", run.key): 10 for run in plan.autoencoders} | {("train-dit", cell.key): 4 for cell in plan.cells}
    order = _flat(_played(_turns(plan, reached)))
    assert [piece.stage for piece in order] == ["encode"] * 4 + ["train-dit"] * 8 + ["score"] * 4
    assert {piece.step for piece in order if piece.step} == {8, 9}


def test_what_one_transformer_has_begun_all_finish_whatever_the_budget(planned):
    turns = _turns(planned(), {("train-dit", "dsm-seed0"): 8}, steps=4, may_open=lambda rounds: False)
    order = _flat(_played(turns))
    assert sum(piece.stage == "train-dit" for piece in order) == 2 * 4 - 2
    assert turns.step == 8
