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
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image, ImageDraw

from bench.load.photo import encoded
from bench.load.workload import MEDIA
from bench.reference import Reference, Vector, cosine
from bench.rig.command import described
from bench.rig.random_checkpoint import DEMO

SAME = 0.9999  # also holds for a server in bfloat16
LONG = "a large red circle and a small blue square and two green triangles on a white background "


class Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Server:
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

    def image(self, data: bytes) -> Vector:
        """The vector of one encoded image, in the form this server reads."""
        uri = f"data:{MEDIA[data[:2]]};base64,{base64.b64encode(data).decode()}"
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


Finding = tuple[bool, str]  # of a probe: whether it passed, and what it found


def alone_or_batched(server: Server, _: Reference) -> Finding:
    """A text has one vector, whatever it is sent with."""
    alone = server.texts("a red circle")[0]
    batched = server.texts(LONG * 2, "a red circle", "two blue squares")[1]
    return _close("alone against batched", cosine(alone, batched))


def case(server: Server, _: Reference) -> Finding:
    """Capital letters make no difference."""
    upper, lower = server.texts("A Large RED Circle", "a large red circle")
    return _close("upper against lower case", cosine(upper, lower))


def equal_height(server: Server, reference: Reference) -> Finding:
    """Two pictures of the same size have their own vectors, in any order."""
    pictures = [_encoded("red", (128, 96)), _encoded("blue", (128, 96), square=True)]
    return _seen(server, reference, "against the reference", pictures)


def after_damage(server: Server, reference: Reference) -> Finding:
    """A truncated JPEG is refused, and the picture after it is served."""
    whole = _encoded("green", (160, 120), form="JPEG")
    try:
        server.image(whole[: len(whole) // 2])
    except Refused as refused:
        if refused.status < 500:
            what = f"damaged: {refused.status}; the whole one after it"
            return _seen(server, reference, what, [whole])
        return False, f"the truncated JPEG got {refused.status}"
    return False, "the truncated JPEG got a vector"


def aspect_ratio(server: Server, reference: Reference) -> Finding:
    """Wide and tall pictures come out as the reference processor makes them."""
    pictures = [_encoded("red", size) for size in ((320, 80), (80, 320))]
    return _seen(server, reference, "4:1 and 1:4 against the reference", pictures)


def _close(what: str, seen: float) -> Finding:
    return seen >= SAME, f"{what}: cosine {seen:.6f}"


def _seen(server: Server, reference: Reference, what: str, pictures: Sequence[bytes]) -> Finding:
    """The worst of the pictures, each sent alone."""
    opened = [Image.open(io.BytesIO(one)).convert("RGB") for one in pictures]
    right = map(reference.image, opened)
    return _close(what, min(map(cosine, map(server.image, pictures), right)))


def judged(what: str, text: str) -> Callable[[Server, Reference], Finding]:
    """The vector of a text is the reference's; one that is wrong looks like some known mistake."""

    def probe(server: Server, reference: Reference) -> Finding:
        vector, named = server.texts(text)[0], f"{what} against the reference"
        right = cosine(vector, reference.text(text))
        if right >= SAME:
            return _close(named, right)
        mistakes = {n: cosine(vector, v) for n, v in reference.mistakes(text).items()}
        best = max(mistakes, key=mistakes.__getitem__)
        like = f"; looks like: {best} ({mistakes[best]:.4f})" if mistakes[best] > right else ""
        return False, f"{named}: cosine {right:.4f}{like}"

    return probe


PROBES: dict[str, Callable[[Server, Reference], Finding]] = {
    "alone or in a batch": alone_or_batched,
    "long captions": judged("a caption of more than 20 tokens", LONG + "with a yellow star"),
    "case": case,
    "images of equal height": equal_height,
    "after a damaged image": after_damage,
    "aspect ratio": aspect_ratio,
    "short captions": judged("a short caption", "Blue Square"),  # lower-cased as in training
    "padding": judged("one word", "circle"),  # id 0, on the right, to 64, without a mask
}  # in the order of the list of known mistakes


def _encoded(colour: str, size: tuple[int, int], square: bool = False, form: str = "PNG") -> bytes:
    """A circle or a square on white."""
    picture = Image.new("RGB", size, "white")
    draw, (width, height), side = ImageDraw.Draw(picture), size, min(size) * 3 // 5
    box = ((width - side) // 3, (height - side) // 2, (width + side * 2) // 3, (height + side) // 2)
    (draw.rectangle if square else draw.ellipse)(box, fill=colour)
    return encoded(picture, form)


def run(server: Server, reference: Reference, write: Callable[[str], None]) -> int:
    """Run all probes; the number that failed."""
    failed = 0
    for name, probe in PROBES.items():
        try:
            passed, sentence = probe(server, reference)
        except (Refused, httpx.HTTPError, KeyError, ValueError) as error:
            passed, sentence = False, f"no answer to judge: {error}"
        failed += not passed
        write(f"{'pass' if passed else 'FAIL'}  {name:<24} {sentence}")
    write(f"{len(PROBES) - failed} of {len(PROBES)} probes passed")
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
    return 1 if run(server, Reference(options.checkpoint), print) else 0


if __name__ == "__main__":
    sys.exit(main())
