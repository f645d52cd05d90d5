"""Long work in turns: the same results, and others are served in between."""

from __future__ import annotations

import asyncio
import time

from litapi.http.pace import TURN, paced


def test_work_in_turns_makes_what_work_in_one_makes() -> None:
    """In order, whether it has no step, one or many."""
    for count in (0, 1, 100):
        assert asyncio.run(paced(lambda n: n * n, range(count))) == [n * n for n in range(count)]


def test_others_have_their_turns_in_between() -> None:
    """A hundred long steps are a hundred turns; a hundred short ones need none."""

    async def turns(seconds: float) -> int:
        taken = 0

        def step(number: int) -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                pass

        working = asyncio.ensure_future(paced(step, range(100), 1))
        while not working.done():
            await asyncio.sleep(0)
            taken += 1
        return taken

    assert asyncio.run(turns(TURN * 1.1)) >= 100
    assert asyncio.run(turns(0)) <= 20
