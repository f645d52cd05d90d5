"""Ports for servers that are started here.

The kernel hands out the upper ports (from 32768 on Linux) to every outgoing connection, so one of
those that is free now may be taken before the server listens on it. These lie below, and so does
the second port of a Redis Cluster node, 10 000 above its first.
"""

from __future__ import annotations

import contextlib
import random
import socket

LOWEST, PORTS = 10_000, 10_000
_any = random.SystemRandom()  # two test workers that were seeded alike must not meet


def free_port() -> int:
    """A port of this machine that nobody listens on now, and that no client will be given."""
    while True:
        port = LOWEST + _any.randrange(PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
