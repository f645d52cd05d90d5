"""A private Redis for a service that was given none.

A `redis-server` (or `valkey-server`) child on a Unix socket in a directory only this user may
enter: no port, nothing on disk, 32 MB with least-frequently-used eviction, and one user who may get
and set keys that begin with `sl2:` and little else. That shuts EVAL, FLUSHALL, KEYS and CONFIG. The
settings, password among them, go in through standard input, so neither process list nor disk shows
them.

The child dies with its parent, also on kill -9: the kernel signals it when the *thread* that
started it ends, so start it once, from the main thread, before any fork. A small Python asks the
kernel for that and then becomes the server; a hook between fork and exec would not be safe in a
process with threads. Terminal signals do not reach the child: a service that drains on Ctrl-C still
needs its cache. It is ready when it answers PING; the socket file appears earlier.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PROGRAMS = ("redis-server", "valkey-server")
USER = "cache"
PREFIX = "vector-cache-"
SOCKET = "redis.sock"
PATIENCE = 5.0  # seconds until it answers PING
ACL = "~sl2:* resetchannels -@all +auth +hello +ping +get +mget +set +info"

_TIED = """
import ctypes, os, signal, sys
parent, program = int(sys.argv[1]), sys.argv[2]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
if os.getppid() != parent:  # it died before the knot was tied
    os._exit(1)
os.execv(program, [program, "-"])
"""


class RedisChild:
    def __init__(self, *, megabytes: int = 32) -> None:
        self._program = self.find()
        self._megabytes = megabytes
        self._password = secrets.token_urlsafe(32)
        self._process: subprocess.Popen[bytes] | None = None
        self._home: Path | None = None
        self._lock: int | None = None  # on the folder: this process, or a fork of it, lives
        self._owner = 0

    @staticmethod
    def find() -> str | None:
        return next(filter(None, map(shutil.which, PROGRAMS)), None)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def url(self) -> str:
        if self._home is None:
            raise RuntimeError("the Redis child is not started")
        return f"unix://{USER}:{self._password}@{quote(str(self._home / SOCKET))}"

    def start(self) -> str:
        """Start it, or start it anew under the same URL if it has died, and wait for its PONG."""
        if self._program is None:
            raise FileNotFoundError(f"none of {', '.join(PROGRAMS)} is installed")
        if not self.alive:
            self._owner = os.getpid()
            first = self._home is None
            self._home = self._home or _new_home()
            self._keep(self._home)
            try:
                self._spawn(self._program, self._home)
            except RuntimeError:  # later ones keep the folder: its path is in everybody's URL
                self.stop() if first else self._end()
                raise
        return self.url

    def _keep(self, home: Path) -> None:
        """Hold the folder, also where somebody has cleared it up meanwhile."""
        if self._lock is None or not home.exists():
            home.mkdir(mode=0o700, exist_ok=True)
            self._let_go()
            self._lock = os.open(home, os.O_RDONLY)
            with suppress(OSError):  # not every file system can lock a folder
                fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _spawn(self, program: str, home: Path) -> None:
        command = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), program]
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
            assert self._process.stdin is not None
            # it may have ended at once
            with suppress(BrokenPipeError), self._process.stdin as tell:
                tell.write(self._settings(home).encode())
            ends = time.monotonic() + PATIENCE
            while not self._pongs():
                if not self.alive or time.monotonic() > ends:
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip().rpartition("\n")[2]
                    raise RuntimeError(f"the Redis child did not come up: {said}")
                time.sleep(0.005)

    def _pongs(self) -> bool:
        never = Retry(NoBackoff(), 0)
        try:
            with redis.Redis.from_url(self.url, protocol=2, socket_timeout=0.5, retry=never) as it:
                return bool(it.ping())
        except redis.RedisError:
            return False

    def _settings(self, home: Path) -> str:
        return f"""
            port 0
            unixsocket "{home / SOCKET}"
            unixsocketperm 600
            dir "{home}"
            save ""
            appendonly no
            databases 1
            maxmemory {self._megabytes}mb
            maxmemory-policy allkeys-lfu
            loglevel warning
            user default off -@all
            user {USER} on >{self._password} {ACL}
        """

    def stop(self) -> None:
        """End it and leave nothing behind; in a fork of the process that started it, do nothing."""
        if self._home is None or self._owner != os.getpid():
            return
        self._end()
        shutil.rmtree(self._home, ignore_errors=True)
        self._home = None
        self._let_go()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(2.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _new_home() -> Path:
    """And clear up after parents that were killed: their folder outlives them, their server not."""
    # a socket's path may have 107 bytes; a long TMPDIR would use them up
    folder = tempfile.gettempdir() if len(tempfile.gettempdir()) < 64 else "/tmp"
    for path in Path(folder).glob(f"{PREFIX}*/{SOCKET}"):
        if _abandoned(path):
            shutil.rmtree(path.parent, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))


def _abandoned(path: Path) -> bool:
    """Whether its parent is gone, and nobody listens: a parent that lives holds the folder's lock,
    and may be about to start another server. What cannot be tried at all is left alone."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(0.5)
        mine = path.stat().st_uid == os.getuid()
        if mine and talk.connect_ex(str(path)) == errno.ECONNREFUSED:
            return not _locked(path.parent)
    return False


def _locked(folder: Path) -> bool:
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False
