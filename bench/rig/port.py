"""Ports for servers that are started here.

The kernel hands out the upper ports (from 32768 on Linux) to every outgoing connection, so one of
those that is free now may be taken before the server listens on it. These lie below, and so does
the second port of a Redis Cluster node, 10 000 above its first. A port is given once: as long as
this process lives it holds the UDP port of the same number, which keeps others from it.
"""

from __future__ import annotations

import contextlib
import random
import socket

LOWEST, PORTS = 10_000, 10_000
_any = random.SystemRandom()  # two test workers that were seeded alike must not meet
_given: list[socket.socket] = []


def free_port() -> int:
    """A port of this machine that nobody listens on, and that nobody else will be given.

    Raises OSError where none is left.
    """
    for offset in _any.sample(range(PORTS), PORTS):
        place = "127.0.0.1", LOWEST + offset
        mark = socket.socket(type=socket.SOCK_DGRAM)
        with contextlib.suppress(OSError), socket.socket() as probe:
            mark.bind(place)
            probe.bind(place)
            _given.append(mark)
            return place[1]
        mark.close()
    raise OSError("no port is free")
