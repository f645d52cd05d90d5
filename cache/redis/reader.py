"""Keys to Redis, values back: the client's side of a look-up, without its budget.

`ask` returns at once and calls `done` once and later, with one value or `None` for each key, or
with `None` alone after any failure. `PooledReader` keeps connections to one Redis and takes the one
used last, the least likely to be stale. A lost connection is replaced and its question asked once
more, as most are lost by a restart of Redis. A late reply is not asked for again: that would double
the wait. `ClusterReader` leaves slots,
redirections and fail-over to redis-py.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from redis.asyncio import RedisCluster
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisClusterException
from redis.exceptions import TimeoutError as TimedOut

from cache.redis.address import Address
from cache.redis.connection import LOST, NOT_REDIS, Connection, Lost, Refused, packed
from cache.trouble import SILENT, reason_of

Values = list[bytes | None]
Done = Callable[[Values | None], None]
Why = Callable[[str], None]  # gets the reason, before `done` gets a failure
PLAIN = {bytes, type(None)}

log = logging.getLogger(__name__)


def _unheard(reason: str) -> None:
    """Who does not ask for reasons."""


class Reader(Protocol):
    def ask(self, keys: Sequence[bytes], done: Done) -> None: ...

    async def close(self) -> None: ...


def reader(
    address: Address,
    *,
    timeout: float,
    connect_timeout: float,
    connections: int,
    why: Why = _unheard,
) -> Reader:
    """For the running event loop; a question is given up after `timeout`."""
    if not address.cluster:
        return PooledReader(address, timeout, connect_timeout, why)
    client = address.connect(
        timeout=timeout, connect_timeout=connect_timeout, connections=connections
    )
    assert isinstance(client, RedisCluster)
    return ClusterReader(client, why)


class Question:
    __slots__ = ("again", "command", "connection", "done", "keys", "late", "timer")

    def __init__(self, keys: Sequence[bytes], done: Done) -> None:
        self.command = packed(b"MGET", *keys)
        self.keys = len(keys)
        self.done = done
        self.again = True  # whether a lost connection may be made good
        self.late = False
        self.connection: Connection | None = None
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, values: Values | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.done(values)

    def give_up(self) -> None:
        self.again, self.late = False, True
        if self.connection is not None:
            self.connection.abort()


class PooledReader:
    """As many connections as questions are under way at a time; who asks bounds them."""

    def __init__(
        self, address: Address, timeout: float, connect_timeout: float, why: Why = _unheard
    ) -> None:
        self._address = address
        self._why = why
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._loop = asyncio.get_running_loop()
        self._tls: ssl.SSLContext | None = None  # made when first needed: its files may be missing
        self._greeting = address.greeting()
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    def ask(self, keys: Sequence[bytes], done: Done) -> None:
        question = Question(keys, done)
        question.timer = self._loop.call_later(self._timeout, question.give_up)
        if self._idle:
            self._send(question, self._idle.pop())
        else:
            self._connect(question)

    def _connect(self, question: Question) -> None:
        task = self._loop.create_task(self._ask_anew(question))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _send(self, question: Question, connection: Connection) -> None:
        question.connection = connection
        heard = partial(self._heard, question, connection)
        connection.ask(question.command, heard, question.keys)

    def _heard(self, question: Question, connection: Connection, reply: Any) -> None:
        if reply is LOST and question.again and not self._closed:
            question.again = False
            self._connect(question)  # the others that are idle may have been lost with it
        elif isinstance(reply, list) and len(reply) == question.keys:
            self._idle.append(connection)
            question.answer(_values(reply))
        else:
            log.debug("a look-up failed: %s", type(reply).__name__)
            self._why(_reason(reply))
            if not isinstance(reply, Lost):  # an error, or fewer values than were asked for
                connection.abort()
            question.answer(None)

    async def _ask_anew(self, question: Question) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._open()
        except Exception as error:  # of any kind: a failure is all that is asked
            log.debug("no connection to Redis: %s", type(error).__name__)
            self._why(_reason_of_none(error))
            question.answer(None)
        else:
            self._settle_in(question, connection)

    def _settle_in(self, question: Question, connection: Connection) -> None:
        if question.late:  # the connection is for the next one
            self._idle.append(connection)
            question.answer(None)
        else:
            self._send(question, connection)

    async def _open(self) -> Connection:
        self._tls = self._tls or self._address.tls()
        connection = await self._address.dial(partial(Connection, self._gone), self._tls)
        self._all.add(connection)
        try:
            for words in self._greeting:
                await connection.call(*words)
        except BaseException:
            connection.abort()
            raise
        return connection

    def _gone(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def close(self) -> None:
        self._closed = True
        for connection in self._all:
            connection.abort()
        await _cancelled(self._opening)


class ClusterReader:
    def __init__(self, client: RedisCluster, why: Why = _unheard) -> None:
        self._client = client
        self._why = why
        self._asking: set[asyncio.Task[None]] = set()

    def ask(self, keys: Sequence[bytes], done: Done) -> None:
        task = asyncio.get_running_loop().create_task(self._ask(list(keys), done))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, keys: list[bytes], done: Done) -> None:
        values: Values | None = None
        try:
            replies = await self._client.mget_nonatomic(keys)
            values = _values(replies) if len(replies) == len(keys) else None
        except Exception as error:  # of any kind: a failure is all that is asked
            log.debug("a look-up failed: %s", type(error).__name__)
            self._why(_reason_of_none(error))
        done(values)

    async def close(self) -> None:
        await _cancelled(self._asking)
        await self._client.aclose()


def _reason(reply: Any) -> str:
    if isinstance(reply, Exception):
        return reason_of(reply)
    return SILENT if reply is LOST else "not_redis"


def _reason_of_none(error: Exception) -> str:
    if isinstance(error, Refused):
        return reason_of(error, str(error.args[1]))
    if isinstance(error, NotConnected) and error.args[1:] == (NOT_REDIS,):
        return "not_redis"
    silent = isinstance(error, OSError | NotConnected | TimedOut | RedisClusterException)
    reason = reason_of(error)
    return SILENT if silent and reason == "refused" else reason


def _values(replies: list[Any]) -> Values:
    """A proxy that lost one of its servers puts an error in that value's place: no value."""
    if set(map(type, replies)) <= PLAIN:
        return replies
    return [reply if isinstance(reply, bytes) else None for reply in replies]


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    waiting = set(tasks)
    for task in waiting:
        task.cancel()
    if waiting:
        await asyncio.wait(waiting)
