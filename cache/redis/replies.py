"""Replies of Redis (RESP2) as values, read by one who does not trust their lengths.

A parser written in C makes room for as many values as a reply announces: thirteen bytes that
announce a thousand million keep it busy for ten seconds. Here nothing is made before it has come,
a list has at most as many values as were asked for, and no list lies in another.

Replies that came in one piece with values of one length, which is what hits are, take a way of
their own that is as fast as the parser in C.
"""

from __future__ import annotations

import re
from typing import Any

from redis.exceptions import InvalidResponse, ResponseError

PART = object()  # the reply is not whole yet

LONGEST_ERROR = 1 << 12  # bytes
LONGEST_HEAD = 24  # bytes in which a length has ended
# values have at most 99,999 bytes: a vector of 24,000 numbers
_VALUE = re.compile(rb"\$(\d{1,5})\r\n").match
_LIST = re.compile(rb"\*(\d{1,9})\r\n\$(\d{1,5})\r\n").match


class Replies:
    """Of one connection. `most` is how many values a list may have."""

    def __init__(self) -> None:
        self.most = 0
        self._data: bytes | bytearray = b""
        self._at = 0
        self._values: list[Any] | None = None  # of the list under way
        self._lacks = 0  # values of it that are still to come

    def feed(self, data: bytes) -> Any:
        """The reply that is whole with this, or `PART`. An error is a `ResponseError` that is
        returned. Raises InvalidResponse: what has come is not one reply to the question."""
        if self._data:
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            self._data += data
        elif (alike := _alike(data, self.most)) is not None:
            return alike
        else:
            self._data = data
        reply = self._reply()
        if reply is not PART:
            if self._at < len(self._data):
                raise InvalidResponse("bytes after the reply")
            self._data, self._at = b"", 0
        return reply

    def _reply(self) -> Any:
        if self._values is None:
            if self._data[:1] != b"*":
                return self._one()
            line = self._line()
            if line is None:
                return PART
            if not line[1:].isdigit() or int(line[1:]) > self.most:
                raise InvalidResponse("another list than was asked for")
            self._values, self._lacks = [], int(line[1:])
        if not self._fill(self._values):
            return PART
        values, self._values = self._values, None
        return values

    def _fill(self, values: list[Any]) -> bool:
        """Take the values that are here; whether the list is whole."""
        data, at = self._data, self._at
        while self._lacks:
            head = _VALUE(data, at)
            if head is None:
                self._at = at
                value = self._one()
                if value is PART:
                    return False
                at = self._at
            else:
                start = head.end()
                end = start + int(head[1])
                if len(data) < end + 2:
                    self._at = at
                    return False
                value, at = bytes(data[start:end]), end + 2
            values.append(value)
            self._lacks -= 1
        self._at = at
        return True

    def _one(self) -> Any:
        """A line, an error, no value, or `PART`, of which nothing is taken."""
        line = self._line()
        if line is None:
            return PART
        if line[:1] == b"+":
            return line[1:]
        if line[:1] == b"-":
            said = line[1:].decode(errors="replace")
            return ResponseError(said, status_code=said.partition(" ")[0])
        if line == b"$-1":
            return None
        raise InvalidResponse("a value that was not asked for")

    def _line(self) -> bytes | None:
        """The next one, without its end; `None`: its end has not come."""
        kind = self._data[self._at : self._at + 1]
        if kind not in (b"", b"+", b"-", b"$", b"*"):
            raise InvalidResponse("no such kind of value")
        longest = LONGEST_ERROR if kind in (b"+", b"-") else LONGEST_HEAD
        end = self._data.find(b"\r\n", self._at, self._at + longest)
        if end >= 0:
            line, self._at = bytes(self._data[self._at : end]), end + 2
            return line
        if len(self._data) - self._at >= longest:
            raise InvalidResponse("a line that does not end")
        return None


def _alike(data: bytes, most: int) -> list[bytes] | None:
    """All values of a list that is here whole, where they have one length."""
    heads = _LIST(data)
    if heads is None:
        return None
    count, size = int(heads[1]), int(heads[2])
    first, start = heads.end(1) + 2, heads.end()
    step = start - first + size + 2
    if count > most or len(data) != first + count * step:
        return None
    if count == 1:
        return [data[start:-2]]
    head = data[first:start]
    if {data[at : at + len(head)] for at in range(first, len(data), step)} != {head}:
        return None
    return [data[at : at + size] for at in range(start, len(data), step)]
