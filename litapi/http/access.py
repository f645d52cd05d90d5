"""Who may ask, and how often: API keys and a rate for each of them.

A key comes as `Authorization: Bearer` or `X-API-Key`, or as the password of `Authorization: Basic`,
whatever the user: that is what a browser asks for when it is sent to `/docs`.

Keys are compared by their digests, all of them every time, in constant time: neither how long a
comparison takes nor how far a guess got tells anything. A rate is a token bucket for each key, or
for each client address where there are no keys.
"""

from __future__ import annotations

import hmac
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256

from litapi.errors import RateLimited, Unauthorized
from litapi.http.request import Incoming

OPEN_PATHS = frozenset({"/livez", "/readyz"})
MAX_BUCKETS = 10_000  # of clients without keys; the longest unseen are forgotten


class Access:
    """Checks one request before anything of it is read."""

    def __init__(
        self,
        keys: Sequence[str] = (),
        rate: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._digests = [sha256(key.encode()).digest() for key in keys]
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self.open = not self._digests and rate <= 0

    def check(self, incoming: Incoming) -> None:
        """Raises `Unauthorized` or `RateLimited`; the two health routes are always free."""
        if self.open or incoming.path in OPEN_PATHS:
            return
        who = self._key(incoming) if self._digests else _address(incoming)
        if self._rate > 0:
            self._spend(who)

    def _key(self, incoming: Incoming) -> bytes:
        given = _authorized(incoming) or incoming.headers.get(b"x-api-key", b"")
        digest = sha256(given).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise Unauthorized
        return digest

    def _spend(self, who: bytes) -> None:
        now = self._clock()
        burst = max(1.0, self._rate)  # what one second allows may come at once
        tokens, then = self._buckets.pop(who, (burst, now))
        tokens = min(burst, tokens + (now - then) * self._rate)
        self._buckets[who] = (max(0.0, tokens - 1.0), now) if tokens >= 1.0 else (tokens, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if tokens < 1.0:
            raise RateLimited


def _authorized(incoming: Incoming) -> bytes:
    """The bytes of the key in `Authorization`, or none."""
    scheme, _, given = incoming.headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return given.strip()
    return _password(given.strip()) if scheme.lower() == b"basic" else b""


def _password(pair: bytes) -> bytes:
    try:
        return b64decode(pair, validate=True).partition(b":")[2]
    except ValueError:  # not base64
        return b""


def _address(incoming: Incoming) -> bytes:
    client = incoming.scope.get("client")
    return str(client[0]).encode() if client else b""
