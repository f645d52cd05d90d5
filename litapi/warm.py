"""`python -m litapi warm FILE…`: put vectors into the cache of a running server, ahead of users.

It asks the server for each text or image in the ordinary way and throws the vectors away, so
whatever was warmed once is a hit the next time, and a run that was cut short is resumed by running
it again. Files of texts hold one text a line; a folder is searched for images.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from tqdm import tqdm

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff"})
TEXTS_AT_ONCE = 64
IN_FLIGHT = 4
PATIENCE = 60  # times an overloaded server is asked again
T = TypeVar("T")


class WarmError(Exception):
    """Nothing can be warmed; its text is the line that says why."""


@dataclass(slots=True)
class Tally:
    """What became of the items: hit, miss, join, or refused."""

    states: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        known = self.states["hit-l1"] + self.states["hit-l2"]
        fresh = self.states["miss"] + self.states["join"]
        return f"{known} known, {fresh} computed, {self.states['refused']} refused"


class Warmer:
    """Sends texts and images to a server."""

    def __init__(self, url: str, key: str | None = None) -> None:
        headers = {"accept": "application/json"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._client = httpx.Client(base_url=url, timeout=120, headers=headers)
        self.tally = Tally()

    def warm(self, paths: Iterable[Path]) -> Tally:
        """Warm every text and image under `paths`.

        Raises:
            WarmError: a path is missing, or the server does not answer.
        """
        texts, images = _sort(paths)
        total = sum(1 for path in texts for _ in _lines(path)) + len(images)
        with tqdm(total=total, unit="item", desc="warming", file=sys.stderr) as bar:
            lines = itertools.chain.from_iterable(map(_lines, texts))
            self._run(self._texts, list(_batches(lines, self._texts_at_once())), bar)
            self._run(self._image, images, bar)
        return self.tally

    def _texts_at_once(self) -> int:
        """As many as the server takes in one request, if it says so."""
        answer = self._ask("GET", "/info", {})
        if answer.status_code != 200:
            return TEXTS_AT_ONCE
        return min(TEXTS_AT_ONCE, int(answer.json()["limits"]["items"]))

    def _run(self, send: Callable[[T], Counter[str]], work: list[T], bar: Any) -> None:
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            waiting: set[Future[Counter[str]]] = set()
            for one in work:
                waiting.add(pool.submit(send, one))
                if len(waiting) >= IN_FLIGHT:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    self._count(done, bar)
            self._count(waiting, bar)

    def _count(self, done: Iterable[Future[Counter[str]]], bar: Any) -> None:
        for future in done:
            states = future.result()
            self.tally.states += states
            bar.update(states.total())

    def _texts(self, texts: list[str]) -> Counter[str]:
        return self._states(len(texts), "/embed_text", {}, json={"texts": texts})

    def _image(self, path: Path) -> Counter[str]:
        headers = {"content-type": "application/octet-stream"}
        return self._states(1, "/embed_image", headers, content=path.read_bytes())

    def _states(self, n: int, path: str, headers: dict[str, str], **body: Any) -> Counter[str]:
        answer = self._ask("POST", path, headers, **body)
        if answer.status_code in (401, 403):
            raise WarmError("the server refuses this key")
        if answer.status_code >= 400:
            return Counter({"refused": n})
        refused = {fault["index"] for fault in answer.json().get("errors") or []}
        states = answer.headers["x-cache"].split(",")
        return Counter("refused" if i in refused else state for i, state in enumerate(states))

    def _ask(self, how: str, path: str, headers: dict[str, str], **body: Any) -> httpx.Response:
        for _ in range(PATIENCE):
            try:
                answer = self._client.request(how, path, headers=headers, **body)
            except httpx.TransportError:
                raise WarmError("no server answers at that URL") from None
            if answer.status_code not in (429, 503):
                return answer
            _pause(float(answer.headers.get("retry-after", "1")))
        raise WarmError("the server has been overloaded for too long")


def _pause(seconds: float) -> None:
    time.sleep(min(seconds, 10.0))


def _sort(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    texts: list[Path] = []
    images: list[Path] = []
    for path in paths:
        if not path.exists():
            raise WarmError(f"{path.name} does not exist")
        if path.is_dir():
            images += sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        else:
            (images if path.suffix.lower() in SUFFIXES else texts).append(path)
    return texts, images


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        yield from (line.rstrip("\r\n") for line in lines if line.strip())


def _batches(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(lines)
    while batch := list(itertools.islice(rest, size)):
        yield batch
