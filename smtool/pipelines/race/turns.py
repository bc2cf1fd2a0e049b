"""Whose turn it is: all runs advance together, so that a race that is cut off compares like with like."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from smtool.errors import SmtoolError
from smtool.pipelines.race.plan import RacePlan

Stage = Literal["train-ae", "encode", "train-dit", "score", "predict"]
STAGES: tuple[Stage, ...] = ("train-ae", "encode", "train-dit", "score", "predict")


@dataclass(frozen=True)
class Piece:
    """A piece of work. key: the autoencoder's run or the cell that it belongs to; step: where a turn of training ends."""

    stage: Stage
    key: str
    turn: int = 1
    step: int = 0


class Turns:
    """Hands out pieces in the order of stage, turn, seed and racer, each when what it needs is done.

    reached: (stage, key) -> step of the run on disk; an autoencoder's and a cell's key may be the same. steps: where transformers
    end at the latest. may_open: asked once before each further round of the transformers, with the number of rounds behind; what
    one transformer has begun, all finish.
    Not thread-safe: who has several workers asks under a lock.
    """

    def __init__(
        self, plan: RacePlan, reached: Mapping[tuple[str, str], int], *, steps: int, may_open: Callable[[int], bool]
    ) -> None:
        self.plan = plan
        self.broken: dict[str, SmtoolError] = {}
        self._may_open = may_open
        self._busy: set[str] = set()
        trained = [reached.get(("train-dit", cell.key), 0) for cell in plan.cells]
        self._ends = _ends(max(steps, *trained), plan.turn)
        self._opened = sum(max(trained) > start for start in (0, *self._ends[:-1]))
        self._closed = False
        self._owner = {cell.key: cell.autoencoder.key for cell in plan.cells}
        order = {key: number for number, key in enumerate(_interleaved(plan))}
        pieces = list(_pieces(plan, self._ends))
        self._waiting = sorted(pieces, key=lambda piece: (STAGES.index(piece.stage), piece.turn, order[piece.key]))
        self._waiting = [piece for piece in self._waiting if not 0 < piece.step <= reached.get((piece.stage, piece.key), 0)]
        learning = {self._owner[piece.key] for piece in self._waiting if piece.stage == "train-dit"}
        self._waiting = [piece for piece in self._waiting if piece.stage != "encode" or piece.key in learning]

    @property
    def step(self) -> int:
        """The step that every transformer which did not break has reached, or will have."""
        return self._ends[self._opened - 1] if self._opened else 0

    @property
    def left(self) -> int:
        """Pieces that are not yet handed out."""
        return len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether a piece is being done."""
        return bool(self._busy)

    def next(self) -> Piece | None:
        """A piece to do now, off the list; None if there is none before another one is finished, or none at all."""
        for piece in self._waiting:
            if piece.key not in self._busy and self._is_ready(piece):
                self._waiting.remove(piece)
                self._busy.add(piece.key)
                return piece
        return None

    def finished(self, piece: Piece, error: SmtoolError | None = None) -> None:
        """With an error, what needs this run is left out from now on."""
        self._busy.discard(piece.key)
        if error is not None:
            fed = [] if piece.stage == "predict" else [cell for cell, owner in self._owner.items() if owner == piece.key]
            self.broken |= {key: error for key in (piece.key, *fed) if key not in self.broken}
            self._waiting = [other for other in self._waiting if other.key not in self.broken]

    def _is_ready(self, piece: Piece) -> bool:
        """Whether nothing that it needs is waiting or being done. Pieces of one key are never done at once."""
        if piece.stage == "train-dit" and not self._is_open(piece.turn):
            return False
        needed = {piece.key, self._owner.get(piece.key, piece.key)}
        if needed & self._busy:
            return False
        return not any(self._comes_before(other, piece) for other in self._waiting if other.key in needed)

    def _comes_before(self, other: Piece, piece: Piece) -> bool:
        if other.stage == "train-dit" and other.turn > self._opened and self._closed:
            return False      # never to be done
        return (STAGES.index(other.stage), other.turn) < (STAGES.index(piece.stage), piece.turn) and other.stage != "predict"

    def _is_open(self, turn: int) -> bool:
        if turn > self._opened and not self._closed:
            if self._may_open(self._opened):
                self._opened += 1
            else:
                self._closed = True
        return turn <= self._opened


def _pieces(plan: RacePlan, ends: list[int]) -> list[Piece]:
    pieces = []
    for run in plan.autoencoders:
        pieces += [Piece("train-ae", run.key, turn, step) for turn, step in enumerate(_ends(run.steps, plan.turn), start=1)]
        pieces.append(Piece("encode", run.key))
        if plan.judge.predictors:
            pieces.append(Piece("predict", run.key))
    for cell in plan.cells:
        pieces += [Piece("train-dit", cell.key, turn, step) for turn, step in enumerate(ends, start=1)]
        pieces.append(Piece("score", cell.key))
    return pieces


def _ends(steps: int, turn: int) -> list[int]:
    """Where the turns of a run end."""
    return [min(start + turn, steps) for start in range(0, steps, turn)]


def _interleaved(plan: RacePlan) -> list[str]:
    """Keys, all racers of one seed before those of the next."""
    cells = sorted(plan.cells, key=lambda cell: plan.seeds.index(cell.seed))
    return [*dict.fromkeys(key for cell in cells for key in (cell.autoencoder.key, cell.key))]
