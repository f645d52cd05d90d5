"""Content that is known to be bad, so that it is not decoded again and again.

Only for faults that lie in the bytes themselves (not an image, too many pixels): the same bytes
fail the same way. Never for overload, timeouts or the server's own faults. It forgets after a
minute, holds 1,024 digests, and stays in the process: Redis never learns that an input was bad.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class NegativeTier:
    def __init__(
        self, seconds: float = 60.0, limit: int = 1024, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._limit = limit
        self._clock = clock
        self._errors: OrderedDict[bytes, tuple[float, type[Exception]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._errors)

    def get(self, digest: bytes) -> Exception | None:
        """The error that this content earned, if it did within the last minute."""
        ends, error = self._errors.get(digest, (0.0, Exception))
        if ends > self._clock():
            return error()
        self._errors.pop(digest, None)
        return None

    def put(self, digest: bytes, error: type[Exception]) -> None:
        """Remember it; every error lives equally long, so the first in the order is the oldest."""
        self._errors.pop(digest, None)
        self._errors[digest] = (self._clock() + self._seconds, error)
        while len(self._errors) > self._limit:
            self._errors.popitem(last=False)
