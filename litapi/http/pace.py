"""Long work on the event loop, cut into turns so that other requests are answered in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

TURN = 4e-3  # seconds of one turn; a step that has begun is not cut
FEW = 64  # steps that are taken in one turn: to cut fewer costs more than it saves
STEPS = 16  # between two looks at the clock

Given = TypeVar("Given")
Made = TypeVar("Made")


class Pace:
    """One piece of long work: `rest` after each of its steps."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = time.perf_counter() + TURN

    async def rest(self) -> None:
        """Let others have their turn, once this one has been long."""
        if time.perf_counter() > self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + TURN


async def paced(work: Callable[[Given], Made], given: Sequence[Given]) -> list[Made]:
    """`list(map(work, given))`, in turns."""
    if len(given) <= FEW:
        return list(map(work, given))
    pace, made, left = Pace(), list[Made](), map(work, given)
    while some := list(islice(left, STEPS)):
        made += some
        await pace.rest()
    return made
