"""A private Redis on a free port or a Unix socket, which can be killed, paused and restarted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import redis

from bench.rig.child import started
from bench.rig.port import free_port

NOTHING_ON_DISK = ("--save", "", "--appendonly", "no")


class RedisServer:
    """`options` are redis-server's own: `RedisServer("--maxmemory", "8mb")`.

    `restart` brings it back under the same address, empty, as nothing is written to disk.
    """

    def __init__(self, *options: str, unix: bool = False) -> None:
        self._options: Sequence[str] = options
        self.home = Path(tempfile.mkdtemp(prefix="redis-test-"))
        self.socket = self.home / "redis.sock"
        self.unix = unix
        self.port = 0 if unix else free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}" if self.unix else f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def client(self) -> redis.Redis:
        """A client without time limits, to read and change what the cache has written."""
        return redis.Redis.from_url(self.url, protocol=2)

    def command(self, *words: str | int) -> Any:
        with self.client() as client:
            return client.execute_command(*words)

    def start(self) -> None:
        place = ["--port", str(self.port), "--bind", "127.0.0.1"]
        if self.unix:
            place = ["--port", "0", "--unixsocket", str(self.socket)]
        self._process = started(
            ["redis-server", *place, *NOTHING_ON_DISK, *self._options],
            signal.SIGKILL,  # it may be paused
            cwd=self.home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._await_pong()

    def _await_pong(self) -> None:
        ends = time.monotonic() + 60
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.AuthenticationError:
                    return  # it wants a password: it is up
                except redis.RedisError:
                    if time.monotonic() > ends or self._process is None or self._process.poll():
                        raise
                    time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: it accepts connections (the kernel does) and never answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
