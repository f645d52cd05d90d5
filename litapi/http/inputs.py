"""Bodies → items: JSON, multipart, raw images, data URIs and base64.

A reader never decodes a picture; it only finds out which bytes are which item. What is wrong with
a single item becomes that item's own `ItemError`; what is wrong with the request is raised.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import orjson
import pybase64
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from litapi import errors
from litapi.http.access import client_of
from litapi.http.embedder import Query
from litapi.http.forms.options import OPTION_FIELDS, Options
from litapi.http.forms.parts import Base64Part, DigestPart, ImagePart, ImageUrl, ImageUrlPart, Part
from litapi.http.forms.validation import DEEPEST, NAMES, TOKENS_SENT, validate
from litapi.http.large import BOM, NOT_TEXT, SURROGATE, TOKEN, Bounds, LongString, read
from litapi.http.pace import Pace, paced
from litapi.http.request import Incoming
from litapi.messages import Digest, Item
from litapi.settings import Settings
from litapi.text import canonical
from litapi.transport.admission import cost_of

if TYPE_CHECKING:  # brings a whole HTTP client, which most servers never use
    from litapi.http.fetch import Fetcher

JSON_TYPES = frozenset({"", "application/json", "application/x-www-form-urlencoded", "text/plain"})
LONGEST_ESCAPE = 12  # bytes of one character in JSON, written as two \\u escapes
FRAME_BYTES = 4096  # for the rest of a body, and for blanks around each text
MOST_FIELDS = 32  # of an object in a body; no form has as many
NUMBERS = ("dimensions", "output_dimension", "max_num_patches")
LABEL = "{label}"
PAIRS_AN_ITEM = 64  # scored in one answer, for each item that a request may have
NESTED = frozenset({list, dict})
LARGE = 128 << 10  # bytes of a body; a larger one is skimmed before it is parsed
NOT_AFRESH = (
    "Cache-Control: no-cache and no-store compute vectors again, and an image by digest brings no"
    " bytes for it"
)
TAIL_BYTES = 1024  # a boundary has 70 characters at most; an epilogue may follow it
CHARSETS = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii", b"iso-8859-1", b"windows-1252"})
WHITESPACE = b" \t\r\n"
HEAD = 1024  # characters in which the head of a data URI ends
HEX = re.compile(r"[0-9a-fA-F]{64}").fullmatch
_TOKEN_IDS = re.compile(rb'"input"\s*:\s*\[[\s\[]*[0-9]').search


Given = TypeVar("Given")


class Link(str):
    """The URL of an image that is still to be fetched."""

    __slots__ = ()


Short = Item | errors.ItemError | Link
Read = Short | LongString  # an image of many bytes, still to be decoded
PENDING = frozenset({Link, LongString})
Upload = tuple[list[Read], Options]  # images, and the options that came beside them


class Tail:
    """Passes a body on and keeps its end: the parser does not mind one that was cut short."""

    def __init__(self, source: AsyncGenerator[bytes, None]) -> None:
        self._source = source
        self._end = b""

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        async for piece in self._source:
            self._end = (self._end + piece)[-TAIL_BYTES:]
            yield piece

    def closes(self, content_type: str) -> bool:
        _, options = parse_options_header(content_type)
        return b"--" + options.get(b"boundary", b"") + b"--" in self._end


class Reader:
    def __init__(self, settings: Settings, fetcher: Fetcher | None = None) -> None:
        self._fetcher = fetcher
        self._digests = settings.digests
        self._keyed = settings.keyed
        self._max_items = settings.max_items
        self._max_chars = settings.max_text_chars
        self._max_bytes = settings.max_image_bytes
        self._most_patches = settings.most_patches
        self._max_request_chars = settings.max_request_chars
        self._bounds = Bounds(
            structure=16 * settings.max_items + 1024,
            strings=4 * settings.max_items + 64,
            rest=(settings.max_items + 64) << 10,
            text=LONGEST_ESCAPE * settings.max_text_chars,
        )
        chars = min(settings.max_items * settings.max_text_chars, settings.max_request_chars)
        self._max_texts_bytes = FRAME_BYTES * (settings.max_items + 1) + LONGEST_ESCAPE * chars
        self._long: WeakValueDictionary[str, LongString] = WeakValueDictionary()

    async def json(self, incoming: Incoming) -> Any:
        """The JSON body, whatever `curl -d` calls it."""
        if incoming.headers.get(b"content-type") != b"application/json":  # nearly always is
            media_type = incoming.media_type
            if media_type not in JSON_TYPES and not media_type.endswith("+json"):
                raise errors.MediaTypeUnsupported
        if incoming.scope.get("query_string"):
            _refuse_options(incoming.query)
        body: bytes | None = incoming.at_once()
        if body is None:
            body = await incoming.body()
        if len(body) > LARGE:
            content = await self._large(body, incoming)
        else:
            try:
                content = orjson.loads(body)
            except orjson.JSONDecodeError as error:
                content = await self._again(body, error, incoming)
        _bound(content, self._max_items + 1, DEEPEST, incoming)
        return content

    async def _large(self, body: bytes, incoming: Incoming, **how: int) -> Any:
        """Read in turns; the request holds the long strings that its content has tokens for."""
        incoming.large = len(body)
        try:
            content, incoming.long = await read(body, self._bounds, **how)
        except errors.TooManyItems:
            if _TOKEN_IDS(body, 0, HEAD):
                raise errors.RequestInvalid(TOKENS_SENT, param="input") from None
            raise
        self._long.update((one.token, one) for one in incoming.long)
        incoming.forget()  # a body that nobody needs whole any more
        return content

    async def _again(self, body: bytes, error: orjson.JSONDecodeError, incoming: Incoming) -> Any:
        """What the parser is too strict for: a byte order mark, and half an emoji in a string."""
        if SURROGATE.search(body):
            return await self._large(body, incoming, shortest=0)
        if body[: len(BOM)] == BOM:
            try:
                return orjson.loads(body[len(BOM) :])
            except orjson.JSONDecodeError as other:
                error = other
        raise errors.JsonInvalid(_not_json(body, error))

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
            return [await self._raw(incoming)], _options(incoming.query)
        raise errors.MediaTypeUnsupported

    async def _raw(self, incoming: Incoming) -> Item | errors.ItemError:
        """The one image that a body is; of a larger one no more is read than an image may have."""
        if incoming.limit <= self._max_bytes:
            return self.image_bytes(await incoming.body())
        incoming.limit = self._max_bytes
        try:
            return self.image_bytes(await incoming.body())
        except errors.BodyTooLarge:
            return errors.ImageTooLarge()

    async def _multipart(self, incoming: Incoming) -> Upload:
        _refuse_options(incoming.query)
        headers = Headers(raw=incoming.scope["headers"])
        _check_charset(headers["content-type"])
        tail = Tail(incoming.chunks())
        parser = MultiPartParser(headers, tail.chunks(), max_files=self._max_items)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            if error.message.startswith("Too many files"):
                raise self._too_many(f"more than {self._max_items}") from None
            raise errors.MultipartInvalid from None
        except (KeyError, ValueError):  # no boundary, or one that is not text
            raise errors.MultipartInvalid from None
        if not tail.closes(headers["content-type"]):
            raise errors.MultipartInvalid
        parts = form.multi_items()
        files = [part.file.read() for _, part in parts if isinstance(part, UploadFile)]
        fields = {name: part for name, part in parts if isinstance(part, str)}
        if not files:
            raise errors.RequestInvalid("The multipart body holds no file.")
        return [self.image_bytes(data) for data in files], _options(fields)

    def text(self, text: str) -> Read:
        """A text in the canonical form that tokenizer and cache key share."""
        if len(text) > self._max_chars or (len(text) == TOKEN and text in self._long):
            return errors.TextTooLong()
        try:
            return Item("text", canonical(text))
        except errors.ItemError as error:
            return error

    def image_bytes(self, data: bytes) -> Item | errors.ItemError:
        if not data:
            return errors.ImageEmpty()
        return errors.ImageTooLarge() if len(data) > self._max_bytes else Item("image", data)

    def link(self, url: str) -> Short:
        if self._fetcher is None:
            return errors.ImageUrlDisabled()
        return errors.ImageUrlInvalid() if self._is_long(url) else Link(url)

    def _is_long(self, text: str) -> bool:
        """Whether it stands for a string longer than any text."""
        return len(text) == TOKEN and text in self._long

    def bound_chars(self, chars: int) -> None:
        """Raises `BodyTooLarge` for more characters than the texts of a request may have."""
        if chars > self._max_request_chars:
            raise errors.BodyTooLarge(
                f"The texts of this request have {chars} characters together; this server accepts"
                f" {self._max_request_chars}."
            )

    async def captions(self, templates: Sequence[str], labels: Sequence[str]) -> list[Read]:
        """All labels in the first template, then in the next, once their lengths say that the
        captions may be made.

        Raises:
            BodyTooLarge: they have more characters together than the texts of a request may.
        """
        places = [(template, template.count(LABEL)) for template in templates]
        sized = [
            (template, label, len(template) + count * (len(label) - len(LABEL)))
            for template, count in places
            for label in labels
        ]
        self.bound_chars(sum(size for *_, size in sized if size <= self._max_chars))

        def caption(one: tuple[str, str, int]) -> Read:
            template, label, size = one
            if size > self._max_chars or self._is_long(label):
                return errors.TextTooLong()
            return self.text(template.replace(LABEL, label))

        return await paced(caption, sized)

    async def items(
        self, read: Callable[[Given], Read], given: Sequence[Given], incoming: Incoming
    ) -> list[Read]:
        """Each of what a request has, read. Raises `TooManyItems` beyond the limit."""
        self.count(len(given), incoming)
        return await paced(read, given)

    async def settled(
        self, items: list[Read], incoming: Incoming, query: Query
    ) -> list[Item | errors.ItemError]:
        """The items with long images decoded, and links fetched while the client is there.

        Raises:
            BodyTooLarge: their texts are too long together.
            RequestInvalid: an image by digest cannot be computed afresh, as the query wants it.
        """
        if incoming.large:
            texts = [i.payload for i in items if isinstance(i, Item) and i.kind == "text"]
            self.bound_chars(sum(map(len, texts)))
        if not query.read and any(isinstance(item, Item) and item.by_digest for item in items):
            raise errors.RequestInvalid(NOT_AFRESH, param="Cache-Control")
        if PENDING.isdisjoint(map(type, items)):
            return items  # type: ignore[return-value]
        short = [await self._decoded(i) if isinstance(i, LongString) else i for i in items]
        incoming.long = ()
        query.fetched = Link in map(type, short)
        if not query.fetched:
            return short  # type: ignore[return-value]
        return await incoming.unless_gone(self._fetched(short, client_of(incoming, self._keyed)))

    async def _decoded(self, long: LongString) -> Short:
        pace, pieces, decoder = Pace(), long.pieces(), Decoder()
        first = next(pieces)
        start = first.decode("latin-1")
        if _is_url(start):
            return self.link(long.token)
        at = _base64_at(start)
        if at < 0:
            return errors.ImageBase64Invalid()
        try:
            decoder.take(first[at:])
            for piece in pieces:
                decoder.take(piece)
                if decoder.size > self._max_bytes:
                    return errors.ImageTooLarge()
                await pace.rest()
            return self.image_bytes(decoder.whole())
        except ValueError:
            return errors.ImageBase64Invalid()

    async def _fetched(self, items: list[Short], client: bytes) -> list[Item | errors.ItemError]:
        urls = [item for item in items if isinstance(item, Link)]
        fetched = iter(await self._fetcher.fetch_all(urls, client)) if self._fetcher else iter(())
        settled: list[Item | errors.ItemError] = []
        for item in items:
            one = next(fetched, errors.ImageUrlDisabled()) if isinstance(item, Link) else item
            settled.append(self.image_bytes(one) if isinstance(one, bytes) else one)
        return settled

    def image(self, text: str) -> Read:
        if self._is_long(text):
            return self._long[text]
        if _is_url(text):
            return self.link(text)
        at = _base64_at(text)
        if at >= 0 and len(text) - at > self._max_bytes * 3 // 2:
            return errors.ImageTooLarge()
        data = _base64(text[at:]) if at >= 0 else None
        return errors.ImageBase64Invalid() if data is None else self.image_bytes(data)

    def digest(self, digits: str) -> Read:
        if not self._digests:
            return errors.DigestDisabled()
        return Item("image", Digest.fromhex(digits)) if HEX(digits) else errors.DigestInvalid()

    def picture(self, given: str | DigestPart) -> Read:
        return self.image(given) if isinstance(given, str) else self.digest(given.sha256)

    def part(self, part: Part | errors.ItemError) -> Read:
        if isinstance(part, str):
            is_data = part[:5].lower() == "data:" and ";base64," in part[:HEAD].lower()
            return self.image(part) if is_data else self.text(part)
        if isinstance(part, errors.ItemError):
            return part
        if isinstance(part, ImagePart):
            return self.image(part.image)
        if isinstance(part, ImageUrlPart):
            url = part.image_url
            return self.image(url.url if isinstance(url, ImageUrl) else url)
        if isinstance(part, Base64Part):
            return self.image(part.image_base64)
        if isinstance(part, DigestPart):
            return self.digest(part.sha256)
        return self.text(part.text)

    def count(self, items: int, incoming: Incoming) -> None:
        if items > self._max_items:
            raise self._too_many(str(max(items, incoming.longest)))

    def count_captions(self, labels: int, templates: int, incoming: Incoming) -> None:
        """Raises `TooManyItems` where the captions and their image are more than a request's."""
        items = 1 + labels * templates
        if templates == 1 or incoming.longest:
            self.count(items, incoming)
        elif items > self._max_items:
            raise self._too_many(f"{labels} labels × {templates} templates and an image, {items}")

    def count_pairs(self, texts: int, images: int) -> None:
        """Raises `TooManyItems` for more pairs than are scored in one answer."""
        most = PAIRS_AN_ITEM * self._max_items
        if texts * images > most:
            raise errors.TooManyItems(
                f"{texts} texts and {images} images make {texts * images} pairs; this server scores"
                f" {most} in one request."
            )

    def bound_patches(self, items: Sequence[Read], patches: int, usual: int) -> None:
        """Raises for more patches than may be asked for, by an image or by all of a request."""
        if patches > self._most_patches:
            sentence = f"max_num_patches: this server takes up to {self._most_patches}"
            raise errors.RequestInvalid(sentence, param="max_num_patches")
        free = sum(isinstance(i, Item) and (i.kind == "text" or i.by_digest) for i in items)
        images = len(items) - free
        cost = images * cost_of(patches, usual)
        if cost > self._max_items:
            raise errors.TooManyItems(
                f"{images} images of {patches} patches cost as much as {cost} of the usual {usual};"
                f" this server accepts {self._max_items} items (--max-items)."
            )

    def _too_many(self, count: str) -> errors.TooManyItems:
        return errors.TooManyItems(
            f"The request has {count} items; this server accepts {self._max_items} (--max-items)."
        )


class Decoder:
    """Base64 in pieces of any length, white space between them. Raises ValueError."""

    def __init__(self) -> None:
        self.size = 0  # bytes so far
        self._parts: list[bytes] = []
        self._left = b""
        self._ended = False  # padding is the end of it

    def take(self, piece: bytes) -> None:
        """Decode whole groups of four, and keep what is left for the next piece."""
        if any(map(piece.__contains__, WHITESPACE)):
            piece = piece.translate(None, WHITESPACE)
        piece = self._left + piece
        whole = len(piece) & ~3
        if self._ended and piece:
            raise ValueError("there is more after the padding")
        part = pybase64.b64decode(piece[:whole], validate=True)
        self._ended = piece[whole - 1 : whole] == b"="
        self._left = piece[whole:]
        self._parts.append(part)
        self.size += len(part)

    def whole(self) -> bytes:
        if self._left:
            raise ValueError("it ends within a group")
        return b"".join(self._parts)


def _bound(content: Any, most: int, depth: int, incoming: Incoming) -> None:
    """Cut each list to `most` members, one more than may be, and so many that this is still seen.

    Of millions of wrong members each would get a sentence of its own, and of right ones an object.
    """
    members: Any = ()
    if isinstance(content, list):
        if len(content) > most:
            incoming.longest = max(incoming.longest, len(content))
            del content[most:]
        members = content
    elif isinstance(content, dict):
        if len(content) > MOST_FIELDS:
            raise errors.RequestInvalid(
                f"An object of the body has more than {MOST_FIELDS} fields."
            )
        members = content.values()
    if depth and not NESTED.isdisjoint(map(type, members)):
        for member in members:
            if type(member) in NESTED:
                _bound(member, most, depth - 1, incoming)


def _not_json(body: bytes, error: orjson.JSONDecodeError) -> str:
    if not body:
        return "The body is empty; a JSON object is expected."
    if b"\0" in body:  # no text holds one, and nearly every image does
        return NOT_TEXT
    place = f"line {error.lineno}, column {error.colno}"
    return f"The body is not valid JSON: {error.msg} ({place})."


def _refuse_options(query: dict[str, str]) -> None:
    stray = (OPTION_FIELDS | NAMES.keys()) & query.keys()
    if stray:
        name = min(stray)
        raise errors.RequestInvalid(f"{name}: options go into a JSON or multipart body", param=name)


def _check_charset(content_type: str) -> None:
    """Python also knows codecs that take quadratic time, or that make lone surrogates."""
    _, options = parse_options_header(content_type)
    if options.get(b"charset", b"utf-8").lower() not in CHARSETS:
        raise errors.MultipartInvalid("The charset of a multipart body is not read here; UTF-8 is.")


def _is_url(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def _base64_at(text: str) -> int:
    """Where base64 begins in a data URI, or in base64 alone; below 0 where neither is meant."""
    if text[:5].lower() != "data:":
        return 0
    comma = text.find(",")
    return comma + 1 if text[: max(0, comma)].lower().endswith(";base64") else -1


def _base64(text: str) -> bytes | None:
    if not text.isascii():  # at once: of other characters each costs a look-up below
        return None
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:  # line breaks are allowed, as MIME writes them
        try:
            return pybase64.b64decode(text.encode().translate(None, WHITESPACE), validate=True)
        except ValueError:
            return None


def _options(fields: dict[str, str]) -> Options:
    numbers = {name: _whole(name, fields[name]) for name in NUMBERS if name in fields}
    return validate(Options, {**fields, **numbers})


def _whole(name: str, text: str) -> int:
    digits = text.removesuffix(".0")  # as in JSON
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise errors.RequestInvalid(f"{name}: Input should be a whole number", param=name)
    return int(digits)
