"""Turns: who had least for its weight is next, the tower is kept busy, nothing is lost."""

import asyncio
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litapi.errors import DeadlineExceeded
from litapi.transport.client import Client
from litapi.transport.turns import Turns

pytestmark = pytest.mark.anyio
SOON = 60.0
MANY = 500


class Line:
    """Clients that line up before a tower that is full; `order` is in which they went."""

    def __init__(self, window: int = 1) -> None:
        self.turns = Turns(window)
        assert self.turns.free(window)  # from now on everybody waits
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def ask(self, name: str, times: int = 1, cost: int = 1, weight: float = 1.0) -> None:
        """So many pieces of work of one client."""
        client = Client(name, name, weight)
        self.tasks += [asyncio.create_task(self._one(client, cost)) for _ in range(times)]

    async def _one(self, client: Client, cost: int) -> None:
        await self.turns.wait(cost, 1, client, time.monotonic() + SOON)
        self.order.append(client.name)
        await asyncio.sleep(0)
        self.turns.done(cost)

    async def run(self) -> str:
        """The order, once the tower is free."""
        await asyncio.sleep(0)
        self.turns.done(self.turns.window)
        await asyncio.gather(*self.tasks)
        return "".join(self.order)


async def test_a_client_with_ten_times_the_work_gets_every_second_turn() -> None:
    """While both wait; then the rest."""
    line = Line()
    line.ask("a", 40)
    line.ask("b", 4)
    assert (await line.run())[:8].count("b") == 4


async def test_turns_are_shared_by_weight_and_cost() -> None:
    """Weight three gets three times the cost; what costs four goes a quarter as often."""
    line = Line()
    line.ask("a", 40)
    line.ask("b", 40, weight=3.0)
    assert Counter((await line.run())[:40])["b"] == pytest.approx(30, abs=1)
    line = Line()
    line.ask("a", 40)
    line.ask("b", 10, cost=4)
    assert Counter((await line.run())[:25])["b"] == pytest.approx(5, abs=1)


async def test_an_endless_line_of_new_clients_starves_nobody_and_is_forgotten() -> None:
    """The old one gets its turns, and what is kept is bounded by who waits, not who ever came."""
    turns = Turns(1)
    assert turns.free(1)

    def ask(name: str) -> asyncio.Task[None]:
        client, deadline = Client(name, name), time.monotonic() + SOON
        return asyncio.create_task(turns.wait(1, 1, client, deadline))

    tasks = [ask("flood") for _ in range(8 * MANY)]
    for number in range(4 * MANY):
        tasks.append(ask(f"client {number}"))
        await asyncio.sleep(0)
        turns.done(1)
    assert sum(task.done() for task in tasks[: 8 * MANY]) >= 20  # one without such a clock: 1
    assert turns.jobs
    assert len(turns._ends) <= MANY / 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_work_that_waits_for_too_long_or_is_given_up_keeps_no_turn() -> None:
    """A deadline ends the wait; one that left is passed over; the tower is free in the end."""
    line = Line()
    with pytest.raises(DeadlineExceeded):
        await line.turns.wait(1, 1, Client("late"), time.monotonic() + 0.01)
    line.ask("left", 3)
    await asyncio.sleep(0)
    assert (line.turns.items, line.turns.age > 0) == (3, True)
    for task in line.tasks:
        task.cancel()
    await asyncio.wait(line.tasks)
    assert (line.turns.items, line.turns.age) == (0, 0.0)
    line.tasks.clear()
    line.ask("stays")
    assert await line.run() == "stays"
    assert line.turns.under_way == 0


async def test_a_turn_that_came_to_one_that_leaves_is_given_to_the_next() -> None:
    """The moment between the two must cost nothing."""
    line = Line()
    line.ask("left")
    line.ask("stays")
    await asyncio.sleep(0)
    line.turns.done(1)
    line.tasks[0].cancel()
    await asyncio.gather(*line.tasks, return_exceptions=True)
    assert line.order == ["stays"]
    assert line.turns.under_way == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=40))
def test_all_work_is_done_and_nothing_stays_behind(work: list[tuple[str, int]]) -> None:
    """Whoever asks for whatever, in whatever order."""

    async def run() -> None:
        line = Line(window=5)
        for name, cost in work:
            line.ask(name, 1, cost)
        assert sorted(await line.run()) == sorted(name for name, _ in work)
        assert (line.turns.under_way, line.turns.items) == (0, 0)

    asyncio.run(run())
