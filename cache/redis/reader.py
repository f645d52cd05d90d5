"""Keys to Redis, values back: the client's side of a look-up, without its budget.

`PooledReader` keeps connections of its own to one Redis and uses the one last used, as that is the
least likely to have gone stale; one that was lost is replaced, and its question asked once more, as
most are lost by a Redis that restarted since. A reply that is late is not asked for again: that
would double the wait. `ClusterReader` leaves slots, redirections and fail-over to redis-py.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from redis.asyncio import RedisCluster

from cache.redis.address import Address
from cache.redis.connection import Connection, Lost, packed
from cache.redis.replies import Malformed

Values = list[bytes | None]
PLAIN = {bytes, type(None)}


class Reader(Protocol):
    async def mget(self, keys: Sequence[bytes]) -> Values:
        """One value or `None` for each key; raises whatever went wrong, of any kind."""

    async def close(self) -> None: ...


def reader(address: Address, *, timeout: float, connect_timeout: float, connections: int) -> Reader:
    """For the running event loop; a question is given up after `timeout`."""
    if not address.cluster:
        return PooledReader(address, timeout, connect_timeout)
    client = address.connect(
        timeout=timeout, connect_timeout=connect_timeout, connections=connections
    )
    assert isinstance(client, RedisCluster)
    return ClusterReader(client)


class PooledReader:
    """As many connections as questions are under way at a time; who asks bounds them."""

    def __init__(self, address: Address, timeout: float, connect_timeout: float) -> None:
        self._address = address
        self._connect_timeout = connect_timeout
        self._protocol = partial(Connection, timeout, self._gone)
        self._tls: ssl.SSLContext | None = None  # made when first needed: its files may be missing
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []

    async def mget(self, keys: Sequence[bytes]) -> Values:
        command = packed(b"MGET", *keys)
        try:
            connection = self._idle.pop() if self._idle else await self._open()
            return await self._ask(connection, command, len(keys))
        except Lost:  # the others that are idle may have been lost with it
            return await self._ask(await self._open(), command, len(keys))

    async def _ask(self, connection: Connection, command: bytes, keys: int) -> Values:
        try:
            reply = await connection.ask(command, keys)
            if isinstance(reply, Exception):
                raise reply
            if not isinstance(reply, list) or len(reply) != keys:
                raise Malformed("not one value for each key")
        except BaseException:
            connection.abort()
            raise
        self._idle.append(connection)
        return _values(reply)

    async def _open(self) -> Connection:
        async with asyncio.timeout(self._connect_timeout):
            self._tls = self._tls or self._address.tls()
            connection = await self._address.dial(self._protocol, self._tls)
            self._all.add(connection)
            try:
                for words in self._address.greeting():
                    reply = await connection.ask(packed(*words))
                    if isinstance(reply, Exception):
                        raise reply
            except BaseException:
                connection.abort()
                raise
            return connection

    def _gone(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def close(self) -> None:
        for connection in self._all:
            connection.abort()


class ClusterReader:
    """redis-py's."""

    def __init__(self, client: RedisCluster) -> None:
        self._client = client

    async def mget(self, keys: Sequence[bytes]) -> Values:
        return _values(await self._client.mget_nonatomic(keys))

    async def close(self) -> None:
        await self._client.aclose()


def _values(replies: list[Any]) -> Values:
    """A proxy that lost one of its servers puts an error in that value's place: no value."""
    if set(map(type, replies)) <= PLAIN:
        return replies
    return [reply if isinstance(reply, bytes) else None for reply in replies]
