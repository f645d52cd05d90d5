"""What each `embedding_type` costs in retrieval: recall on the demo's pairs, pictures and captions.

    python -m bench.micro.output_types

A real server embeds the held-out pairs and the yardstick of the demo checkpoint and answers them in
every type, as raw rows that are read by their headers. Both sides of a pair are in the same type;
int8 is multiplied by its scales, and bits are compared by Hamming distance. A tie counts as a miss
(96 bits tie often, numbers hardly ever). No time is measured: a run gives the same figures again.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from tqdm import tqdm

from bench.load.photo import encoded
from bench.rig.command import described, markdown
from bench.rig.result_file import RESULTS, save
from bench.rig.server_process import ServerProcess
from litapi.demo.drawing import Scene
from litapi.demo.heldout import heldout_scenes, pictures, yardstick
from litapi.demo.judge import retrieval

TYPES = ("float32", "float16", "int8", "binary")
SETS: Mapping[str, Callable[[], list[Scene]]] = {"heldout": heldout_scenes, "yardstick": yardstick}
WAYS = {"text_to_image": "text → image", "image_to_text": "image → text"}
KS = (1, 5, 10)
CHUNK = 64  # items of a request

Rows = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Figures:
    """One type on one set of pairs."""

    pairs: str
    count: int
    type: str
    bytes: int  # of a vector, with its scale
    retrieval: dict[str, dict[str, float]]

    def row(self) -> list[str]:
        recalls = [f"{self.retrieval[way][f'recall@{k}']:.3f}" for way in WAYS for k in KS]
        return [f"{self.pairs}, {self.count}", self.type, str(self.bytes), *recalls]


def measured(client: httpx.Client, pairs: str) -> Iterator[Figures]:
    """Every type on one of SETS, float32 first."""
    scenes = SETS[pairs]()
    images = [png(one) for one in pictures(scenes, pairs)]
    captions = [scene.caption() for scene in scenes]
    for name in tqdm(TYPES, desc=pairs, unit="type", leave=False, disable=None):
        seen, size = embedded(client, "/embed_image", "images", images, name)
        read, _ = embedded(client, "/embed_text", "texts", captions, name)
        yield Figures(pairs, len(scenes), name, size, retrieval(seen, read, KS))


def embedded(
    client: httpx.Client, path: str, field: str, items: Sequence[str], name: str
) -> tuple[Rows, int]:
    """Float32 rows to compare, and the bytes that a vector of that type had on its way."""
    rows, size = [], 0
    for start in range(0, len(items), CHUNK):
        body = {field: items[start : start + CHUNK], "embedding_type": name}
        answer = client.post(path, json=body, headers={"accept": "application/octet-stream"})
        rows.append(rows_of(answer.raise_for_status()))
        size += len(answer.content)
    return np.concatenate(rows), size // len(items)


def png(picture: Image.Image) -> str:
    """A picture as JSON takes it."""
    return base64.b64encode(encoded(picture, "PNG")).decode()


def rows_of(answer: httpx.Response) -> Rows:
    """Rows whose dot products rank as the type would; bits become -1 and 1."""
    kinds = {"float32-le": "<f4", "float16-le": "<f2", "int8": "i1", "binary": "u1"}
    dtype = answer.headers["x-embedding-dtype"]
    count, width = map(int, answer.headers["x-embedding-shape"].split(","))
    codes = np.frombuffer(answer.content, kinds[dtype], count * width).reshape(count, width)
    if dtype == "binary":
        return np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1
    rows = codes.astype(np.float32)
    if dtype == "int8":
        rows *= np.frombuffer(answer.content, "<f4", offset=codes.nbytes)[:, None]
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = described("bench.micro.output_types", __doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--url", help="a running server with the demo checkpoint; default: its own")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        url = options.url or stack.enter_context(ServerProcess()).url
        client = stack.enter_context(httpx.Client(base_url=url, timeout=120))
        figures = [one for pairs in options.sets for one in measured(client, pairs)]
    head = ["pairs", "type", "bytes", *(f"{way} @{k}" for way in WAYS.values() for k in KS)]
    print(markdown([head, *(one.row() for one in figures)]))
    save("output_types", {"figures": [asdict(one) for one in figures]}, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
