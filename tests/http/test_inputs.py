"""Bodies → items: the right bytes become the right items, and one bad item harms no other."""

import asyncio
import base64
import gzip
import json
from collections.abc import Callable, MutableMapping
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from litapi.errors import (
    BodyTooLarge,
    ImageTooLarge,
    ImageUrlDisabled,
    ItemError,
    JsonInvalid,
    MediaTypeUnsupported,
    MultipartInvalid,
    RequestError,
    RequestInvalid,
    TextEmpty,
    TextTooLong,
    TooManyItems,
)
from litapi.http.embedder import Query
from litapi.http.fetch import Fetcher, FetchPolicy
from litapi.http.forms.parts import ImagePart, ImageUrl, ImageUrlPart, TextPart
from litapi.http.inputs import MOST_FIELDS, Link, Read, Reader, _base64_parts
from litapi.http.request import ClientGone, Incoming
from litapi.messages import Item
from litapi.settings import Settings
from litapi.text import canonical
from tests.support.form_data import BOUNDARY, MULTIPART, form_data
from tests.support.wire import Wire, arrive

READER = Reader(Settings.read({}, {}))
SMALL = Reader(Settings.read({"max_items": 2, "max_text_chars": 4, "max_image_bytes": 6}, {}))


def upload(incoming: Incoming, reader: Reader = READER) -> tuple[list[Read], dict[str, Any]]:
    """The images, and the options that came beside them."""
    items, options = asyncio.run(reader.upload(incoming))
    return items, options.model_dump(exclude_unset=True)


def image_body(data: bytes = b"image", query: bytes = b"") -> Incoming:
    """A raw image with options in the query."""
    return arrive(data, {"content-type": "image/png"}, query=query)


def code_of(read: Read) -> str:
    """The code of a refused item."""
    assert isinstance(read, ItemError)
    return read.code


def parsed(content: Any, reader: Reader = READER) -> Any:
    """A body as a form gets it."""
    return asyncio.run(reader.json(arrive(orjson.dumps(content), limit=1 << 26)))


def test_a_list_is_cut_to_one_more_than_may_be() -> None:
    """Of millions of wrong members each would get a sentence of its own."""
    many = ["a"] * 1000
    reader = Reader(Settings.read({"max_items": 256}, {}))
    assert parsed({"texts": many}, reader) == {"texts": many[:257]}
    assert parsed({"input": [many] * 3}, SMALL) == {"input": [["a"] * 3] * 3}
    assert parsed(many, reader) == many[:257]
    assert parsed({"texts": many[:256]}, reader) == {"texts": many[:256]}


@pytest.mark.parametrize(
    "place", [lambda o: o, lambda o: {"input": [o]}, lambda o: {"input": [{"image_url": o}]}]
)
def test_an_object_with_many_fields_is_refused(place: Callable[[Any], Any]) -> None:
    """In the body, in a part and in the object within: unknown fields are named one by one."""
    swollen = {str(number): 0 for number in range(MOST_FIELDS + 1)}
    with pytest.raises(RequestInvalid, match="fields"):
        parsed(place(swollen))
    swollen.popitem()
    assert parsed(place(swollen)) == place(swollen)


def test_a_body_of_millions_of_members_is_not_parsed() -> None:
    """What its objects would take is a hundred times the body."""
    with pytest.raises(TooManyItems):
        asyncio.run(READER.json(arrive(b"[%b1" % (b"1," * 1_000_000), limit=1 << 26)))  # nor JSON


@pytest.mark.parametrize("character", [",", '"', "\\", "[", "{", ":", "\n", "é", "😀"])
def test_the_most_structure_that_good_texts_hold_passes(character: str) -> None:
    """As many texts as may come, of nothing but what JSON is made of, are no structure."""
    texts = [character * 2048] * 2048
    assert parsed({"texts": texts}) == {"texts": texts}


def test_a_deep_body_is_no_fault_of_the_server() -> None:
    """Brackets in brackets, as deep as the parser goes, and one deeper."""
    for depth in (1000, 1022):
        body = b'{"input": %b%b}' % (b"[" * depth, b"]" * depth)
        assert list(asyncio.run(READER.json(arrive(body)))) == ["input"]
    with pytest.raises(JsonInvalid):
        asyncio.run(READER.json(arrive(b"[" * 5000)))


def test_json_is_read_whatever_curl_calls_it_and_nothing_else_is() -> None:
    """`curl -d` without -H sends a form's type; a picture sent to a text route is not tried."""

    def read(kind: str) -> object:
        return asyncio.run(READER.json(arrive(b'{"text": "a"}', {"content-type": kind})))

    for kind in (
        *("application/json", "application/json; charset=utf-8", "application/vnd.api+json"),
        *("application/x-www-form-urlencoded", "text/plain", ""),
    ):
        assert read(kind) == {"text": "a"}
    for kind in ("image/png", "application/xml", "text/html", "json"):
        with pytest.raises(MediaTypeUnsupported):
            read(kind)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "The body is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "/embed_image with its own Content-Type"),
        (b"{'a': 1}", "expected a string key (line 1, column 2)"),
        (b'{"a": 1', "unexpected end of data (line 1, column 8)"),
        *((body, "") for body in (b"{", b"NaN", b"\xff", b'{"a": 01}', b"[" * 100_000)),
    ],
)
def test_a_body_that_is_not_json_is_told_what_it_is(body: bytes, words: str) -> None:
    """The likeliest slips get the sentence that mends them; no nesting exhausts the stack."""
    with pytest.raises(JsonInvalid) as refusal:
        asyncio.run(READER.json(arrive(body)))
    assert words in refusal.value.message


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    """No body ends in an internal error."""
    try:
        content = asyncio.run(READER.json(arrive(body)))
    except JsonInvalid:
        return
    assert content == json.loads(body)


def test_too_large_a_body_is_refused_as_that() -> None:
    """The limit on bytes holds for every way in."""
    with pytest.raises(BodyTooLarge):
        asyncio.run(READER.json(arrive(b"[1, 2, 3]", limit=8)))
    for headers in (MULTIPART, {"content-type": "image/png"}):
        with pytest.raises(BodyTooLarge):
            upload(arrive(form_data(("a", b"x", "a.png")), headers, limit=8))


@given(st.text(st.characters(codec=None), max_size=30))
@example("\ud800")
def test_any_text_is_an_item_in_its_canonical_form_or_an_error(text: str) -> None:
    """The cache key and the tokenizer see one and the same form."""
    read = READER.text(text)
    if isinstance(read, Item):
        assert read == Item("text", canonical(text))
    else:
        assert code_of(read) == ("text_invalid" if text else "text_empty")


def test_a_text_is_refused_for_itself() -> None:
    """The limit counts characters, and blanks have vectors."""
    assert isinstance(SMALL.text("fives"), TextTooLong)
    for good in ("four", "四字成語", "  "):
        assert SMALL.text(good) == Item("text", good)


@given(st.binary(min_size=1, max_size=200))
def test_base64_brings_the_bytes_back(data: bytes) -> None:
    """Plain, as a data URI, and broken into lines as MIME writes it."""
    plain = base64.b64encode(data).decode()
    lines = base64.encodebytes(data).decode().replace("\n", "\r\n")
    for text in (plain, f"data:image/png;base64,{plain}", f"DATA:image/png;x=1;BASE64,{lines}"):
        assert READER.image(text) == Item("image", data)


@given(st.text(st.characters(codec=None), max_size=60) | st.text("QUJD=-_ \n:,;/dataimge64"))
@example("data:")
@example("data:,")
@example("data:image/png;base64")
@example("http://")
@example("\ud800")
@example("QQ==QQ==")
def test_any_string_is_an_image_or_an_error(text: str) -> None:
    """What is not an image becomes the item's own error, never an exception."""
    assert isinstance(READER.image(text), Item | ItemError)


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        (["QQ", "QQ=", "QQ==QQ==", "====", "-_-_", "é", "Q\x00Q="], "image_base64_invalid"),
        (["data:image/png,QQ==", "data:QQ=="], "image_base64_invalid"),
        (["", "data:image/png;base64,"], "image_empty"),
        (["http://a.example/b.png", "HTTPS://a.example/b.png"], "image_url_disabled"),
        (["?" * 100], "image_too_large"),
    ],
)
def test_a_string_that_is_no_image_is_refused_for_what_it_is(texts: list[str], code: str) -> None:
    """No padding is guessed at, no connection opened, and what cannot fit is not even decoded."""
    assert [code_of(SMALL.image(text)) for text in texts] == [code] * len(texts)
    assert code_of(READER.image_bytes(b"")) == "image_empty"
    assert code_of(READER.link("http://a.example/b.png")) == "image_url_disabled"


def settle(reads: list[Read]) -> tuple[list[Any], bool]:
    """What becomes of them where nothing is fetched."""

    async def run() -> tuple[list[Any], bool]:
        incoming = arrive(b"body")
        await incoming.body()
        query = Query()
        return list(await READER.settled(reads, incoming, query)), query.fetched

    return asyncio.run(run())


class Silent:
    """A host that takes requests and never answers."""

    def __init__(self) -> None:
        self.called, self.left = asyncio.Event(), asyncio.Event()

    async def listen(self) -> Fetcher:
        """A fetcher that may ask it, patiently."""
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        policy = FetchPolicy(
            hosts=("127.0.0.1",),
            private_ok=True,
            ports=(self.port,),
            max_bytes=100,
            timeout=60.0,
        )
        fetcher = Fetcher(policy)
        await fetcher.start()
        return fetcher

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.called.set()
        await reader.read()  # to the end of the connection
        self.left.set()
        writer.close()

    def close(self) -> None:
        self._server.close()


class Parting(Wire):
    """A client that hangs up once its request has made the server call a host."""

    def __init__(self, host: Silent) -> None:
        super().__init__([b"body"])
        self._host = host

    async def receive(self) -> MutableMapping[str, Any]:
        if self.taken == 0:
            return await super().receive()
        await self._host.called.wait()
        return {"type": "http.disconnect"}


def test_a_fetch_ends_when_its_client_leaves() -> None:
    """A host that never answers is not waited for on behalf of nobody, and sees its caller go."""

    async def run() -> None:
        host = Silent()
        fetcher, incoming = await host.listen(), arrive(Parting(host))
        await incoming.body()
        reader = Reader(Settings.read({}, {}), fetcher)
        link = Link(f"http://127.0.0.1:{host.port}/a.png")
        with pytest.raises(ClientGone):
            await asyncio.wait_for(reader.settled([link], incoming, Query()), 60)
        await asyncio.wait_for(host.left.wait(), 60)
        await fetcher.close()
        host.close()

    asyncio.run(run())


def test_without_links_there_is_nothing_to_settle() -> None:
    """Items and their errors keep their places; a link that cannot be fetched is its own error."""
    reads: list[Read] = [Item("text", "a"), TextEmpty(), Item("image", b"x")]
    assert settle(reads) == (reads, False)
    settled, fetched = settle([*reads, Link("http://a.example/b.png")])
    assert settled[:3] == reads
    assert isinstance(settled[3], ImageUrlDisabled)
    assert fetched


@pytest.mark.parametrize("between", [[], [b" \n"]])
def test_nothing_follows_the_padding_of_base64(between: list[bytes]) -> None:
    """Neither at once nor after a piece of white space."""
    with pytest.raises(ValueError, match="padding"):
        list(_base64_parts([b"AA==", *between, b"AAAA"]))


@pytest.mark.parametrize("size", range(1, 12))
def test_the_limit_of_an_image_counts_its_decoded_bytes(size: int) -> None:
    """Six bytes are six, raw or in base64, with or without line breaks."""
    data, kind = bytes(size), Item if size <= 6 else ImageTooLarge
    lines = base64.encodebytes(data).decode().rstrip()
    assert isinstance(SMALL.image_bytes(data), kind)
    assert isinstance(SMALL.image(base64.b64encode(data).decode()), kind)
    assert isinstance(SMALL.image(f"data:;base64,{lines}"), kind)


@pytest.mark.parametrize(
    ("part", "item"),
    [
        ("A cat", Item("text", "a cat")),
        ("QUJD", Item("text", "qujd")),
        ("data:application/octet-stream;base64,QUJD", Item("image", b"ABC")),
        ("data:;base64,QUJD", Item("image", b"ABC")),
        ("DATA:text/plain;charset=x;BASE64,QUJD", Item("image", b"ABC")),
        ("data: and base64, a text", Item("text", "data: and base64, a text")),
        ("data:image/png;base64,QUJD", Item("image", b"ABC")),
        ("DATA:IMAGE/PNG;BASE64,QUJD", Item("image", b"ABC")),
        (TextPart(text="data:image/png;base64,QUJD"), Item("text", "data:image/png;base64,qujd")),
        (ImagePart(image="QUJD"), Item("image", b"ABC")),
        (ImageUrlPart(image_url="data:image/png;base64,QUJD"), Item("image", b"ABC")),
        (ImageUrlPart(image_url=ImageUrl(url="data:image/png;base64,QUJD")), Item("image", b"ABC")),
    ],
)
def test_a_part_is_what_its_form_says(part: Any, item: Item) -> None:
    """Only a data URI in base64 makes an image of a bare string; an object says what it is."""
    assert READER.part(part) == item


def test_the_number_of_items_is_limited() -> None:
    """The limit itself is allowed."""
    incoming = arrive()
    SMALL.count(2, incoming)
    with pytest.raises(TooManyItems, match="has 3 items; this server accepts 2 "):
        SMALL.count(3, incoming)
    incoming.longest = 70
    with pytest.raises(TooManyItems, match="has 70 items; this server accepts 2 "):
        SMALL.count(3, incoming)


def test_a_raw_body_is_one_image_of_its_own_type() -> None:
    """`curl --data-binary @cat.png`: the bytes decide what it is; video and XML are refused."""
    for kind in ("image/png", "image/x-unknown", "application/octet-stream"):
        incoming = arrive(b"\x89PNG", {"content-type": kind})
        assert upload(incoming) == ([Item("image", b"\x89PNG")], {})
    assert code_of(upload(image_body(b"seven b"), SMALL)[0][0]) == "image_too_large"
    assert code_of(upload(image_body(b""))[0][0]) == "image_empty"
    for kind in ("video/mp4", "application/xml", "multipart/mixed; boundary=a"):
        with pytest.raises(MediaTypeUnsupported):
            upload(arrive(b"x", {"content-type": kind}))


def test_a_body_of_texts_may_hold_the_longest_texts_in_their_longest_form_and_no_more() -> None:
    """Two texts of four characters, each written in twelve bytes, indented; then a long one."""
    body = json.dumps({"texts": ["\U0001f600" * 4] * 2}, indent=100).encode()
    read = asyncio.run(SMALL.json_of_texts(arrive(body)))
    assert [len(text) for text in read["texts"]] == [4, 4]
    with pytest.raises(BodyTooLarge):
        asyncio.run(SMALL.json_of_texts(arrive(b" " * 20_000)))
    assert asyncio.run(SMALL.json(arrive(body + b" " * 20_000))) == read


@pytest.mark.parametrize("announced", [True, False])
def test_of_a_raw_body_no_more_is_read_than_an_image_may_have(announced: bool) -> None:
    """A stream without end is left after the first piece too many; an announced one unread."""
    taken = 0

    async def endless() -> dict[str, Any]:
        nonlocal taken
        taken += 4
        return {"type": "http.request", "body": b"four", "more_body": True}

    length = [(b"content-length", b"1000")] if announced else []
    headers = [(b"content-type", b"image/png"), *length]
    scope = {"method": "POST", "path": "/embed_image", "headers": headers}
    read = asyncio.run(SMALL.upload(Incoming(scope, endless, 1 << 20)))[0][0]
    assert code_of(read) == "image_too_large"
    assert taken == (0 if announced else 8)


def test_options_of_a_raw_image_stand_in_the_query() -> None:
    """Numbers become numbers, as the form expects them."""
    options = b"model=m&encoding_format=base64&embedding_type=int8"
    query = options + b"&dimensions=4&max_num_patches=64"
    assert upload(image_body(query=query))[1] == {
        "model": "m",
        "encoding_format": "base64",
        "embedding_type": "int8",
        "dimensions": 4,
        "max_num_patches": 64,
    }


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (b"dimension=4", "dimension"),
        (b"dimensions=4.5", "dimensions"),
        (b"dimensions=-4", "dimensions"),
        (b"dimensions=%C2%B2", "dimensions"),
        (b"dimensions=99999999999999999999", "dimensions"),
        (b"max_num_patches=all", "max_num_patches"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(query: bytes, param: str) -> None:
    """Beside bytes the same rules hold as inside JSON."""
    with pytest.raises(RequestInvalid) as refusal:
        upload(image_body(query=query))
    assert refusal.value.param == param
    assert refusal.value.message.startswith(param)


def test_the_files_of_a_form_keep_their_order() -> None:
    """Fields of any name hold images, also several of one name; plain fields are options."""
    body = form_data(
        ("images", b"one", "1.png"),
        ("dimensions", b"4", None),
        ("images", b"two", "2.png"),
        ("other", b"three", "1.png"),
    )
    assert upload(arrive(body, MULTIPART)) == (
        [Item("image", b"one"), Item("image", b"two"), Item("image", b"three")],
        {"dimensions": 4},
    )


def test_a_bad_file_harms_no_other() -> None:
    """An empty and an oversized file are their own errors, in their own places."""
    body = form_data(("a", b"good", "a"), ("b", b"", "b"), ("c", b"seven b", "c"))
    good, empty, large = upload(
        arrive(body, MULTIPART), Reader(Settings.read({"max_image_bytes": 6}, {}))
    )[0]
    assert good == Item("image", b"good")
    assert (code_of(empty), code_of(large)) == ("image_empty", "image_too_large")


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=3), st.integers(1, 40))
def test_a_form_reads_alike_however_it_arrives(files: list[bytes], size: int) -> None:
    """Where the network cuts a multipart body changes no byte of a file."""
    files = [one for one in files if f"--{BOUNDARY}".encode() not in one] or [b"x"]
    body = form_data(*((f"f{i}", content, f"{i}.png") for i, content in enumerate(files)))
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    whole = upload(arrive(body, MULTIPART))[0]
    cut = upload(arrive(Wire(pieces), MULTIPART))[0]
    assert [getattr(read, "payload", b"") for read in whole] == files
    assert [getattr(read, "payload", b"") for read in cut] == files


def test_a_form_cut_short_is_refused_whole() -> None:
    """A client that dies between two files must not be told that it sent only the first."""
    body = form_data(("a", b"one", "a.png"), ("b", b"two", "b.png"))
    accepted = []
    for end in range(body.rindex(b"--") + 2):  # up to the closing mark less its last dash
        try:
            upload(arrive(body[:end], MULTIPART))
        except RequestError:
            continue
        accepted.append(body[:end])
    assert accepted == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form_data(("a", b"x", "a")), "multipart/form-data"),
        (form_data(("a", b"x", "a")), "multipart/form-data; boundary="),
        (form_data(("a", b"x", "a")), "multipart/form-data; boundary=eight"),
        (form_data(("a", b"x", "a")), "multipart/form-data; boundary=\xe9"),
        (b"not a form", MULTIPART["content-type"]),
        (form_data(("a", b"x" * 2_000_000, None)), MULTIPART["content-type"]),
        (form_data(("a", b"x", "a")).replace(b'name="a"; ', b""), MULTIPART["content-type"]),
    ],
)
def test_a_broken_form_is_refused_as_that(body: bytes, content_type: str) -> None:
    """No boundary, a wrong one, no form, a field that is a book, a part without a name."""
    with pytest.raises(MultipartInvalid):
        upload(arrive(body, {"content-type": content_type}, limit=4 << 20))


@given(st.binary(max_size=120), st.binary(max_size=20))
def test_any_form_is_read_or_refused(noise: bytes, boundary: bytes) -> None:
    """No multipart body and no boundary end in an internal error."""
    body = form_data(("a", b"x", "a.png"))
    for content in (noise, body + noise, body[:40] + noise + body[40:]):
        for mark in (BOUNDARY, boundary.decode("latin-1")):
            headers = {"content-type": f"multipart/form-data; boundary={mark}"}
            try:
                assert upload(arrive(content, headers))[0]
            except RequestError as error:
                assert error.status == 400  # noqa: PT017 - either outcome is right


def test_too_many_files_are_refused_as_too_many_and_none_as_none() -> None:
    """The limit on items is found before all are read; a plain field is an option or a mistake."""
    two, three = (form_data(*(("f", b"x", "f"),) * n) for n in (2, 3))
    assert len(upload(arrive(two, MULTIPART), SMALL)[0]) == 2
    with pytest.raises(TooManyItems):
        upload(arrive(three, MULTIPART), SMALL)
    with pytest.raises(RequestInvalid, match="no file"):
        upload(arrive(form_data(("model", b"m", None)), MULTIPART))
    with pytest.raises(RequestInvalid, match="dimension: "):
        upload(arrive(form_data(("a", b"x", "a"), ("dimension", b"4", None)), MULTIPART))


def test_only_usual_charsets_of_a_multipart_body_are_read() -> None:
    """In others its names could be no text, and some of these codecs take quadratic time."""
    body = form_data(("a", b"abc", "a"), ("dimensions", b"4", None))

    def read(charset: str) -> object:
        kind = f"{MULTIPART['content-type']}; charset={charset}"
        return upload(arrive(body, {"content-type": kind}))

    for usual in ("utf-8", "UTF-8", "us-ascii", "iso-8859-1"):
        assert read(usual) == ([Item("image", b"abc")], {"dimensions": 4})
    for odd in ("utf-7", "UTF-16", "idna", "punycode", "unicode_escape", "rot13", "zlib", "é", ""):
        with pytest.raises(MultipartInvalid):
            read(odd)


def test_a_compressed_body_is_read_in_every_form() -> None:
    """gzip is undone before anything else is made of the body."""

    def packed(body: bytes, kind: str) -> Incoming:
        return arrive(gzip.compress(body), {"content-type": kind, "content-encoding": "gzip"})

    assert asyncio.run(READER.json(packed(b'{"text":"abc"}', "application/json"))) == {
        "text": "abc"
    }
    form = packed(form_data(("a", b"abc", "a")), MULTIPART["content-type"])
    for incoming in (form, packed(b"abc", "image/png")):
        assert upload(incoming)[0] == [Item("image", b"abc")]
