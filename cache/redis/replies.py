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

from redis.exceptions import ResponseError

LONGEST_LINE = 1 << 12  # bytes, of an error
LONGEST_VALUE = 1 << 16  # bytes: a vector of 16,000 numbers
PART = object()  # the reply is not whole yet

_HEAD = 24  # bytes in which a length has ended
_VALUE = re.compile(rb"\$(\d{1,9})\r\n").match
_LIST = re.compile(rb"\*(\d{1,9})\r\n\$(\d{1,9})\r\n").match


class Malformed(Exception):
    """Not a reply, or not one to what was asked."""


class Replies:
    """Feed it what comes, ask it for replies; `most` is how many values a list may have."""

    def __init__(self) -> None:
        self.most = 0
        self._data: bytes | bytearray = b""
        self._at = 0
        self._lacks = -1  # values that the list under way still lacks; below 0: there is none
        self._values: list[Any] = []

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
        """The next reply, or `PART`. An error is a `ResponseError` that is returned. Raises
        Malformed: what has come is no reply to the question."""
        if self._lacks < 0:
            if self._data[:1] != b"*":
                return self._whole(self._one())
            alike = self._alike()
            if alike is not None:
                return alike
            count = self._length()
            if count is None:
                return PART
            self._lacks, self._values = count, []
        if not self._fill():
            return PART
        self._lacks = -1
        return self._whole(self._values)

    def _fill(self) -> bool:
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
                if end - start > LONGEST_VALUE:
                    raise Malformed("a length beyond what was asked for")
                if len(data) < end + 2:
                    self._at = at
                    return False
                value, at = bytes(data[start:end]), end + 2
            self._values.append(value)
            self._lacks -= 1
        self._at = at
        return True

    def _whole(self, reply: Any) -> Any:
        if reply is not PART:
            self._data, self._at = self._data[self._at :], 0
        return reply

    def _alike(self) -> list[bytes] | None:
        """All values of a list that is here whole, where they have one length."""
        data = self._data
        if not isinstance(data, bytes):
            return None
        heads = _LIST(data)
        if heads is None:
            return None
        count, size = int(heads[1]), int(heads[2])
        first, start = heads.end(1) + 2, heads.end()
        step = start - first + size + 2
        if count > self.most or size > LONGEST_VALUE or len(data) != first + count * step:
            return None
        self._data = b""
        if count == 1:
            return [data[start:-2]]
        head = data[first:start]
        if {data[at : at + len(head)] for at in range(first, len(data), step)} != {head}:
            self._data = data
            return None
        return [data[at : at + size] for at in range(start, len(data), step)]

    def _one(self) -> Any:
        kind = self._data[self._at : self._at + 1]
        if kind == b"$":
            return self._bulk()
        if kind not in (b"+", b"-", b":"):
            if kind:
                raise Malformed("no such kind of value")
            return PART
        line = self._line(LONGEST_LINE)
        if line is None:
            return PART
        if kind == b"-":
            return ResponseError(line.decode(errors="replace"))
        return line if kind == b"+" else _number(line, 1 << 62)

    def _bulk(self) -> Any:
        began = self._at
        size = self._length()
        if size is None:
            return PART
        if size < 0:
            return None
        start, end = self._at, self._at + size
        if len(self._data) < end + 2:
            self._at = began
            return PART
        self._at = end + 2
        return bytes(self._data[start:end])

    def _length(self) -> int | None:
        most = self.most if self._data[self._at] == 42 else LONGEST_VALUE
        line = self._line(_HEAD)
        return None if line is None else _number(line, most)

    def _line(self, longest: int) -> bytes | None:
        end = self._data.find(b"\r\n", self._at, self._at + longest)
        if end >= 0:
            line, self._at = bytes(self._data[self._at + 1 : end]), end + 2
            return line
        if len(self._data) - self._at >= longest:
            raise Malformed("a line that does not end")
        return None


def _number(digits: bytes, most: int = LONGEST_VALUE) -> int:
    try:
        number = int(digits)
    except ValueError:
        raise Malformed("a length that is none") from None
    if not -1 <= number <= most:
        raise Malformed("a length beyond what was asked for")
    return number
