"""The least that an HTTP server can do, for comparison: uvicorn as siglit runs it, "hello world".

    python -m bench.micro.hello PORT

GET answers at once; POST reads the body first. Options of uvicorn are those of `litapi.server`,
but for siglit's guard against slow clients, which is part of what siglit costs.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Self

import httpx
import uvicorn

from bench.rig.port import free_port
from bench.rig.server_process import ROOT

Message = MutableMapping[str, Any]
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"11")]


async def hello(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """The ASGI application."""
    more = scope["method"] == "POST"
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"hello world"})


def serve(port: int) -> None:
    """Until SIGTERM."""
    config = uvicorn.Config(
        hello,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        http="httptools",
        loop="uvloop",
        timeout_keep_alive=75,
        backlog=4096,
    )
    uvicorn.Server(config).run()


class HelloProcess:
    """The server as a child process on a free port; `with` starts it and ends it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "bench.micro.hello", str(self.port)]
        self._process = subprocess.Popen(command, cwd=ROOT)
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(self.url)
                return self
            time.sleep(0.05)
        self.__exit__()
        raise RuntimeError("the hello server did not start")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Its one process."""
        return self._process.pid


if __name__ == "__main__":
    serve(int(sys.argv[1]))
