"""How a job becomes the bytes of a request.

    v1     POST /v1/embeddings, OpenAI form, vectors as base64
    embed  POST /embed_text and /embed_image, siglit's own form, vectors as JSON numbers
    raw    as v1, answered with raw float32 rows; a single picture goes to /embed_image as it is

The paths can be others, so that plain Flask services are driven by the same generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson

from bench.load.connection import Address
from bench.load.workload import Item, Job

Form = Literal["v1", "embed", "raw"]
PATHS = {
    "v1": ("/v1/embeddings", "/v1/embeddings"),
    "embed": ("/embed_text", "/embed_image"),
    "raw": ("/v1/embeddings", "/v1/embeddings"),
}
JSON = b"application/json"
OCTETS = b"application/octet-stream"


@dataclass(frozen=True, slots=True)
class Route:
    """Form, paths and headers of all requests of a run."""

    address: Address
    form: Form = "v1"
    text_path: str | None = None
    image_path: str | None = None
    model: str | None = None
    key: str | None = None
    headers: tuple[str, ...] = field(default=())  # more of them, "Name: value"

    def request(self, job: Job) -> bytes:
        body, media_type = self._body(job)
        return b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (
            self._head(job), media_type, len(body), body,
        )  # fmt: skip

    def path(self, job: Job) -> str:
        given = self.text_path if job.kind == "text" else self.image_path
        if given is None:
            given = "/embed_image" if self._bare(job) else PATHS[self.form][job.kind == "image"]
        return self.address.prefix + given

    def _bare(self, job: Job) -> bool:
        return self.form == "raw" and job.kind == "image" and len(job.items) == 1

    def _head(self, job: Job) -> bytes:
        address = self.address
        lines = [
            f"POST {self.path(job)} HTTP/1.1",
            f"host: {address.host}:{address.port}",
            f"accept: {(OCTETS if self.form == 'raw' else JSON).decode()}",
            *([f"authorization: Bearer {self.key}"] if self.key else []),
            *self.headers,
            "content-type: ",
        ]
        return "\r\n".join(lines).encode()

    def _body(self, job: Job) -> tuple[bytes, bytes]:
        if self._bare(job):
            return job.items[0].data, job.items[0].media_type.encode()
        if self.form == "embed":
            name = b'"text' if job.kind == "text" else b'"image'
            return b"{%b%b}" % (name, _value(job.items, b's":', b'":')), JSON
        fields = b',"model":%b' % orjson.dumps(self.model) if self.model else b""
        items = _value(job.items, b"", b"") if job.kind == "text" else _list(job.items)
        return b'{"input":%b,"encoding_format":"base64"%b}' % (items, fields), JSON


def _value(items: Sequence[Item], many: bytes, one: bytes) -> bytes:
    return many + _list(items) if len(items) > 1 else one + items[0].quoted


def _list(items: Sequence[Item]) -> bytes:
    return b"[%b]" % b",".join([item.quoted for item in items])
