"""Content that is known to be bad, so that it is not decoded again and again.

Only for faults that lie in the bytes themselves (not an image, too many pixels): the same bytes
fail the same way. Never for overload, timeouts or anything of the server's own. It forgets after a
minute, holds 1 024 digests, and stays in the process: Redis never learns that an input was bad.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class NegativeTier:
    def __init__(
        self,
        seconds: float = 60.0,
        limit: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._limit = limit
        self._clock = clock
        self._codes: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._codes)

    def get(self, digest: bytes) -> str | None:
        """The error code this content earned, if it did within the last minute."""
        ends, code = self._codes.get(digest, (0.0, ""))
        if not code:
            return None
        if ends <= self._clock():
            del self._codes[digest]
            return None
        return code

    def put(self, digest: bytes, code: str) -> None:
        if not code:
            raise ValueError("an error code cannot be empty")
        self._codes.pop(digest, None)  # the oldest stays first: every code lives equally long
        self._codes[digest] = (self._clock() + self._seconds, code)
        while len(self._codes) > self._limit:
            self._codes.popitem(last=False)
