"""Large JSON bodies: read as any parser reads them, in turns, and refused before they cost much."""

import asyncio
import base64
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from litapi.errors import BodyTooLarge, JsonInvalid, RequestError, TooManyItems
from litapi.http import large
from litapi.http.large import Bounds, LongString, read

AMPLE = Bounds(structure=1 << 20, strings=1 << 20, rest=1 << 26, text=1 << 26)
USUAL = Bounds(structure=33_792, strings=8256, rest=2112 << 10, text=12 * 32_768)

texts = st.text(st.characters(codec="utf-8"), max_size=40) | st.text('\\"/ué😀a', max_size=60)
contents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices and pieces so small that every boundary falls everywhere."""
    monkeypatch.setattr(large, "SLICE", 7)
    monkeypatch.setattr(large, "PIECE", 13)


shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def parse(body: bytes, bounds: Bounds = AMPLE, shortest: int = 16) -> tuple[Any, list[LongString]]:
    return asyncio.run(read(body, bounds, shortest))


@shared
@given(contents, st.booleans(), st.sampled_from([None, 1, 3]), st.integers(0, 30))
def test_a_body_says_what_any_parser_reads_in_it(
    small_steps: None, content: Any, ascii_only: bool, indent: int | None, shortest: int
) -> None:
    """Whatever stands in its strings, wherever slices end, and however many are taken out."""
    body = json.dumps(content, ensure_ascii=ascii_only, indent=indent).encode()
    assert parse(body, shortest=shortest) == (json.loads(body), [])
    assert parse(b"\xef\xbb\xbf" + body, shortest=shortest)[0] == json.loads(body)


@shared
@given(contents, st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=3))
@example("a" * 20, [(5, b"\\q")])
@example("a" * 20, [(5, b"\x01")])
@example("a" * 20, [(5, b"\xff")])
@example("a" * 20, [(5, b"\n")])
def test_a_damaged_body_is_refused_where_any_parser_refuses_it(
    small_steps: None, content: Any, damage: list[tuple[int, bytes]]
) -> None:
    """Bytes put into it anywhere: escapes, control characters, broken UTF-8, quotes."""
    body = json.dumps(content).encode()
    for at, noise in damage:
        body = body[:at] + noise + body[at:]
    short = Bounds(structure=1 << 20, strings=1 << 20, rest=1 << 26, text=20)
    try:
        right = orjson.loads(body)
    except orjson.JSONDecodeError:
        if large.SURROGATE.search(body) is None:
            for bounds in (AMPLE, short):
                with pytest.raises(JsonInvalid):
                    parse(body, bounds)
        return
    assert parse(body) == (right, [])
    parse(body, short)


@shared
@given(st.text(st.characters(codec=None), min_size=17, max_size=200), st.booleans())
@example("\ud83c" * 30, True)
@example("😀" * 30, True)
@example("0" * 15 + "\ud800\U00010000", True)
@example("\\" * 50, True)
@example('"' * 50, True)
@example("中" * 50, False)
def test_the_pieces_of_a_long_string_are_the_string(
    small_steps: None, text: str, ascii_only: bool
) -> None:
    """No piece ends inside of a character, an escape or a pair of surrogates."""
    try:
        body = json.dumps([text], ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:  # a lone surrogate can only be written as an escape
        body = json.dumps([text]).encode()
    bounds = Bounds(structure=10, strings=10, rest=1 << 20, text=0)
    (token,), (long,) = parse(body, bounds)
    assert token == long.token
    said = b"".join(long.pieces()).decode("utf-8", "surrogatepass")
    assert said == json.loads(body)[0]


def test_half_an_emoji_spoils_no_more_than_its_own_string() -> None:
    """In a text, a name or a long string; all the others are as they were sent."""
    body = b'{"texts": ["fine", "cut \\ud83c", "whole \\ud83c\\udf08"], "\\udc00": 1}'
    right = {"texts": ["fine", "cut \ud83c", "whole 🌈"], "\udc00": 1}
    assert parse(body) == (right, [])
    for rest in (b", NaN]", b', "\\q"]', b', "\x01"]', b"", b', "'):
        with pytest.raises(JsonInvalid):
            parse(b'["\\ud83c"' + rest)


def test_a_token_cannot_be_guessed() -> None:
    """Two bodies of the same strings have different ones, and each has the same length."""
    body = b'["%b", "%b"]' % (b"a" * 100, "é".encode() * 100)
    bounds = Bounds(structure=10, strings=10, rest=1 << 20, text=0)
    tokens = [token for _ in range(2) for token in parse(body, bounds)[0]]
    assert len(set(tokens)) == 4
    assert {len(token) for token in tokens} == {large.TOKEN}


MB = 1 << 20
HOSTILE: dict[str, tuple[Callable[[], bytes], type[RequestError] | None]] = {
    "brackets": (lambda: b'{"input":' + b"[" * (64 * MB), TooManyItems),
    "empty lists": (lambda: b'{"input":[' + b"[]," * (21 * MB), TooManyItems),
    "empty objects": (lambda: b"[" + b"{}," * (21 * MB), TooManyItems),
    "objects in objects": (lambda: b'{"a":' * (12 * MB), TooManyItems),
    "numbers": (lambda: b"[" + b"0," * (32 * MB), TooManyItems),
    "short strings": (lambda: b"[" + b'"ab",' * (12 * MB), TooManyItems),
    "longer strings": (lambda: b"[" + (b'"%b",' % (b"a" * 800)) * 80_000, TooManyItems),
    "quotes": (lambda: b'"' * (64 * MB), BodyTooLarge),
    "blanks": (lambda: b'{"input":"a"' + b" " * (64 * MB) + b"}", BodyTooLarge),
    "bytes": (lambda: b"\x89PNG\r\n" + bytes(64 * MB), JsonInvalid),
    "letters": (lambda: b"a" * (64 * MB), BodyTooLarge),
    "other letters": (lambda: b'{"image":"' + "é".encode() * (30 * MB) + b'"}', None),
    "emoji": (lambda: b'{"image":"' + "😀".encode() * (15 * MB) + b'"}', None),
    "an open string": (lambda: b'{"image":"' + b"a" * (60 * MB), JsonInvalid),
    "a name": (lambda: b'{"input":"a","' + b"a" * (60 * MB) + b'":1}', None),
    "base64": (lambda: b'{"image":"' + base64.b64encode(bytes(45 * MB)) + b'"}', None),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_body_keeps_no_other_work_waiting(kind: str) -> None:
    """64 MB of whatever a parser would make much of: refused, or read in short turns."""
    make, refusal = HOSTILE[kind]
    body = make()

    async def run() -> list[float]:
        waits = []
        reading = asyncio.ensure_future(read(body, USUAL))
        while not reading.done():
            before = time.thread_time()  # a busy machine does not count
            await asyncio.sleep(0)
            waits.append(time.thread_time() - before)
        if refusal is None:
            assert len(reading.result()[1]) == 1
        else:
            with pytest.raises(refusal):
                reading.result()
        return waits

    assert max(asyncio.run(run())) < 0.25  # seconds; usually a twentieth


def test_names_and_strings_are_counted_apart_from_structure() -> None:
    """What stands in a string is no structure, and what stands outside of all is."""
    few = Bounds(structure=6, strings=10, rest=1 << 20, text=1 << 20)
    assert parse(b'{"a,:[{": ["\\"[[[", "b"]}', few)[0] == {"a,:[{": ['"[[[', "b"]}
    with pytest.raises(TooManyItems):
        parse(b'{"a": ["b", "c", "d", "e", "f"]}', few)


def test_a_large_body_takes_no_more_memory_than_itself_and_a_little() -> None:
    """A parser would make a second copy of it, and a third of four bytes a character."""
    body = b'{"image":"' + "é".encode() * (5 * MB) + "😀".encode() * (2 * MB) + b'"}'
    tracemalloc.start()
    try:
        parse(body, USUAL, large.LONG)
        assert tracemalloc.get_traced_memory()[1] < 16 * MB
    finally:
        tracemalloc.stop()
