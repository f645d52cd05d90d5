"""Bodies → items: JSON, multipart, raw images, data URIs and base64.

A reader never decodes a picture; it only finds out which bytes are which item. What is wrong with
a single item becomes that item's own `ItemError`; what is wrong with the request is raised.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pybase64
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from litapi.errors import (
    BodyTooLarge,
    ImageBase64Invalid,
    ImageEmpty,
    ImageTooLarge,
    ImageUrlDisabled,
    ItemError,
    JsonInvalid,
    MediaTypeUnsupported,
    MultipartInvalid,
    RequestInvalid,
    TextTooLong,
    TooManyItems,
)
from litapi.http.forms import (
    OPTION_FIELDS,
    ImagePart,
    ImageUrl,
    ImageUrlPart,
    TextPart,
    UnknownPart,
)
from litapi.http.request import Incoming
from litapi.messages import Item
from litapi.settings import Settings
from litapi.text import canonical

if TYPE_CHECKING:  # brings a whole HTTP client, which most servers never use
    from litapi.http.fetch import Fetcher

JSON_TYPES = frozenset({"", "application/json", "application/x-www-form-urlencoded", "text/plain"})
LONGEST_ESCAPE = 12  # bytes of one character in JSON, written as two \\u escapes
FRAME_BYTES = 4096  # for the rest of a body, and for blanks around each text
MOST_FIELDS = 32  # of an object in a body; no form has as many
DEEPEST = 4  # a body, its list, a part of it, the object in that
NESTED = frozenset({list, dict})
LARGE = 1 << 20  # bytes of a body in which commas are counted before it is parsed
TAIL_BYTES = 1024  # a boundary has 70 characters at most; an epilogue may follow it
CHARSETS = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii", b"iso-8859-1", b"windows-1252"})
_WHITESPACE = dict.fromkeys(map(ord, " \t\r\n"))


@dataclass(frozen=True, slots=True)
class Link:
    """An image that is still to be fetched."""

    url: str


Read = Item | ItemError | Link


@dataclass(frozen=True, slots=True)
class Upload:
    """Images that came as bytes, with the options that came beside them."""

    images: list[Read]
    options: dict[str, Any]


class Tail:
    """Passes a body on and keeps its end: the parser does not mind one that was cut short."""

    def __init__(self, source: AsyncGenerator[bytes, None]) -> None:
        self._source = source
        self._end = b""

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body, piece by piece."""
        async for piece in self._source:
            self._end = (self._end + piece)[-TAIL_BYTES:]
            yield piece

    def closes(self, content_type: str) -> bool:
        """Whether the closing mark of a multipart body was there."""
        _, options = parse_options_header(content_type)
        return b"--" + options.get(b"boundary", b"") + b"--" in self._end


class Reader:
    """Reads items within the limits of the settings."""

    def __init__(self, settings: Settings, fetcher: Fetcher | None = None) -> None:
        self._fetcher = fetcher
        self._max_items = settings.max_items
        self._max_chars = settings.max_text_chars
        self._max_bytes = settings.max_image_bytes
        self._max_commas = settings.max_items * (settings.max_text_chars + MOST_FIELDS)
        self._max_texts_bytes = FRAME_BYTES + settings.max_items * (
            FRAME_BYTES + LONGEST_ESCAPE * settings.max_text_chars
        )

    async def json(self, incoming: Incoming) -> Any:
        """The JSON body, whatever `curl -d` calls it."""
        if incoming.headers.get(b"content-type") != b"application/json":  # nearly always is
            media_type = incoming.media_type
            if media_type not in JSON_TYPES and not media_type.endswith("+json"):
                raise MediaTypeUnsupported
        if incoming.scope.get("query_string"):
            _refuse_options(incoming.query)
        body = incoming.at_once()
        if body is None:
            body = await incoming.body()
        if len(body) > LARGE and body.count(b",") > self._max_commas:
            raise TooManyItems  # before millions of objects are made of it
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise JsonInvalid(_not_json(body, error)) from None
        _bound(content, self._max_items + 1, DEEPEST)
        return content

    async def json_of_texts(self, incoming: Incoming) -> Any:
        """The same where only texts may come: no more is read than the longest of them take."""
        incoming.limit = min(incoming.limit, self._max_texts_bytes)
        return await self.json(incoming)

    async def upload(self, incoming: Incoming) -> Upload:
        """A raw `image/*` body, or the files of a multipart body."""
        media_type = incoming.media_type
        if media_type == "multipart/form-data":
            return await self._multipart(incoming)
        if media_type.startswith("image/") or media_type == "application/octet-stream":
            return Upload([await self._raw(incoming)], _options(incoming.query))
        raise MediaTypeUnsupported

    async def _raw(self, incoming: Incoming) -> Item | ItemError:
        """The one image that a body is; of a larger one no more is read than an image may have."""
        if incoming.limit <= self._max_bytes:
            return self.image_bytes(await incoming.body())
        incoming.limit = self._max_bytes
        try:
            return self.image_bytes(await incoming.body())
        except BodyTooLarge:
            return ImageTooLarge()

    async def _multipart(self, incoming: Incoming) -> Upload:
        headers = Headers(raw=incoming.scope["headers"])
        _check_charset(headers["content-type"])
        tail = Tail(incoming.chunks())
        parser = MultiPartParser(headers, tail.chunks(), max_files=self._max_items)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            if error.message.startswith("Too many files"):
                raise TooManyItems from None
            raise MultipartInvalid from None
        except (KeyError, ValueError):  # no boundary, or one that is not text
            raise MultipartInvalid from None
        if not tail.closes(headers["content-type"]):
            raise MultipartInvalid
        parts = form.multi_items()
        files = [part.file.read() for _, part in parts if isinstance(part, UploadFile)]
        fields = {name: part for name, part in parts if isinstance(part, str)}
        if not files:
            raise RequestInvalid("The multipart body holds no file.")
        return Upload([self.image_bytes(data) for data in files], _options(fields))

    def text(self, text: str) -> Read:
        """A text in the canonical form that tokenizer and cache key share."""
        if len(text) > self._max_chars:
            return TextTooLong()
        try:
            return Item("text", canonical(text))
        except ItemError as error:
            return error

    def image_bytes(self, data: bytes) -> Item | ItemError:
        """The encoded bytes of an image, as they are."""
        if not data:
            return ImageEmpty()
        return ImageTooLarge() if len(data) > self._max_bytes else Item("image", data)

    def link(self, url: str) -> Read:
        """An image by its URL, where this server fetches at all."""
        return ImageUrlDisabled() if self._fetcher is None else Link(url)

    @staticmethod
    def settled(items: list[Read]) -> list[Item | ItemError] | None:
        """The same items, unless one of them must be fetched."""
        return None if Link in map(type, items) else items  # type: ignore[return-value]

    async def settle(self, items: list[Read], incoming: Incoming) -> list[Item | ItemError]:
        """The items with every link fetched, all at the same time, while the client is there."""
        return await incoming.unless_gone(self._fetched(items))

    async def _fetched(self, items: list[Read]) -> list[Item | ItemError]:
        fetched = iter(await self._fetch([item.url for item in items if isinstance(item, Link)]))
        return [next(fetched) if isinstance(item, Link) else item for item in items]

    async def _fetch(self, urls: list[str]) -> list[Item | ItemError]:
        if self._fetcher is None:
            return [ImageUrlDisabled() for _ in urls]
        fetched = await self._fetcher.fetch_all(urls)
        return [one if isinstance(one, ItemError) else self.image_bytes(one) for one in fetched]

    def image(self, text: str) -> Read:
        """An image from a data URI, base64 or a URL."""
        if text[:8].lower().startswith(("http://", "https://")):
            return self.link(text)
        if text[:5].lower() == "data:":
            head, comma, text = text.partition(",")
            if not comma or not head.lower().endswith(";base64"):
                return ImageBase64Invalid()
        if len(text) > self._max_bytes * 3 // 2:
            return ImageTooLarge()
        data = _base64(text)
        return ImageBase64Invalid() if data is None else self.image_bytes(data)

    def part(self, part: str | TextPart | ImagePart | ImageUrlPart | UnknownPart) -> Read:
        """One member of an OpenAI-form `input`."""
        if isinstance(part, str):
            is_image = part[:11].lower() == "data:image/"
            return self.image(part) if is_image else self.text(part)
        if isinstance(part, ImagePart):
            return self.image(part.image)
        if isinstance(part, ImageUrlPart):
            url = part.image_url
            return self.image(url.url if isinstance(url, ImageUrl) else url)
        return self.text(part.text)

    def count(self, items: Sequence[object]) -> None:
        """Raises `TooManyItems` beyond the limit."""
        if len(items) > self._max_items:
            raise TooManyItems


def _bound(content: Any, most: int, depth: int) -> None:
    """Cut each list to `most` members, one more than may be, and so many that this is still seen.

    Of millions of wrong members each would get a sentence of its own, and of right ones an object.
    """
    members: Any = ()
    if isinstance(content, list):
        del content[most:]
        members = content
    elif isinstance(content, dict):
        if len(content) > MOST_FIELDS:
            raise RequestInvalid(f"An object of the body has more than {MOST_FIELDS} fields.")
        members = content.values()
    if depth and not NESTED.isdisjoint(map(type, members)):
        for member in members:
            if type(member) in NESTED:
                _bound(member, most, depth - 1)


def _not_json(body: bytes, error: orjson.JSONDecodeError) -> str:
    if not body:
        return "The body is empty; a JSON object is expected."
    if b"\0" in body:  # no text holds one, and nearly every image does
        return (
            "The body is not JSON but bytes. An image as it is goes to /embed_image with its own"
            " Content-Type, such as image/png."
        )
    place = f"line {error.lineno}, column {error.colno}"
    return f"The body is not valid JSON: {error.msg} ({place})."


def _refuse_options(query: dict[str, str]) -> None:
    stray = OPTION_FIELDS & query.keys()
    if stray:
        name = min(stray)
        raise RequestInvalid(f"{name}: options of a JSON body go into the body", param=name)


def _check_charset(content_type: str) -> None:
    """Python also knows codecs that take quadratic time, or that make lone surrogates."""
    _, options = parse_options_header(content_type)
    if options.get(b"charset", b"utf-8").lower() not in CHARSETS:
        raise MultipartInvalid("The charset of a multipart body is not read here; UTF-8 is.")


def _base64(text: str) -> bytes | None:
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:  # line breaks are allowed, as MIME writes them
        try:
            return pybase64.b64decode(text.translate(_WHITESPACE), validate=True)
        except ValueError:
            return None


def _options(fields: dict[str, str]) -> dict[str, Any]:
    unknown = sorted(set(fields) - OPTION_FIELDS)
    if unknown:
        raise RequestInvalid(f"{unknown[0]}: there is no such option", param=unknown[0])
    options: dict[str, Any] = dict(fields)
    for name in ("dimensions", "max_num_patches"):
        if name in options:
            options[name] = _whole(name, fields[name])
    return options


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RequestInvalid(f"{name}: Input should be a whole number", param=name)
    return int(text)
