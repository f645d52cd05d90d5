"""A stand-in for the workers: the right vector of every item is known, and every job is kept."""

import asyncio
from collections.abc import Mapping
from hashlib import sha256

import numpy as np

from litapi.messages import Job, Kind, Reply
from litapi.transport.client import ANYONE, Asker

DIM = 8


def vector_of(kind: Kind, payload: str | bytes, patches: int = 0, dim: int = DIM) -> bytes:
    """The only right vector for this item: unit length, and another for any other item."""
    content = payload.encode() if isinstance(payload, str) else payload
    seed = sha256(b"%s %d " % (kind.encode(), patches if kind == "image" else 0) + content).digest()
    row = np.random.default_rng(int.from_bytes(seed[:8], "big")).standard_normal(dim)
    return (row / np.linalg.norm(row)).astype("<f4").tobytes()


class Towers:
    """What stands behind the embedder: it computes from the item's bytes and keeps every job."""

    def __init__(self, refuse: Mapping[str | bytes, str] | None = None, dim: int = DIM) -> None:
        self.refuse = dict(refuse or {})
        self.failure: Exception | None = None
        self.jobs: list[tuple[Kind, Job]] = []
        self.askers: list[Asker] = []
        self.gate: asyncio.Event | None = None
        self.dim = dim

    async def submit(self, kind: Kind, job: Job, asker: Asker = ANYONE) -> Reply:
        self.askers.append(asker)
        self.jobs.append((kind, job))
        await (self.gate.wait() if self.gate else asyncio.sleep(0))
        if self.failure is not None:
            raise self.failure
        items: list[str | bytes] = [*job.items]
        errors = {i: self.refuse[one] for i, one in enumerate(items) if one in self.refuse}
        rows = [
            bytes(4 * self.dim)
            if i in errors
            else vector_of(kind, one[-64:] if job.ending else one, job.max_num_patches, self.dim)
            for i, one in enumerate(items)
        ]
        cut = [i for i, one in enumerate(items) if isinstance(one, str) and len(one) > 64]
        tokens = [len(one) for one in items]
        return Reply(b"".join(rows), tokens, cut, errors, 0.004, 0.002, 0.001)

    @property
    def sent(self) -> list[tuple[Kind, list[str] | list[bytes]]]:
        """What each job held, in the order the jobs came."""
        return [(kind, job.items) for kind, job in self.jobs]

    def take(self) -> list[tuple[Kind, list[str] | list[bytes]]]:
        """What was sent since the last call."""
        sent = self.sent
        self.jobs.clear()
        return sent
