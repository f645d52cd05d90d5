"""A client of a running server: texts and pictures in, numpy out. It needs httpx and numpy only.

    from litapi.client import Client

    with Client("http://localhost:8080") as client:
        vectors = client.embed_texts(["a red circle", "a blue star"])    # (2, dim) float32
        pictures = client.embed_images(["one.png", Path("two.jpg").read_bytes()])

Work is cut by the server's own limits and several requests are under way at a time. A picture of
more than a few KB is asked for by its digest first, and sent only where the server has no vector.
"""

from litapi.client.asynchronous import AsyncClient
from litapi.client.client import Client
from litapi.client.embedded import (
    ClientError,
    Embedded,
    ItemRefused,
    ItemsRefused,
    RequestRefused,
    Scores,
    ServerLost,
    SpaceChanged,
)

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "Embedded",
    "ItemRefused",
    "ItemsRefused",
    "RequestRefused",
    "Scores",
    "ServerLost",
    "SpaceChanged",
]
