import logging
import ssl
import time

import pytest
from redis import exceptions
from redis._parsers.base import BaseParser

from bench.rig.port import free_port
from bench.rig.redis_server import RedisServer
from cache.redis.breaker import Circuit
from cache.redis.replies import Replies
from cache.trouble import SENTENCES, Trouble, reason_of
from cache.watcher import SILENT
from tests.support.patience import until
from tests.support.recorder import Recorder
from tests.support.scripted import scripted
from tests.support.store import opened

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("WRONGPASS invalid username-password pair", "wrong_password"),
        ("NOAUTH Authentication required.", "wrong_password"),
        ("ERR invalid password", "wrong_password"),
        ("ERR AUTH <password> called without any", "wrong_password"),
        ("ERR wrong number of arguments for 'auth' command", "wrong_password"),
        ("NOPERM this user has no permissions", "not_permitted"),
        ("READONLY You can't write", "read_only"),
        ("OOM command not allowed", "full"),
        ("LOADING Redis is loading", "loading"),
        ("MOVED 1 h:1", "cluster"),
        ("ERR DB index is out of range", "no_database"),
        ("ERR unknown command", "refused"),
        ("EXECABORT", "refused"),
    ],
)
def test_what_redis_says_is_known_by_its_reason(line: str, reason: str) -> None:
    """Whether redis-py made an exception of it, and took its first word away, or a connection of
    our own did."""
    theirs = BaseParser.parse_error(line)  # type: ignore[no-untyped-call]
    for error in (theirs, Replies().feed(f"-{line}\r\n".encode())):
        assert reason_of(error) == reason
    assert SENTENCES[reason].endswith(".")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (exceptions.InvalidResponse("Protocol Error"), "not_redis"),
        (ssl.SSLError("certificate verify failed"), "tls"),
        (ConnectionRefusedError(), "silent"),
        (TimeoutError(), "silent"),
        (exceptions.ConnectionError("Error 111 connecting to auth.example:6379"), "silent"),
        (exceptions.TimeoutError("Timeout reading from auth.example:6379"), "silent"),
        (exceptions.RedisClusterException("cannot be connected"), "silent"),
        (exceptions.ClusterDownError("is down", status_code="CLUSTERDOWN"), "silent"),
    ],
)
def test_what_went_wrong_on_the_way_is_known_by_its_reason(error: Exception, reason: str) -> None:
    """An outage is none of Redis's refusals, whoever notices it."""
    assert reason_of(error) == reason


def test_a_reason_is_said_once_and_again_when_it_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of two processes that share what was said, the first says it."""
    said, recorder = bytearray(2), Recorder()
    one, other = Trouble(recorder, said), Trouble(SILENT, said)
    for _ in range(3):
        one.begin("read", "silent")
        other.begin("read", "silent")
    one.begin("read", "wrong_password")
    other.begin("write", "wrong_password")
    one.end("read")
    one.end("read")
    assert caplog.messages == [
        SENTENCES["silent"],
        SENTENCES["wrong_password"],
        "Redis serves look-ups again",
    ]
    assert recorder.problems == [
        ("read", "silent", True),
        ("read", "silent", False),
        ("read", "wrong_password", True),
        ("read", "wrong_password", False),
    ]
    assert (one.sentences, len(other.sentences)) == ([], 2)


async def test_a_wrong_password_reads_as_one(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, and the end of it once the password is right."""
    caplog.set_level(logging.WARNING)
    server.command("ACL", "SETUSER", "keeper", "on", ">right", "~sl2:*", "+@all")
    recorder = Recorder()
    url = server.url.replace("redis://", "redis://keeper:wrong@")
    async with opened(url, watcher=recorder) as store:
        for _ in range(5):
            await store.get([b"sl2:a"])
            store.put(b"sl2:a", b"x")
        await store.flush()
        assert store.trouble.sentences == [SENTENCES["wrong_password"]]
        assert await store.inspect() == [SENTENCES["wrong_password"]]
        assert caplog.messages.count(SENTENCES["wrong_password"]) == 1
        assert "wrong@" not in caplog.text
        server.command("ACL", "SETUSER", "keeper", ">wrong")

        async def well() -> bool:
            await store.get([b"sl2:a"])
            store.put(b"sl2:a", b"x")
            return not store.trouble.now

        await until(well, 60.0)
    assert ("read", "wrong_password", False) in recorder.problems


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), "read_only"),
        (("CONFIG", "SET", "maxmemory", "1"), "full"),
        (("ACL", "SETUSER", "default", "-set"), "not_permitted"),
    ],
)
async def test_writes_that_are_refused_are_said_and_look_ups_go_on(
    command: tuple[str, ...], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A read-only replica, a full Redis that evicts nothing, a user who may not."""
    with RedisServer() as own:
        own.command("SET", "sl2:a", "value")
        own.command(*command)
        recorder = Recorder()
        async with opened(own.url, watcher=recorder) as store:
            for number in range(200):
                store.put(b"sl2:%d" % number, b"x")
            await until(lambda: "write" in store.trouble.now, 60.0)
            assert store.trouble.now == {"write": reason}
            assert await store.get([b"sl2:a"]) == [b"value"]
            assert store.state is Circuit.CLOSED
            assert caplog.messages.count(SENTENCES[reason]) == 1
            assert recorder.problems == [("write", reason, True)]


@pytest.mark.parametrize(
    "reply", [b"*1000000000\r\n", b"*1\r\n*1000000000\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"]
)
async def test_what_is_not_redis_is_said_and_costs_nothing(reply: bytes) -> None:
    """Thirteen bytes held the event loop for eleven seconds."""
    async with scripted(reply) as it, opened(it.url) as store:
        began = time.process_time()
        await store.get([b"sl2:a"])
        store.put(b"sl2:a", b"x")
        await store.flush()
        assert time.process_time() - began < 8.0
        assert store.trouble.now["read"] == "not_redis"


async def test_a_redis_that_is_not_there_is_silent_once(caplog: pytest.LogCaptureFixture) -> None:
    """Many look-ups and vectors to keep, one warning."""
    async with opened(f"redis://127.0.0.1:{free_port()}") as store:
        for _ in range(10):
            await store.get([b"sl2:a"])
            store.put(b"sl2:a", b"x")
        assert await store.flush() == 10
        assert await store.inspect() == store.trouble.sentences == [SENTENCES["silent"]]
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == [SENTENCES["silent"]]
