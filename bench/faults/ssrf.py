"""Row 12: URLs that lead inside are refused, and a listener inside gets no connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.faults.question import IMAGE, JSON, OPENAI
from bench.faults.row import Finding
from bench.faults.stage import Stage, post
from bench.faults.urls import FORBIDDEN_HOSTS, INVALID_URLS

CLIENTS = 2
PORT = 80  # the only one that is dialled for http
ADDRESSES = ("127.0.0.1", "127.0.0.2", "::1")


class Listener:
    """A listener on internal addresses that counts connections."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.connections = 0

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        self.connections += 1
        writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """On the port that would be dialled, where this user may have it."""
        async with contextlib.AsyncExitStack() as stack:
            for address in ADDRESSES:
                with contextlib.suppress(OSError):
                    server = await asyncio.start_server(self._accept, address, PORT)
                    await stack.enter_async_context(server)
                    self.addresses.append(address)
            yield


def bodies(url: str) -> list[tuple[str, bytes]]:
    """The ways to ask for an image by its URL."""
    part = {"type": "image_url", "image_url": {"url": url}}
    asked = ((IMAGE, {"url": url}), (IMAGE, {"urls": [url]}), (OPENAI, {"input": [part]}))
    return [(path, json.dumps(body).encode()) for path, body in asked]


async def ssrf(stage: Stage, finding: Finding) -> None:
    """Every URL in every way of asking."""
    server, listener = await stage.common(), Listener()
    urls = [*(f"http://{host}/image" for host in FORBIDDEN_HOSTS), *INVALID_URLS]
    answers: Counter[str] = Counter()
    async with (
        listener.listening(),
        await stage.traffic(server, fresh=0.1) as traffic,
        finding.under(traffic, CLIENTS),
    ):
        for path, body in (one for url in urls for one in bodies(url)):
            reply = await post(server.url, path, body, JSON)
            answers[f"{reply.status} {json.loads(reply.body)['error']['code']}"] += 1
    finding.must(all(one.startswith("4") for one in answers), f"all 4xx: {dict(answers)}")
    finding.must(answers["403 image_url_forbidden"] > 0, "those that lead inside are forbidden")
    finding.must(listener.connections == 0, f"no connection inside: {listener.connections}")
    heard = ", ".join(listener.addresses) or "nowhere: the port was not to be had"
    finding.note(f"{len(urls)} URLs, {sum(answers.values())} requests {dict(answers)}")
    finding.note(f"listening on port {PORT} of {heard}")
