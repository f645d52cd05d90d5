"""The least that an HTTP server can do, for comparison: uvicorn as siglit runs it, "hello world".

GET answers at once; POST reads the body first. Options of uvicorn are those of `litapi.server`,
but for siglit's guard against slow clients, which is part of what siglit costs.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager
from typing import Any

from bench.rig.child import serving

Message = MutableMapping[str, Any]
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"11")]
SERVE = (
    "-m", "uvicorn", "bench.micro.hello:hello", "--log-level", "warning", "--no-access-log",
    "--no-server-header", "--lifespan", "off", "--http", "httptools", "--loop", "uvloop",
    "--timeout-keep-alive", "75", "--backlog", "4096",
)  # fmt: skip


async def hello(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    more = scope["method"] == "POST"
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"hello world"})


def greeting() -> AbstractContextManager[tuple[str, int]]:
    """URL and process id of the server as a child process."""
    return serving(lambda port: [sys.executable, *SERVE, "--port", str(port)], "/")
