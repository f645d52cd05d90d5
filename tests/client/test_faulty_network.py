"""Ten thousand items over a network that fails at four requests in ten."""

import asyncio

import numpy as np

from bench.rig.server_process import ServerProcess
from litapi import Engine
from tests.support.http_fault_proxy import Fault, embed_through
from tests.support.picture import picture

TEXTS, PICTURES = 9_700, 300


def test_ten_thousand_items_are_right_and_in_place(server: ServerProcess) -> None:
    """And nothing is asked for again but what was cut."""
    texts = [f"of ten thousand, number {number}" for number in range(TEXTS)]
    pictures = [picture(70_000 + number) for number in range(PICTURES)]
    vectors, images, proxy = asyncio.run(embed_through(server.port, 3, texts, pictures))
    with Engine.open(precision="float32") as engine:
        np.testing.assert_allclose(vectors, engine.texts(texts), atol=1e-5)
        np.testing.assert_allclose(images, engine.images(pictures), atol=1e-5)
    assert min(proxy.met[fault] for fault in Fault) > 10
    assert proxy.repeated == 0
