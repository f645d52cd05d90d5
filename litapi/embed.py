"""`python -m litapi embed FILE…`: vectors of texts and pictures, from a server or in this process.

What comes out is JSON lines, a matrix (.npy; a refused item's row is NaN) or Parquet, in the order
of the arguments. A file is there whole or not at all.

`python -m litapi warm FILE…` asks a server in the same way and throws the vectors away: what was
warmed once is a hit the next time, and a run that was cut short is resumed by running it again.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from litapi.arguments import Argument, ArgumentError, arguments, chunks
from litapi.checkpoint import SPACE_KEY
from litapi.client import Client, Embedded
from litapi.quality.source import Ask, Source
from litapi.settings import Settings

CHUNK = 1024
Part = tuple[list[str], Embedded]


def embed(paths: Sequence[Path], out: Path | None, ask: Ask) -> int:
    """Embed what is under `paths` and write it; how many items were refused. Raises ArgumentError:
    a path is missing, or `out` has a suffix that is not written."""
    write, found, tally = _writer(out), arguments(paths), Counter[str]()
    with _opened(out) as stream:
        write(_parts(found, ask, tally, hidden=None), stream)
    return tally["refused"]


def warm(paths: Sequence[Path], ask: Ask) -> str:
    """Ask for every text and picture under `paths`; how many were known. Raises ArgumentError."""
    tally = Counter[str]()
    for _ in _parts(arguments(paths), ask, tally, hidden=False):
        pass
    return ", ".join(f"{tally[fate]} {fate}" for fate in ("known", "computed", "refused"))


def _parts(
    found: Sequence[Argument], ask: Ask, tally: Counter[str], hidden: bool | None
) -> Iterator[Part]:
    """With a progress bar, unless it is `hidden`: None hides it where nobody looks."""
    with tqdm(unit="item", file=sys.stderr, disable=hidden) as bar:
        for kind, items in chunks(found, CHUNK):
            embedded = ask(kind, items)
            known, refused = int(embedded.cached.sum()), len(embedded.errors)
            tally.update(known=known, refused=refused, computed=len(items) - known - refused)
            yield items, embedded
            bar.update(len(items))


@contextmanager
def opened(url: str | None, key: str | None, settings: Settings) -> Iterator[Source]:
    """The server at `url`; without one an engine of these settings, in this process."""
    if url:
        with Client(url, key, priority="bulk") as client:
            yield Source.served(url, client)
        return
    from litapi.engine import Engine

    with Engine.of(settings) as engine:
        yield Source.of(engine)


def _writer(out: Path | None) -> Callable[[Iterable[Part], Any], None]:
    if out is None:
        return _json_lines
    writers = {".jsonl": _json_lines, ".npy": _matrix, ".parquet": _parquet}
    if out.suffix not in writers:
        raise ArgumentError(f"{out.name}: only {', '.join(writers)} are written")
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ArgumentError("Parquet needs pyarrow: pip install -r requirements-bulk.txt")
    return writers[out.suffix]


@contextmanager
def _opened(out: Path | None) -> Iterator[IO[bytes]]:
    if out is None:
        yield sys.stdout.buffer
        return
    partial = out.with_name(f".{out.name}.part")
    try:
        with partial.open("wb") as stream:
            yield stream
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _json_lines(parts: Iterable[Part], stream: IO[bytes]) -> None:
    for items, embedded in parts:
        for place, item in enumerate(items):
            error = embedded.errors.get(place)
            row = (
                {"error": error.code} if error else {"embedding": embedded.vectors[place].tolist()}
            )
            stream.write(json.dumps({"item": item, **row}).encode() + b"\n")


def _matrix(parts: Iterable[Part], stream: IO[bytes]) -> None:
    rows = [embedded.vectors for _, embedded in parts]
    np.save(stream, np.concatenate(rows) if rows else np.empty((0, 0), np.float32))


def _parquet(parts: Iterable[Part], stream: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for items, embedded in parts:
        flat, dim = pa.array(embedded.vectors.ravel()), embedded.vectors.shape[1]
        mask = pa.array(np.isin(np.arange(len(items)), list(embedded.errors)))
        codes = [e and e.code for e in map(embedded.errors.get, range(len(items)))]
        table = pa.table(
            {
                "item": [item.encode(errors="replace").decode() for item in items],
                "embedding": pa.FixedSizeListArray.from_arrays(flat, dim, mask=mask),
                "error": pa.array(codes, pa.string()),
            }
        )
        if embedded.space:
            table = table.replace_schema_metadata({SPACE_KEY: embedded.space.encode()})
        writer = writer or pq.ParquetWriter(stream, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
