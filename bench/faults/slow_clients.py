"""Rows 8, 9 and 13: clients that waste connections, never stop sending, or leave."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from urllib.parse import urlsplit

from bench.faults.question import as_floats
from bench.faults.row import Finding
from bench.faults.stage import Stage, ask, counter, until
from bench.faults.traffic import Traffic
from bench.faults.vitals import Vitals
from bench.rig.server_process import ServerProcess

CLIENTS = 4
LINE = b"POST /embed_text HTTP/1.1\r\nhost: siglit\r\ncontent-type: application/json\r\n"
PICTURE = b"POST /embed_image HTTP/1.1\r\nhost: siglit\r\ncontent-type: image/png\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
BLANKS = b" " * 65536
CHUNK = b"10000\r\n" + BLANKS + b"\r\n"
PIECE = 1 << 18
GIVES_UP = 60.0  # seconds; a connection still open then was not closed
CLOSED_WITHIN = 5.0  # seconds
STAYING = 6
LEAVES_WITHIN = 0.06  # seconds
SETTLED_WITHIN = 30.0
SPARE_FILES = 16
IN_FLIGHT = "siglit_items_in_flight"
CROWD = 16  # clients that leave together, each with ...
ITEMS = 64  # ... so many texts: several times what a worker takes up at once
SLOW = [f"siglit-test: slow {n}" for n in range(4)]  # they hold the worker up for a second each
GATHERED_WITHIN = 3.0  # seconds; less than that


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended: the first status that was heard, or 0, and all that was.

    `seconds` went by until it was closed or given up, `last` until the last byte came.
    """

    status: int
    closed: bool
    seconds: float
    last: float
    heard: bytes


async def talk(
    url: str, said: AsyncIterator[bytes], patience: float = GIVES_UP, quiet: float = GIVES_UP
) -> End:
    """Send piece by piece while listening; how the server ended it.

    It is given up after `patience` without an answer, or `quiet` seconds after its last piece.
    """
    reader, writer = await dialled(url)
    began = time.monotonic()
    sending = asyncio.create_task(send(writer, said))
    heard, closed, last = bytearray(), True, 0.0
    try:
        while piece := await asyncio.wait_for(reader.read(65536), quiet if heard else patience):
            heard += piece
            last = time.monotonic() - began
    except TimeoutError:
        closed = False
    except OSError:
        pass
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)  # the server may have hung up
        writer.close()
    return End(_status(heard), closed, time.monotonic() - began, last, bytes(heard))


async def dialled(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


def _status(heard: bytearray) -> int:
    words = heard.split(b" ", 2)
    return int(words[1]) if heard.startswith(b"HTTP/1.1 ") and len(words) > 1 else 0


async def send(writer: asyncio.StreamWriter, said: AsyncIterator[bytes]) -> None:
    async for piece in said:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)  # or the reader gets no turn while the server takes everything


# -- what they send ------------------------------------------------------------------------------


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), PIECE):
            yield view[start : start + PIECE]  # type: ignore[misc]  # a writer takes both


async def slow_head() -> AsyncIterator[bytes]:
    for byte in LINE * 100:
        yield bytes([byte])
        await asyncio.sleep(0.7)


async def endless_head() -> AsyncIterator[bytes]:
    yield LINE
    for number in range(1 << 20):
        yield b"x-%d: %b\r\n" % (number, b"y" * 1000)


async def endless(head: bytes, piece: bytes) -> AsyncIterator[bytes]:
    """A gigabyte in pieces."""
    yield head
    for _ in range(1 << 14):
        yield piece


WASTERS: dict[str, Callable[[], AsyncIterator[bytes]]] = {
    "slow head": slow_head,
    "half body": partial(pieces, LINE + b'content-length: 400\r\n\r\n{"text": "' + b"a" * 100),
    "idle": pieces,
}
FLOODS: dict[str, tuple[Callable[[], AsyncIterator[bytes]], int]] = {
    "endless head": (endless_head, 431),
    "1 GB body": (partial(endless, LINE + b"content-length: 1073741824\r\n\r\n", BLANKS), 413),
    "endless body": (partial(endless, LINE + CHUNKED, CHUNK), 413),
    "endless picture": (partial(endless, PICTURE + CHUNKED, CHUNK), 413),
}


async def slow_clients(stage: Stage, finding: Finding) -> None:
    """Connections that waste the server's time are told so and closed; good clients go on."""
    server = await stage.common()
    async with await stage.traffic(server, fresh=0.1) as traffic:
        quiet = await traffic.closed(CLIENTS, stage.of(5.0, 1.0))
        async with finding.under(traffic, CLIENTS):
            many = stage.of(1000, 60)
            talks = {
                name: [asyncio.create_task(talk(server.url, said())) for _ in range(many)]
                for name, said in WASTERS.items()
            }
            ends = {name: await asyncio.gather(*kind) for name, kind in talks.items()}
    for name, kind in ends.items():
        slowest = max(end.seconds for end in kind)
        finding.must(all(end.closed for end in kind), f"{name}: all closed")
        statuses = Counter(end.status for end in kind)
        finding.must(statuses.keys() == {408}, f"{name}: all 408: {dict(statuses)}")
        finding.note(f"{len(kind)} × {name}: closed within {slowest:.1f} s")
        finding.timely(slowest <= CLOSED_WITHIN, f"{name}: closed within {CLOSED_WITHIN:g} s")
    ratio = finding.tally.quantile(0.99) / quiet.quantile(0.99)
    finding.note(f"good p99 {ratio:.1f} × before")
    finding.timely(ratio <= 2, "p99 of good clients at most 2 × before")


async def floods(stage: Stage, finding: Finding) -> None:
    """What never ends is refused in good time, and memory stays where it was."""
    server = await stage.common()
    async with await stage.traffic(server, fresh=0.1) as traffic:
        await traffic.closed(CLIENTS, stage.of(5.0, 1.0))
        async with finding.under(traffic, CLIENTS):
            for name, (said, status) in FLOODS.items():
                grown, end = await _grown(server, said())
                finding.must(end.status == status, f"{name}: {status}, not {end.status}")
                finding.must(grown <= 64, f"{name}: at most 64 MB more, not {grown:.1f}")
                finding.note(f"{name}: {end.status} in {end.seconds:.1f} s, {grown:+.1f} MB")


async def _grown(server: ServerProcess, said: AsyncIterator[bytes]) -> tuple[float, End]:
    """The most that the server's resident memory grew while a client talked, MB."""
    family = list(server.family())
    before = peak = Vitals.of(family).resident_mb
    talking = asyncio.create_task(talk(server.url, said))
    while not talking.done():
        await asyncio.sleep(0.02)
        peak = max(peak, Vitals.of(family).resident_mb)
    return peak - before, talking.result()


async def disconnects(stage: Stage, finding: Finding) -> None:
    """Half of the clients leave; nothing of theirs stays, and the others get their answers."""
    server = await stage.common()
    async with (
        await stage.traffic(server, fresh=1.0) as traffic,
        await stage.traffic(server, fresh=1.0) as leaving,
    ):
        await traffic.closed(STAYING, stage.of(3.0, 0.5))
        before = Vitals.of(server.family())
        async with finding.under(traffic, STAYING):
            left = await _leave(leaving, stage.of(30.0, 4.0))
    in_flight = await _in_flight(server, lambda n: n == 0, SETTLED_WITHIN)
    await asyncio.sleep(1.0)
    files = Vitals.of(server.family()).files - before.files
    finding.must(in_flight == 0, f"no item is left in flight: {in_flight:.0f}")
    finding.must(files <= SPARE_FILES, f"open files {files:+d}")
    finding.must(left > 0, "some left")
    finding.note(f"{left} left in the middle, open files {files:+d}, 0 in flight afterwards")
    await _crowd_leaves(server, finding)


async def _leave(traffic: Traffic, seconds: float) -> int:
    """As many clients as those that stay; how many questions they left."""
    rng, stop = Random(4), time.monotonic() + seconds

    async def client() -> int:
        left = 0
        while time.monotonic() < stop:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.uniform(0.0, LEAVES_WITHIN)):
                    await traffic.next()
                    continue
            left += 1
        return left

    return sum(await asyncio.gather(*(client() for _ in range(STAYING))))


async def _crowd_leaves(server: ServerProcess, finding: Finding) -> None:
    """What still waits when its clients leave is dropped; what was begun is done and kept.

    They leave when all of them wait, or else when time is up.
    """
    before = await _texts(server)
    clients = [asyncio.create_task(ask(server.url, as_floats(SLOW)))]
    await _in_flight(server, lambda n: n >= len(SLOW), GATHERED_WITHIN)
    for number in range(CROWD):
        texts = [f"impatient {number} {text}" for text in range(ITEMS)]
        clients.append(asyncio.create_task(ask(server.url, as_floats(texts))))
    asked = CROWD * ITEMS
    waiting = await _in_flight(server, lambda n: n >= len(SLOW) + asked, GATHERED_WITHIN)
    for client in clients:
        client.cancel()
    await asyncio.wait(clients)
    in_flight = await _in_flight(server, lambda n: n == 0, SETTLED_WITHIN)
    dropped, computed = (now - then for now, then in zip(await _texts(server), before, strict=True))
    finding.must(in_flight == 0, f"no item of the crowd is left in flight: {in_flight:.0f}")
    finding.must(dropped > 0, f"of {waiting:.0f} texts left waiting some are dropped")
    finding.must(computed < asked, f"not all {asked} texts of the crowd are computed")
    finding.note(f"of {asked} texts whose clients left {dropped:.0f} dropped, {computed:.0f} done")


async def _in_flight(server: ServerProcess, holds: Callable[[float], bool], within: float) -> float:
    """How many items are under way, once that holds or time is up."""

    async def held() -> bool:
        return holds(await counter(server.url, IN_FLIGHT))

    with contextlib.suppress(TimeoutError):
        await until(held, within, every=0.02)
    return await counter(server.url, IN_FLIGHT)


async def _texts(server: ServerProcess) -> tuple[float, float]:
    names = ("siglit_items_given_up_total", "siglit_batch_items_sum")
    given_up, computed = [await counter(server.url, name, 'kind="text"') for name in names]
    return given_up, computed
