"""A private Redis for a service that was given none.

A `redis-server` (or `valkey-server`) child on a Unix socket in a directory only this user may
enter: no port, nothing written to disk, 32 MB with least frequently used eviction, and one user
who may get and set keys that begin with `sl2:` and little else. That shuts EVAL, FLUSHALL, KEYS and
CONFIG, and with EVAL the Lua holes of older servers. The settings, password among them, go in
through standard input: neither the process list nor the disk shows it.

The child dies with its parent, kill -9 included: the kernel sends the signal when the *thread* that
started the child ends, so start it from the main thread, once, before any fork. A small Python
ties the knot and then becomes the server; a hook between fork and exec would not be safe in a
process with threads. Terminal signals do not reach it: a service that drains on Ctrl-C still needs
its cache. Ready means that it answers PING; the socket file appears earlier.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import quote

PROGRAMS = ("redis-server", "valkey-server")
USER = "cache"
PREFIX = "vector-cache-"
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
    def __init__(
        self, program: str | None = None, *, megabytes: int = 32, patience: float = 5.0
    ) -> None:
        self._program = program or self.find()
        self._megabytes = megabytes
        self._patience = patience
        self._password = secrets.token_urlsafe(32)
        self._process: subprocess.Popen[bytes] | None = None
        self._home: Path | None = None
        self._owner = 0

    @staticmethod
    def find() -> str | None:
        """The server program, if one is installed."""
        found = (shutil.which(program) for program in PROGRAMS)
        return next((path for path in found if path), None)

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
        return f"unix://{USER}:{self._password}@{quote(str(self._socket))}"

    @property
    def _socket(self) -> Path:
        return (self._home or Path()) / "redis.sock"

    def start(self) -> str:
        """Start it, or start it anew under the same URL if it has died, and wait for its PONG."""
        if self._program is None:
            raise FileNotFoundError(f"none of {', '.join(PROGRAMS)} is installed")
        if not self.alive:
            self._owner = os.getpid()
            first = self._home is None
            self._home = self._home or _new_home()
            self._home.mkdir(mode=0o700, exist_ok=True)  # somebody may have cleared it up meanwhile
            self._spawn(self._program)
            try:
                self._await_pong()
            except RuntimeError:  # later ones keep the folder: its path is in everybody's URL
                self.stop() if first else self._end()
                raise
        return self.url

    def _spawn(self, program: str) -> None:
        command = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), program]
        told, tell = os.pipe()
        try:
            with open(self._log, "wb") as log:
                self._process = subprocess.Popen(
                    command, stdin=told, stdout=log, stderr=log, start_new_session=True
                )
            os.write(tell, self._settings().encode())  # far less than a pipe holds: never blocks
        finally:
            os.close(told)
            os.close(tell)

    def _settings(self) -> str:
        return f"""
            port 0
            unixsocket "{self._socket}"
            unixsocketperm 600
            dir "{self._home}"
            save ""
            appendonly no
            databases 1
            maxmemory {self._megabytes}mb
            maxmemory-policy allkeys-lfu
            loglevel warning
            user default off -@all
            user {USER} on >{self._password} {ACL}
        """

    @property
    def _log(self) -> Path:
        return (self._home or Path()) / "redis.log"

    def _await_pong(self) -> None:
        ends = time.monotonic() + self._patience
        while not self._pongs():
            if not self.alive or time.monotonic() > ends:
                said = self._log.read_text(errors="replace").strip().splitlines()[-1:]
                raise RuntimeError(f"the Redis child did not come up: {''.join(said)}")
            time.sleep(0.005)

    def _pongs(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as talk:
                talk.settimeout(0.5)
                talk.connect(str(self._socket))
                talk.sendall(f"AUTH {USER} {self._password}\r\nPING\r\n".encode())
                return talk.makefile("rb").read(len(b"+OK\r\n+PONG\r\n")) == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False

    def stop(self) -> None:
        """End it and leave nothing behind; in a fork of the process that started it, do nothing."""
        if self._home is None or self._owner != os.getpid():
            return
        self._end()
        shutil.rmtree(self._home, ignore_errors=True)
        self._home = None

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _short_tmp() -> str:
    """A socket's path may have 107 bytes; a long TMPDIR would use them up."""
    return tempfile.gettempdir() if len(tempfile.gettempdir()) < 64 else "/tmp"


def _new_home() -> Path:
    _sweep()
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=_short_tmp()))


def _sweep() -> None:
    """Clear up after parents that were killed: their directory outlives them, their server not."""
    for path in _abandoned():
        shutil.rmtree(path.parent, ignore_errors=True)


def _abandoned() -> Iterator[Path]:
    for path in Path(_short_tmp()).glob(f"{PREFIX}*/redis.sock"):
        if path.exists() and path.stat().st_uid == os.getuid() and _refuses(path):
            yield path


def _refuses(path: Path) -> bool:
    """Whether nobody listens; a socket that cannot be tried at all is left alone."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(0.5)
        try:
            talk.connect(str(path))
        except OSError as error:
            return isinstance(error, ConnectionRefusedError)
    return False
