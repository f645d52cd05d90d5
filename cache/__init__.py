"""Vectors by content: an in-process tier, Redis behind it, and the model asked once for the rest.

    cache = VectorCache(dim, MemoryTier(64 << 20), RedisStore("redis://..."))
    await cache.start()
    keys = [key(fingerprint, "t", text)]
    found = await cache.resolve(keys, cache.peek(keys), compute)

It knows numpy, redis and the standard library. It knows nothing of HTTP, of models or of torch.
"""

from cache.codec import Corrupt, Entry, decode, encode
from cache.key import Fingerprint, key
from cache.memory import MemoryTier, NegativeTier
from cache.redis.address import Address
from cache.redis.breaker import Breaker, Circuit
from cache.redis.child import RedisChild
from cache.redis.store import Lost, RedisStore
from cache.tiers import Abandoned, Compute, Found, State, Unsound, VectorCache
from cache.watcher import SILENT, Silent, Watcher

__all__ = [
    "SILENT", "Abandoned", "Address", "Breaker", "Circuit", "Compute", "Corrupt", "Entry",
    "Fingerprint", "Found", "Lost", "MemoryTier", "NegativeTier", "RedisChild", "RedisStore",
    "Silent", "State", "Unsound", "VectorCache", "Watcher", "decode", "encode", "key",
]  # fmt: skip
