"""Bodies → items: the right bytes become the right items, and one bad item harms no other."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from litapi import errors
from litapi.http.inputs import MOST_FIELDS, Read, Reader, _base64_parts
from litapi.http.request import Incoming
from litapi.messages import Item
from litapi.settings import Settings
from litapi.text import canonical
from tests.support.wire import BOUNDARY, MULTIPART, Wire, arrive, form_data

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
    assert isinstance(read, errors.ItemError)
    return read.code


def json_of(body: bytes, reader: Reader = READER, headers: Any = None, limit: int = 1 << 26) -> Any:
    """What a form gets of a body."""
    return asyncio.run(reader.json(arrive(body, headers, limit=limit)))


def parsed(content: Any, reader: Reader = READER) -> Any:
    """The same of a content."""
    return json_of(orjson.dumps(content), reader)


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
    with pytest.raises(errors.RequestInvalid, match="fields"):
        parsed(place(swollen))
    swollen.popitem()
    assert parsed(place(swollen)) == place(swollen)


def test_a_body_of_millions_of_members_is_not_parsed() -> None:
    """What its objects would take is a hundred times the body."""
    with pytest.raises(errors.TooManyItems):
        json_of(b"[%b1" % (b"1," * 1_000_000))  # nor JSON


@pytest.mark.parametrize("character", [",", '"', "\\", "[", "{", ":", "\n", "é", "😀"])
def test_the_most_structure_that_good_texts_hold_passes(character: str) -> None:
    """As many texts as may come, of nothing but what JSON is made of, are no structure."""
    texts = [character * 2048] * 2048
    assert parsed({"texts": texts}) == {"texts": texts}


def test_a_deep_body_is_no_fault_of_the_server() -> None:
    """Brackets in brackets, as deep as the parser goes."""
    for depth in (1000, 1022):
        body = b'{"input": %b%b}' % (b"[" * depth, b"]" * depth)
        assert list(json_of(body)) == ["input"]


def test_json_is_read_whatever_curl_calls_it_and_nothing_else_is() -> None:
    """`curl -d` without -H sends a form's type; a picture sent to a text route is not tried."""
    json_types = ("application/json", "application/json; charset=utf-8", "application/vnd.api+json")
    others = ("application/x-www-form-urlencoded", " text/plain ", "", ";", "Application/JSON;a=b")
    for kind in (*json_types, *others):
        assert json_of(b'{"text": "a"}', headers={"content-type": kind}) == {"text": "a"}
    for kind in ("image/png", "application/xml", "text/html", "json"):
        with pytest.raises(errors.MediaTypeUnsupported):
            json_of(b'{"text": "a"}', headers={"content-type": kind})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "The body is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "/embed_image with its own Content-Type"),
        (b"{'a': 1}", "expected a string key (line 1, column 2)"),
        (b'{"a": 1', "unexpected end of data (line 1, column 8)"),
        *(
            (body, "")
            for body in (b"{", b"NaN", b"\xff", b'{"a": 01}', b"[" * 5000, b"[" * 100_000)
        ),
    ],
)
def test_a_body_that_is_not_json_is_told_what_it_is(body: bytes, words: str) -> None:
    """The likeliest slips get the sentence that mends them; no nesting exhausts the stack."""
    with pytest.raises(errors.JsonInvalid) as refusal:
        json_of(body)
    assert words in refusal.value.message


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    """No body ends in an internal error."""
    try:
        content = json_of(body)
    except errors.JsonInvalid:
        return
    assert content == json.loads(body)


def test_too_large_a_body_is_refused_as_that() -> None:
    """The limit on bytes holds for every way in."""
    for headers in (MULTIPART, {"content-type": "image/png"}):
        with pytest.raises(errors.BodyTooLarge):
            upload(arrive(form_data(("a", b"x", "a.png")), headers, limit=8))


@given(st.text(st.characters(codec=None), max_size=30))
@example("\ud800")
@example("  ")
@example("四字成語")
@example("fives")
def test_any_text_is_an_item_in_its_canonical_form_or_an_error(text: str) -> None:
    """The cache key and the tokenizer see one and the same form; a limit counts characters."""
    read = READER.text(text)
    if isinstance(read, Item):
        assert read == Item("text", canonical(text))
        short = SMALL.text(text)
        assert short == read if len(text) <= 4 else isinstance(short, errors.TextTooLong)
    else:
        assert code_of(read) == ("text_invalid" if text else "text_empty")


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
    assert isinstance(READER.image(text), Item | errors.ItemError)


@pytest.mark.parametrize("between", [[], [b" \n"]])
def test_nothing_follows_the_padding_of_base64(between: list[bytes]) -> None:
    """Neither at once nor after a piece of white space."""
    with pytest.raises(ValueError, match="padding"):
        list(_base64_parts([b"AA==", *between, b"AAAA"]))


@pytest.mark.parametrize("size", range(1, 12))
def test_the_limit_of_an_image_counts_its_decoded_bytes(size: int) -> None:
    """Six bytes are six, raw or in base64, with or without line breaks."""
    data, kind = bytes(size), Item if size <= 6 else errors.ImageTooLarge
    lines = base64.encodebytes(data).decode().rstrip()
    assert isinstance(SMALL.image_bytes(data), kind)
    assert isinstance(SMALL.image(base64.b64encode(data).decode()), kind)
    assert isinstance(SMALL.image(f"data:;base64,{lines}"), kind)
    assert code_of(SMALL.image("?" * 100)) == "image_too_large"  # not even decoded


def test_a_raw_body_is_one_image_of_its_own_type() -> None:
    """`curl --data-binary @cat.png`: the bytes decide what it is; video and XML are refused."""
    for kind in ("image/png", "image/x-unknown", "application/octet-stream"):
        found = upload(arrive(b"\x89PNG", {"content-type": kind}))
        assert found == ([Item("image", b"\x89PNG")], {})
    assert code_of(upload(image_body(b"seven b"), SMALL)[0][0]) == "image_too_large"
    assert code_of(upload(image_body(b""))[0][0]) == "image_empty"
    for kind in ("video/mp4", "application/xml", "multipart/mixed; boundary=a"):
        with pytest.raises(errors.MediaTypeUnsupported):
            upload(arrive(b"x", {"content-type": kind}))


def test_a_body_of_texts_may_hold_the_longest_texts_in_their_longest_form_and_no_more() -> None:
    """Two texts of four characters, each written in twelve bytes, indented; then a long one."""
    body = json.dumps({"texts": ["\U0001f600" * 4] * 2}, indent=100).encode()
    read = asyncio.run(SMALL.json_of_texts(arrive(body)))
    assert [len(text) for text in read["texts"]] == [4, 4]
    with pytest.raises(errors.BodyTooLarge):
        asyncio.run(SMALL.json_of_texts(arrive(b" " * 20_000)))
    assert asyncio.run(SMALL.json(arrive(body + b" " * 20_000))) == read


@pytest.mark.parametrize("announced", [True, False])
def test_of_a_raw_body_no_more_is_read_than_an_image_may_have(announced: bool) -> None:
    """A stream without end is left after the first piece too many; an announced one unread."""
    wire, length = Wire([b"four"] * 250), {"content-length": "1000"} if announced else {}
    incoming = arrive(wire, {"content-type": "image/png", **length})
    assert code_of(upload(incoming, SMALL)[0][0]) == "image_too_large"
    assert wire.taken == (0 if announced else 2)


def test_options_of_a_raw_image_stand_in_the_query() -> None:
    """Numbers become numbers, as the form expects them."""
    options: dict[str, Any] = {"dimensions": 4, "max_num_patches": 64, "model": "a/m n"}
    options |= {"encoding_format": "base64", "embedding_type": "int8"}
    query = b"dimensions=8&" + urlencode(options).encode()  # the last of a name wins
    assert upload(image_body(query=query))[1] == options


@pytest.mark.parametrize(
    "query",
    [
        *(b"dimension=4", b"dimensions=4.5", b"dimensions=-4", b"dimensions=%C2%B2", b"dimensions"),
        *(
            b"dimensions=",
            b"dimensions",
            b"dimensions=99999999999999999999",
            b"max_num_patches=all",
        ),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(query: bytes) -> None:
    """Beside bytes the same rules hold as inside JSON."""
    with pytest.raises(errors.RequestInvalid) as refusal:
        upload(image_body(query=query))
    param = query.partition(b"=")[0].decode()
    assert refusal.value.param == param
    assert refusal.value.message.startswith(param)


def test_the_files_of_a_form_keep_their_order() -> None:
    """Fields of any name hold images, also several of one name; a bad file harms no other."""
    one, option = ("images", b"one", "1.png"), ("dimensions", b"4", None)
    bad = (("a", b"", "a"), ("b", b"seven b", "b"))
    body = form_data(one, option, *bad, ("images", b"two", "2.png"), ("other", b"three", "1.png"))
    reader = Reader(Settings.read({"max_image_bytes": 6}, {}))
    (first, empty, large, *rest), options = upload(arrive(body, MULTIPART), reader)
    assert [first, *rest] == [Item("image", data) for data in (b"one", b"two", b"three")]
    assert (code_of(empty), code_of(large)) == ("image_empty", "image_too_large")
    assert options == {"dimensions": 4}


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
        except errors.RequestError:
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
    with pytest.raises(errors.MultipartInvalid):
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
            except errors.RequestError as error:
                assert error.status == 400  # noqa: PT017 - either outcome is right


def test_too_many_files_are_refused_as_too_many_and_none_as_none() -> None:
    """The limit on items is found before all are read; a plain field is an option or a mistake."""
    two, three = (form_data(*(("f", b"x", "f"),) * n) for n in (2, 3))
    assert len(upload(arrive(two, MULTIPART), SMALL)[0]) == 2
    with pytest.raises(errors.TooManyItems):
        upload(arrive(three, MULTIPART), SMALL)
    with pytest.raises(errors.RequestInvalid, match="no file"):
        upload(arrive(form_data(("model", b"m", None)), MULTIPART))
    with pytest.raises(errors.RequestInvalid, match="dimension: "):
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
        with pytest.raises(errors.MultipartInvalid):
            read(odd)
