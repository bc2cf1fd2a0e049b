"""The noise of the next step, drawn by a thread while the present step is computed."""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import TracebackType

import torch
from torch import Tensor

from smtool.randomness import Normals, Streams


class NoiseAhead:
    """Supplies the noise of streams. What a player asked for in its last turn is drawn ahead for its next one.

    Noise that was not foreseen is drawn when it is asked for, with the same numbers. On a GPU, the thread also copies it into
    pinned memory. A context: the thread ends with it.
    """

    def __init__(self, device: str) -> None:
        self._pins = torch.device(device).type == "cuda"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="noise")
        self._asked: dict[str, list[Normals]] = {}
        self._coming: dict[Normals, Future[Tensor]] = {}

    def __enter__(self) -> "NoiseAhead":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def prepare(self, players: Iterable[str], step: int) -> None:
        """Begin to draw what these players will ask for in `step`; forget what was drawn for earlier steps and not asked for."""
        self._coming = {asked: future for asked, future in self._coming.items() if asked.step >= step - 1}
        for player in players:
            for asked in self._asked.get(player, ()):
                coming = replace(asked, step=step)
                if coming not in self._coming:
                    self._coming[coming] = self._thread.submit(self._drawn, coming)

    def supplied(self, streams: Streams, player: str) -> Streams:
        """The streams of a turn of the player, with noise from here."""
        self._asked[player] = []
        return replace(streams, supply=partial(self._supply, self._asked[player]))

    def _supply(self, noted: list[Normals], asked: Normals) -> Tensor:
        noted.append(asked)
        future = self._coming.pop(asked, None)
        return self._drawn(asked) if future is None else future.result()

    def _drawn(self, asked: Normals) -> Tensor:
        drawn = asked.drawn()
        return drawn.pin_memory() if self._pins else drawn
