"""Who asks, as shares and classes are counted."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """One that has a share: an API key, or an address where the server has no keys."""

    who: Hashable = b""
    name: str = ""  # in metrics and logs; empty for an address
    weight: float = 1.0
    in_flight: float = 0  # items at most; 0: no limit of its own


@dataclass(frozen=True, slots=True)
class Asker:
    """A client with one request: its class, and until when it waits by time.monotonic."""

    client: Client = Client()
    bulk: bool = False
    deadline: float = math.inf

    @property
    def described(self) -> bytes:
        """Class and client for a `Server-Timing` metric, where either is not the usual one."""
        said = f"{'bulk' if self.bulk else 'interactive'} {self.client.name}".strip()
        return f';desc="{said}"'.encode() if self.bulk or self.client.name else b""


ANYONE = Asker()
