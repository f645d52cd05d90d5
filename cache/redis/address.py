"""Where Redis is: one URL, taken apart once.

    redis://user:password@host:6379/0      rediss:// with TLS       unix://user:password@/path?db=0
    redis+cluster://host:6379              rediss+cluster://        (one node is enough to find all)

Every option of the URL is known by name and by the values it takes, so one that is misspelt is
refused instead of ignored, and none can undo the time-outs. An error message never repeats the URL,
nor a value: it holds a password, or may by mistake.
RESP2 is spoken: MGET and SET gain nothing from RESP3, and HELLO would cost a round trip on each
connection and shut out older servers and proxies.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis._parsers import _AsyncRESP2Parser
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError

Client = Redis | RedisCluster

PORT = 6379
NODE_CONNECTIONS = 40  # to each node of a Cluster, where look-ups use this client as well
READ_BYTES = 1 << 20  # redis-py reads 64 KiB a turn, a tenth of a reply with 128 vectors

# what redis-py takes for an option; it ignores or misreads others, or fails when it connects
_WORDS = {
    "ssl_cert_reqs": ("none", "optional", "required"),
    "ssl_check_hostname": ("true", "false", "yes", "no", "1", "0"),
}
_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_TLS = _FILES | set(_WORDS)


@dataclass(frozen=True, slots=True)
class Address:
    cluster: bool
    options: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Address:
        scheme, _, rest = url.strip().partition("://")
        cluster = scheme.endswith("+cluster")
        try:
            given = _given(url)
            options = dict(parse_url(f"{scheme.removesuffix('+cluster')}://{rest}"))
        except ValueError:
            raise ValueError(
                "the Redis URL must be redis://, rediss://, unix://, redis+cluster:// or "
                "rediss+cluster://, with a numeric port"
            ) from None
        _refuse(given, options.get("connection_class") is SSLConnection)
        if cluster and (options.get("path") or options.get("db")):
            raise ValueError("a Redis Cluster has neither a Unix socket nor a database number")
        if not options.get("path") and not options.get("host"):
            raise ValueError("the Redis URL names neither a host nor a socket")
        return cls(cluster, options)

    def connect(self, timeout: float, connect_timeout: float, connections: int) -> Client:
        """A client that connects when first used and gives up on a command after `timeout`."""
        common: dict[str, Any] = {
            **self.options,
            "protocol": 2,
            "driver_info": None,
            "socket_timeout": timeout,
            "socket_connect_timeout": connect_timeout,
            "socket_read_size": READ_BYTES,
            # one retry, for the connection that went stale since its last use; waiting a second
            # time for a reply that is late would double the delay
            "retry": Retry(NoBackoff(), 1, supported_errors=(NotConnected,)),
        }
        if self.cluster:
            tls = common.pop("connection_class", None) is SSLConnection
            return RedisCluster(**common, ssl=tls, max_connections=NODE_CONNECTIONS)
        # the parser in C makes room for whatever a reply announces (see replies.py)
        common["parser_class"] = _AsyncRESP2Parser
        pool = BlockingConnectionPool(max_connections=connections, timeout=timeout, **common)
        return Redis.from_pool(pool)

    async def dial(self, protocol: asyncio.Protocol, tls: ssl.SSLContext | None) -> None:
        """Connect it, not yet greeted. Raises OSError: nobody is there, or the certificate is not
        right."""
        loop, path = asyncio.get_running_loop(), self.options.get("path")
        if path:
            await loop.create_unix_connection(lambda: protocol, path)
        else:
            host, port = self.options["host"], self.options.get("port", PORT)
            await loop.create_connection(lambda: protocol, host, port, ssl=tls)

    def tls(self) -> ssl.SSLContext | None:
        """As redis-py understands the URL's options. Raises ValueError: one of them names a file
        that is not there, or that holds something else."""
        if self.options.get("connection_class") is not SSLConnection:
            return None
        given = {name: value for name, value in self.options.items() if name in _TLS}
        try:
            return SSLConnection(**given).ssl_context.get()
        except (OSError, RedisError):  # its text may hold a path, and names no option
            files = " or ".join(sorted(_FILES.intersection(given))) or "TLS options"
            raise ValueError(f"the Redis URL: {files} cannot be used") from None

    def greeting(self) -> list[tuple[str, ...]]:
        """What a new connection has to say before it may ask, each answered with OK."""
        user, password, database = map(self.options.get, ("username", "password", "db"))
        words: list[tuple[str, ...]] = []
        if user:
            words.append(("AUTH", user, password or ""))
        elif password:
            words.append(("AUTH", password))
        if database:
            words.append(("SELECT", str(database)))
        return words


def _given(url: str) -> list[tuple[str, str]]:
    """The options as they stand in the URL, the number of the database in its path among them."""
    parts = urlsplit(url.strip())
    given = parse_qsl(parts.query, keep_blank_values=True)
    database = parts.path.strip("/")
    if database and not parts.scheme.startswith("unix"):
        given.append(("db", unquote(database)))
    return given


def _refuse(given: list[tuple[str, str]], tls: bool) -> None:
    names = [name for name, _ in given]
    known = {"db", "username", "password", *(_TLS if tls else ())}
    if unknown := sorted({*names} - known):
        raise ValueError(f"the Redis URL has options that are not known: {', '.join(unknown)}")
    for name, value in given:
        if names.count(name) > 1:
            raise ValueError(f"the Redis URL names {name} twice")
        if name in _WORDS and value not in _WORDS[name]:
            raise ValueError(f"the Redis URL: {name} takes {', '.join(_WORDS[name])}")
        if name == "db" and not (value.isascii() and value.isdigit() and len(value) < 10):
            raise ValueError("the Redis URL: the database (db) takes a number")
        if not value:
            raise ValueError(f"the Redis URL: {name} has no value")
