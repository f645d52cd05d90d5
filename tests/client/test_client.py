"""The client against a real server: what comes back is right, in its place, and asked for once."""

import asyncio
import base64
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from bench.rig.port import free_port
from bench.rig.server_process import ServerProcess
from litapi import Engine
from litapi.client import AsyncClient, Client, ItemsRefused, RequestRefused, ServerLost
from litapi.client.embedded import Vectors
from tests.support.http_fault_proxy import Fault, HttpFaultProxy, embed_through
from tests.support.picture import picture

DIM = 96


def asked_plainly(url: str, texts: list[str]) -> Vectors:
    """Vectors by one plain request for each text."""
    with httpx.Client(base_url=url, timeout=60) as http:
        answers = [http.post("/embed_text", json={"text": text}) for text in texts]
    return np.array([answer.json()["embedding"] for answer in answers], np.float32)


def test_vectors_come_in_the_order_given(server: ServerProcess) -> None:
    """Over many small requests that overtake each other."""
    texts = [f"order {number}" for number in range(50)]
    with Client(server.url, batch=3, in_flight=5) as client:
        found = client.embed_texts(texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, asked_plainly(server.url, texts), atol=1e-6)


def test_a_refused_text_is_named_and_harms_no_other(server: ServerProcess) -> None:
    """As a value its row is NaN; raised, the error has each by its place."""
    texts = ["good one", "", "another good one", "x" * 40_000, "a lone \ud800"]
    with Client(server.url) as client:
        found = client.embed_texts(texts, on_error="return")
        with pytest.raises(ItemsRefused) as raised:
            client.embed_texts(texts)
    codes = {place: error.code for place, error in found.errors.items()}
    assert codes == {1: "text_empty", 3: "text_too_long", 4: "text_invalid"}
    assert np.isnan(found.vectors).any(axis=1).tolist() == [False, True, False, True, True]
    assert not found.cached.any()
    assert sorted(raised.value.errors) == [1, 3, 4]


def test_pictures_may_be_paths_bytes_and_pil_images(server: ServerProcess, tmp_path: Path) -> None:
    """The same pixels give the same vector; what is no picture is named."""
    data = picture(310)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    image = Image.open(io.BytesIO(data))
    with Client(server.url) as client:
        found = client.embed_images(
            [path, str(path), data, image, b"none", tmp_path / "gone.png"], on_error="return"
        )
    codes = {place: error.code for place, error in found.errors.items()}
    assert codes == {4: "image_format_unsupported", 5: "image_missing"}
    np.testing.assert_allclose(found.vectors[1:4], found.vectors[[0, 0, 0]], atol=1e-6)


def test_scores_are_those_of_the_server(server: ServerProcess) -> None:
    """/score and /classify say the same, of one request's worth."""
    texts, images = ["a red circle", "a blue star"], [picture(320), picture(321)]
    with Client(server.url) as client:
        scores = client.score(texts, images)
        classes = client.classify(images[:1], ["red", "blue"])
    with httpx.Client(base_url=server.url, timeout=60) as http:
        files = [base64.b64encode(one).decode() for one in images]
        told = http.post("/score", json={"texts": texts, "images": files}).json()
        asked = {"image": files[0], "labels": ["red", "blue"]}
        ranked = {one["label"]: one for one in http.post("/classify", json=asked).json()["labels"]}
    np.testing.assert_allclose(scores.cosine, told["cosine"], atol=1e-12)
    np.testing.assert_allclose(scores.probability, told["probability"], atol=1e-12)
    expected = [ranked[label]["probability"] for label in ("red", "blue")]
    np.testing.assert_allclose(classes.probability[0], expected, atol=1e-12)


def test_options_are_passed_on(server: ServerProcess) -> None:
    """Fewer numbers, of texts and of pictures; a wrong one is the server's refusal."""
    with Client(server.url) as client:
        assert client.embed_texts(["short"], dimensions=8).shape == (1, 8)
        assert client.embed_images([picture(330)], dimensions=8).shape == (1, 8)
        assert client.embed_texts([]).shape == (0, DIM)
        with pytest.raises(RequestRefused) as refused:
            client.embed_texts(["short"], dimensions=DIM + 1)
    assert (refused.value.status, refused.value.code) == (400, "invalid_request")


def test_a_server_that_is_not_there_is_said_at_once() -> None:
    """A wrong address is not waited for."""
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(ServerLost):
        client.embed_texts(["anybody?"])


@pytest.fixture(scope="module")
def strict() -> Iterator[ServerProcess]:
    """A server that wants a key and looks no digest up."""
    with ServerProcess("--api-keys", "right", "--digest-lookups", "off") as running:
        yield running


def test_a_wrong_key_is_said_and_the_right_one_sent(strict: ServerProcess) -> None:
    """As the server's own refusal."""
    with Client(strict.url, "wrong") as client, pytest.raises(RequestRefused) as refused:
        client.embed_texts(["a"])
    with Client(strict.url, "right") as client:
        assert client.embed_texts(["a"]).shape == (1, DIM)
    assert refused.value.code == "unauthorized"


def test_several_threads_share_a_client(server: ServerProcess) -> None:
    """Each gets its own."""
    found: dict[int, Vectors] = {}
    with Client(server.url, in_flight=3) as client:

        def ask(number: int) -> None:
            found[number] = client.embed_texts([f"thread {number} text {n}" for n in range(40)])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, vectors in found.items():
        texts = [f"thread {number} text {n}" for n in range(0, 40, 13)]
        np.testing.assert_allclose(vectors[::13], asked_plainly(server.url, texts), atol=1e-6)
    assert len(found) == 4


@pytest.mark.parametrize(
    ("count", "drawn", "batch", "most"),
    [(400, 20, 8, 0), pytest.param(9_700, 300, 32, 10, marks=pytest.mark.verify)],
)
def test_faults_on_the_way_cost_time_and_nothing_else(
    server: ServerProcess, count: int, drawn: int, batch: int, most: int
) -> None:
    """Every vector is right and in place, and only what was cut is asked for again."""
    texts = [f"fault text {number} of {count}" for number in range(count)]
    pictures = [picture(70_000 + count + number) for number in range(drawn)]
    vectors, images, proxy = asyncio.run(embed_through(server.port, 1, texts, pictures, batch))
    with Engine.open(precision="float32") as engine:
        np.testing.assert_allclose(vectors, engine.texts(texts), atol=1e-5)
        np.testing.assert_allclose(images, engine.images(pictures), atol=1e-5)
    assert set(proxy.met) == {None, *Fault}
    assert min(proxy.met.values()) > most
    assert proxy.repeated == 0


def large_picture(number: int) -> bytes:
    """Of some 30 KB: noise in a corner keeps it from getting small."""
    noise = np.random.default_rng(number).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


async def _bytes_sent(
    port: int, images: list[bytes], digests: bool, key: str | None = None
) -> tuple[Vectors, int]:
    async with (
        HttpFaultProxy(port, 0, share=0) as proxy,
        AsyncClient(proxy.url, key, digests=digests) as client,
    ):
        return await client.embed_images(images), proxy.received


def test_a_picture_that_is_known_is_not_sent(server: ServerProcess) -> None:
    """Its digest is; of a folder that is nine tenths known the rest is sent, in its place."""
    known, new = [large_picture(n) for n in range(18)], [large_picture(n) for n in (90, 91)]
    asyncio.run(_bytes_sent(server.port, known, digests=True))
    mixed = [*known[:5], new[0], *known[5:], new[1]]
    found, sent = asyncio.run(_bytes_sent(server.port, mixed, digests=True))
    plain, whole = asyncio.run(_bytes_sent(server.port, mixed, digests=False))
    assert sent < 0.15 * whole
    assert np.array_equal(found, plain)


def test_a_server_that_looks_no_digest_up_gets_the_bytes(strict: ServerProcess) -> None:
    """Nothing is asked by digest where /info says so."""
    images = [large_picture(7)]
    for _ in range(2):
        _, sent = asyncio.run(_bytes_sent(strict.port, images, digests=True, key="right"))
        assert sent > len(images[0])


def test_a_server_that_stays_busy_is_given_up_at_the_deadline() -> None:
    """With its own words, and not before."""

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"HTTP/1.1 429 Too Many\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")

    async def ask() -> None:
        server = await asyncio.start_server(busy, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with AsyncClient(f"http://127.0.0.1:{port}", give_up_after=1.0) as client:
            await client.embed_texts(["a"])

    with pytest.raises(RequestRefused) as refused:
        asyncio.run(ask())
    assert refused.value.status == 429


def test_a_client_loads_nothing_heavy() -> None:
    """httpx and numpy: no torch, no pydantic, no server."""
    script = (
        "import sys, litapi.client;"
        "print([m for m in ('torch', 'pydantic', 'PIL', 'orjson', 'tqdm', 'fastapi')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr
