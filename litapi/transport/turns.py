"""Turns of clients at one tower, for one class of work: weighted fair queueing by cost.

Work is handed to the tower while less than a window of cost is under way there, enough to keep it
busy; the rest waits here, where it can still be ordered. Whoever had least of the tower for its
weight is next: each piece of work begins where its client's last one ended, in cost divided by
weight, and the earliest beginning goes first. A client that was away gets no credit for it: it
begins now, on a clock that moves as if those who wait shared the tower evenly, so an endless line
of new clients cannot keep an old one waiting.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from litapi.errors import DeadlineExceeded
from litapi.transport.client import Client


@dataclass(slots=True, order=True)
class Waiting:
    """Work that has not been handed on."""

    begins: float
    number: int
    cost: int = field(compare=False)
    items: int = field(compare=False)
    since: float = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


class Turns:
    """For one event loop: no lock. `window` is the cost that may be under way."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.under_way = 0
        self._waiting: list[Waiting] = []
        self._ends: dict[Hashable, tuple[float, float]] = {}  # of a client's last work; its weight
        self._weights = 0.0  # of all these clients
        self._now = 0.0  # where new clients begin, in cost by weight
        self._ending: list[tuple[float, int, Hashable]] = []  # when to look who may be forgotten
        self._numbers = itertools.count()

    @property
    def jobs(self) -> int:
        return sum(not one.turn.done() for one in self._waiting)

    @property
    def items(self) -> int:
        return sum(one.items for one in self._waiting if not one.turn.done())

    @property
    def age(self) -> float:
        """Seconds for which the oldest work has waited."""
        since = [one.since for one in self._waiting if not one.turn.done()]
        return time.monotonic() - min(since) if since else 0.0

    def free(self, cost: int) -> bool:
        """Whether it is this work's turn at once; then it is under way."""
        if self._waiting or self.under_way >= self.window:
            return False
        self.under_way += cost
        return True

    async def wait(self, cost: int, items: int, client: Client, deadline: float) -> None:
        """Return when it is this work's turn; then it is under way.

        Raises:
            DeadlineExceeded: it was not by `deadline`, on the monotonic clock.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        end, weight = self._ends.get(client.who, (0.0, 0.0))
        begins = max(self._now, end)
        self._ends[client.who] = begins + cost / client.weight, client.weight
        self._weights += client.weight - weight
        number = next(self._numbers)
        heapq.heappush(self._ending, (begins + cost / client.weight, number, client.who))
        now = time.monotonic()
        heapq.heappush(self._waiting, Waiting(begins, number, cost, items, now, turn))
        patience = loop.call_later(max(0.0, deadline - now), _late, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.done(cost)
            raise
        finally:
            patience.cancel()

    def done(self, cost: int) -> None:
        """Work that was under way is no more."""
        self.under_way -= cost
        while self._waiting and self.under_way < self.window:
            one = heapq.heappop(self._waiting)
            if not one.turn.done():  # else it was given up
                self._advance(max(self._now, one.begins) + one.cost / (self._weights or 1.0))
                self.under_way += one.cost
                one.turn.set_result(None)

    def _advance(self, now: float) -> None:
        """A client whose work would have ended by now is forgotten: it begins as a new one does."""
        self._now = now
        while self._ending and self._ending[0][0] <= now:
            _, _, who = heapq.heappop(self._ending)
            end, weight = self._ends.get(who, (math.inf, 0.0))
            if end <= now:
                del self._ends[who]
                self._weights -= weight


def _late(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(DeadlineExceeded())
