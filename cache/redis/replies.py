"""RESP2 replies as values, read without trust in the lengths that they announce.

A parser written in C makes room for as many values as a reply announces: thirteen bytes that
announce a thousand million keep it busy for ten seconds. Here nothing is made before it has come,
a list has at most as many values as were asked for, and lists do not nest. Hits, which come in one
piece and have one length, take a way of their own that is as fast as the parser in C.
"""

from __future__ import annotations

import re
from typing import Any

from redis.exceptions import InvalidResponse, ResponseError

LONGEST_VALUE = 1 << 16  # bytes: a vector of 16,000 numbers
PART = object()  # the reply is not whole yet

_HEAD = re.compile(
    rb"(?:\$(-1|\d{1,5})|\*(-1|\d{1,4})|:(-?\d{1,18})|\+([^\r\n]{0,4096})|-([^\r\n]{0,4096}))\r\n"
).match
_BULK, _LIST, _NUMBER, _STATUS, _ERROR = 1, 2, 3, 4, 5  # its groups
_PART_OF_HEAD = re.compile(
    rb"(?:(?:\$(?:-1?|\d{0,5})|\*(?:-1?|\d{0,4})|:-?\d{0,18}|[-+][^\r\n]{0,4096})\r?)?"
).fullmatch
_HITS = re.compile(rb"\*(\d{1,4})\r\n\$(\d{1,5})\r\n").match


class Malformed(InvalidResponse):
    """Not a reply, or not one to what was asked."""


class Replies:
    """Feed it what comes, ask it for replies; `most` is how many values a list may have."""

    def __init__(self) -> None:
        self.most = 0
        self._data: bytes | bytearray = b""
        self._at = 0
        self._values: list[Any] | None = None  # of the list under way
        self._lacks = 0

    def feed(self, data: bytes) -> None:
        if self._data:
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            self._data += data
        else:
            self._data = data

    def has_data(self) -> bool:
        return bool(self._data)

    def gets(self) -> Any:
        """The next reply, or `PART`. An error is a `ResponseError` that is returned.

        Raises:
            Malformed: what has come is no reply to the question.
        """
        if self._values is None:
            if (hits := self._hits()) is not None:
                return hits
            if self._data[:1] != b"*":
                return self._whole(self._value())
            if (head := self._head()) is None:
                return PART
            self._values, self._lacks, self._at = [], int(head[_LIST]), head.end()
            if self._lacks > self.most:
                raise Malformed("more values than were asked for")
        while self._lacks > 0:
            value = self._value()
            if value is PART:
                return PART
            self._values.append(value)
            self._lacks -= 1
        values, self._values = self._values, None
        return self._whole(values)

    def _whole(self, reply: Any) -> Any:
        if reply is not PART:
            self._data, self._at = self._data[self._at :], 0
        return reply

    def _hits(self) -> list[bytes] | None:
        """All values of a list that is here whole, where they have one length."""
        data = self._data
        heads = _HITS(data) if isinstance(data, bytes) else None
        if heads is None:
            return None
        count, size = int(heads[1]), int(heads[2])
        first, start = heads.end(1) + 2, heads.end()
        step = start - first + size + 2
        if count > self.most or size > LONGEST_VALUE or len(data) != first + count * step:
            return None
        if count == 1:
            self._data = b""
            return [data[start:-2]]  # type: ignore[list-item]
        head = data[first:start]
        if {data[at : at + len(head)] for at in range(first, len(data), step)} != {head}:
            return None
        self._data = b""
        return [data[at : at + size] for at in range(start, len(data), step)]  # type: ignore[misc]

    def _head(self) -> re.Match[bytes] | None:
        """The line at which a value begins; none while it is not whole."""
        head = _HEAD(self._data, self._at)
        if head is None and not _PART_OF_HEAD(self._data, self._at):
            raise Malformed("no reply, or a length beyond what was asked for")
        return head

    def _value(self) -> Any:
        head = self._head()
        if head is None:
            return PART
        end, kind = head.end(), head.lastindex
        if kind == _BULK and (size := int(head[_BULK])) >= 0:
            start, end = end, end + size + 2
            if size > LONGEST_VALUE:
                raise Malformed("a value longer than was ever written")
            if len(self._data) < end:
                return PART
            self._at = end
            return bytes(self._data[start : end - 2])
        self._at = end
        if kind == _LIST:
            raise Malformed("a list in a list")
        if kind == _ERROR:
            return ResponseError(head[_ERROR].decode(errors="replace"))
        if kind == _STATUS:
            return head[_STATUS]
        return int(head[_NUMBER]) if kind == _NUMBER else None
