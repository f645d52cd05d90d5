"""API keys and rates: who may ask, how much, with which class and share.

A key comes as `Authorization: Bearer` or `X-API-Key`, or as the password of `Authorization: Basic`
with any user: that is what a browser asks for on `/docs`.

Keys are compared by their digests, all of them every time, in constant time, so timing tells
nothing. A rate is one budget of the whole server for each key, or for each client address where
there are no keys. Wrong keys are limited by address; a right key passes regardless.
"""

from __future__ import annotations

import hmac
import io
import logging
import math
import mmap
import socket
import time
import warnings
from base64 import b64decode
from collections.abc import Callable, Sequence
from hashlib import sha256

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from litapi.errors import RateLimited, TooManyWrongKeys, Unauthorized
from litapi.http.request import Incoming
from litapi.keys import Key
from litapi.messages import Item
from litapi.metrics import wrong_key
from litapi.transport.client import Client

log = logging.getLogger("siglit.access")

OPEN_PATHS = frozenset({"/livez", "/readyz"})
SLOTS = 1 << 14  # clients that can have spent something at a time; beyond, the least is forgotten
WAYS = 8  # places that one client may take
SAY_EVERY = 60.0  # seconds between two log lines about wrong keys from one address
MOST_SAID = 100  # of them in that time, whatever the number of addresses


class Rates:
    """A token bucket for each client, in memory that processes forked from now on share.

    A bucket is one number: when it will be full again. Two processes that write the same place at
    the same moment lose one of two tokens spent; a lock could be left locked by a process that
    was killed. A full bucket says nothing, so its place is free for another client.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._names = memoryview(mmap.mmap(-1, 8 * SLOTS)).cast("q")
        self._full = memoryview(mmap.mmap(-1, 8 * SLOTS)).cast("d")

    def wait(self, who: bytes, rate: float, burst: float, tokens: float = 1.0) -> float:
        """0.0 where `who` had the tokens; then they are gone. Else in how many seconds it will.
        More than a whole bucket is let in by a full one, and paid for afterwards."""
        now, name = self._clock(), hash(who)  # of bytes: alike in all processes of this server
        place = self._place(name, now)
        full = max(now, self._full[place]) if self._names[place] == name else now
        wait = full + min(tokens, burst) / rate - burst / rate - now
        if wait > 1e-9:
            return wait
        self._names[place], self._full[place] = name, full + tokens / rate
        return 0.0

    def _place(self, name: int, now: float) -> int:
        """Where `name` stands, else the place whose bucket is full or will be first."""
        places = [(name + way) % SLOTS for way in range(WAYS)]
        for place in places:
            if self._names[place] == name and self._full[place] > now:
                return place
        return min(places, key=self._full.__getitem__)


class Access:
    """Checks one request before anything of it is read. Made before the HTTP processes fork."""

    def __init__(
        self,
        keys: Sequence[Key] = (),
        rate: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        wrong_keys: int = 60,
        forwarders: str = "127.0.0.1",
        processes: int = 1,
    ) -> None:
        self._processes = processes
        self._rate = rate
        self._rates = Rates(clock)
        self._wrong_keys = wrong_keys / 60
        self._wrong = Rates(clock)
        self.take_keys(keys)
        self._said = Rates(clock)
        self._forwarded = ProxyHeadersMiddleware(_nobody, forwarders).trusted_hosts
        self.open = not keys and rate <= 0

    def take_keys(self, keys: Sequence[Key]) -> None:
        self._keys = {sha256(key.secret.encode()).digest(): key for key in keys}

    def check(self, incoming: Incoming) -> bytes:
        """The digest of the request's key, empty where none was asked for. Raises Unauthorized,
        TooManyWrongKeys, RateLimited: never on the two health routes."""
        incoming.access = self
        if self.open or incoming.path in OPEN_PATHS:
            return b""
        owner = self._key(incoming) if self._keys else b""
        rate = self._rate
        if owner:
            incoming.key = key = self._keys[owner]
            incoming.bulk = incoming.bulk or key.bulk
            rate = key.limits.requests or rate
        if rate > 0:
            self._spend(owner or _whole(_address(incoming)), rate)
        return owner

    def charge(self, incoming: Incoming, items: Sequence[object], formats: tuple[str, ...]) -> None:
        """Count the items of a request, and the pixels of those that are images, against what its
        key may have embedded. Raises RateLimited: the key has used it up."""
        key = incoming.key
        if key is None:
            return
        who, limits = key.name.encode(), key.limits
        if limits.items:
            self._spend(who + b" items", limits.items, len(items))
        if limits.megapixels and (pixels := sum(_pixels(item, formats) for item in items)):
            self._spend(who + b" megapixels", limits.megapixels, pixels / 1e6)

    def client(self, incoming: Incoming) -> Client:
        key = incoming.key
        if key is None:
            return Client(_whole(self._true_address(incoming)))
        limits = key.limits
        most = max(1.0, limits.in_flight / self._processes) if limits.in_flight else 0.0
        return Client(key.name.encode(), key.name, limits.weight, most)

    def _spend(self, who: bytes, rate: float, amount: float = 1.0) -> None:
        wait = self._rates.wait(who, rate, max(1.0, rate), amount)
        if wait > 0:
            raise RateLimited.after(math.ceil(wait))

    def _key(self, incoming: Incoming) -> bytes:
        given = _authorized(incoming) or incoming.headers.get(b"x-api-key", b"")
        digest = sha256(given).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._keys]
        if any(matches):
            return digest
        if given:
            self._count(incoming)
        raise Unauthorized

    def _count(self, incoming: Incoming) -> None:
        """A wrong key came; none at all is how browsers begin, and no guess."""
        wrong_key()
        address = self._true_address(incoming)
        rate = self._wrong_keys
        if self._wrong.wait(_whole(address), rate, 60 * rate) > 0:
            lately = self._said.wait(address, 1 / SAY_EVERY, 1)
            if not lately and not self._said.wait(b"any", MOST_SAID / SAY_EVERY, MOST_SAID):
                log.warning("too many wrong keys from %s", address.decode(errors="replace")[:64])
            raise TooManyWrongKeys

    def _true_address(self, incoming: Incoming) -> bytes:
        """As a trusted proxy names it: looked for here, so that right keys do not pay for it."""
        address = _address(incoming)
        names = incoming.headers.get(b"x-forwarded-for")
        if names is None or address.decode() not in self._forwarded:
            return address
        named, _ = self._forwarded.get_trusted_client_address(names.decode("latin-1"))
        return named.encode() or address


async def _nobody(*_: object) -> None:
    """The application behind a middleware that is asked only whom it trusts."""


def _pixels(item: object, formats: tuple[str, ...]) -> int:
    """How many an image has, as its head says; 0 for a text, and where no head can be read."""
    if not isinstance(item, Item) or isinstance(item.payload, str):
        return 0
    from PIL import Image  # only where a key has such a limit

    try:
        with warnings.catch_warnings(action="ignore"), io.BytesIO(item.payload) as file:
            width, height = Image.open(file, formats=formats).size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0  # the tower refuses it by its own error
    return width * height


def _authorized(incoming: Incoming) -> bytes:
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


def _whole(address: bytes) -> bytes:
    """The client's network where the address is IPv6: one client has 2^64 of them."""
    if b":" not in address or address.startswith(b"::ffff:"):
        return address
    try:
        return socket.inet_pton(socket.AF_INET6, address.partition(b"%")[0].decode())[:8]
    except (OSError, ValueError):
        return address
