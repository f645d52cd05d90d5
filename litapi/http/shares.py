"""Fair shares of what one process has: bytes of fetched images, connections, look-ups.

One client that asks slow hosts could take all of it, and everyone else would time out. So a client
that holds something may take more only while it then holds no more than it leaves free: one client
gets half, the next half of the rest, and a newcomer finds room. Clients within their share are
served in turn, so small requests do not pass a large one again and again; others are skipped.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

Place = tuple[int, tuple[Hashable, ...], asyncio.Future[None]]


class Shares:
    """`size` units, of which no key holds more than `most`. For one event loop: no lock. A key is
    whatever has a share: a client, a host. What is taken counts for each key it is for."""

    def __init__(self, size: int, most: int | None = None) -> None:
        self.size = self.free = size
        self._most = size if most is None else min(size, most)
        self._held: Counter[Hashable] = Counter()
        self._waiting: deque[Place] = deque()

    async def take(self, wanted: int, *keys: Hashable) -> int:
        """Wait for room; what was taken is to be given back: all there is, if more was wanted."""
        wanted = min(wanted, self._most)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, keys, turn))
        self._serve()
        try:
            await asyncio.shield(turn)  # stays whole, so that it says whether the turn had come
        except asyncio.CancelledError:
            if turn.done():
                self.give_back(wanted, *keys)
            else:
                turn.cancel()
                self._serve()  # the next one may want less
            raise
        return wanted

    def give_back(self, taken: int, *keys: Hashable) -> None:
        self.free += taken
        for key in keys:
            self._held[key] -= taken
            if not self._held[key]:
                del self._held[key]
        self._serve()

    @asynccontextmanager
    async def taken(self, wanted: int, *keys: Hashable) -> AsyncIterator[int]:
        got = await self.take(wanted, *keys)
        try:
            yield got
        finally:
            self.give_back(got, *keys)

    def _serve(self) -> None:
        """Give the first one in turn what it wants, and those behind it, as long as there is."""
        passed = []
        while self._waiting:
            wanted, keys, turn = place = self._waiting.popleft()
            if turn.done():  # it left
                continue
            if not all(self._may(self._held[key], wanted) for key in keys):
                passed.append(place)
            elif wanted > self.free:
                self._waiting.appendleft(place)
                break
            else:
                self.free -= wanted
                self._held.update(dict.fromkeys(keys, wanted))
                turn.set_result(None)
        self._waiting.extendleft(reversed(passed))

    def _may(self, held: int, wanted: int) -> bool:
        return not held or held + wanted <= min(self._most, self.free - wanted)
