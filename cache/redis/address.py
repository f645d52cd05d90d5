"""Where Redis is: one URL, taken apart once.

    redis://user:password@host:6379/0      rediss:// with TLS       unix://user:password@/path?db=0
    redis+cluster://host:6379              rediss+cluster://        (one node is enough to find all)

Every option of the URL is known by name and by the values it takes, so one that is misspelt is
refused instead of ignored, and none can undo the time-outs. An error message never repeats the URL:
it holds a password.
RESP2 is spoken: MGET and SET gain nothing from RESP3, and HELLO would cost a round trip on each
connection and shut out older servers and proxies.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from redis._parsers import _AsyncRESP2Parser
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError

Client = Redis | RedisCluster
P = TypeVar("P", bound=asyncio.BaseProtocol)

PORT = 6379
READ_BYTES = 1 << 20  # redis-py reads 64 KiB a turn, a tenth of a reply with 128 vectors

# what redis-py takes for an option; it ignores or misreads others, or fails when it connects
_WORDS = {
    "ssl_cert_reqs": ("none", "optional", "required"),
    "ssl_check_hostname": ("true", "false", "yes", "no", "1", "0"),
}
_PLACE = {"host", "port", "path", "username", "password", "connection_class"}
_QUERY = {"db"}
_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_TLS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}


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
        _refuse_unknown(options, cluster)
        _refuse_values(given)
        return cls(cluster, options)

    def connect(self, *, timeout: float, connect_timeout: float, connections: int) -> Client:
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
            return RedisCluster(**common, ssl=tls, max_connections=4 * connections)
        # the parser in C makes room for whatever a reply announces (see replies.py)
        common["parser_class"] = _AsyncRESP2Parser
        pool = BlockingConnectionPool(max_connections=connections, timeout=timeout, **common)
        return Redis.from_pool(pool)

    async def dial(self, protocol: Callable[[], P], tls: ssl.SSLContext | None) -> P:
        """A bare connection, not yet greeted. Raises OSError: nobody is there, or the certificate
        is not right."""
        loop = asyncio.get_running_loop()
        path = self.options.get("path")
        if path:
            _, connected = await loop.create_unix_connection(protocol, path)
        else:
            host, port = self.options["host"], self.options.get("port", PORT)
            _, connected = await loop.create_connection(protocol, host, port, ssl=tls)
        return connected

    def tls(self) -> ssl.SSLContext | None:
        """As redis-py understands the URL's options. Raises ValueError: one of them names a file
        that is not there, or that holds something else."""
        if self.options.get("connection_class") is not SSLConnection:
            return None
        given = {name: value for name, value in self.options.items() if name in _TLS}
        try:
            return SSLConnection(**given).ssl_context.get()
        except (OSError, RedisError):  # its text may hold a path, and names no option
            files = " or ".join(sorted(name for name in given if name in _FILES)) or "TLS options"
            raise ValueError(f"the Redis URL: {files} cannot be used") from None

    def greeting(self) -> list[tuple[str, ...]]:
        """What a new connection has to say before it may ask, each answered with OK."""
        words: list[tuple[str, ...]] = []
        user, password = self.options.get("username"), self.options.get("password")
        if user:
            words.append(("AUTH", user, password or ""))
        elif password:
            words.append(("AUTH", password))
        if database := self.options.get("db"):
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


def _refuse_values(given: list[tuple[str, str]]) -> None:
    """By name, and without the value: what stands there by mistake may be a secret."""
    names = [name for name, _ in given]
    for name, value in given:
        words = _WORDS.get(name)
        if name in _PLACE - {"username", "password"}:
            raise ValueError(f"the Redis URL has options that are not known: {name}")
        if names.count(name) > 1:
            raise ValueError(f"the Redis URL names {name} twice")
        if words is not None and value not in words:
            raise ValueError(f"the Redis URL: {name} takes {', '.join(words)}")
        if name == "db" and not (value.isascii() and value.isdigit() and len(value) < 10):
            raise ValueError("the Redis URL: the database (db) takes a number")
        if not value:
            raise ValueError(f"the Redis URL: {name} has no value")


def _refuse_unknown(options: dict[str, Any], cluster: bool) -> None:
    tls = options.get("connection_class") is SSLConnection
    known = _PLACE | _QUERY | (_TLS if tls else set())
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"the Redis URL has options that are not known: {', '.join(unknown)}")
    if cluster and (options.get("path") or options.get("db")):
        raise ValueError("a Redis Cluster has neither a Unix socket nor a database number")
    if not options.get("path") and not options.get("host"):
        raise ValueError("the Redis URL names neither a host nor a socket")
