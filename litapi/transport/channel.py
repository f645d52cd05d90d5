"""A queue of messages between processes that the kernel keeps.

It is one connected pair of Unix sockets with message boundaries. Any number of processes may put
and any number may get: each message goes whole to exactly one of them, in order. No lock is shared,
so a process that is killed at any moment leaves the queue as it was. A large message travels as a
file in memory, of which only the descriptor is sent. LitServe's own queue takes each message
through a third process, twice; the names here are those of `queue.Queue`, so that its loops can
use this one too.
"""

from __future__ import annotations

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
from collections.abc import Iterator
from typing import Any

log = logging.getLogger("siglit.channel")

INLINE_BYTES = 64 << 10  # a larger message goes through a file in memory
BUFFER_BYTES = 4 << 20  # asked of the kernel for what is under way; it may give less
FULL = 2e-3  # seconds before a message that found no room is tried again
_FD = 4  # bytes of a descriptor
_RIGHTS = socket.CMSG_SPACE(_FD)
_LATER = int(socket.MSG_DONTWAIT)  # as numbers: the enum's own "or" costs more than the call
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_CUT = int(socket.MSG_CTRUNC)
_PROTOCOL = 5
# The kernel's buffer is full; too many descriptors are under way; no descriptor or memory is left.
_NO_ROOM = {errno.ENOBUFS, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


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
        self._parked: deque[bytes] = deque()  # of this process only
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
        """Close both ends, for this process."""
        self._out.close()
        self._in.close()
        while self._spare:
            os.close(self._spare.pop())

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Send; never waits. What finds no room is sent in order by a thread as room comes."""
        del block, timeout
        message = pickle.dumps(item, _PROTOCOL)
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
        if block and timeout is not None:
            self._await(self._in, select.POLLIN, timeout)
        waits = block and timeout is None
        try:
            message = self._receive(0 if waits else _LATER)
        except BlockingIOError:
            raise queue.Empty from None
        if message is None:
            return self.get(block, timeout)
        return _unpacked(message)

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
            if message is not None:
                yield _unpacked(message)

    def empty(self) -> bool:
        """Whether there is nothing to get at the moment."""
        return not self._await(self._in, select.POLLIN, 0.0)

    def _receive(self, flags: int) -> bytes | None:
        """The bytes of the next message; none if they were in a file that found no descriptor."""
        if self._spare:
            os.close(self._spare.pop())
        try:
            message, control, told, _ = self._in.recvmsg(INLINE_BYTES, _RIGHTS, flags | _CLOEXEC)
            if control:
                return _read(int.from_bytes(control[0][2][:_FD], "little"))
            if told & _CUT:
                log.error("a message was lost: this process has no descriptor left for its file")
                return None
            return message
        finally:
            try:
                self._spare.append(os.dup(self._in.fileno()))
            except OSError:  # none is left: the next message may be lost
                log.debug("this process has no descriptor to spare")

    def _offer(self, message: bytes) -> bool:
        """Hand it to the kernel; whether there was room."""
        try:
            if len(message) <= self._inline:
                self._out.send(message, _LATER)
            else:
                self._offer_file(message)
        except OSError as error:
            if isinstance(error, BlockingIOError) or error.errno in _NO_ROOM:
                return False
            raise
        return True

    def _offer_file(self, message: bytes) -> None:
        descriptor = os.memfd_create("siglit-message", os.MFD_CLOEXEC)
        try:
            rest = memoryview(message)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor.to_bytes(_FD, "little"))
            self._out.sendmsg([b"\0"], [rights], _LATER)
        finally:
            os.close(descriptor)

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


def _unpacked(message: bytes) -> Any:
    if not message:
        raise EOFError
    return pickle.loads(message)


def _read(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:  # takes the descriptor over
        file.seek(0)  # the sender wrote through the same position
        return file.read()
