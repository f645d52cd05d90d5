"""The whole service from outside: real server process, real towers, real client."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from random import Random

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from bench.conformance import Server, run
from bench.reference import Reference
from bench.rig.random_checkpoint import DEMO
from bench.rig.server_process import ServerProcess, maps_torch, resident_mb
from litapi.demo.drawing import Scene, draw
from litapi.demo.heldout import heldout_scenes
from tests.support.picture import picture
from tests.support.workers import idle


def _encoded(scene: Scene, seed: int) -> bytes:
    buffer = io.BytesIO()
    draw(scene, seed=seed).save(buffer, "PNG")
    return buffer.getvalue()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _cosine(one: object, other: object) -> float:
    return float(np.asarray(one, np.float64) @ np.asarray(other, np.float64))


@pytest.fixture(scope="module")
def reference() -> Reference:
    """transformers on the same folder."""
    return Reference(DEMO)


def test_each_drawn_picture_is_found_by_its_caption_whatever_way_it_came(
    client: httpx.Client,
) -> None:
    """JSON, multipart and raw bodies give vectors that captions find, on unseen combinations."""
    scenes = Random(5).sample(heldout_scenes(), 12)
    files = [_encoded(scene, seed) for seed, scene in enumerate(scenes)]
    by_json = client.post("/embed_image", json={"images": [_b64(f) for f in files[:4]]})
    parts = [("images", (f"{i}.png", data, "image/png")) for i, data in enumerate(files[4:8])]
    by_form = client.post("/embed_image", files=parts)
    raw = [
        client.post("/embed_image", content=f, headers={"content-type": "image/png"})
        for f in files[8:]
    ]
    images = by_json.json()["embeddings"] + by_form.json()["embeddings"]
    images += [answer.json()["embedding"] for answer in raw]
    texts = client.post("/embed_text", json={"texts": [s.caption() for s in scenes]})
    similarity = np.asarray(texts.json()["embeddings"]) @ np.asarray(images).T
    assert (similarity.argmax(1) == np.arange(12)).mean() >= 0.9


@pytest.mark.parametrize("form", ["float", "base64"])
def test_the_official_client_gets_texts_and_images(
    server: ServerProcess, reference: Reference, form: str
) -> None:
    """The openai package works unchanged, in both encodings, and the vectors are right."""
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    uri = f"data:image/png;base64,{_b64(picture(2))}"
    answer = client.embeddings.create(
        model="siglit-demo",
        input=["A red circle", uri],
        encoding_format=form,  # type: ignore[arg-type]
    )
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
    ("method", "path", "allowed"),
    [
        ("GET", "/embed_text", "POST"),
        ("DELETE", "/v1/embeddings", "POST"),
        ("POST", "/info", "GET, HEAD"),
        ("PUT", "/livez", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_which_are_right(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    """405 names the methods of that route, as HTTP asks."""
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_all_eight_conformance_probes_pass(server: ServerProcess, reference: Reference) -> None:
    """Where every peer is wrong, this server is right."""
    lines: list[str] = []
    asked = Server(server.url, None, "string", "/v1/embeddings")
    assert run(asked, reference, lines.append) == 0, "\n".join(lines)
    assert sum(line.startswith("pass") for line in lines) == 8


def test_an_item_is_the_same_alone_and_among_many_others(client: httpx.Client) -> None:
    """Alone, with one other and among 32: cosine of at least 0.999999."""
    fresh = {"cache-control": "no-store"}
    words = [f"{n} small blue squares" for n in range(31)]
    data = [_b64(picture(n)) for n in range(40, 71)]

    def texts(*others: str) -> list[float]:
        body = {"texts": [*others, "a red circle"]}
        answer = client.post("/embed_text", json=body, headers=fresh)
        return list(answer.json()["embeddings"][-1])

    def images(*others: str) -> list[float]:
        body = {"images": [*others, _b64(picture(3))]}
        answer = client.post("/embed_image", json=body, headers=fresh)
        return list(answer.json()["embeddings"][-1])

    assert _cosine(texts(), texts(words[0])) >= 0.999999
    assert _cosine(texts(), texts(*words)) >= 0.999999
    assert _cosine(images(), images(data[0])) >= 0.999999
    assert _cosine(images(), images(*data)) >= 0.999999


def test_of_64_items_the_bad_one_fails_alone_by_its_index(client: httpx.Client) -> None:
    """One damaged image among 64 is null with its error; 63 vectors are there and right."""
    data = [picture(100 + n) for n in range(64)]
    damaged = [*data[:17], data[17][: len(data[17]) // 2], *data[18:]]
    answer = client.post("/embed_image", json={"images": [_b64(d) for d in damaged]})
    body = answer.json()
    assert answer.status_code == 200
    assert [i for i, row in enumerate(body["embeddings"]) if row is None] == [17]
    assert body["errors"] == [
        {
            "index": 17,
            "code": "image_undecodable",
            "message": "The image is damaged or cut short and could not be decoded.",
        }
    ]
    alone = client.post("/embed_image", json={"image": _b64(data[18])}).json()["embedding"]
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
    wanted = {}
    for n in range(20):
        answer = client.post("/embed_text", json={"text": f"{n} red circles"})
        wanted[n] = answer.json()["embedding"]
    fresh = {"cache-control": "no-cache"}

    def ask(n: int) -> float:
        body = {"text": f"{n % 20} red circles"}
        answer = client.post("/embed_text", json=body, headers=fresh)
        return _cosine(answer.json()["embedding"], wanted[n % 20])

    with ThreadPoolExecutor(32) as pool:
        assert min(pool.map(ask, range(200))) >= 0.999999
