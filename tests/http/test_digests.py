"""Images by digest: a repeated look-up sends 64 digits, and learns no more than the bytes would."""

import asyncio
import base64
import io
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from bench.rig.redis_server import RedisServer
from bench.rig.server_process import ServerProcess
from cache import Entry, Found, MemoryTier, VectorCache
from litapi.errors import DigestDisabled, DigestInvalid, DigestUnknown
from litapi.http.inputs import Reader
from litapi.messages import Digest, Item
from litapi.settings import Settings
from tests.support.model import DIM, Model, ask, entry_of, keys_of, states, wrong
from tests.support.patience import awaited, until
from tests.support.picture import picture

RAW = {"content-type": "image/png"}
OCTETS = {"accept": "application/octet-stream"}
STRANGE = sha256(b"nobody has this").hexdigest()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def client(redis: RedisServer) -> Iterator[httpx.Client]:
    """Of a server with a memory and a Redis."""
    with (
        ServerProcess("--http-workers", "1", REDIS_URL=redis.url) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def other(redis: RedisServer) -> Iterator[httpx.Client]:
    """Of a server without a memory on the same Redis, which it may be slow to ask."""
    flags = ("--http-workers", "1", "--memory-cache-mb", "0", "--redis-budget-ms", "500")
    with (
        ServerProcess(*flags, REDIS_URL=redis.url) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sent(client: httpx.Client, data: bytes, **options: Any) -> list[float]:
    """The vector of an image whose bytes come."""
    answer = client.post("/embed_image", content=data, headers=RAW, params=options)
    assert answer.status_code == 200
    vector: list[float] = answer.json()["embedding"]
    return vector


def tiers(answer: httpx.Response) -> list[str]:
    return answer.headers["x-cache"].split(",")


def faults(answer: httpx.Response) -> list[tuple[int, str, str]]:
    """Index, code and place of each refused item."""
    assert answer.is_error
    return [(one["index"], one["code"], one["param"]) for one in answer.json()["error"]["items"]]


def test_every_route_answers_a_digest_as_it_answers_the_bytes(client: httpx.Client) -> None:
    """Vectors, token counts, probabilities: to the last digit what the image itself gets."""
    data = picture(1)
    name = digest(data)
    vector = sent(client, data)
    one = client.post("/embed_image", json={"sha256": name})
    assert one.json()["embedding"] == vector
    assert one.json()["cached"] is True
    told = client.get("/info").json()["cache"]
    assert told["digest_lookups"] is True
    assert "cache_tenant" in told["digest_note"]
    several = client.post("/embed_image", json={"sha256s": [name, name.upper()]})
    assert several.json()["embeddings"] == [vector, vector]
    for route, body in {
        "/v1/embeddings": {"input": ["a red circle", {"image": base64_of(data)}]},
        "/score": {"texts": ["a red circle"], "images": [base64_of(data)]},
        "/classify": {"image": base64_of(data), "labels": ["red", "blue"]},
    }.items():
        by_bytes = client.post(route, json=body).json()
        by_digest = client.post(route, json=with_digests(body, data))
        assert by_digest.status_code == 200
        assert by_digest.json() == by_bytes
        assert "hit-l1" in tiers(by_digest)


def with_digests(body: Any, data: bytes) -> Any:
    """The same body without the image's bytes."""
    if isinstance(body, dict):
        if body == {"image": base64_of(data)}:
            return {"sha256": digest(data)}
        return {name: with_digests(one, data) for name, one in body.items()}
    if isinstance(body, list):
        return [with_digests(one, data) for one in body]
    return {"sha256": digest(data)} if body == base64_of(data) else body


def test_another_process_finds_it_in_redis(client: httpx.Client, other: httpx.Client) -> None:
    """What one server embedded, the next one answers without the bytes."""
    data = picture(2)
    vector = sent(client, data)
    answer = met(other, data)
    assert tiers(answer) == ["hit-l2"]
    assert answer.json()["embedding"] == vector


def test_answers_take_every_form(client: httpx.Client) -> None:
    """Number types, cuts and raw rows are made of the stored vector, as ever."""
    data = picture(3)
    sent(client, data)
    for options in (
        {"embedding_type": "int8"},
        {"embedding_type": "binary", "dimensions": 16},
        {"encoding_format": "base64", "dimensions": 8},
    ):
        by_bytes = client.post("/embed_image", json={"images": [base64_of(data)], **options})
        by_digest = client.post("/embed_image", json={"sha256s": [digest(data)], **options})
        assert by_digest.json() == by_bytes.json()
    octets = client.post("/embed_image", json={"sha256": digest(data)}, headers=OCTETS)
    assert np.frombuffer(octets.content, "<f4").tolist() == pytest.approx(sent(client, data))


def test_other_patches_are_another_vector(client: httpx.Client) -> None:
    """A vector of 256 patches is no answer to a request for 64, nor the reverse."""
    data = picture(4)
    whole, asked = sent(client, data), {"sha256": digest(data), "max_num_patches": 64}
    assert faults(client.post("/embed_image", json=asked)) == [(0, "digest_unknown", "sha256")]
    coarse = sent(client, data, max_num_patches=64)
    assert client.post("/embed_image", json=asked).json()["embedding"] == coarse != whole


def test_the_whole_answer_is_replayed(client: httpx.Client) -> None:
    """A request that comes again to the byte needs no look-up of its vectors either."""
    data = picture(5)
    sent(client, data)
    before = hits(client, "answer")
    answers = [client.post("/embed_image", json={"sha256": digest(data)}) for _ in range(3)]
    assert len({answer.content for answer in answers}) == 1
    awaited(lambda: hits(client, "answer") - before == 2)


def hits(client: httpx.Client, tier: str) -> float:
    line = f'cache_requests_total{{result="hit",tier="{tier}"}} '
    exposed = client.get("/metrics").text.splitlines()
    return sum(float(one.removeprefix(line)) for one in exposed if one.startswith(line))


def test_an_image_that_is_under_way_is_waited_for(client: httpx.Client) -> None:
    """Whoever has only the digest joins the one who sent the bytes; it is computed once."""
    numbers = itertools.count()

    def joined() -> bool:
        """Unless it was done before anybody asked."""
        buffer, colour = io.BytesIO(), (next(numbers), 9, 9)
        Image.new("RGB", (6000, 6000), colour).save(buffer, "PNG")  # small, and long to decode
        data = buffer.getvalue()
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(sent, client, data)
            answer = met(client, data)
            assert answer.json()["embedding"] == sending.result()
        return tiers(answer) == ["join"]

    awaited(joined)


def known(client: httpx.Client, data: bytes) -> httpx.Response | None:
    """The answer to its digest, once there is one."""
    answer = client.post("/embed_image", json={"sha256": digest(data)})
    return None if answer.status_code == 404 else answer


def met(client: httpx.Client, data: bytes) -> httpx.Response:
    """The first answer that is not "unknown"."""
    answer = awaited(lambda: known(client, data))
    assert answer is not None
    return answer


def test_a_refusal_names_every_unknown_digest_and_loses_nothing_else(client: httpx.Client) -> None:
    """A second request with those bytes alone completes the first: the rest is in the cache."""
    data, new = picture(10), picture(11)
    sent(client, data)
    first: list[Any] = [
        {"sha256": STRANGE},
        {"sha256": digest(data)},
        "a text of digests",
        {"image": base64_of(picture(12))},
        {"sha256": digest(new)},
    ]
    refused = client.post("/v1/embeddings", json={"input": first})
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "digest_unknown"
    assert faults(refused) == [
        (0, "digest_unknown", "input[0]"),
        (4, "digest_unknown", "input[4]"),
    ]
    second = [{"image": base64_of(picture(13))}, *first[1:4], {"image": base64_of(new)}]
    answer = client.post("/v1/embeddings", json={"input": second})
    assert tiers(answer) == ["miss", "hit-l1", "hit-l1", "hit-l1", "miss"]


def test_a_list_answers_the_known_ones(client: httpx.Client) -> None:
    """null and its error stand for the others; all unknown is a refusal; neither is replayed."""
    data, new = picture(14), picture(15)
    vector = sent(client, data)
    asked = {"sha256s": [digest(new), digest(data)]}
    answer = client.post("/embed_image", json=asked)
    assert answer.json()["embeddings"] == [None, vector]
    assert [(one["index"], one["code"]) for one in answer.json()["errors"]] == [
        (0, "digest_unknown")
    ]
    assert answer.json()["cached"] == [False, True]
    odd = client.post("/embed_image", json={"sha256s": [digest(data), "00"]}).json()
    assert (odd["embeddings"], odd["errors"][0]["code"]) == ([vector, None], "digest_invalid")
    nothing = client.post("/embed_image", json={"sha256s": [digest(new), STRANGE]})
    assert nothing.status_code == 404
    assert len(faults(nothing)) == 2
    late = sent(client, new)
    assert client.post("/embed_image", json=asked).json()["embeddings"] == [late, vector]


@pytest.mark.parametrize(
    ("route", "body", "place"),
    [
        ("/score", {"texts": ["red"], "images": [{"sha256": STRANGE}]}, (1, "images[0]")),
        ("/classify", {"image": {"sha256": STRANGE}, "labels": ["red"]}, (0, "image")),
    ],
)
def test_a_digest_among_labels_and_texts_is_named(
    client: httpx.Client, route: str, body: Any, place: tuple[int, str]
) -> None:
    """By its place in the body, on every route that takes a picture."""
    index, param = place
    answer = client.post(route, json=body)
    assert answer.status_code == 404
    assert faults(answer) == [(index, "digest_unknown", param)]


def test_the_bytes_in_one_place_serve_the_digest_in_another(client: httpx.Client) -> None:
    """Whichever stands first: the request brought the image."""
    data = picture(16)
    items = [{"sha256": digest(data)}, {"image": base64_of(data)}, {"sha256": digest(data)}]
    answer = client.post("/v1/embeddings", json={"input": items})
    assert tiers(answer) == ["join", "miss", "join"]
    assert len({tuple(one["embedding"]) for one in answer.json()["data"]}) == 1


def test_an_unknown_digest_takes_nothing_from_those_who_send_the_bytes() -> None:
    """Its request may wait for other items: nobody joins it for what it did not bring."""
    model, keys, unknown = Model(), keys_of("slow", "named"), DigestUnknown()

    async def story() -> tuple[Found, Found]:
        cache, gate = VectorCache(DIM, MemoryTier(1 << 20)), asyncio.Event()

        async def slowly(places: list[int]) -> Sequence[Entry | Exception]:
            await gate.wait()
            return await model.compute(keys)(places)

        peeked = cache.peek(keys)
        first = asyncio.create_task(cache.resolve(keys, peeked, slowly, lacking={1: unknown}))
        await until(lambda: peeked.values[1] is unknown)
        second = await ask(cache, keys[1:], model.compute(keys[1:]))
        gate.set()
        return await first, second

    waited, brought = asyncio.run(story())
    assert states(brought) == ["miss"]
    assert wrong(keys[1:], brought) == 0
    assert waited.values == [entry_of(keys[0]), unknown]


def test_an_image_that_cannot_be_decoded_is_refused_for_that(client: httpx.Client) -> None:
    """To send bytes that are known to be bad would be to no purpose."""
    junk = b"\x89PNG\r\n\x1a\n and no picture after it"
    by_bytes = client.post("/embed_image", content=junk, headers=RAW)
    by_digest = client.post("/embed_image", json={"sha256": digest(junk)})
    assert by_digest.status_code == by_bytes.status_code == 422
    assert faults(by_digest)[0][1] == faults(by_bytes)[0][1]


def test_a_cache_that_is_out_of_reach_is_a_cache_without_the_image(
    client: httpx.Client, other: httpx.Client, redis: RedisServer
) -> None:
    """Redis hangs: the bytes are asked for at once, they are answered, and hits come back."""
    data = picture(18)
    vector, asked = sent(client, data), {"sha256": digest(data)}
    assert met(other, data).json()["embedding"] == vector
    redis.pause()
    try:
        answer = other.post("/embed_image", json=asked)
        assert faults(answer) == [(0, "digest_unknown", "sha256")]
        assert sent(other, data) == vector
    finally:
        redis.resume()
    assert met(other, data).json()["embedding"] == vector


@pytest.mark.parametrize("wish", ["no-cache", "no-store", "max-age=0, no-cache"])
def test_nothing_can_be_computed_afresh_from_a_digest(client: httpx.Client, wish: str) -> None:
    """The header is named: the request is refused before anything is looked up."""
    answer = client.post(
        "/v1/embeddings",
        json={"input": ["a text", {"sha256": STRANGE}]},
        headers={"cache-control": wish},
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Cache-Control"
    assert "digest" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "digits",
    [
        "", "00", STRANGE[:-1], STRANGE + "0", "g" * 64, " " + STRANGE[1:], "sha256:" + STRANGE,
        "０" * 64,
    ],
)  # fmt: skip
def test_what_is_no_digest_is_refused_for_itself(digits: str) -> None:
    """64 hexadecimal digits and nothing beside them."""
    assert isinstance(Reader(Settings()).digest(digits), DigestInvalid)


@pytest.mark.parametrize("option", ["digest_lookups", "cache"])
def test_a_server_without_lookups_says_so(option: str) -> None:
    """Switched off, or with no cache to look in: the bytes are wanted at once."""
    settings = Settings.read({option: "off"}, {})
    assert isinstance(Reader(settings).digest(STRANGE), DigestDisabled)
    assert Reader(Settings()).digest(STRANGE) == Item("image", Digest.fromhex(STRANGE))
