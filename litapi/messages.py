"""What crosses the wire between an HTTP process and a worker, and the items of a request.

One `Job` goes to a tower for each request, never one for each item; one `Reply` comes back with
raw float32 rows. Both are plain data: they pickle small, and FastAPI can read and write them too,
so that the towers also run under LitServe's stock loop and route.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from pydantic import ConfigDict

JobId = tuple[int, int]  # a slot in the ledger, and the number of the job that owns it
NO_ID: JobId = (0, 0)

Kind = Literal["text", "image"]
KINDS: tuple[Kind, ...] = ("text", "image")


class Digest(bytes):
    """The sha256 of an image's encoded bytes, which did not come."""

    __slots__ = ()


class Item(NamedTuple):
    """One thing to embed: a text, or the encoded bytes of an image, or only their `Digest`."""

    kind: Kind
    payload: str | bytes

    @property
    def by_digest(self) -> bool:
        return isinstance(self.payload, Digest)


@dataclass(slots=True)
class Job:
    """The items of one request for one tower.

    `items` are texts, or encoded images (base64 where they came through JSON).
    `max_num_patches` 0 means the checkpoint's own. `ending` keeps the last tokens of a text that
    is too long instead of the first. `deadline` is on the clock of
    `time.monotonic`, which Linux shares between processes, and so is `sent`.
    """

    items: list[str] | list[bytes]
    max_num_patches: int = 0
    deadline: float = math.inf
    sent: float = 0.0
    bulk: bool = False
    ending: bool = False
    id: JobId = NO_ID  # while it is under way


@dataclass(slots=True)
class Reply:
    """The answer to one `Job`, item by item in the order they were sent.

    `vectors` holds `len(tokens)` rows of little-endian float32, a row of zeros for an item named
    in `errors` (index → stable code). `tokens` counts text tokens, or patches of an image.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_bytes="base64")

    vectors: bytes
    tokens: list[int]
    truncated: list[int] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    queue_seconds: float = 0.0
    decode_seconds: float = 0.0
    infer_seconds: float = 0.0


def joined(replies: Sequence[Reply]) -> Reply:
    """Replies to the portions of a job as the reply to all of it, in order."""
    size = max(len(reply.vectors) // max(1, len(reply.tokens)) for reply in replies)
    starts = itertools.accumulate((len(reply.tokens) for reply in replies), initial=0)
    placed = list(zip(starts, replies, strict=False))  # there is one more end than starts
    return Reply(
        vectors=b"".join(one.vectors or bytes(size * len(one.tokens)) for one in replies),
        tokens=[tokens for reply in replies for tokens in reply.tokens],
        truncated=[start + i for start, reply in placed for i in reply.truncated],
        errors={start + i: code for start, reply in placed for i, code in reply.errors.items()},
        queue_seconds=max(reply.queue_seconds for reply in replies),
        decode_seconds=sum(reply.decode_seconds for reply in replies),
        infer_seconds=sum(reply.infer_seconds for reply in replies),
    )
