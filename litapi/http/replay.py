"""Whole answers, for requests that are repeated to the byte: the shortest way to a vector.

An answer made only of vectors from memory is kept under everything it depends on: path, `Accept`,
content type and body. A vector never changes under its fingerprint, and a process never changes its
fingerprint, so a kept answer is never staler than the vectors. Answers about images by URL are not
kept, as a URL may bring another image next time. Requests with a query string, with
`Cache-Control` or with a large body do not come here: a look-up by content costs little beside the
rest of a large request.
"""

from __future__ import annotations

from collections import OrderedDict

from cache.watcher import SILENT, Watcher
from litapi.http.answer import Answer
from litapi.http.embedder import Query
from litapi.http.request import Incoming
from litapi.http.routes import Route

Name = tuple[str, bytes, bytes, bytes]

LARGEST_BODY = 32 << 10  # bytes of a request; hashing more costs what the tier saves
SHARE = 16  # one answer may take this part of the limit
EXTRA = 1500  # bytes that CPython spends on the name, the answer, its headers and their places
NO_TIME = (b"server-timing", Query().timing())  # to read a clock would take longer than the look-up


class Replay:
    """The answers kept in one HTTP process: least recently used, bounded in bytes. `limit` 0 keeps
    nothing. For one event loop: there is no lock."""

    def __init__(self, limit: int, watcher: Watcher = SILENT) -> None:
        self.limit = limit
        self.bytes = 0
        self._watcher = watcher
        self.kept: OrderedDict[Name, Answer] = OrderedDict()

    def over(self, route: Route) -> Route:
        async def replayed(incoming: Incoming) -> Answer:
            if not _suits(incoming):
                return await route(incoming)
            given, body = incoming.headers.get, incoming.at_once()
            if body is None:
                body = await incoming.body()
            name = incoming.path, given(b"accept", b""), given(b"content-type", b""), body
            kept = self.kept.get(name)
            if kept is not None:
                return self._again(name, kept)
            answer = await route(incoming)
            if answer.hits:
                self._keep(name, answer)
            return answer

        return replayed if self.limit else route

    def _again(self, name: Name, kept: Answer) -> Answer:
        self.kept.move_to_end(name)
        self._watcher.looked_up("answer", "hit", 1)
        self._watcher.looked_up("l1", "hit", kept.hits)
        return kept

    def _keep(self, name: Name, answer: Answer) -> None:
        size = _cost(name, answer)
        if size * SHARE > self.limit or name in self.kept:
            return
        lasting = [header for header in answer.headers if header[0] != NO_TIME[0]]
        self.kept[name] = Answer(answer.body, headers=[*lasting, NO_TIME], hits=answer.hits)
        self.bytes += size
        while self.bytes > self.limit:
            oldest, gone = self.kept.popitem(last=False)
            self.bytes -= _cost(oldest, gone)
        self._watcher.bytes("answer", self.bytes)


def _cost(name: Name, answer: Answer) -> int:
    return sum(map(len, name)) + len(answer.body) + EXTRA


def _suits(incoming: Incoming) -> bool:
    headers = incoming.headers
    announced = headers.get(b"content-length", b"")
    small = len(announced) < 6 and announced.isdigit() and int(announced) <= LARGEST_BODY
    if not small or incoming.scope.get("query_string") or b"cache-control" in headers:
        return False
    # multipart is read in pieces, and its boundary is new each time
    return headers.get(b"content-type", b"")[:10].lower() != b"multipart/"
