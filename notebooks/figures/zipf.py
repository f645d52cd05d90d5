"""What share of look-ups a cache of some size answers, when some items are far more popular.

Nothing is modelled: the service's own memory tier is fed a stream drawn by Zipf's law, and its hits
are counted once it is full.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from random import Random

from bench.load.workload import Repeats
from cache import Entry, MemoryTier
from cache.memory import cost

DIM = 96
UNIVERSE = 5_000
DRAWS = 20_000


def stream(zipf: float, universe: int, draws: int, seed: int = 0) -> Iterator[int]:
    """Ranks of the items asked for, 0 the most popular."""
    ladder, rng = Repeats(1.0, universe, zipf).ladder(), Random(seed)
    return (min(bisect(ladder, rng.random()), universe - 1) for _ in range(draws))


def hit_ratio(zipf: float, held: float, universe: int = UNIVERSE, draws: int = DRAWS) -> float:
    """Share of hits in the second half of a stream, with room for a share `held` of the items."""
    entry = Entry(bytes(4 * DIM))
    tier = MemoryTier(round(held * universe) * cost(_key(0), entry))
    hits = 0
    for place, rank in enumerate(stream(zipf, universe, draws)):
        if tier.get(_key(rank)) is not None:
            hits += place >= draws // 2
        else:
            tier.put(_key(rank), entry)
    return hits / (draws - draws // 2)


def _key(rank: int) -> bytes:
    return b"%045d" % rank
