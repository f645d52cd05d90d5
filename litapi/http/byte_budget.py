"""How many bytes fetched images may take at the same time in one process.

A body of a few KB can name gigabytes. So a request with links takes room for all that they may
bring before the first byte is fetched, and gives it back when its items are whole: from there on
admission counts them. All at once, for two requests that each waited with a part would wait for
ever; and in turn, so that small requests do not pass a large one again and again.
"""

from __future__ import annotations

import asyncio
from collections import deque


class ByteBudget:
    """Room for so many bytes. For one event loop: there is no lock."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, wanted: int) -> int:
        """Wait for room; what was taken is to be given back: all there is, if more was wanted."""
        wanted = min(wanted, self.size)
        if not self._waiting and wanted <= self.free:
            self.free -= wanted
        else:
            await self._turn(wanted)
        return wanted

    def give_back(self, taken: int) -> None:
        """Let whoever is next have it."""
        self.free += taken
        while self._waiting and self._waiting[0][0] <= self.free:
            wanted, turn = self._waiting.popleft()
            self.free -= wanted
            turn.set_result(None)

    async def _turn(self, wanted: int) -> None:
        place = (wanted, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        try:
            await asyncio.shield(place[1])  # stays whole, so that it says whether the turn had come
        except asyncio.CancelledError:
            if place[1].done():
                self.give_back(wanted)
            else:
                self._waiting.remove(place)
                self.give_back(0)  # the next one may want less
            raise
