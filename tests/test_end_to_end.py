"""The whole service from outside: real server process, real towers, real and hostile clients."""

import base64
import contextlib
import gzip
import io
import shutil
import socket
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from bench.conformance import Server, run
from bench.reference import Reference
from bench.rig.random_checkpoint import DEMO
from bench.rig.server_process import ServerProcess, maps_torch, resident_mb
from litapi.demo.heldout import heldout_scenes, pictures, yardstick
from tests.support.command import output_of
from tests.support.desk import b64, uri
from tests.support.encoded import encoded
from tests.support.patience import awaited, heard
from tests.support.picture import picture
from tests.support.raw import everything
from tests.support.workers import idle


def _cosine(one: object, other: object) -> float:
    return float(np.asarray(one, np.float64) @ np.asarray(other, np.float64))


@pytest.fixture(scope="module")
def reference() -> Reference:
    """transformers on the same folder."""
    return Reference(DEMO)


def test_a_drawn_picture_is_found_by_its_caption_whatever_way_it_came(client: httpx.Client) -> None:
    """JSON, multipart and raw bodies give vectors that captions find, on unseen combinations."""
    scenes = Random(5).sample(heldout_scenes(), 12)
    files = [encoded(drawn) for drawn in pictures(scenes, "drawn")]
    by_json = client.post("/embed_image", json={"images": [b64(f) for f in files[:4]]})
    parts = [("images", (f"{i}.png", data, "image/png")) for i, data in enumerate(files[4:8])]
    by_form = client.post("/embed_image", files=parts)
    images = by_json.json()["embeddings"] + by_form.json()["embeddings"]
    for file in files[8:]:
        raw = client.post("/embed_image", content=file, headers={"content-type": "image/png"})
        images.append(raw.json()["embedding"])
    texts = client.post("/embed_text", json={"texts": [s.caption() for s in scenes]})
    similarity = np.asarray(texts.json()["embeddings"]) @ np.asarray(images).T
    assert (similarity.argmax(1) == np.arange(12)).mean() >= 0.9


@pytest.mark.parametrize("form", ["float", "base64"])
def test_the_official_client_embeds(server: ServerProcess, reference: Reference, form: str) -> None:
    """The openai package works unchanged, in both encodings, and the vectors are right."""
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    asked: Any = {"input": ["A red circle", uri(picture(2))], "encoding_format": form}
    answer = client.embeddings.create(model="siglit-demo", **asked)
    assert [row.index for row in answer.data] == [0, 1]
    rows = [
        np.frombuffer(base64.b64decode(row.embedding), "<f4")
        if isinstance(row.embedding, str)
        else np.asarray(row.embedding)
        for row in answer.data
    ]
    image = Image.open(io.BytesIO(picture(2))).convert("RGB")
    assert _cosine(rows[0], reference.text("a red circle")) >= 0.99999
    assert _cosine(rows[1], reference.image(image)) >= 0.99999
    assert answer.usage.prompt_tokens > 0


def test_the_official_client_lists_the_model_and_gets_its_own_error(server: ServerProcess) -> None:
    """`models.list` and `models.retrieve` work; a refusal is its exception with a stable code."""
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["siglit-demo"]
    assert client.models.retrieve("siglit-demo").id == "siglit-demo"
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="another", input="x")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        *(("GET /embed_text", "POST"), ("DELETE /v1/embeddings", "POST")),
        *(("POST /info", "GET, HEAD"), ("PUT /livez", "GET, HEAD")),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    client: httpx.Client, asked: str, allowed: str
) -> None:
    """405 names the methods of that route, as HTTP asks."""
    answer = client.request(*asked.split())
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_all_eight_conformance_probes_pass(server: ServerProcess, reference: Reference) -> None:
    """Where every peer is wrong, this server is right."""
    lines: list[str] = []
    asked = Server(server.url, None, "string", "/v1/embeddings")
    assert run(asked, reference, lines.append) == 0, "\n".join(lines)
    assert sum(line.startswith("pass") for line in lines) == 8


@pytest.mark.parametrize(
    ("path", "name", "item", "others"),
    [
        ("/embed_text", "texts", "a red circle", [f"{n} small blue squares" for n in range(31)]),
        ("/embed_image", "images", b64(picture(3)), [b64(picture(n)) for n in range(40, 71)]),
    ],
)
def test_an_item_is_the_same_alone_and_among_many_others(
    client: httpx.Client, path: str, name: str, item: str, others: list[str]
) -> None:
    """Alone, with one other and among 32: cosine of at least 0.999999."""
    fresh = {"cache-control": "no-store"}
    alone, beside, among = (
        client.post(path, json={name: [*some, item]}, headers=fresh).json()["embeddings"][-1]
        for some in ([], others[:1], others)
    )
    assert min(_cosine(alone, beside), _cosine(alone, among)) >= 0.999999


def test_of_64_items_the_bad_one_fails_alone_by_its_index(client: httpx.Client) -> None:
    """One damaged image among 64 is null with its error; 63 vectors are there and right."""
    data = [picture(100 + n) for n in range(64)]
    damaged = [*data[:17], data[17][: len(data[17]) // 2], *data[18:]]
    answer = client.post("/embed_image", json={"images": [b64(d) for d in damaged]})
    body = answer.json()
    assert answer.status_code == 200
    assert [i for i, row in enumerate(body["embeddings"]) if row is None] == [17]
    sentence = "The image is damaged or cut short and could not be decoded."
    assert body["errors"] == [{"index": 17, "code": "image_undecodable", "message": sentence}]
    alone = client.post("/embed_image", json={"image": b64(data[18])}).json()["embedding"]
    assert _cosine(body["embeddings"][18], alone) >= 0.999999


def test_a_long_text_is_cut_and_says_so(client: httpx.Client) -> None:
    """Truncation is reported in the body and in a header, and on a hit too."""
    texts = ["short", "a large red circle and " * 60]
    for _ in range(2):
        answer = client.post("/embed_text", json={"texts": texts})
        assert answer.json()["truncated"] == [False, True]
        assert answer.headers["x-truncated"] == "1"
    body = client.post("/v1/embeddings", json={"input": texts}).json()
    assert [row.get("truncated") for row in body["data"]] == [None, True]


def test_the_http_process_is_small_and_knows_no_torch(server: ServerProcess) -> None:
    """Only the two workers map torch, and those for bulk; what answers HTTP stays under 90 MB."""
    httpx.get(f"{server.url}/info", timeout=60)
    serving = {pid: line for pid, line in server.family().items() if "litapi serve" in line}
    workers = [pid for pid, line in server.family().items() if "spawn_main" in line]
    assert len(workers) >= 2
    for pid in serving:
        assert not maps_torch(pid)
        assert resident_mb(pid) < 90
    assert sum(maps_torch(pid) and not idle(pid) for pid in workers) == 2


def test_many_clients_at_once_all_get_their_own_vectors(client: httpx.Client) -> None:
    """200 concurrent requests of mixed kinds: every answer is the answer to its own question."""
    texts = [f"{n} red circles" for n in range(20)]
    wanted = client.post("/embed_text", json={"texts": texts}).json()["embeddings"]
    fresh = {"cache-control": "no-cache"}

    def ask(n: int) -> float:
        answer = client.post("/embed_text", json={"text": texts[n % 20]}, headers=fresh)
        return _cosine(answer.json()["embedding"], wanted[n % 20])

    with ThreadPoolExecutor(32) as pool:
        assert min(pool.map(ask, range(200))) >= 0.999999


SCENES = yardstick(200)
CAPTIONS = [scene.caption() for scene in SCENES]


@pytest.fixture(scope="module")
def drawings() -> list[str]:
    return [b64(encoded(picture)) for picture in pictures(SCENES, "yardstick")]


def order(client: httpx.Client, query: object, documents: Sequence[object]) -> list[int]:
    body = {"query": query, "documents": documents}
    answer = client.post("/rerank", json=body).raise_for_status()
    return [one["index"] for one in answer.json()["results"]]


def test_pictures_are_ranked_as_they_are_scored(client: httpx.Client, drawings: list[str]) -> None:
    """Two hundred of them, by any caption, to the last place, also where differences are as small
    as they get."""
    asked = CAPTIONS[::10]
    scored = client.post("/score", json={"texts": asked, "images": drawings}).raise_for_status()
    for caption, cosine in zip(asked, scored.json()["cosine"], strict=True):
        found = order(client, caption, [{"image": image} for image in drawings])
        assert found == np.argsort(-np.array(cosine), kind="stable").tolist()


def test_the_caption_of_a_picture_comes_first(client: httpx.Client, drawings: list[str]) -> None:
    """Among two hundred that differ in a word or two, for 93 of 100 held-out pictures."""
    first = [order(client, {"image": image}, CAPTIONS)[0] for image in drawings]
    assert np.mean(np.array(first) == np.arange(len(SCENES))) >= 0.93


SPELT = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
MB = 1 << 20


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed_text", "/livez", "/none", "/docs"])
def test_a_body_after_an_offered_upgrade_is_no_request(server: ServerProcess, path: str) -> None:
    """It comes later and spells a request; there is one answer to it, and one to the next."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: h2c\r\n"
        f"content-type: application/json\r\ncontent-length: {len(SPELT)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode())
        heard(connection)
        with contextlib.suppress(OSError):
            connection.sendall(SPELT)
            connection.sendall(b"GET /none HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        said = everything(connection)
    assert b"HTTP/1.1 4" in said[:12]
    assert b'{"status":"alive"}' not in said


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_with_http2_embeds(server: ServerProcess) -> None:
    """The command of the report, word for word."""
    url, json = f"{server.url}/v1/embeddings", "content-type: application/json"
    body = '{"input":"a red circle"}'
    said = output_of("curl", "--http2", "-sS", url, "-H", json, "-d", body)
    plain = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=60)
    assert said == plain.text


@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
def test_a_compressed_body_is_answered_as_the_plain_one(
    client: httpx.Client, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    """JSON, a raw image and a multipart body."""
    image = picture(1)
    form = httpx.Request("POST", "http://x", files={"images": ("a.png", image, "image/png")})
    bodies = [
        ("/v1/embeddings", b'{"input": ["a red circle"]}', "application/json", "data"),
        ("/embed_image", image, "image/png", "embedding"),
        ("/embed_image", form.read(), form.headers["content-type"], "embedding"),
    ]
    for path, body, kind, name in bodies:
        plain = client.post(path, content=body, headers={"content-type": kind})
        headers = {"content-type": kind, "content-encoding": coding}
        packed = client.post(path, content=compress(body), headers=headers)
        assert packed.status_code == plain.status_code == 200, packed.text
        assert packed.json()[name] == plain.json()[name]


@pytest.mark.parametrize("charset", ["utf-7", "utf-8", "unicode_escape"])
@pytest.mark.parametrize("name", ["+2AA-", "\\ud800", "caf\xe9"])
def test_a_form_with_strange_names_is_a_400(client: httpx.Client, charset: str, name: str) -> None:
    """Never a 500, whatever the charset makes of the name."""
    body = (
        f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n1\r\n'
        '--b\r\ncontent-disposition: form-data; name="images"; filename="a"\r\n\r\nabc\r\n--b--\r\n'
    )
    headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
    answer = client.post("/embed_image", content=body.encode("latin-1"), headers=headers)
    assert answer.status_code == 400
    known = "invalid_request" if charset == "utf-8" else "invalid_multipart"
    assert answer.json()["error"]["code"] == known


@pytest.fixture(scope="module")
def guarded() -> Iterator[ServerProcess]:
    """A server with keys, and small bounds so that little is needed to reach them."""
    flags = ["--redis-private", "off", "--max-body-bytes", str(8 * MB), "--max-bodies-mb", "16"]
    with ServerProcess(*flags, SIGLIT_API_KEYS="a") as running:
        text = {"text": "warm"}
        httpx.post(f"{running.url}/embed_text", json=text, headers={"x-api-key": "a"}, timeout=60)
        yield running


def test_compressed_bombs_are_bounded_together(guarded: ServerProcess) -> None:
    """Each becomes 8 MB of a few KB; what all of them hold has one bound, others are served, and
    what was held is given back."""
    bomb = gzip.compress(b'{"text": "' + bytes(7 * MB), 9)
    headers = {"x-api-key": "a", "content-encoding": "gzip"}
    idle = {pid: resident_mb(pid) for pid in guarded.family()}

    def gained() -> float:
        return max(resident_mb(pid) - before for pid, before in idle.items())

    def send(_: int) -> int:
        url = f"{guarded.url}/v1/embeddings"
        return httpx.post(url, content=bomb, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(30) as pool:
        sent, most = [pool.submit(send, n) for n in range(30)], 0.0
        while not all(one.done() for one in sent):
            most = max(most, gained())
            assert httpx.get(f"{guarded.url}/livez", timeout=60).status_code == 200
    assert {one.result() for one in sent} <= {400, 429}
    assert most < 150
    awaited(lambda: gained() < 50)
