"""What clients of this field send in other ways than the document shows, and what that costs.

Each row of what users reported and attackers tried has its test here where it is about a whole
request: from a body to an answer, over the stand-in towers.
"""

import base64
import json
from collections import Counter
from random import Random
from typing import Any

import orjson
import pytest

from litapi import errors
from litapi.http.answer import MANY, Answer
from litapi.http.forms.foreign import ForeignRequest
from litapi.http.forms.validation import INERT, SHOWN
from litapi.http.inputs import LARGE
from litapi.http.routes import ItemsRefused
from litapi.transport.admission import cost_of
from tests.support.desk import BAD, BLUE, DEMO, OCTETS, RED, Desk, Desks, b64, header, row_of, uri
from tests.support.forms import FORMS, body_for
from tests.support.wire import MULTIPART, arrive, form_data

MB = 1 << 20
CUTS = [{"truncate": "NONE"}, {"truncate": "START"}, {"truncate": False}, {"truncation": False}]


@pytest.mark.parametrize("path", FORMS)
def test_null_is_the_default_of_every_optional_field(desk: Desk, path: str) -> None:
    """Clients that write every field of their model get what they get without them."""
    optional = {n: None for n, f in FORMS[path].model_fields.items() if not f.is_required()}
    plain = desk.post(path, body_for(path))
    given = {name: value for name, value in body_for(path).items() if value is not None}
    for names in ({}, {"user": None, "truncate": None}):
        answer = desk.post(path, {**optional, **names, **given})
        assert without_cache(answer) == without_cache(plain)
    for name, field in FORMS[path].model_fields.items():
        if field.is_required():  # there is no default to stand for
            assert name in desk.denial(errors.RequestInvalid, path, {**given, name: None}).message


def without_cache(answer: Answer) -> Any:
    content = orjson.loads(answer.body)
    if isinstance(content, dict):
        content.pop("cached", None)
        content.pop("id", None)
    return content


def test_a_part_may_have_nulls_for_what_it_is_not(desk: Desk) -> None:
    """As clients write it whose parts are one class."""
    parts = [{"text": "a", "image": None}, {"text": None, "image": b64(RED), "image_url": None}]
    data = desk.json("/v1/embeddings", {"input": parts})["data"]
    assert [one["embedding"] for one in data] == [row_of("text", "a"), row_of("image", RED)]
    desk.denial(errors.RequestInvalid, "/v1/embeddings", {"input": [{"text": None}]})


@pytest.mark.parametrize(
    "path", [path for path in FORMS if "dimensions" in FORMS[path].model_fields]
)
def test_an_integral_float_is_an_integer(desk: Desk, path: str) -> None:
    """JavaScript and many JSON writers know one kind of number."""
    body = body_for(path)
    whole, given = (desk.post(path, {**body, "dimensions": size}) for size in (8, 8.0))
    assert without_cache(given) == without_cache(whole)
    refusal = desk.denial(errors.RequestInvalid, path, {**body, "dimensions": 8.5})
    assert refusal.param == "dimensions"


@pytest.mark.parametrize("path", FORMS)
def test_what_cannot_change_a_vector_is_ignored(desk: Desk, path: str) -> None:
    """On every route, whatever its form has of its own; Voyage's name adds its own list."""
    inert = {
        "user": "u", "input_type": "search_query", "task": "retrieval.passage", "priority": 1,
        "metadata": {"any": ["thing"]}, "truncate": "END", "truncation": True,
        "truncation_direction": "Right", "normalize": True, "normalized": True,
        "late_chunking": False, "output_dtype": "float",
    }  # fmt: skip
    assert inert.keys() == INERT.keys()
    plain = desk.post(path, body_for(path))
    answer = desk.post(path, {**body_for(path), **inert})
    expected = without_cache(plain)
    if path.endswith("/rerank"):
        expected |= {"object": "list", "data": expected["results"]}
    assert without_cache(answer) == expected


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    "field",
    [
        *({"truncate": "NONE"}, {"truncate": "START"}, {"truncate": False}),
        *({"truncate": {"a": "END"}}, {"truncation": False}, {"normalized": False}),
        *({"late_chunking": True}, {"normalise": True}, {"output_dtype": "int4"}),
    ],
)
def test_what_would_change_a_vector_is_refused_by_name(desk: Desk, path: str, field: Any) -> None:
    """And so is what is merely misspelt; only other makers' forms know another cut."""
    if issubclass(FORMS[path], ForeignRequest) and field in CUTS:
        return
    refusal = desk.denial(errors.RequestInvalid, path, {**body_for(path), **field})
    assert refusal.param == next(iter(field))


def test_options_beside_bytes_are_read_alike(desk: Desk) -> None:
    """In the query of a raw image, and in the fields of a form."""
    raw, path = {"content-type": "image/png"}, "/embed_image"
    body = form_data(("a", RED, "a.png"), ("dimensions", b"8.0", None), ("user", b"u", None))
    plain, *others = (
        desk.post(path, RED, raw, query=b"dimensions=8"),
        desk.post(path, RED, raw, query=b"dimensions=8.0"),
        desk.post(path, RED, raw, query=b"dimensions=8&user=u&truncate=end&task=a"),
        desk.post(path, body, MULTIPART),
    )
    assert [without_cache(one) for one in others] == [without_cache(plain)] * 3
    for query in (b"dimensions=8", b"output_dimension=8"):  # not where the fields of a form are
        refusal = desk.denial(errors.RequestInvalid, path, body, MULTIPART, query=query)
        assert "go into a JSON or multipart body" in refusal.message
    for query in (b"truncate=none", b"normalize=false"):
        desk.denial(errors.RequestInvalid, path, RED, raw, query=query)


def test_any_data_uri_in_base64_is_an_image(desk: Desk) -> None:
    """Its bytes decide what it is; letters are never embedded in place of a picture."""
    bad = f"data:application/pdf;base64,{b64(BAD)}"
    refused = desk.refusal("/v1/embeddings", {"input": ["a", bad]})
    assert (refused.error.status, refused.error.param) == (422, "input[1]")
    assert desk.refusal("/v1/embeddings", {"input": "data:;base64,?"}).error.status == 422


@pytest.mark.parametrize("more", [[], ["fine" + "." * 900] * 2000], ids=["few", "many"])
def test_half_an_emoji_refuses_one_text(desk: Desk, more: list[str]) -> None:
    """Of a list alone, however large or long, and by its place where one item refuses all."""
    cut, size = f"cut {'.' * len(more)}\ud83c", 64 * MB
    texts = json.dumps(["fine", cut, *more]).encode()
    content = desk.json("/embed_text", b'{"texts":%b}' % texts, limit=size)
    assert content["embeddings"][:2] == [row_of("text", "fine"), None]
    assert [(one["index"], one["code"]) for one in content["errors"]] == [(1, "text_invalid")]
    refused = desk.refusal("/v1/embeddings", b'{"input":%b}' % texts, limit=size)
    assert (refused.error.status, refused.error.param) == (422, "input[1]")
    assert desk.refusal("/embed_text", b'{"text":"\\udc00"}').error.code == "text_invalid"
    desk.denial(errors.JsonInvalid, "/embed_text", b'{"texts":%b, NaN]}' % texts[:-1], limit=size)


def test_a_byte_order_mark_is_no_part_of_a_body(desk: Desk) -> None:
    """As some editors and PowerShell write files."""
    mark = b"\xef\xbb\xbf"
    assert desk.json("/embed_text", mark + b'{"text":"a"}')["embedding"] == row_of("text", "a")
    for body in (mark + mark + b"{}", mark):
        desk.denial(errors.JsonInvalid, "/embed_text", body)


@pytest.mark.parametrize(
    ("accept", "octets"),
    [
        ("application/octet-stream", True), ("Application/Octet-Stream", True),
        ("application/octet-stream, application/json", True),
        ("application/octet-stream, */*", True), ("application/octet-stream, */*;q=0.1", True),
        ("application/json;q=0.5, application/octet-stream", True),
        ("application/json;q=0, application/octet-stream;q=0.1", True),
        ("application/json, application/octet-stream;q=0", False),
        ("application/json, application/octet-stream;q=0.9", False),
        ("application/json, application/octet-stream", False),
        ("application/octet-streams, application/json", False),
        ("application/octet-stream;q=0", False), ("application/octet-stream; q=0.2, */*", False),
        ("application/octet-stream;q=0.2, application/*;q=0.8", False), ("*/*", False),
        ("text/html", False), ("", False),
    ],
)  # fmt: skip
def test_the_clients_order_of_forms_holds(desk: Desk, accept: str, octets: bool) -> None:
    """Weights decide, and where they are equal what is named first; lines are one list."""
    for lines in ([accept], accept.split(",")):
        headers = [(b"accept", line.encode()) for line in lines]
        answer = desk.post("/embed_text", {"text": "a"}, headers)
        assert header(answer, b"content-type").endswith(b"octet-stream" if octets else b"json")


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        ([b"no-store", b"max-age=0"], b"bypass"), ([b"max-age=0", b"no-store"], b"bypass"),
        ([b"no-cache", b"max-age=0"], b"bypass"), ([b'No-Cache="x-y"'], b"bypass"),
        ([b"no-cache"], b"bypass"), ([b"No-Cache, max-age=0"], b"bypass"),
        ([b"no-cache,no-store"], b"bypass"), ([b"max-age=0"], b"hit-l1"), ([b""], b"hit-l1"),
        ([b"max-age=0", b"min-fresh=1"], b"hit-l1"),
    ],
)  # fmt: skip
def test_all_lines_of_cache_control_count(desk: Desk, lines: list[bytes], state: bytes) -> None:
    """no-cache computes afresh and keeps, no-store keeps nothing; a proxy may add a line."""
    headers = [(b"cache-control", line) for line in lines]
    first, again = (desk.post("/embed_text", {"text": "a"}, headers) for _ in range(2))
    computed = b"miss" if state == b"hit-l1" else state
    assert [header(first, b"x-cache"), header(again, b"x-cache")] == [computed, state]
    kept = header(desk.post("/embed_text", {"text": "a"}), b"x-cache") == b"hit-l1"
    assert kept == (b"no-store" not in b",".join(lines))


@pytest.mark.parametrize("length", [SHOWN + 1, 5000, 300_000])
def test_a_long_name_does_not_come_back(desk: Desk, length: int) -> None:
    """Of what a client calls a field, a part or an option, the beginning is enough."""
    name = "n" * length
    bodies = [
        {"input": "a", name: 1},
        {"input": [{"text": "a", name: 1}]},
        {"input": [{name: "a"}]},
    ]
    path, kind = "/v1/embeddings", errors.RequestInvalid
    refusals = [desk.denial(kind, path, body, limit=MB) for body in bodies]
    raw, query = {"content-type": "image/png"}, name[:20_000].encode() + b"=1"
    refusals.append(desk.denial(kind, "/embed_image", RED, raw, query=query))
    for refusal in refusals:
        assert "n" * SHOWN in refusal.message
        assert len(refusal.message) < 1000
        assert len(refusal.param or "") < 200
    assert len(refusals[-1].message) < 200


def test_captions_are_counted_before_they_are_made(desk: Desk) -> None:
    """Ten thousand places for labels of a hundred thousand characters would be gigabytes."""
    body = {"image": b64(RED), "labels": ["a" * 100_000, "b"], "template": "{label}" * 10_000}
    refused = desk.refusal("/classify", body)
    (item,) = refused.items
    assert (item["param"], item["code"]) == ("labels[0]", "text_too_long")
    desk.towers.take()  # the other caption is embedded, so that asking again costs nothing
    many = {"image": b64(RED), "labels": ["b" * 30] * 200, "template": "{label}" * 1000}
    refusal = desk.denial(errors.BodyTooLarge, "/classify", many)
    assert "6000000 characters together; this server accepts 2097152" in refusal.message
    assert desk.towers.sent == []


def test_a_caption_may_be_as_long_as_a_text(desks: Desks) -> None:
    """The limit itself is allowed, one character more is not; a label counts each time."""
    desk = desks(max_text_chars=10)
    body = {"image": b64(RED), "template": "1{label}{label}6"}
    assert desk.post("/classify", {**body, "labels": ["abcd"]}).status == 200
    refused = desk.refusal("/classify", {**body, "labels": ["abcd", "abcde"]})
    assert [one["param"] for one in refused.items] == ["labels[1]"]


def test_pairs_are_counted_before_they_are_scored(desk: Desk) -> None:
    """A thousand texts and a thousand pictures are a million numbers, twice."""
    body = {"texts": ["a"] * 1000, "images": [b64(RED)] * 1000}
    refusal = desk.denial(errors.TooManyItems, "/score", body)
    assert "make 1000000 pairs; this server scores 131072" in refusal.message


def test_many_pairs_are_scored_as_few_are(desk: Desk) -> None:
    """Computed and written in turns, each number is the same."""
    texts = [f"text {i}" for i in range(80)]
    images = [b64(b"image %d" % i) for i in range(1600)]
    content = desk.json("/score", {"texts": texts, "images": images})
    assert [len(row) for row in content["cosine"]] == [1600] * 80
    few = desk.json("/score", {"texts": texts[77:], "images": images[:5]})
    for name in ("cosine", "probability"):
        for many_row, few_row in zip(content[name][77:], few[name], strict=True):
            assert many_row[:5] == pytest.approx(few_row, abs=1e-12)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed_image", "/score", "/classify"])
@pytest.mark.parametrize(
    ("options", "cap"),
    [
        ({"max_num_patches": 64}, 64),
        ({}, 1024),
        ({"max_num_patches_asked": 2000}, 2000),
        ({"max_num_patches": 64, "max_num_patches_asked": 128}, 128),
    ],
)
def test_more_patches_than_the_cap_are_refused_by_name(
    desks: Desks, path: str, options: dict[str, int], cap: int
) -> None:
    """The cap is max_num_patches where that is given, its own option, or what training knew."""
    desk, body = desks(**options), body_for(path)
    assert desk.post(path, {**body, "max_num_patches": cap}).status == 200
    refusal = desk.denial(errors.RequestInvalid, path, {**body, "max_num_patches": cap + 1})
    assert refusal.param == "max_num_patches"
    assert f"up to {cap}" in refusal.message
    assert desk.service.info()["limits"]["num_patches"] == cap


def test_images_of_many_patches_count_as_several_items(desks: Desks) -> None:
    """By what they cost the model, of which a part grows with the square."""
    desk = desks(max_num_patches_asked=4096, max_items=256)
    each = cost_of(4096, DEMO.max_num_patches)
    assert each > 4096 // DEMO.max_num_patches
    fit = 256 // each
    images = [b64(b"picture %d" % i) for i in range(fit + 1)]
    body = {"images": images[:fit], "max_num_patches": 4096}
    assert desk.post("/embed_image", body).status == 200
    refusal = desk.denial(errors.TooManyItems, "/embed_image", {**body, "images": images})
    assert "of 4096 patches cost as much as" in refusal.message
    assert desk.post("/embed_image", {"images": images}).status == 200


@pytest.mark.parametrize("more", [{}, {"encoding_format": "base64"}, {"dimensions": 8}])
def test_as_many_texts_as_openai_takes_are_answered(desk: Desk, more: dict[str, Any]) -> None:
    """2,048, each with its own vector in its own place, in every form; null for a refused one."""
    texts = [f"text {i}" for i in range(2048)]
    openai = desk.json("/v1/embeddings", {"input": texts, **more})
    own = desk.json("/embed_text", {"texts": texts, **more})
    assert [one["embedding"] for one in openai["data"]] == own["embeddings"]
    assert [one["index"] for one in openai["data"]] == list(range(2048))
    assert list(openai) == ["object", "data", "model", "usage"]
    assert own["errors"] == []
    for index in (0, MANY - 1, MANY, 2047):
        one = desk.json("/embed_text", {"text": texts[index], **more})
        assert own["embeddings"][index] == one["embedding"]
    raw = desk.post("/embed_text", {"texts": texts, **more}, OCTETS)
    assert header(raw, b"x-cache") == b",".join([b"hit-l1"] * 256)
    assert header(raw, b"x-embedding-shape").startswith(b"2048,")
    holed = desk.json("/embed_text", {"texts": [*texts[:200], "", *texts[200:2047]], **more})
    before, after = own["embeddings"][199:201]
    assert holed["embeddings"][199:202] == [before, None, after]


def test_headers_stay_as_short_as_clients_take_them(desk: Desk) -> None:
    """aiohttp takes 8 KB of one header and Node 16 KB of all: they tell of the first 256 items."""
    texts = ["long" * 20 + str(i) for i in range(2048)]
    answer = desk.post("/embed_text", {"texts": texts})
    assert header(answer, b"x-truncated") == b",".join(b"%d" % i for i in range(256))
    assert sum(len(name) + len(value) + 4 for name, value in answer.headers) < 4096
    assert orjson.loads(answer.body)["truncated"] == [True] * 2048


def test_a_text_of_many_tokens_is_cut_and_told(desk: Desk) -> None:
    """Not refused for its characters, of which most will not be seen."""
    for text in ("a " * 4097, "é" * 32_768):
        assert len(text) > 8192
        answer = desk.post("/v1/embeddings", {"input": ["short", text]})
        data = orjson.loads(answer.body)["data"]
        assert data[1]["truncated"] is True
        assert data[1]["embedding"] == row_of("text", text)
        assert header(answer, b"x-truncated") == b"1"
        holed = desk.post("/embed_text", {"texts": ["short", "", text]})  # which shifts no place
        assert header(holed, b"x-truncated") == b"2"


def test_a_text_beyond_every_bound_is_refused_alone(desk: Desk) -> None:
    """Whether its body is large or not; where one refused item refuses all, by its place."""
    for size in (32_769, 500_000):
        texts = ["fine", "a" * size]
        content = desk.json("/embed_text", {"texts": texts})
        assert content["embeddings"] == [row_of("text", "fine"), None]
        assert [(o["index"], o["code"]) for o in content["errors"]] == [(1, "text_too_long")]
        refused = desk.refusal("/v1/embeddings", {"input": texts})
        assert (refused.error.code, refused.error.param) == ("text_too_long", "input[1]")


def test_texts_are_bounded_together(desk: Desk) -> None:
    """The tokenizer's time is a server's too."""
    texts = ["a" * 20_000 for _ in range(105)]
    refusal = desk.denial(errors.BodyTooLarge, "/embed_text", {"texts": texts}, limit=64 * MB)
    assert "2100000 characters together; this server accepts 2097152" in refusal.message
    assert desk.post("/embed_text", {"texts": texts[:104]}, limit=64 * MB).status == 200


@pytest.mark.parametrize("size", [LARGE, 300_000, 3 * MB])
def test_an_image_of_many_bytes_is_read_like_any(desk: Desk, size: int) -> None:
    """Plain, as a data URI, in lines, with escapes; on every route that takes one."""
    data = Random(size).randbytes(size)
    row = row_of("image", data)
    lines = base64.encodebytes(data).decode()
    for text in (b64(data), uri(data), lines, lines.replace("\n", "\r\n")):
        for escaped in (False, True):
            body = json.dumps({"images": [text, b64(RED)]})
            body = body.replace("/", "\\/").replace("=", "\\u003d") if escaped else body
            answered = desk.json("/embed_image", body.encode(), limit=64 * MB)
            assert answered["embeddings"] == [row, row_of("image", RED)]
    for part in (uri(data), {"image": b64(data)}, {"image_url": {"url": uri(data)}}):
        answered = desk.json("/v1/embeddings", {"input": ["a", part]}, limit=64 * MB)
        assert answered["data"][1]["embedding"] == row
    labelled = {"image": b64(data), "labels": ["a", "b"]}
    assert desk.post("/classify", labelled, limit=64 * MB).status == 200
    paired = {"texts": ["a"], "images": [b64(data), b64(BLUE)]}
    assert desk.post("/score", paired, limit=64 * MB).status == 200


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        (["QQ", "QQ=", "QQ==QQ==", "====", "-_-_", "é", "Q\x00Q="], "image_base64_invalid"),
        (["é" * 500_000, "?" * 500_000, "QUJD" * 200_000 + "QQ==QUJD"], "image_base64_invalid"),
        (["QUJD" * 200_000 + "Q", "data:" + "x" * 1_000_000], "image_base64_invalid"),
        (["data:image/png,QQ==", "data:QQ=="], "image_base64_invalid"),
        (["data:image/png," + "QUJD" * 200_000], "image_base64_invalid"),
        (["data:image/png;base64" + " " * 800_000], "image_base64_invalid"),
        (["", "data:image/png;base64,", " \n" * 400_000], "image_empty"),
        (["QUJD" * 800_000], "image_too_large"),
        (["http://a.example/b.png", "HTTPS://a.example/b.png"], "image_url_disabled"),
        (["http://a.example/" + "b" * 800_000], "image_url_disabled"),
    ],
)
def test_a_string_that_is_no_image_is_refused_for_what_it_is(
    desks: Desks, texts: list[str], code: str
) -> None:
    """Short or long: no padding is guessed at, nothing is opened, and no other image is harmed."""
    desk = desks(max_image_bytes=2 * MB)
    content = desk.json("/embed_image", {"images": [*texts, b64(RED)]}, limit=64 * MB)
    assert content["embeddings"] == [None] * len(texts) + [row_of("image", RED)]
    assert [one["code"] for one in content["errors"]] == [code] * len(texts)


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


@pytest.mark.parametrize("seed", range(10))
def test_no_request_nearby_is_a_fault_of_the_servers(desk: Desk, seed: int) -> None:
    """Seeded bodies and headers around every route: answered, or refused with a 4xx."""
    random, statuses, longest = Random(seed), Counter[int](), 0
    for _ in range(150):
        path = random.choice([*FORMS])
        headers = [(b"content-type", b"application/json")]
        for name, values in ((b"accept", ACCEPTS), (b"cache-control", CONTROLS)):
            chosen = random.choices(values, k=random.randrange(3))
            headers += [(name, value.encode("latin-1")) for value in chosen]
        try:
            status = desk.post(path, spoilt(random, path), headers).status
        except ItemsRefused as refused:
            status = refused.error.status
            orjson.loads(Answer.error(refused.error, refused.items).body)
        except errors.ServiceError as error:
            status = error.status
            longest = max(longest, len(Answer.error(error).body))
        statuses[status] += 1
    assert longest < 4000
    assert all(status < 500 for status in statuses), statuses
    assert statuses[200] > 10
    assert statuses[400] > 10


def test_a_request_with_one_line_of_each_header_keeps_them_as_they_are() -> None:
    """Nothing is joined that came whole; of other headers the last line holds, as it did."""
    incoming = arrive(b"", {"accept": "a/b", "x-request-id": "1"})
    assert incoming.headers == {b"accept": b"a/b", b"x-request-id": b"1"}
    lines = [(b"accept", b"a/b"), (b"x-y", b"1"), (b"accept", b"c/d"), (b"x-y", b"2")]
    assert arrive(headers=lines).headers == {b"accept": b"a/b, c/d", b"x-y": b"2"}
