"""Plain sockets, for what no client library would send."""

import contextlib
import socket


def sent_and_heard(connection: socket.socket, data: bytes) -> bytes:
    """Send all that the peer takes; what it says until it closes or resets the connection.

    A peer that refuses a request while more of it is under way may reset the connection behind its
    answer: the rest can't be sent then, and the answer lies in the socket all the same.
    """
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(data)
    return everything(connection)


def everything(connection: socket.socket) -> bytes:
    """What the peer says until it closes or resets the connection."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    return b"".join(pieces)
