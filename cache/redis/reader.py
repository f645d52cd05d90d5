"""Keys to Redis, values back: the client's side of a look-up, without its budget.

redis-py's own asyncio client takes 55 µs for an MGET of one key and 150 for one of 32, in layers
that this hot path does not need: a pool to wait for, a stream, two time-outs and a retry for each
command. Here bytes go from the transport to `Replies` and the reply to a function: 10 and 50 µs.
Writes, `INFO` and a Redis Cluster go through redis-py.

`PooledReader` keeps connections to one Redis and takes the one used last, the least likely to be
stale. A lost connection is replaced and its question asked once more, as most are lost by a restart
of Redis. A late reply is not asked for again: that would double the wait. `ClusterReader` leaves
slots, redirections and fail-over to redis-py.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, cast

import hiredis
from redis.asyncio import RedisCluster
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import InvalidResponse

from cache.redis.address import Address
from cache.redis.replies import PART, Replies
from cache.trouble import reason_of

Values = list[bytes | None]
Done = Callable[[Values | None], None]
Heard = Callable[[Any], None]  # a reply, or the error in its place
Why = Callable[[str], None]  # gets the reason, before `Done` gets a failure
PLAIN = {bytes, type(None)}

log = logging.getLogger(__name__)


class Reader(ABC):
    def __init__(self, why: Why) -> None:
        self._why = why
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def ask(self, keys: Sequence[bytes], done: Done) -> None:
        """Returns at once and calls `done` once and later, with one value or `None` for each key,
        or with `None` alone after any failure."""

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _failed(self, error: Exception, done: Done) -> None:
        log.debug("a look-up failed: %s", type(error).__name__)
        self._why(reason_of(error))
        done(None)

    async def close(self) -> None:
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Connection(asyncio.Protocol):
    """Asks Redis one thing at a time. `gone` is called once, when the connection has ended.

    Whatever is not exactly one reply to one question (bytes that nobody asked for, bytes that are
    not Redis) ends it: what comes after could be another's value.
    """

    def __init__(self, gone: Callable[[Connection], None]) -> None:
        self._gone = gone
        self._replies = Replies()
        self._heard: Heard | None = None
        self._end: Exception = NotConnected("the connection ended")
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        heard = self._heard
        try:
            if heard is None:
                raise InvalidResponse("nothing was asked")
            reply = self._replies.feed(data)
        except InvalidResponse as error:
            self._end = error
            self._transport.abort()
            return
        if reply is not PART:
            self._heard = None
            heard(reply)

    def connection_lost(self, error: Exception | None) -> None:
        del error  # none is better than another
        self._ended = True
        self._gone(self)
        heard, self._heard = self._heard, None
        if heard is not None:
            heard(self._end)

    def ask(self, command: bytes, heard: Heard, values: int = 0) -> None:
        """Send; `heard` is called once, never in this call, with the reply or with the error that
        ended the connection. A list of more than `values` values ends it."""
        if self._ended:  # before its owner was told that it had begun
            asyncio.get_running_loop().call_soon(heard, self._end)
            return
        self._heard, self._replies.most = heard, values
        self._transport.write(command)

    async def call(self, *words: str) -> None:
        """For the greeting, where waiting is simplest. Raises what Redis, or its end, said."""
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.ask(packed(*words), partial(settle, waiter))
        reply = await waiter
        if isinstance(reply, Exception):
            raise reply

    def abort(self) -> None:
        """End it at once; whoever waits hears so."""
        self._transport.abort()


class Question:
    __slots__ = ("again", "command", "connection", "done", "keys", "late", "timer")

    def __init__(self, keys: Sequence[bytes], done: Done, timeout: float) -> None:
        self.command = packed(b"MGET", *keys)
        self.keys = len(keys)
        self.done = done
        self.again = True  # whether a lost connection may be made good
        self.late = False
        self.connection: Connection | None = None
        self.timer = asyncio.get_running_loop().call_later(timeout, self.give_up)

    def answer(self, values: Values | None) -> None:
        self.timer.cancel()
        self.done(values)

    def give_up(self) -> None:
        self.again, self.late = False, True
        if self.connection is not None:
            self.connection.abort()


class PooledReader(Reader):
    """As many connections as questions are under way at a time; who asks bounds them. A question is
    given up after `timeout`."""

    def __init__(self, address: Address, timeout: float, connect_timeout: float, why: Why) -> None:
        super().__init__(why)
        self._address = address
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._tls: ssl.SSLContext | None = None  # made when first needed: its files may be missing
        self._greeting = address.greeting()
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._closed = False

    def ask(self, keys: Sequence[bytes], done: Done) -> None:
        question = Question(keys, done, self._timeout)
        if self._idle:
            self._send(question, self._idle.pop())
        else:
            self._begin(self._ask_anew(question))

    def _send(self, question: Question, connection: Connection) -> None:
        question.connection = connection
        heard = partial(self._heard, question, connection)
        connection.ask(question.command, heard, question.keys)

    def _heard(self, question: Question, connection: Connection, reply: Any) -> None:
        if isinstance(reply, list) and len(reply) == question.keys:
            self._idle.append(connection)
            question.answer(_values(reply))
        elif isinstance(reply, NotConnected) and question.again and not self._closed:
            question.again = False
            # on a new one: the others that are idle may have been lost with it
            self._begin(self._ask_anew(question))
        else:
            connection.abort()
            wrong = InvalidResponse("another reply than was asked for")
            self._failed(reply if isinstance(reply, Exception) else wrong, question.answer)

    async def _ask_anew(self, question: Question) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._open()
        except Exception as error:  # of any kind: a failure is all that is asked
            self._failed(error, question.answer)
            return
        if question.late:  # the connection is for the next one
            self._idle.append(connection)
            question.answer(None)
        else:
            self._send(question, connection)

    async def _open(self) -> Connection:
        self._tls = self._tls or self._address.tls()
        connection = Connection(self._gone)
        await self._address.dial(connection, self._tls)
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
        await super().close()


class ClusterReader(Reader):
    """Over a client that is its owner's."""

    def __init__(self, client: RedisCluster, why: Why) -> None:
        super().__init__(why)
        self._client = client

    def ask(self, keys: Sequence[bytes], done: Done) -> None:
        self._begin(self._ask(list(keys), done))

    async def _ask(self, keys: list[bytes], done: Done) -> None:
        try:
            replies = await self._client.mget_nonatomic(keys)
        except Exception as error:  # of any kind: a failure is all that is asked
            self._failed(error, done)
        else:
            done(_values(replies) if len(replies) == len(keys) else None)


def _values(replies: list[Any]) -> Values:
    """A proxy that lost one of its servers puts an error in that value's place: no value."""
    if set(map(type, replies)) <= PLAIN:
        return replies
    return [reply if isinstance(reply, bytes) else None for reply in replies]


def packed(*words: str | bytes) -> bytes:
    return bytes(hiredis.pack_command(words))  # type: ignore[arg-type]  # its stub asks for one word


def settle(future: asyncio.Future[Any], result: Any) -> None:
    """Unless whoever waited for it has left."""
    if not future.done():
        future.set_result(result)
