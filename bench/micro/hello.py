"""The least that an HTTP server can do, for comparison: uvicorn as siglit runs it, "hello world".

    python -m bench.micro.hello PORT

GET answers at once; POST reads the body first. Options of uvicorn are those of `litapi.server`,
but for siglit's guard against slow clients, which is part of what siglit costs.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import uvicorn

from bench.rig.child import answers, child
from bench.rig.port import free_port

Message = MutableMapping[str, Any]
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"11")]


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


def serve(port: int) -> None:
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


@contextmanager
def greeting() -> Iterator[tuple[str, int]]:
    """URL and process id of the server as a child process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "bench.micro.hello", str(port)]
    with child(command, answers(url)) as pid:
        yield url, pid


if __name__ == "__main__":
    serve(int(sys.argv[1]))
