"""Rows 17 to 26: what one cheap client could do to all others, and all of it at once.

Meanwhile another client asks `/livez` all the time, and good clients send pictures and texts whose
vectors are computed and judged. What the attacker gets is counted by status and code. In the long
form each attack meets a server of its own; in the short one they share one, with what others left.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from random import Random

from bench.faults.hostile import accents, amplified, deep_png, even_webp, long_bmp, nested
from bench.faults.hostile import scanned_jpeg as jpeg
from bench.faults.question import (
    IMAGE,
    OPENAI,
    asked,
    drawn_picture,
    drawn_pictures,
    drawn_texts,
)  # fmt: skip
from bench.faults.row import Finding, Play
from bench.faults.slow_clients import dialled, pieces, send, talk
from bench.faults.stage import Stage, post, until
from bench.faults.traffic import Traffic
from bench.faults.vitals import Vitals, Watch, workers
from bench.load.connection import head_of
from bench.rig.server_process import ServerProcess, cpu_seconds
from litapi.settings import Settings

MB = 1 << 20
HTTP_MB, WORKER_MB = 400.0, 600.0  # above idle, at most
LEFT_MB = 200.0  # above idle, some time after an attack
ALIVE_WITHIN = 0.25  # seconds until /livez says yes
GOOD_WITHIN = 2.0  # seconds for a good picture, beside what decoding may take
DECODING = float(getattr(Settings(), "decode_timeout", 0.0))
FILES_MB = Settings().max_queue_mb + 64.0  # of memory files
PAUSE = 0.1  # seconds between two questions of a good client
SETTLES_WITHIN = 60.0
ZEROS = bytes(20 * MB - 64)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
PNG = "image/png"
_CODE = re.compile(rb'"code": ?"(\w+)"')

Attack = Callable[["Target"], Awaitable[None]]


@dataclass(slots=True)
class Target:
    """The server that an attack is for, good clients and a watch beside it, and what it said."""

    server: ServerProcess
    long: bool
    seconds: float  # that an attack may last where its length is a choice
    texts: Traffic
    pictures: Traffic
    watch: Watch
    said: Counter[str] = field(default_factory=Counter)

    def of(self, long: int, short: int) -> int:
        return long if self.long else short

    async def post(self, path: str, body: bytes, media: str = "application/json") -> None:
        """Ask, and count what was said."""
        await self.hear(pieces(_head(path, len(body), media), body))

    async def hear(self, sent: AsyncIterator[bytes]) -> None:
        """Count what was said to a connection, or that nothing was."""
        with self.broken():
            end = await talk(self.server.url, sent)
            code = _CODE.search(end.heard)
            named = f" {code[1].decode()}" if code and end.status != 200 else ""
            self.said[f"{end.status or 'no answer'}{named}"] += 1

    @contextlib.contextmanager
    def broken(self) -> Iterator[None]:
        """Count a connection that breaks inside."""
        try:
            yield
        except OSError as error:
            self.said[type(error).__name__] += 1

    async def all_at_once(self, path: str, bodies: Sequence[bytes], *media: str) -> None:
        await asyncio.gather(*(self.post(path, body, *media) for body in bodies))


def _head(path: str, length: int, media: str = "application/json") -> bytes:
    return head_of(path, length, {"connection": "close", "content-type": media})


async def unread_answers(target: Target) -> None:
    """Requests in a row, whose answers nobody reads."""
    flood = GET * (16 * MB // len(GET))
    address, loop = ("127.0.0.1", target.server.port), asyncio.get_running_loop()

    async def client() -> None:
        with socket.socket() as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, address)
            with target.broken():
                try:
                    async with asyncio.timeout(target.seconds):
                        await loop.sock_sendall(connection, flood)
                        await asyncio.sleep(target.seconds)
                except TimeoutError:  # which is an OSError
                    target.said["nothing more was taken, or all of it"] += 1

    await asyncio.gather(*(client() for _ in range(target.of(6, 3))))


async def amplification(target: Target) -> None:
    """Captions that are built of a template and labels, both long."""
    bodies = [amplified(), amplified(2, 10_000, 100_000), amplified(200, 2_000, 1_000)]
    await target.all_at_once("/classify", bodies[: target.of(3, 2)])


_fresh = count()


async def slow_decoding(target: Target) -> None:
    """Pictures of a few KB that take long to decode, each of them once."""
    refined = (0, 0, 0x10)
    pictures = [
        *(jpeg(700, note=b"%d" % note) for note in islice(_fresh, target.of(4, 2))),
        *(jpeg(2800, note=b"%d" % note, band=refined, restarts=True) for note in islice(_fresh, 2)),
        *(long_bmp(note=note) for note in islice(_fresh, target.of(4, 2))),
    ]
    await target.all_at_once(IMAGE, pictures, PNG)


async def costly_json(target: Target) -> None:
    """Bodies that become many objects, deep ones, or none."""
    bodies = await asyncio.to_thread(nested, target.of(64, 16) * MB - 1024)
    for body in list(bodies.values())[: target.of(len(bodies), 6)]:
        await target.post(OPENAI if body.startswith(b'{"input"') else IMAGE, body)


async def wrong_base64(target: Target) -> None:
    """Megabytes of letters where base64 belongs."""
    for body in accents(target.of(30, 10) * 1_000_000).values():
        await target.post(IMAGE, body)


async def half_bodies(target: Target) -> None:
    """Bodies that stop just before their end and go on in drops."""
    body = bytes(60_000_000)

    async def dripping() -> AsyncIterator[bytes]:
        async for piece in pieces(_head(IMAGE, 66_000_000), body):
            yield piece
        while True:
            await asyncio.sleep(1.0)
            yield bytes(1500)

    async def client() -> None:
        try:
            async with asyncio.timeout(target.seconds + 10):
                await target.hear(dripping())
        except TimeoutError:
            target.said["open still"] += 1

    await asyncio.gather(*(client() for _ in range(target.of(40, 16))))


async def left_pictures(target: Target) -> None:
    """Large pictures whose clients do not wait, a few at a time: what is under way is row 22's."""
    numbers = iter(range(target.of(120, 40)))

    async def client() -> None:
        for number in numbers:
            start = b"\x89PNG\r\n\x1a\n" + b"%8d" % number
            with target.broken():
                _, writer = await dialled(target.server.url)
                await send(writer, pieces(_head(IMAGE, len(ZEROS), PNG), start, ZEROS[16:]))
                await asyncio.sleep(0.5)
                writer.close()
                target.said["left"] += 1

    await asyncio.gather(*(client() for _ in range(6)))


async def many_patches(target: Target) -> None:
    """Small pictures for which a request wants many patches."""
    bodies = []
    for number in range(target.of(4, 2)):
        pictures = [drawn_picture(f"{number} {n % 8}", canvas=(32, 32)) for n in range(128)]
        images = [base64.b64encode(one).decode() for one in pictures]
        bodies.append(json.dumps({"images": images, "max_num_patches": 4096}).encode())
    await target.all_at_once(IMAGE, bodies)


async def wide_pixels(target: Target) -> None:
    """Pictures with few bytes and many pixels, of modes that take several bytes for each."""

    def pictures() -> list[bytes]:
        even = [even_webp(b"%d" % note) for note in islice(_fresh, target.of(6, 2))]
        colours = (6, 2)[: target.of(2, 1)]
        return even + [deep_png(b"%d" % next(_fresh), colour=colour) for colour in colours]

    await target.all_at_once(IMAGE, await asyncio.to_thread(pictures), PNG)


@asynccontextmanager
async def attacked(stage: Stage, *flags: str, clients: int = 1) -> AsyncIterator[Target]:
    """A server with good clients of it: what is done inside is the attack."""
    server = await stage.server(*flags)
    small = asked(drawn_texts(40, seed=17)), asked(drawn_pictures(12))
    async with (
        await stage.traffic(server, small[0], fresh=1.0) as texts,
        await stage.traffic(server, small[1], fresh=1.0) as pictures,
    ):
        for traffic in (texts, pictures):  # what grows with the first questions is no attack's
            await traffic.once_each()
            traffic.turn()
        watch = Watch(server)
        async with watch, texts.flowing(clients, PAUSE), pictures.flowing(clients, PAUSE):
            yield Target(server, stage.long, stage.of(20.0, 4.0), texts, pictures, watch)
    stage.idle.setdefault(server.url, watch.seen.first)
    if stage.long:
        await asyncio.to_thread((await stage.spent(*flags)).stop)


def judge(
    stage: Stage, finding: Finding, target: Target, *, stopped: bool = False, whole: bool = False
) -> None:
    """Hold what was seen against the bounds.

    `stopped`: no picture could be computed meanwhile. `whole`: it was all attacks at once, whose
    bounds add up, so what counts is what is left afterwards.
    """
    seen, idle = target.watch.seen, stage.idle[target.server.url]
    texts, pictures = target.texts.turn(), target.pictures.turn()
    for tally in (texts, pictures):
        finding.take(tally)
    front, worker = seen.grown("http", idle), seen.grown("worker", idle)
    if whole:
        left = max(seen.grown("http", idle, "last"), seen.grown("worker", idle, "last"))
        finding.must(left <= LEFT_MB, f"{left:.0f} of {LEFT_MB:.0f} MB above idle are left")
        finding.note(f"{left:+.0f} MB at most are left")
    finding.must(not seen.ended, f"nothing has to be ended for its size: {seen.ended}")
    for name, grown, most in (("HTTP process", front, HTTP_MB), ("worker", worker, WORKER_MB)):
        finding.must(whole or grown <= most, f"{name} {grown:.0f} of {most:.0f} MB above idle")
    finding.must(seen.shared_grown <= FILES_MB, f"memory files {seen.shared_grown:.0f} MB")
    finding.must(seen.failed == 0, f"/livez always says yes: {seen.failed} of {seen.asked} not")
    finding.must(seen.asked > 0, "/livez is asked")
    slowest = max(pictures.seconds, default=0.0)
    finding.timely(seen.longest <= ALIVE_WITHIN, f"/livez within {1e3 * ALIVE_WITHIN:.0f} ms")
    finding.timely(stopped or slowest <= GOOD_WITHIN + DECODING, "a good picture in time")
    finding.note(
        f"HTTP process {front:+.0f} MB, worker {worker:+.0f} MB, memory files"
        f" {seen.shared_grown:+.0f} MB, /livez {1e3 * seen.longest:.0f} ms at most, good picture"
        f" {slowest:.2f} s, good text {max(texts.seconds, default=0.0):.2f} s;"
        f" said: {dict(target.said.most_common())}"
    )
    failures = [what for what in target.said if what.startswith("500")]
    finding.must(not failures, f"what is refused is named: {failures}")


async def stopped_worker(stage: Stage, finding: Finding) -> None:
    """Large pictures whose clients leave while the image worker stands still."""
    async with attacked(stage) as target:
        worker = await _image_worker(target.server)
        os.kill(worker, signal.SIGSTOP)
        try:
            await left_pictures(target)
            await asyncio.sleep(1.0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)
    judge(stage, finding, target, stopped=True)


async def _image_worker(server: ServerProcess) -> int:
    """The worker that spends its time when a picture is embedded."""
    before = {pid: cpu_seconds(pid) for pid in workers(server)}
    for number in range(4):
        picture = drawn_picture(f"whose {number}", canvas=(1500, 1500))
        await post(server.url, IMAGE, picture, {"content-type": PNG})
    return max(before, key=lambda pid: cpu_seconds(pid) - before[pid])


async def all_of_it(stage: Stage, finding: Finding) -> None:
    """All attacks at once, again and again, with good clients beside them; then memory is flat."""
    async with attacked(stage, clients=2) as target:
        before = _sizes(target.server)
        target.long = False
        ends = time.monotonic() + stage.of(120.0, 8.0)

        async def again(attack: Attack) -> None:
            rng = Random(attack.__name__)
            while time.monotonic() < ends:
                await attack(target)
                await asyncio.sleep(rng.uniform(0.0, 1.0))

        async def settled() -> bool:
            now = _sizes(target.server)
            return all(now[pid] - before[pid] <= LEFT_MB / 2 for pid in now.keys() & before.keys())

        await asyncio.gather(*(again(attack) for attack in ATTACKERS))
        with contextlib.suppress(TimeoutError):
            await until(settled, SETTLES_WITHIN, every=0.5)
    judge(stage, finding, target, whole=True)


def _sizes(server: ServerProcess) -> dict[int, float]:
    return {pid: Vitals.of([pid]).resident_mb for pid in server.family()}


ATTACKERS = (
    left_pictures, unread_answers, amplification, slow_decoding, costly_json, wrong_base64,
    half_bodies, many_patches, wide_pixels,
)  # fmt: skip


def under(attack: Attack, *flags: str) -> Play:
    """A play of it alone, on a server with these flags."""

    async def play(stage: Stage, finding: Finding) -> None:
        async with attacked(stage, *flags) as target:
            await attack(target)
        judge(stage, finding, target)

    play.__doc__ = attack.__doc__
    return play
