"""Long work in turns: the same results, and others are served in between."""

import asyncio
import time

from litapi.http.pace import FEW, STEPS, TURN, paced


def test_work_in_turns_makes_what_work_in_one_makes() -> None:
    """In order, whether it has no step, one or many."""
    for count in (0, 1, FEW, 100):
        assert asyncio.run(paced(lambda n: n * n, range(count))) == [n * n for n in range(count)]


def test_others_have_their_turns_in_between() -> None:
    """Long steps are in turns of a few; short ones need none."""

    async def turns(seconds: float) -> int:
        taken = 0

        def step(number: int) -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                pass

        working = asyncio.ensure_future(paced(step, range(1000)))
        while not working.done():
            await asyncio.sleep(0)
            taken += 1
        return taken

    assert asyncio.run(turns(TURN / STEPS * 1.1)) >= 1000 / STEPS - 1
    assert asyncio.run(turns(0)) <= 20
