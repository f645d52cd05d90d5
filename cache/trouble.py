"""Why Redis does not serve: one word for metrics, one sentence for people, said once.

Look-ups ("read") and vectors to keep ("write") can fail apart: a read-only replica answers the one
and refuses the other. A reason is logged when it comes or changes, and its end is; what several
processes of a service meet at once is said by the first of them, through `said`, a byte for each
side that they share.
"""

from __future__ import annotations

import logging
import ssl

from redis.exceptions import ClusterError, InvalidResponse, RedisClusterException
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as TimedOut

from cache.watcher import Watcher

log = logging.getLogger(__name__)

SIDES = ("read", "write")
SILENT = "silent"
SENTENCES = {
    SILENT: "Redis did not answer; vectors are cached in this process only until it does.",
    "wrong_password": "Redis refuses the user or the password that the Redis URL names.",
    "not_permitted": "Redis does not permit this user to read and write vectors (MGET and SET).",
    "read_only": "Redis is a read-only replica: it takes no vectors. Name its primary.",
    "full": "Redis is full and evicts nothing: it takes no vectors. Set maxmemory-policy.",
    "loading": "Redis is still loading its data.",
    "no_database": "Redis has no database of the number that the Redis URL names.",
    "cluster": "Redis is part of a Cluster: name it as redis+cluster:// or rediss+cluster://.",
    "tls": "The TLS connection to Redis failed: its certificate or the URL's options are wrong.",
    "not_redis": "What listens at the Redis URL does not answer as Redis does.",
    "refused": "Redis refuses commands of this service.",
}
REASONS = tuple(SENTENCES)
_BY_WORD = {
    "WRONGPASS": "wrong_password",
    "NOAUTH": "wrong_password",
    "NOPERM": "not_permitted",
    "READONLY": "read_only",
    "OOM": "full",
    "LOADING": "loading",
    "MOVED": "cluster",
    "ASK": "cluster",
    "CROSSSLOT": "cluster",
    "CLUSTERDOWN": "cluster",
}
_BY_PHRASE = {  # of an ERR
    "AUTH": "wrong_password",
    "INVALID PASSWORD": "wrong_password",
    "DB INDEX": "no_database",
}
_OUTAGES = (OSError, NotConnected, TimedOut, RedisClusterException)


def reason_of(error: BaseException) -> str:
    """One of `REASONS`."""
    if isinstance(error, InvalidResponse):
        return "not_redis"
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return "tls"
    if isinstance(error, ClusterError):  # said by redis-py, which had asked the whole Cluster
        return SILENT
    word = getattr(error, "status_code", None) or ""
    phrases = _BY_PHRASE if word == "ERR" else {}
    found = (reason for phrase, reason in phrases.items() if phrase in str(error).upper())
    other = SILENT if isinstance(error, _OUTAGES) else "refused"
    return _BY_WORD.get(word) or next(found, other)


class Trouble:
    """What is wrong at present, by side."""

    def __init__(self, watcher: Watcher, said: bytearray | memoryview | None = None) -> None:
        self.now: dict[str, str] = {}
        self._watcher = watcher
        self._said = bytearray(len(SIDES)) if said is None else said

    @property
    def sentences(self) -> list[str]:
        return [SENTENCES[reason] for reason in dict.fromkeys(self.now.values())]

    def begin(self, side: str, reason: str) -> None:
        """It is there, or still there."""
        before = self.now.get(side)
        if before == reason:
            return
        if before is not None:
            self._watcher.problem(side, before, False)
        self.now[side] = reason
        self._watcher.problem(side, reason, True)
        code = 1 + REASONS.index(reason)
        if code not in self._said:
            log.warning("%s", SENTENCES[reason])
        self._said[SIDES.index(side)] = code

    def end(self, side: str) -> None:
        """That side serves again."""
        reason = self.now.pop(side, None)
        if reason is None:
            return
        self._watcher.problem(side, reason, False)
        place = SIDES.index(side)
        if self._said[place]:
            self._said[place] = 0
            log.warning("Redis serves %s again", "look-ups" if side == "read" else "writes")
