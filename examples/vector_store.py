"""faiss: a thousand drawn pictures, found by caption; whole vectors, and a 32nd of their bytes.

    python -m examples.vector_store [http://localhost:8080] [pictures, 1000 by default]

The bits are compared by Hamming distance. They find candidates; the order among the best of them is
better taken from the whole vectors, as at the end here.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Sequence
from random import Random
from typing import Any

import faiss
import httpx
import numpy as np

from litapi.demo.drawing import Scene, draw

CANDIDATES = 50
CHUNK = 100


class Embeddings:
    """Rows of vectors, asked for as raw bytes: nothing to parse on either side."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(
            base_url=url, timeout=60, headers={"accept": "application/octet-stream"}
        )

    def texts(self, texts: Sequence[str], kind: str = "float32") -> np.ndarray[Any, Any]:
        """A row for each text."""
        return self._rows("/embed_text", {"texts": texts}, kind)

    def images(self, images: Sequence[str], kind: str = "float32") -> np.ndarray[Any, Any]:
        """A row for each picture."""
        chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
        return np.concatenate([self._rows("/embed_image", {"images": c}, kind) for c in chunks])

    def _rows(self, path: str, items: dict[str, Any], kind: str) -> np.ndarray[Any, Any]:
        answer = self._client.post(path, json={**items, "embedding_type": kind})
        answer.raise_for_status()
        shape = tuple(map(int, answer.headers["x-embedding-shape"].split(",")))
        dtype = {"float32": "<f4", "binary": "u1"}[kind]
        return np.frombuffer(answer.content, dtype).reshape(shape)


def picture(scene: Scene, number: int) -> str:
    """A drawn picture as base64."""
    buffer = io.BytesIO()
    draw(scene, seed=number).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8080"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    random = Random(1)
    scenes = [Scene.random(random) for _ in range(count)]
    images = [picture(scene, number) for number, scene in enumerate(scenes)]
    embeddings = Embeddings(url)

    whole = embeddings.images(images)
    index = faiss.IndexFlatIP(whole.shape[1])  # unit vectors: the inner product is the cosine
    index.add(whole)
    bits = embeddings.images(images, "binary")  # the same vectors: the server takes them from cache
    small = faiss.IndexBinaryFlat(bits.shape[1] * 8)
    small.add(bits)
    print(f"{count} pictures: {whole.nbytes} bytes as float32, {bits.nbytes} as bits")

    for scene in scenes[:3]:
        caption = scene.caption()
        text = embeddings.texts([caption])
        _, nearest = index.search(text, 1)
        candidates = small.search(embeddings.texts([caption], "binary"), min(CANDIDATES, count))[1][
            0
        ]
        best = candidates[np.argmax(whole[candidates] @ text[0])]
        print(f"asked:   {caption}")
        print(f"float32: {scenes[nearest[0][0]].caption()}")
        print(f"bits:    {scenes[best].caption()}")


if __name__ == "__main__":
    main()
