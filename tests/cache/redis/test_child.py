import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from cache.redis.child import PREFIX, RedisChild
from tests.support.patience import awaited
from tests.support.store import opened

PARENT = """
import sys
from cache.redis.child import RedisChild
child = RedisChild()
print(child.start(), child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child() -> Iterator[RedisChild]:
    with RedisChild() as child:
        yield child


@pytest.fixture(scope="module")
def child_of_module() -> Iterator[RedisChild]:
    with RedisChild() as child:
        yield child


def client_of(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0))


def home_of(url: str) -> Path:
    return Path(urlsplit(url).path).parent


def kill(child: RedisChild) -> None:
    """And wait for its end."""
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    awaited(lambda: not child.alive)


def gone(pid: int | str | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_the_program_is_found_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a private Redis is possible is known without trying."""
    found = RedisChild.find()
    assert found is not None
    assert os.access(found, os.X_OK)
    monkeypatch.setenv("PATH", "/nowhere")
    assert RedisChild.find() is None
    with pytest.raises(FileNotFoundError, match="redis-server"):
        RedisChild().start()


@pytest.mark.anyio
async def test_a_store_works_with_its_url(child: RedisChild) -> None:
    """Writing, reading and inspecting are all that the one user may do, and all that is needed."""
    async with opened(child.url) as store:
        store.put(b"sl2:a", b"value")
        assert await store.flush() == 0
        assert await store.get([b"sl2:a", b"sl2:b"]) == [b"value", None]
        assert await store.inspect() == []


FORBIDDEN = (
    "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "CONFIG GET *", "CONFIG SET maxmemory 0",
    "EVAL return(1) 0", "SCRIPT LOAD x", "FUNCTION LIST", "DEL sl2:a", "EXPIRE sl2:a 1",
    "GET foreign", "SET foreign x", "MGET sl2:a foreign", "PUBLISH channel x", "SUBSCRIBE channel",
    "ACL LIST", "CLIENT LIST", "MONITOR", "SHUTDOWN", "SLAVEOF 127.0.0.1 1", "MODULE LIST", "SAVE",
)  # fmt: skip


@pytest.mark.parametrize("command", FORBIDDEN)
def test_the_user_may_do_nothing_else(child_of_module: RedisChild, command: str) -> None:
    """A hole in the service opens no hole in Redis: no scripts, no listing, no other keys."""
    with pytest.raises(NoPermissionError):
        client_of(child_of_module.url).execute_command(*command.split())  # type: ignore[no-untyped-call]


def test_nobody_enters_without_the_password(child_of_module: RedisChild) -> None:
    """Neither the default user nor a wrong password is let in."""
    path = urlsplit(child_of_module.url).path
    for who in ("", "default:guess@", "cache:guess@"):
        with pytest.raises(redis.AuthenticationError):
            client_of(f"unix://{who}{path}").get("sl2:a")


def test_only_this_user_can_reach_it_and_no_signal_of_the_terminal(
    child_of_module: RedisChild,
) -> None:
    """The directory is closed, there is no port, and the password came in through a pipe."""
    child, home = child_of_module, home_of(child_of_module.url)
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "redis.sock").stat().st_mode & 0o777 == 0o600
    assert client_of(child.url).info("server")["tcp_port"] == 0
    password = urlsplit(child.url).password
    assert password is not None
    for name in ("cmdline", "environ"):
        assert password.encode() not in Path(f"/proc/{child.pid}/{name}").read_bytes()
    for file in home.iterdir():
        assert file.is_socket() or password not in file.read_text()
    assert child.pid is not None
    assert os.getsid(child.pid) != os.getsid(0)
    assert child.start() == child.url  # a second start is none


def test_it_holds_what_fits_and_evicts_the_rest() -> None:
    """A full child refuses nothing and stays within its memory."""
    with RedisChild(megabytes=4) as child:
        client = client_of(child.url)
        for start in range(0, 3000, 100):
            pipe = client.pipeline(transaction=False)
            for i in range(start, start + 100):
                pipe.set(f"sl2:{i}", bytes(4608))
            assert all(pipe.execute())
        info = client.info()
        assert info["evicted_keys"] > 0
        assert info["maxmemory"] == 4 << 20
        assert info["maxmemory_policy"] == "allkeys-lfu"


def test_stopping_leaves_nothing_behind() -> None:
    """No process, no socket, no directory."""
    child = RedisChild()
    home, pid = home_of(child.start()), child.pid
    child.stop()
    assert gone(pid)
    assert not home.exists()
    assert not child.alive
    child.stop()
    with pytest.raises(RuntimeError, match="not started"):
        _ = child.url


@pytest.mark.parametrize("swept_away", [False, True])
def test_a_child_that_died_is_started_anew_under_the_same_url(
    child: RedisChild, swept_away: bool
) -> None:
    """Workers that hold the URL find it again, also where its folder was cleared up meanwhile."""
    url, pid = child.url, child.pid
    kill(child)
    if swept_away:
        shutil.rmtree(home_of(url))
    assert child.start() == url
    assert child.pid != pid
    assert client_of(url).ping()
    assert home_of(url).stat().st_mode & 0o777 == 0o700


def test_a_restart_that_failed_keeps_the_url_for_the_next_one(
    child: RedisChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds the URL would otherwise ask an empty place for ever."""
    url = child.url
    kill(child)
    with monkeypatch.context() as patched:
        patched.setattr(child, "_program", "/bin/false")
        with pytest.raises(RuntimeError, match="did not come up"):
            child.start()
        assert not child.alive
    assert child.start() == url
    assert client_of(url).ping()


def swept(home: Path) -> bool:
    with RedisChild():
        return not home.exists()


def left_behind(how: signal.Signals) -> Path:
    """The folder of a parent that was ended; its server is gone."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        url, pid = parent.stdout.readline().split()
        assert client_of(url).ping()
        parent.send_signal(how)
        parent.wait()
    awaited(lambda: gone(pid))
    return home_of(url)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_its_parent(how: signal.Signals) -> None:
    """Even kill -9 of the service leaves no server running, and the next start sweeps up."""
    home = left_behind(how)
    awaited(lambda: swept(home))


def test_sweeping_does_not_go_by_process_numbers() -> None:
    """In a container started again the new parent has the number of the one that was killed: 1."""
    home = left_behind(signal.SIGKILL)
    renamed = home.rename(home.with_name(f"{PREFIX}{os.getpid()}-again"))
    awaited(lambda: swept(renamed))


def test_sweeping_leaves_the_living_alone(child: RedisChild) -> None:
    """Two services on one machine do not clear each other away; nor one that is only starting: a
    directory without a socket belongs to somebody who is about to listen."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as starting, RedisChild() as other:
        assert home_of(child.url) != home_of(other.url)
        assert client_of(child.url).ping()
        assert client_of(other.url).ping()
        assert Path(starting).exists()


def test_sweeping_leaves_the_dead_server_of_a_living_parent_alone(child: RedisChild) -> None:
    """It is about to be started anew, in this folder."""
    kill(child)
    assert not swept(home_of(child.url))


def test_a_fork_of_the_parent_does_not_stop_it(child: RedisChild) -> None:
    """A worker that exits and cleans up leaves the shared server running."""
    pid = os.fork()
    if pid == 0:
        child.stop()
        os._exit(0)
    os.waitpid(pid, 0)
    assert client_of(child.url).ping()


def test_a_long_temporary_directory_does_not_break_the_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A socket's path is limited to 107 bytes; some TMPDIRs use them up."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with RedisChild() as child:
        assert client_of(child.url).ping()
