"""`python -m litapi warm FILE…`: put vectors into the cache of a running server, ahead of users.

It asks for each text or picture in the ordinary way and throws the vectors away, so whatever was
warmed once is a hit the next time, and a run that was cut short is resumed by running it again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from litapi.arguments import arguments, chunks
from litapi.client import Client

CHUNK = 1024


@dataclass(slots=True)
class Tally:
    known: int = 0
    computed: int = 0
    refused: int = 0

    def __str__(self) -> str:
        return f"{self.known} known, {self.computed} computed, {self.refused} refused"


def warm(paths: Sequence[Path], url: str, key: str | None) -> Tally:
    """Warm every text and picture under `paths`. Raises ArgumentError, ClientError: a path is
    missing, or the server does not answer."""
    tally, found = Tally(), arguments(paths)
    with Client(url, key, priority="bulk") as client, tqdm(unit="item", file=sys.stderr) as bar:
        for kind, items in chunks(found, CHUNK):
            embed = client.embed_texts if kind == "text" else client.embed_images
            done = embed(items, on_error="return")
            known, refused = int(done.cached.sum()), len(done.errors)
            tally.known += known
            tally.refused += refused
            tally.computed += len(items) - known - refused
            bar.update(len(items))
    return tally
