"""A queue of messages between processes that the kernel keeps.

It is one connected pair of Unix sockets with message boundaries. Any number of processes may put
and any number may get: each message goes whole to exactly one of them, in order. No lock is shared,
so a process that is killed at any moment leaves the queue as it was. A large message travels as a
file in memory, of which only the descriptor is sent. Such a message can be taken back until it is
got: its sender keeps the file's descriptor, and empties the file. LitServe's own queue takes each
message through a third process, twice; the names here are those of `queue.Queue`, so that its loops
can use this one too.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pickle
import queue
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

log = logging.getLogger("siglit.channel")

INLINE_BYTES = 64 << 10  # a larger message goes through a file in memory
BUFFER_BYTES = 4 << 20  # asked of the kernel for what is under way; it may give less
PART_BYTES = 1 << 20  # of a large message, between two looks whether it is still wanted
FULL = 2e-3  # seconds before a message that found no room is tried again
_FD = 4  # bytes of a descriptor
_RIGHTS = socket.CMSG_SPACE(_FD)
_LATER = int(socket.MSG_DONTWAIT)  # as numbers: the enum's own "or" costs more than the call
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_CUT = int(socket.MSG_CTRUNC)
_PROTOCOL = 5
# The kernel's buffer is full; too many descriptors are under way; no descriptor or memory is left.
_NO_ROOM = {errno.ENOBUFS, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_LOST: Any = object()  # in place of a message that was lost or taken back


class Parcel:
    """A large message on its way, as its sender knows it: pieces, then a file, then neither.

    Its lock is never held while bytes are copied: an event loop that takes the message back, or
    sends a small one, must not wait for the thread that writes a large one.
    """

    def __init__(self, item: Any) -> None:
        self._lock = threading.Lock()
        self._pieces: list[bytes] = []
        self._file: int | None = None
        pickle.Pickler(_Writer(self._pieces), _PROTOCOL).dump(item)  # copies no large bytes

    def take_back(self) -> None:
        """Free what it holds. Whoever gets the message later finds it empty and drops it."""
        with self._lock:
            self._pieces = []
            file, self._file = self._file, None
        if file is not None:
            os.ftruncate(file, 0)
            os.close(file)

    def write(self) -> None:
        """Move the pieces to a file, unless it was taken back. Raises OSError without room."""
        pieces = self._pieces
        if not pieces:
            return
        file = os.memfd_create("siglit-message", os.MFD_CLOEXEC)
        kept = False
        try:
            for part in _parts(pieces):
                if self._pieces is not pieces:  # it was taken back meanwhile
                    return
                _write(file, part)
            with self._lock:
                if self._pieces is pieces:
                    self._file, self._pieces, kept = file, [], True
        finally:
            if not kept:
                os.close(file)

    def offer(self, end: socket.socket) -> None:
        """Hand it to the kernel, unless it was taken back. Raises OSError without room for it."""
        self.write()
        with self._lock:
            if self._file is not None:
                _send_descriptor(end, self._file)


class _Writer:
    """The file that a pickler writes to: it keeps the pieces as they are."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.write = pieces.append


class Channel:
    """A queue for the processes that this one starts; hand it to them when they are started."""

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        room = self._out.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._inline = min(INLINE_BYTES, room // 4)  # a message larger than its room never fits
        self._lay()

    def _lay(self) -> None:
        self._lock = threading.Lock()
        self._parked: deque[bytes | Parcel] = deque()  # of this process only
        self._spare: deque[int] = deque()  # a descriptor whose place a sent file can take
        self._sender: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_out": self._out, "_in": self._in, "_inline": self._inline}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lay()

    def fileno(self) -> int:
        """The descriptor that is readable while there is something to get."""
        return self._in.fileno()

    def close(self) -> None:
        self._out.close()
        self._in.close()
        while self._spare:
            os.close(self._spare.pop())

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Send; never waits. What finds no room is sent in order by a thread as room comes."""
        del block, timeout
        self.post(pickle.dumps(item, _PROTOCOL))

    def post(self, message: bytes | Parcel) -> None:
        """As `put`, for what is pickled already. A parcel may be taken back."""
        if isinstance(message, Parcel):
            with contextlib.suppress(OSError):  # then it waits for room like any other
                message.write()
        with self._lock:
            if not self._parked and self._offer(message):
                return
            self._parked.append(message)
            if self._sender is None:
                self._sender = threading.Thread(target=self._send_parked, daemon=True)
                self._sender.start()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next message.

        Raises:
            queue.Empty: there is none, or none came within `timeout` seconds.
            EOFError: nobody can put any more.
        """
        waits = block and timeout is None
        message = _LOST
        while message is _LOST:
            if block and timeout is not None:
                self._await(self._in, select.POLLIN, timeout)
            try:
                message = self._receive(0 if waits else _LATER)
            except BlockingIOError:
                raise queue.Empty from None
        return message

    def get_nowait(self) -> Any:
        """The next message, if there is one; else `queue.Empty`."""
        return self.get(block=False)

    def take(self, most: int) -> Iterator[Any]:
        """What is there to get at the moment, but no more than so many. Raises as `get` does."""
        for _ in range(most):
            try:
                message = self._receive(_LATER)
            except BlockingIOError:
                return
            if message is not _LOST:
                yield message

    def empty(self) -> bool:
        return not self._await(self._in, select.POLLIN, 0.0)

    def _receive(self, flags: int) -> Any:
        """The next message; `_LOST` if its file found no descriptor here, or was emptied."""
        if self._spare:
            os.close(self._spare.pop())
        try:
            message, control, told, _ = self._in.recvmsg(INLINE_BYTES, _RIGHTS, flags | _CLOEXEC)
            if control:
                return _read(int.from_bytes(control[0][2][:_FD], "little"))
            if told & _CUT:
                log.error("a message was lost: this process has no descriptor left for its file")
                return _LOST
            if not message:
                raise EOFError
            return pickle.loads(message)
        finally:
            try:
                self._spare.append(os.dup(self._in.fileno()))
            except OSError:  # none is left: the next message may be lost
                log.debug("this process has no descriptor to spare")

    def _offer(self, message: bytes | Parcel) -> bool:
        """Hand it to the kernel; whether there was room."""
        try:
            if isinstance(message, Parcel):
                message.offer(self._out)
            elif len(message) <= self._inline:
                self._out.send(message, _LATER)
            else:
                _send_file(self._out, message)
        except OSError as error:
            if isinstance(error, BlockingIOError) or error.errno in _NO_ROOM:
                return False
            raise
        return True

    def _send_parked(self) -> None:
        while True:
            self._await(self._out, select.POLLOUT, 1.0)
            with self._lock:
                while self._parked and self._offer(self._parked[0]):
                    self._parked.popleft()
                if not self._parked:
                    self._sender = None
                    return
            time.sleep(FULL)

    @staticmethod
    def _await(end: socket.socket, event: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(end, event)
        return bool(poll.poll(seconds * 1e3))


def _send_file(end: socket.socket, message: bytes) -> None:
    """Send it in a file."""
    file = os.memfd_create("siglit-message", os.MFD_CLOEXEC)
    try:
        _write(file, memoryview(message))
        _send_descriptor(end, file)
    finally:
        os.close(file)


def _parts(pieces: Iterable[bytes]) -> Iterator[memoryview]:
    """Views of at most `PART_BYTES` each."""
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), PART_BYTES):
            yield view[start : start + PART_BYTES]


def _write(file: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(file, rest) :]


def _send_descriptor(end: socket.socket, file: int) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, file.to_bytes(_FD, "little"))
    end.sendmsg([b"\0"], [rights], _LATER)


def _read(descriptor: int) -> Any:
    """What is in the file, which is emptied; `_LOST` where its sender took the message back."""
    with open(descriptor, "r+b") as file:  # takes the descriptor over
        file.seek(0)  # the sender wrote through the same position
        try:
            item = pickle.load(file)  # large bytes are read once, into their place
        except (EOFError, pickle.UnpicklingError):
            if os.fstat(descriptor).st_size:
                raise
            return _LOST
        file.truncate(0)  # its sender may have it open for as long as the work takes
        return item
