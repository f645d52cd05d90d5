"""`python -m litapi embed FILE…`: vectors of texts and pictures, from a server or in this process.

What comes out is JSON lines, a matrix (.npy; a refused item's row is NaN) or Parquet, in the order
of the arguments. A file is there whole or not at all.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from litapi.arguments import ArgumentError, arguments, chunks
from litapi.checkpoint import SPACE_KEY
from litapi.client import Client, Embedded
from litapi.messages import Kind
from litapi.settings import Settings

CHUNK = 1024
Part = tuple[list[str], Embedded]
Ask = Callable[[Kind, list[str]], Embedded]


def embed(paths: Sequence[Path], out: Path | None, ask: Ask) -> int:
    """Embed what is under `paths` and write it; how many items were refused. Raises ArgumentError:
    a path is missing, or `out` has a suffix that is not written."""
    write, found, refused = _writer(out), arguments(paths), 0

    def parts() -> Iterator[Part]:
        nonlocal refused
        with tqdm(unit="item", file=sys.stderr, disable=None) as bar:
            for kind, items in chunks(found, CHUNK):
                embedded = ask(kind, items)
                refused += len(embedded.errors)
                yield items, embedded
                bar.update(len(items))

    with _opened(out) as stream:
        write(parts(), stream)
    return refused


@contextmanager
def way(url: str | None, key: str | None, settings: Settings) -> Iterator[Ask]:
    """By the server at `url`; without one by an engine of these settings, in this process."""
    if url:
        with Client(url, key, priority="bulk") as client:
            texts, images = client.embed_texts, client.embed_images
            yield lambda kind, items: (texts if kind == "text" else images)(
                items, on_error="return"
            )
        return
    from litapi.engine import Engine

    with Engine.of(settings) as engine:
        yield lambda kind, items: (engine.texts if kind == "text" else engine.images)(
            items, on_error="return"
        )


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
