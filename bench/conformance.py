"""Does a server give the right SigLIP2 vectors? Eight probes against any OpenAI-form server.

    python -m bench.conformance --url http://localhost:8080

Each probe is a way in which a known server was found wrong. What can be judged from the outside is
judged by comparing the server with itself; the rest by transformers on the same checkpoint folder
(`--checkpoint`, by default the demo checkpoint that ships). A failed text probe names the mistake
that explains the vector best. Exit code 0 only if all eight pass.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image, ImageDraw

from bench.reference import Reference, Vector, cosine
from bench.rig.command import described

DEMO = Path(__file__).parent.parent / "litapi" / "demo" / "checkpoint"
SAME = 0.9999  # also holds for a server in bfloat16
LONG = "a large red circle and a small blue square and two green triangles on a white background "


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe found."""

    passed: bool
    sentence: str


class Server:
    """An OpenAI-form embedding server."""

    def __init__(self, url: str, model: str | None, images: str, path: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=120)
        self._images = images
        self._path = path
        self.model = model or self._served()

    def _served(self) -> str:
        for path in ("/v1/models", "/models"):
            answer = self._client.get(path)
            if answer.status_code == 200:
                return str(answer.json()["data"][0]["id"])
        raise SystemExit("the server lists no model; name one with --model")

    def texts(self, *texts: str) -> list[Vector]:
        """The vectors of texts, sent in one request."""
        return self._post({"model": self.model, "input": list(texts)})

    def image(self, data: bytes, media_type: str = "image/png") -> Vector:
        """The vector of one encoded image, in the form this server reads."""
        uri = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        if self._images == "infinity":
            body: dict[str, Any] = {"input": [uri], "modality": "image"}
        elif self._images == "vllm":
            part = {"type": "image_url", "image_url": {"url": uri}}
            body = {"messages": [{"role": "user", "content": [part]}]}
        else:
            body = {"input": [uri]}
        return self._post({"model": self.model, **body})[0]

    def _post(self, body: dict[str, Any]) -> list[Vector]:
        answer = self._client.post(self._path, json={**body, "encoding_format": "float"})
        if answer.status_code != 200:
            raise Refused(answer.status_code)
        rows = sorted(answer.json()["data"], key=lambda row: row["index"])
        return [np.asarray(row["embedding"], np.float32) for row in rows]


class Probes:
    """The eight probes, in the order of the list of known mistakes."""

    def __init__(self, server: Server, reference: Reference) -> None:
        self._server = server
        self._reference = reference

    def all(self) -> list[tuple[str, Callable[[], Verdict]]]:
        """Names and probes."""
        return [
            ("alone or in a batch", self.alone_or_batched),
            ("long captions", self.long_captions),
            ("case", self.case),
            ("images of equal height", self.equal_height),
            ("after a damaged image", self.after_damage),
            ("aspect ratio", self.aspect_ratio),
            ("short captions", self.short_captions),
            ("padding", self.padding),
        ]

    def alone_or_batched(self) -> Verdict:
        """A text has one vector, whatever it is sent with."""
        alone = self._server.texts("a red circle")[0]
        batched = self._server.texts(LONG * 2, "a red circle", "two blue squares")[1]
        return _same("alone against batched", alone, batched)

    def long_captions(self) -> Verdict:
        """Words up to the 64th token count, and those after it do not."""
        text = LONG + "with a yellow star"
        seen = self._server.texts(text)[0]
        return self._judge("a caption of more than 20 tokens", text, seen)

    def case(self) -> Verdict:
        """Capital letters make no difference."""
        upper, lower = self._server.texts("A Large RED Circle", "a large red circle")
        return _same("upper against lower case", upper, lower)

    def equal_height(self) -> Verdict:
        """Two pictures of the same size have their own vectors, in any order."""
        red, blue = _png("red", (128, 96)), _png("blue", (128, 96), square=True)
        first, second = self._server.image(red), self._server.image(blue)
        wanted = [self._reference.image(_open(one)) for one in (red, blue)]
        worst = min(cosine(first, wanted[0]), cosine(second, wanted[1]))
        return Verdict(worst >= SAME, f"against the reference: cosine {worst:.6f}")

    def after_damage(self) -> Verdict:
        """A truncated JPEG is refused, and the picture after it is served."""
        whole = _jpeg("green", (160, 120))
        try:
            self._server.image(whole[: len(whole) // 2], "image/jpeg")
            return Verdict(False, "the truncated JPEG got a vector")
        except Refused as refused:
            if refused.status >= 500:
                return Verdict(False, f"the truncated JPEG got {refused.status}")
            status = refused.status
        seen = cosine(self._server.image(whole, "image/jpeg"), self._reference.image(_open(whole)))
        return Verdict(
            seen >= SAME, f"damaged: {status}; the whole one after it: cosine {seen:.6f}"
        )

    def aspect_ratio(self) -> Verdict:
        """Wide and tall pictures come out as the reference processor makes them."""
        sizes = ((320, 80), (80, 320))
        pictures = [_png("red", size) for size in sizes]
        worst = min(
            cosine(self._server.image(one), self._reference.image(_open(one))) for one in pictures
        )
        return Verdict(worst >= SAME, f"4:1 and 1:4 against the reference: cosine {worst:.6f}")

    def short_captions(self) -> Verdict:
        """A short caption in mixed case is padded and lower-cased as in training."""
        text = "Blue Square"
        return self._judge("a short caption", text, self._server.texts(text)[0])

    def padding(self) -> Verdict:
        """Padding is id 0, on the right, to 64, without a mask."""
        text = "circle"
        return self._judge("one word", text, self._server.texts(text)[0])

    def _judge(self, what: str, text: str, seen: Vector) -> Verdict:
        right = cosine(seen, self._reference.text(text))
        if right >= SAME:
            return Verdict(True, f"{what} against the reference: cosine {right:.6f}")
        mistakes = {n: cosine(seen, v) for n, v in self._reference.mistakes(text).items()}
        best = max(mistakes, key=mistakes.__getitem__)
        like = f"; looks like: {best} ({mistakes[best]:.4f})" if mistakes[best] > right else ""
        return Verdict(False, f"{what} against the reference: cosine {right:.4f}{like}")


def _same(what: str, one: Vector, other: Vector) -> Verdict:
    seen = cosine(one, other)
    return Verdict(seen >= SAME, f"{what}: cosine {seen:.6f}")


def _draw(colour: str, size: tuple[int, int], square: bool = False) -> Image.Image:
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    width, height = size
    side = min(size) * 3 // 5
    box = ((width - side) // 3, (height - side) // 2, (width + side * 2) // 3, (height + side) // 2)
    (draw.rectangle if square else draw.ellipse)(box, fill=colour)
    return picture


def _png(colour: str, size: tuple[int, int], square: bool = False) -> bytes:
    return _encoded(_draw(colour, size, square), "PNG")


def _jpeg(colour: str, size: tuple[int, int]) -> bytes:
    return _encoded(_draw(colour, size), "JPEG")


def _encoded(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def run(probes: Probes, write: Callable[[str], None]) -> int:
    """Run all probes; the number that failed."""
    failed = 0
    for name, probe in probes.all():
        try:
            verdict = probe()
        except (Refused, httpx.HTTPError, KeyError, ValueError) as error:
            verdict = Verdict(False, f"no answer to judge: {error}")
        failed += not verdict.passed
        write(f"{'pass' if verdict.passed else 'FAIL'}  {name:<24} {verdict.sentence}")
    write(f"{8 - failed} of 8 probes passed")
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = described("bench.conformance", __doc__)
    parser.add_argument("--url", required=True, help="where the server listens")
    parser.add_argument("--model", help="model name; default: the first one the server lists")
    parser.add_argument("--checkpoint", type=Path, default=DEMO, help="folder the server serves")
    parser.add_argument("--path", default="/v1/embeddings", help="the embedding route")
    parser.add_argument("--images", choices=("string", "infinity", "vllm"), default="string")
    options = parser.parse_args(arguments)
    server = Server(options.url, options.model, options.images, options.path)
    return 1 if run(Probes(server, Reference(options.checkpoint)), print) else 0


if __name__ == "__main__":
    sys.exit(main())
