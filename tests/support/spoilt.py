"""Bodies and headers near those that a route takes, from a seed."""

import json
from random import Random
from typing import Any

from tests.support.desk import DEMO, RED, b64, uri
from tests.support.forms import body_for

WORDS: list[Any] = [
    *("input", "text", "texts", "image", "images", "url", "urls", "labels", "template", "model"),
    *("encoding_format", "embedding_type", "dimensions", "max_num_patches", "type", "image_url"),
    *("user", "truncate", "metadata", "detail", "é", "", "a" * 2000),
]
LEAVES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2.0, 2.5, 1e308, 8, 64, 2**70, "", "a", "é" * 700, "\ud83c"),
    *(uri(RED), b64(RED), "data:;base64,", "http://a/b", "{label}", "float", "base64", "END"),
    *("a" * 5000, "QUJD" * 60_000, "int8", "binary", DEMO.name),
]
ACCEPTS = [
    *("*/*", "application/json", "application/octet-stream", "application/octet-stream;q=0"),
    *("application/octet-stream;q=x", ",;,;q", "a/b;q=1.5, */*;q=0.1", "\xff", "", ";" * 500),
]
CONTROLS = ["no-store", "max-age=0", "no-cache, no-store", 'private="a, b"', "=", ",,", "\xff", ""]


def thing(random: Random, depth: int = 4) -> Any:
    """Anything that JSON can say, made of what the forms know."""
    kind = random.random()
    if depth == 0 or kind < 0.5:
        return random.choice(LEAVES)
    count = random.choice([0, 1, 2, 3, 40]) if depth < 4 else random.randrange(5)
    if kind < 0.75:
        return [thing(random, depth - 1) for _ in range(count)]
    return {random.choice(WORDS): thing(random, depth - 1) for _ in range(count)}


def spoilt(random: Random, path: str) -> bytes:
    """A good body with some of it changed, and some of its bytes."""
    body: Any = dict(body_for(path))
    for _ in range(random.randrange(3)):
        body[random.choice([*body, *WORDS])] = thing(random)
    if random.random() < 0.1:
        body = thing(random)
    octets = json.dumps(body, indent=random.choice([None, 1])).encode()
    octets = random.choice([octets, octets, b"\xef\xbb\xbf" + octets])
    for _ in range(random.choice([0, 0, 0, 1, 3])):
        at = random.randrange(len(octets) + 1)
        octets = (
            octets[:at] + random.choice([b"", b"\\", b'"', b"[" * 300, b"\xff", b"}"]) + octets[at:]
        )
    return octets
