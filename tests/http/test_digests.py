"""Images by digest: a repeated look-up sends 64 digits, and learns no more than the bytes would."""

import asyncio
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
from tests.support.desk import OCTETS, b64
from tests.support.model import DIM, Model, ask, entry_of, keys_of, states, wrong
from tests.support.patience import awaited, until
from tests.support.picture import picture

RAW = {"content-type": "image/png"}
STRANGE = sha256(b"nobody has this").hexdigest()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def server(redis: RedisServer) -> Iterator[ServerProcess]:
    """With a memory and a Redis."""
    with ServerProcess("--http-workers", "1", REDIS_URL=redis.url) as running:
        yield running


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


def sent(client: httpx.Client, data: bytes, **options: Any) -> list[float]:
    """The vector of an image whose bytes come."""
    answer = client.post("/embed_image", content=data, headers=RAW, params=options)
    assert answer.status_code == 200
    vector: list[float] = answer.json()["embedding"]
    return vector


def by_digest(client: httpx.Client, data: bytes, **options: Any) -> httpx.Response:
    """The answer to an image whose digest comes."""
    return client.post("/embed_image", json={"sha256": digest(data), **options})


def tiers(answer: httpx.Response) -> list[str]:
    return answer.headers["x-cache"].split(",")


def faults(answer: httpx.Response) -> list[tuple[int, str, str]]:
    """Index, code and place of each refused item."""
    assert answer.is_error
    return [(one["index"], one["code"], one["param"]) for one in answer.json()["error"]["items"]]


def test_every_route_answers_a_digest_as_it_answers_the_bytes(client: httpx.Client) -> None:
    """Vectors, token counts, probabilities: to the last digit what the image itself gets."""
    data = picture(1)
    name, vector = digest(data), sent(client, data)
    one = by_digest(client, data).json()
    assert (one["embedding"], one["cached"]) == (vector, True)
    told = client.get("/info").json()["cache"]
    assert told["digest_lookups"] is True
    assert "cache_tenant" in told["digest_note"]
    several = client.post("/embed_image", json={"sha256s": [name, name.upper()]})
    assert several.json()["embeddings"] == [vector, vector]
    image, named = b64(data), {"sha256": name}
    bodies: list[tuple[str, Any, Any]] = [
        ("/v1/embeddings", {"input": ["red", {"image": image}]}, {"input": ["red", named]}),
        ("/score", {"texts": ["red"], "images": [image]}, {"texts": ["red"], "images": [named]}),
        ("/classify", {"image": image, "labels": ["red"]}, {"image": named, "labels": ["red"]}),
    ]
    for route, given, short in bodies:
        answer = client.post(route, json=short)
        assert answer.status_code == 200
        assert answer.json() == client.post(route, json=given).json()
        assert "hit-l1" in tiers(answer)


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
        given, named = (
            client.post("/embed_image", json={**images, **options}).json()
            for images in ({"images": [b64(data)]}, {"sha256s": [digest(data)]})
        )
        assert given == named
    octets = client.post("/embed_image", json={"sha256": digest(data)}, headers=OCTETS)
    assert np.frombuffer(octets.content, "<f4").tolist() == pytest.approx(sent(client, data))


def test_other_patches_are_another_vector(client: httpx.Client) -> None:
    """A vector of 256 patches is no answer to a request for 64, nor the reverse."""
    data = picture(4)
    whole, few = sent(client, data), {"max_num_patches": 64}
    assert faults(by_digest(client, data, **few)) == [(0, "digest_unknown", "sha256")]
    coarse = sent(client, data, **few)
    assert by_digest(client, data, **few).json()["embedding"] == coarse != whole


def test_the_whole_answer_is_replayed(client: httpx.Client) -> None:
    """A request that comes again to the byte needs no look-up of its vectors either."""
    data = picture(5)
    sent(client, data)
    before = hits(client, "answer")
    answers = [by_digest(client, data) for _ in range(3)]
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


def met(client: httpx.Client, data: bytes) -> httpx.Response:
    """The first answer that is not "unknown"."""

    def known() -> httpx.Response | None:
        answer = by_digest(client, data)
        return None if answer.status_code == 404 else answer

    answer = awaited(known)
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
        {"image": b64(picture(12))},
        {"sha256": digest(new)},
    ]
    refused = client.post("/v1/embeddings", json={"input": first})
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "digest_unknown"
    assert faults(refused) == [(i, "digest_unknown", f"input[{i}]") for i in (0, 4)]
    second = [{"image": b64(picture(13))}, *first[1:4], {"image": b64(new)}]
    answer = client.post("/v1/embeddings", json={"input": second})
    assert tiers(answer) == ["miss", "hit-l1", "hit-l1", "hit-l1", "miss"]


def test_a_list_answers_the_known_ones(client: httpx.Client) -> None:
    """null and its error stand for the others; all unknown is a refusal; neither is replayed."""
    data, new = picture(14), picture(15)
    vector = sent(client, data)
    asked = {"sha256s": [digest(new), digest(data)]}
    answered = client.post("/embed_image", json=asked).json()
    assert answered["embeddings"] == [None, vector]
    assert answered["cached"] == [False, True]
    (error,) = answered["errors"]
    assert (error["index"], error["code"]) == (0, "digest_unknown")
    odd = client.post("/embed_image", json={"sha256s": [digest(data), "00"]}).json()
    assert (odd["embeddings"], odd["errors"][0]["code"]) == ([vector, None], "digest_invalid")
    nothing = client.post("/embed_image", json={"sha256s": [digest(new), STRANGE]})
    assert nothing.status_code == 404
    assert len(faults(nothing)) == 2
    late = sent(client, new)
    assert client.post("/embed_image", json=asked).json()["embeddings"] == [late, vector]


def test_a_digest_among_labels_and_texts_is_named(client: httpx.Client) -> None:
    """By its place in the body, on every route that takes a picture."""
    score = client.post("/score", json={"texts": ["red"], "images": [{"sha256": STRANGE}]})
    classify = client.post("/classify", json={"image": {"sha256": STRANGE}, "labels": ["red"]})
    assert (score.status_code, classify.status_code) == (404, 404)
    assert faults(score) == [(1, "digest_unknown", "images[0]")]
    assert faults(classify) == [(0, "digest_unknown", "image")]


def test_the_bytes_in_one_place_serve_the_digest_in_another(client: httpx.Client) -> None:
    """Whichever stands first: the request brought the image."""
    data = picture(16)
    items = [{"sha256": digest(data)}, {"image": b64(data)}, {"sha256": digest(data)}]
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
    named = by_digest(client, junk)
    assert named.status_code == by_bytes.status_code == 422
    assert faults(named)[0][1] == faults(by_bytes)[0][1]


def test_a_cache_that_is_out_of_reach_is_a_cache_without_the_image(
    client: httpx.Client, other: httpx.Client, redis: RedisServer
) -> None:
    """Redis hangs: the bytes are asked for at once, they are answered, and hits come back."""
    data = picture(18)
    vector = sent(client, data)
    assert met(other, data).json()["embedding"] == vector
    redis.pause()
    try:
        assert faults(by_digest(other, data)) == [(0, "digest_unknown", "sha256")]
        assert sent(other, data) == vector
    finally:
        redis.resume()
    assert met(other, data).json()["embedding"] == vector


@pytest.mark.parametrize("wish", ["no-cache", "no-store", "max-age=0, no-cache"])
def test_nothing_can_be_computed_afresh_from_a_digest(client: httpx.Client, wish: str) -> None:
    """The header is named: the request is refused before anything is looked up."""
    body = {"input": ["a text", {"sha256": STRANGE}]}
    answer = client.post("/v1/embeddings", json=body, headers={"cache-control": wish})
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
