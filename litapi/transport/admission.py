"""How much work may be in flight, tower by tower, before a request is told to come back.

Two bounds. A fixed one on items and bytes keeps memory bounded whatever arrives. A measured one
keeps the wait bounded: from how long finished jobs took and how much stood before them, it guesses
what a new job would wait, and refuses what would wait too long to be worth it. A job that waited
for a worker to be replaced says nothing about the pace, and nothing is learnt from it. One that was
nearly alone tells its latency, of which the pace is only a part: it can lower the guess at once,
and raise it by little. A request that finds nothing in flight is always let in, however large: it
would never fit otherwise. What the cache knows never comes here.

Clients have shares of a bound, by weight, of those that have work in flight. A client alone has all
of it. Beside others, whoever is above its share is refused first: one that is below finds a reserve
beyond the bound, and waits only for what its share of the tower takes.

An image of more patches than usual counts as several items: attention makes its cost grow faster
than its patches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from litapi.errors import DeadlineExceeded, Overloaded, RateLimited
from litapi.transport.client import ANYONE, Asker

SMOOTHING = 0.1  # weight of the newest job in the measured seconds an item
ATTENTION = 4096  # patches from which on the quadratic part of the model costs more than the rest
CROWD = 16  # items under way from which on a job's seconds tell the pace, and not the latency
RESERVE = 1.25  # of a bound, for clients that are below their share
LONGEST = 60.0  # seconds after which anybody may come back


def cost_of(patches: int, usual: int) -> int:
    """As how many items an image counts for which so many patches are asked; `usual` count one."""
    asked, one = (n * (1 + n / ATTENTION) for n in (patches, usual))
    return max(1, math.ceil(asked / one))


@dataclass(slots=True)
class Holding:
    """What one client has in flight."""

    weight: float
    items: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Room:
    """What one job takes up."""

    admission: Admission
    asker: Asker
    items: int
    size: int
    ahead: float = 0.0
    began: float = 0.0

    def __enter__(self) -> None:
        self.admission.change(self.asker, self.items, self.size)
        self.ahead = self.admission.ahead(self.asker)
        self.began = time.monotonic()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.admission.change(self.asker, -self.items, -self.size)
        if error is None and self.admission.whole_since() <= self.began:
            self.admission.learn(time.monotonic() - self.began, max(1.0, self.ahead))


@dataclass(slots=True)
class Admission:
    """The work of one class at one tower, in one HTTP process."""

    max_items: int
    max_bytes: int
    max_wait: float  # seconds
    whole_since: Callable[[], float] = lambda: 0.0  # since when all workers of the tower are there
    items: int = 0
    bytes: int = 0
    seconds_an_item: float = 0.0
    refused: int = 0
    weights: float = 0.0  # of all clients that have work in flight
    clients: dict[Hashable, Holding] = field(default_factory=dict)

    def admit(self, items: int, size: int, asker: Asker = ANYONE) -> Room:
        """Room for a job; `with` holds it while the job is under way.

        Raises:
            Overloaded: there is none; its `retry_after` says in how many seconds there may be.
            RateLimited: the client has as many items in flight as it may.
            DeadlineExceeded: it would not be done by the asker's deadline.
        """
        if self.items:
            self._check(items, size, asker)
        return Room(self, asker, items, size)

    def ahead(self, asker: Asker, more: int = 0) -> float:
        """Items that are done before the client's last one is, with so many more of its own."""
        mine, _, share = self._standing(asker)
        return min(self.items + more, (mine + more) / share)

    def change(self, asker: Asker, items: int, size: int) -> None:
        """The client has so much more in flight, or less."""
        client = asker.client
        mine = self.clients.get(client.who)
        if mine is None:
            mine = self.clients[client.who] = Holding(client.weight)
            self.weights += mine.weight
        mine.items += items
        mine.bytes += size
        self.items += items
        self.bytes += size
        if mine.items <= 0:
            del self.clients[client.who]
            self.weights = self.weights - mine.weight if self.clients else 0.0

    def _standing(self, asker: Asker) -> tuple[int, int, float]:
        """Items and bytes that the client has in flight, and its share."""
        mine = self.clients.get(asker.client.who)
        if mine is None:
            weight = asker.client.weight
            return 0, 0, weight / (self.weights + weight)
        return mine.items, mine.bytes, mine.weight / self.weights

    def _check(self, items: int, size: int, asker: Asker) -> None:
        mine, mine_bytes, share = self._standing(asker)
        above = mine + items > share * self.max_items or mine_bytes + size > share * self.max_bytes
        bound = 1.0 if above else RESERVE
        over = self.items + items - bound * self.max_items
        wait = self.ahead(asker) * self.seconds_an_item
        if over > 0 or self.bytes + size > bound * self.max_bytes or wait > self.max_wait:
            self.refused += 1
            # until so much of its own is done that it fits
            drained = max(over, 0) / share * self.seconds_an_item
            late = max(wait - self.max_wait, drained, 1.0 if over > 0 else wait / 2)
            raise Overloaded.after(math.ceil(min(LONGEST, max(1.0, late))))
        limit = asker.client.in_flight
        if limit and mine and mine + items > limit:
            self.refused += 1
            late = (mine + items - limit) / share * self.seconds_an_item
            sentence = "This key has as many items in flight as it may; try again shortly."
            raise RateLimited.after(math.ceil(min(LONGEST, max(1.0, late))), sentence)
        estimate = self.ahead(asker, items) * self.seconds_an_item
        if time.monotonic() + estimate > asker.deadline:
            self.refused += 1
            raise DeadlineExceeded(
                f"The item would take about {estimate:.3g} s, longer than X-Timeout-Ms allows."
            )

    def learn(self, seconds: float, ahead: float) -> None:
        """A job took so long, with so many items under way when it began."""
        change = seconds / ahead - self.seconds_an_item
        weight = SMOOTHING * min(1.0, ahead / CROWD) if change > 0 else SMOOTHING
        self.seconds_an_item += weight * change
