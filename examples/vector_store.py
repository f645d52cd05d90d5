"""faiss: a thousand drawn pictures, found by caption; whole vectors, and a 32nd of their bytes.

    python -m examples.vector_store [http://localhost:8080] [pictures, 1000 by default]

The bits are compared by Hamming distance. They find candidates; the order among the best of them is
better taken from the whole vectors, as at the end here. They are made here, as `packbits` of the
signs; over the wire `embedding_type` "binary" brings the same, a 32nd of the bytes.
"""

from __future__ import annotations

import sys
from random import Random

import faiss
import numpy as np

from litapi.client import Client
from litapi.client.embedded import Vectors
from litapi.demo.drawing import Scene, draw

CANDIDATES = 50


def bits_of(vectors: Vectors) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The signs, eight to a byte."""
    return np.packbits(vectors > 0, axis=1)


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8080"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    random = Random(1)
    scenes = [Scene.random(random) for _ in range(count)]
    with Client(url) as client:
        whole = client.embed_images([draw(scene, seed=n) for n, scene in enumerate(scenes)])
        captions = [scene.caption() for scene in scenes[:3]]
        texts = client.embed_texts(captions)

    index = faiss.IndexFlatIP(whole.shape[1])  # unit vectors: the inner product is the cosine
    index.add(whole)
    bits = bits_of(whole)
    small = faiss.IndexBinaryFlat(bits.shape[1] * 8)
    small.add(bits)
    print(f"{count} pictures: {whole.nbytes} bytes as float32, {bits.nbytes} as bits")

    _, nearest = index.search(texts, 1)
    _, candidates = small.search(bits_of(texts), min(CANDIDATES, count))
    for caption, text, (found,), near in zip(captions, texts, nearest, candidates, strict=True):
        best = near[np.argmax(whole[near] @ text)]
        print(f"asked:   {caption}")
        print(f"float32: {scenes[found].caption()}")
        print(f"bits:    {scenes[best].caption()}")


if __name__ == "__main__":
    main()
