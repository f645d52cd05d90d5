"""A tower's body on a GPU, compiled by inductor for a few batch sizes and no other shape.

A shape that was not compiled would stop the worker for half a minute, so batches are padded to
sizes that were warmed up before the tower is ready: up by a third or a few rows, for launching
costs as much, and cut where it would be more. One layer is compiled and called for each of them,
which takes a fifth of the time of the whole body; what follows the layers is compiled beside it.

Inductor keeps what it compiled on disk: a restart traces again, but compiles nothing. It runs in
this process alone, for compile processes of its own would outlive a worker that is killed. The
settings of torch that are not public are all touched here.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import config as dynamo
from torch._inductor import config as inductor

from litapi.model.engines.layers import Part

log = logging.getLogger("siglit.compiled")

COMPILING = "compiling the %s tower for batches of %d (%d of %d)"
SIZES = {"text": (1, 8, 32, 128, 256), "image": (1, 4, 16, 64)}
SPARE = {"text": 7, "image": 1}  # rows that cost less than another launch
OPTIONS: dict[str, Any] = {"compile_threads": 1}
# Of one function in a process, which may have several towers; torch stops at 8.
MOST_SHAPES = 64


def keep_in(folder: Path) -> None:
    """Let inductor keep what it compiles in `folder`; made for this user alone, for it is code."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def by_inductor(part: Part) -> Part:
    """What a body's `made` is where it is compiled."""
    return torch.compile(part, fullgraph=True, dynamic=False)


class Compiled:
    """Calls like the body it is made of, for items of the one shape that `warm` was shown."""

    def __init__(self, body: nn.Module, kind: str) -> None:
        """Takes a body made `by_inductor`."""
        self.kind = kind
        self.sizes = SIZES[kind]
        self._body = body

    def warm(self, *item: Tensor) -> None:
        """Compile every size, for inputs shaped like those of `item`, a batch of one."""
        for count, size in enumerate(self.sizes, 1):
            log.info(COMPILING, self.kind, size, count, len(self.sizes))
            began = time.monotonic()
            with inductor.patch(OPTIONS), dynamo.patch(recompile_limit=MOST_SHAPES):
                self._body(*(one.expand(size, *one.shape[1:]).contiguous() for one in item))
            log.info("compiled in %.1f s", time.monotonic() - began)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """As the body, for any number of items above 0."""
        done, rows = 0, []
        while done < len(inputs[0]):
            take, size = self.piece(len(inputs[0]) - done)
            padded = [_padded(one[done : done + take], size) for one in inputs]
            rows.append(self._body(*padded)[:take])
            done += take
        return torch.cat(rows)

    def piece(self, items: int) -> tuple[int, int]:
        """How many of `items` to take next, and the size they are computed in."""
        above = next((size for size in self.sizes if size >= items), None)
        if above and above - items <= max(items // 3, SPARE[self.kind]):
            return items, above
        size = max(size for size in self.sizes if size <= items)
        return size, size


def _padded(rows: Tensor, size: int) -> Tensor:
    """`rows` with the first one repeated up to `size`: a row of zeros would be masked whole."""
    if len(rows) == size:
        return rows.contiguous()
    return torch.cat([rows, rows[:1].expand(size - len(rows), *rows.shape[1:])])
