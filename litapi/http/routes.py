"""What each route does with a request: form → items → embedder → answer.

The routes know nothing of sockets and queues. Each takes an `Incoming` and gives an `Answer`, or
raises a `ServiceError`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from cache import Entry, State
from litapi.errors import ItemError, ItemsInvalid, ModelUnknown, RequestInvalid, ServiceError
from litapi.http.answer import MANY, Answer, Vectors
from litapi.http.embedder import Demand, Embedder, Outcome
from litapi.http.forms import (
    ClassifyRequest,
    EmbeddingsRequest,
    EmbedImageRequest,
    EmbedTextRequest,
    Options,
    ScoreRequest,
    validate,
)
from litapi.http.inputs import Read, Reader
from litapi.http.megapixels import megapixels
from litapi.http.pace import FEW, paced
from litapi.http.quantized import Quantized
from litapi.http.request import Incoming
from litapi.messages import Item
from litapi.serving import Service

Route = Callable[[Incoming], Awaitable[Answer]]
RENDERED = {state: state.encode() for state in State}.__getitem__
TOKENS = attrgetter("tokens")
HIT = State.HIT_L1
TOLD = 256  # items that a header tells of: aiohttp takes 8 KB of one, Node 16 KB of all
PAIRS = 1 << 15  # of texts and images that are scored in one turn
NOT_AFRESH = (
    "Cache-Control: no-cache and no-store compute vectors again, and an image by digest brings no"
    " bytes for it"
)
OCTETS = b"application/octet-stream"
USUAL = {b"": False, b"*/*": False, b"application/json": False, OCTETS: True}


class Routes:
    """The routes that embed."""

    def __init__(self, service: Service, reader: Reader, embedder: Embedder) -> None:
        self._service = service
        self._reader = reader
        self._embedder = embedder
        self._dim = service.checkpoint.dim
        self._model = service.name

    def table(self) -> dict[tuple[str, str], Route]:
        """(method, path) → route."""
        return {
            ("POST", "/v1/embeddings"): self.embeddings,
            ("POST", "/embed_text"): self.embed_text,
            ("POST", "/embed_image"): self.embed_image,
            ("POST", "/score"): self.score,
            ("POST", "/classify"): self.classify,
        }

    # -- routes --------------------------------------------------------------------------------

    async def embeddings(self, incoming: Incoming) -> Answer:
        """OpenAI form: any refused item refuses the request, naming every one; good ones stay."""
        form = validate(EmbeddingsRequest, await self._reader.json(incoming))
        vectors = self._vectors(form)
        parts = form.input if isinstance(form.input, list) else [form.input]
        self._reader.count(len(parts), incoming)
        read = self._reader.part
        items = list(map(read, parts)) if len(parts) <= FEW else await paced(read, parts)
        outcome = await self._outcome(items, incoming, form.max_num_patches)
        entries = outcome.entries
        if len(entries) < len(items):
            _refuse(outcome.faults, "input" if isinstance(form.input, str) else "input[{}]")
        small = _quantized(form, entries, vectors)
        if _wants_octets(incoming):
            return _with_headers(small.raw() if small else Answer.raw(entries, vectors), outcome)
        few = len(entries) <= MANY
        if small:
            forms = small.forms
        else:
            forms = vectors.forms(entries) if few else await paced(vectors.form, entries)
        data = [{"object": "embedding", "index": i, "embedding": f} for i, f in enumerate(forms)]
        for index in outcome.cut:
            data[index]["truncated"] = True
        if small and small.scales:
            for one, scale in zip(data, small.scales, strict=True):
                one["scale"] = scale
        tokens = sum(map(TOKENS, entries))
        content = {
            "object": "list",
            "data": data,
            "model": self._model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        answer = Answer.json(content) if few else await _in_turns(content, "data")
        return _with_headers(answer, outcome)

    async def embed_text(self, incoming: Incoming) -> Answer:
        """`text` or `texts`."""
        form = validate(EmbedTextRequest, await self._reader.json_of_texts(incoming))
        name, texts, single = _one_of(text=form.text, texts=form.texts)
        self._reader.count(len(texts), incoming)
        read = self._reader.text
        items = list(map(read, texts)) if len(texts) <= FEW else await paced(read, texts)
        return await self._embed(incoming, form, items, name, single)

    async def embed_image(self, incoming: Incoming) -> Answer:
        """Images, URLs or digests as JSON; files as multipart; or one raw image."""
        if incoming.media_type.startswith(("image/", "multipart/", "application/octet")):
            upload = await self._reader.upload(incoming)
            form = validate(Options, upload.options)
            self._reader.count(len(upload.images), incoming)
            single = len(upload.images) == 1
            name = "image" if single else "images"
            return await self._embed(incoming, form, upload.images, name, single)
        form = validate(EmbedImageRequest, await self._reader.json(incoming))
        name, images, single = _one_of(
            image=form.image,
            images=form.images,
            url=form.url,
            urls=form.urls,
            sha256=form.sha256,
            sha256s=form.sha256s,
        )
        self._reader.count(len(images), incoming)
        ways = {"image": self._reader.image, "url": self._reader.link}
        read = ways.get(name.removesuffix("s"), self._reader.digest)
        items = await paced(read, images)
        return await self._embed(incoming, form, items, name, single)

    async def _embed(
        self, incoming: Incoming, form: Options, items: list[Read], name: str, single: bool
    ) -> Answer:
        vectors = self._vectors(form)
        outcome = await self._outcome(items, incoming, form.max_num_patches)
        faults = outcome.faults
        if len(faults) == len(items) or (faults and _wants_octets(incoming)):
            _refuse(faults, name if single else name + "[{}]")
        found = [one if isinstance(one, Entry) else None for one in outcome.found.values]
        small = _quantized(form, found, vectors)
        if _wants_octets(incoming):
            raw = small.raw() if small else Answer.raw(outcome.entries, vectors)
            return _with_headers(raw, outcome)
        cached = [state in (State.HIT_L1, State.HIT_L2) for state in outcome.found.states]
        cut = [entry is not None and entry.truncated for entry in found]
        if small:
            rows = small.forms
        elif len(found) <= MANY:
            rows = [None if e is None else vectors.form(e) for e in found]
        else:
            rows = await paced(lambda e: None if e is None else vectors.form(e), found)
        content: dict[str, Any] = {
            "embedding" if single else "embeddings": rows[0] if single else rows,
            "dimension": vectors.dimension,
            "model": self._model,
            "cached": cached[0] if single else cached,
            "truncated": cut[0] if single else cut,
        }
        if small and small.scales:
            content["scale" if single else "scales"] = small.scales[0] if single else small.scales
        if not single:
            content["errors"] = _faults(faults)
        few = single or len(rows) <= MANY
        answer = Answer.json(content) if few else await _in_turns(content, "embeddings")
        return _with_headers(answer, outcome)

    async def score(self, incoming: Incoming) -> Answer:
        """Cosine and probability of every text against every image."""
        form = validate(ScoreRequest, await self._reader.json(incoming))
        self._same_model(form.model)
        self._reader.count(len(form.texts) + len(form.images), incoming)
        self._reader.count_pairs(len(form.texts), len(form.images))
        texts = await paced(self._reader.text, form.texts)
        images = await paced(self._reader.picture, form.images)
        outcome = await self._outcome([*texts, *images], incoming, form.max_num_patches)
        names = [f"texts[{i}]" for i in range(len(texts))]
        _refuse(outcome.faults, [*names, *(f"images[{i}]" for i in range(len(images)))])
        matrix = np.stack([np.frombuffer(e.vector, "<f4") for e in outcome.entries])
        rows, columns = matrix[: len(texts)].astype(np.float64), matrix[len(texts) :].T
        step = max(1, PAIRS // len(images))
        blocks = [rows[at : at + step] for at in range(0, len(texts), step)]
        cosine = await paced(lambda block: block @ columns, blocks, 1)
        probability = await paced(self._probability, cosine, 1)
        content = {
            "cosine": [row for block in cosine for row in block],
            "probability": [row for block in probability for row in block],
            "logit_scale": self._service.checkpoint.logit_scale,
            "logit_bias": self._service.checkpoint.logit_bias,
            "model": self._model,
        }
        if cosine[0].size == len(texts) * len(images):  # few enough for one turn
            return _with_headers(Answer.json(content), outcome)
        return _with_headers(await _in_turns(content, "cosine", "probability"), outcome)

    async def classify(self, incoming: Incoming) -> Answer:
        """Labels ranked for an image."""
        form = validate(ClassifyRequest, await self._reader.json(incoming))
        self._same_model(form.model)
        if "{label}" not in form.template:
            raise RequestInvalid("template: must hold {label}", param="template")
        self._reader.count(1 + len(form.labels), incoming)
        captions = await self._reader.captions(form.template, form.labels)
        items = [self._reader.picture(form.image), *captions]
        outcome = await self._outcome(items, incoming, form.max_num_patches)
        _refuse(outcome.faults, ["image", *(f"labels[{i}]" for i in range(len(captions)))])
        image, *labels = (np.frombuffer(e.vector, "<f4") for e in outcome.entries)
        cosine = np.stack(labels).astype(np.float64) @ image
        probability = self._probability(cosine)
        ranked = [
            {"label": form.labels[i], "probability": probability[i], "cosine": cosine[i]}
            for i in np.argsort(-cosine, kind="stable")
        ]
        return _with_headers(Answer.json({"labels": ranked, "model": self._model}), outcome)

    # -- parts of routes -----------------------------------------------------------------------

    def _outcome(
        self, items: list[Read], incoming: Incoming, patches: int | None
    ) -> Awaitable[Outcome]:
        demand = self._demand(incoming, patches)
        if patches is not None:
            self._reader.bound_patches(items, patches, self._service.patches)
        if incoming.large:
            self._reader.bound_texts(items)
        if not demand.read and any(isinstance(item, Item) and item.by_digest for item in items):
            raise RequestInvalid(NOT_AFRESH, param="Cache-Control")
        settled = self._reader.settled(items)
        if settled is None:
            return self._fetched(items, incoming, demand)
        self._charge(incoming, settled)
        return self._embedder.embed(settled, demand)

    async def _fetched(self, items: list[Read], incoming: Incoming, demand: Demand) -> Outcome:
        settled, fetched = await self._reader.settle(items, incoming)
        self._charge(incoming, settled)
        outcome = await self._embedder.embed(settled, demand)
        outcome.fetched = fetched
        return outcome

    def _charge(self, incoming: Incoming, items: Sequence[Item | ItemError]) -> None:
        if incoming.key is not None and incoming.access is not None:
            formats = self._service.settings.image_formats
            incoming.access.charge(incoming, len(items), lambda: megapixels(items, formats))

    def _probability(self, cosine: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        checkpoint = self._service.checkpoint
        logit = checkpoint.logit_scale * cosine + checkpoint.logit_bias
        return np.asarray(1.0 / (1.0 + np.exp(-logit)))

    def _same_model(self, model: str | None) -> None:
        if model is not None and not self._service.answers_to(model):
            raise ModelUnknown(param="model")

    def _vectors(self, form: Options) -> Vectors:
        self._same_model(form.model)
        if form.dimensions is not None and form.dimensions > self._dim:
            raise RequestInvalid(f"dimensions: this model has {self._dim}", param="dimensions")
        if form.embedding_type == "binary" and (form.dimensions or self._dim) % 8:
            sentence = "dimensions: must be a multiple of 8, for binary packs eight into a byte"
            raise RequestInvalid(sentence, param="dimensions")
        return Vectors(form.encoding_format, form.dimensions, self._dim)

    def _demand(self, incoming: Incoming, patches: int | None) -> Demand:
        if patches is not None and not self._service.checkpoint.naflex:
            sentence = "max_num_patches: this model takes images of a fixed resolution"
            raise RequestInvalid(sentence, param="max_num_patches")
        control = incoming.headers.get(b"cache-control")
        demand = Demand(
            patches or 0, leaving=incoming.gone, bulk=incoming.bulk, asker=incoming.asker
        )
        if control is not None:
            listed = control.decode("latin-1").lower().split(",")
            wishes = {wish.partition("=")[0].strip() for wish in listed}
            demand.read = not wishes & {"no-cache", "no-store"}
            demand.write = "no-store" not in wishes
        return demand


class Facts:
    """The routes that tell about the server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._created = int(time.time())

    def table(self) -> dict[tuple[str, str], Route]:
        """(method, path) → route."""
        return {
            ("GET", "/v1/models"): self.models,
            ("GET", "/info"): self.info,
        }

    async def models(self, incoming: Incoming) -> Answer:
        """The one model, in OpenAI form."""
        del incoming
        return Answer.json({"object": "list", "data": [self._card()]})

    async def model(self, incoming: Incoming) -> Answer:
        """`/v1/models/NAME`."""
        if not self._service.answers_to(incoming.path.removeprefix("/v1/models/")):
            raise ModelUnknown
        return Answer.json(self._card())

    def _card(self) -> dict[str, Any]:
        return {
            "id": self._service.name,
            "object": "model",
            "created": self._created,
            "owned_by": "siglit",
        }

    async def info(self, incoming: Incoming) -> Answer:
        """Model, limits, workers, cache."""
        del incoming
        return Answer.json(self._service.info())


def _one_of(**given: Any) -> tuple[str, list[str], bool]:
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        raise RequestInvalid(f"exactly one of {', '.join(given)} is expected")
    ((name, value),) = named.items()
    return (name, value, False) if isinstance(value, list) else (name, [value], True)


def _quantized(form: Options, found: Sequence[Entry | None], vectors: Vectors) -> Quantized | None:
    if form.embedding_type == "float32":
        return None
    return Quantized(form.embedding_type, found, vectors)


async def _in_turns(content: dict[str, Any], *lists: str) -> Answer:
    """`content` as JSON; long lists in it are written in turns with other requests."""
    long = {name: content[name] for name in lists}
    return await Answer.json_in_turns({**content, **{name: [] for name in lists}}, **long)


def _wants_octets(incoming: Incoming) -> bool:
    accept = incoming.headers.get(b"accept", b"")
    if accept in USUAL:
        return USUAL[accept]
    accept = accept.lower()
    return OCTETS in accept and _prefers_octets(accept.decode("latin-1"))


def _prefers_octets(accept: str) -> bool:
    """By the weights of the two forms, and where they weigh the same by what is named first."""
    weights: dict[str, float] = {}
    for entry in accept.split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        weights.setdefault(name, _weight(weight))
    octets = weights.get("application/octet-stream", 0.0)
    if "application/json" not in weights:
        wide = weights.get("application/*", weights.get("*/*", 0.0))
        return octets > 0 and octets >= wide
    json = weights["application/json"]
    named = list(weights)
    first = named.index("application/octet-stream") < named.index("application/json")
    return octets > json or (octets == json > 0 and first)


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 1.0


def _faults(faults: dict[int, ItemError]) -> list[dict[str, Any]]:
    return [
        {"index": index, "code": fault.code, "message": fault.message}
        for index, fault in sorted(faults.items())
    ]


class ItemsRefused(ServiceError):
    """Carries the items of a refused request to where the answer is written."""

    def __init__(self, error: ServiceError, items: list[dict[str, Any]]) -> None:
        super().__init__(error.message, param=error.param)
        self.error = error
        self.items = items


def _refuse(faults: dict[int, ItemError], names: str | Sequence[str]) -> None:
    """Refuse the request for its items, if there are any refused ones."""
    if not faults:
        return
    first = min(faults)
    kinds = {type(fault) for fault in faults.values()}
    client = [fault for fault in faults.values() if fault.status < 500]
    error: ServiceError = faults[first]
    if len(kinds) > 1 and client:
        error = ItemsInvalid()
    places = {i: names.format(i) if isinstance(names, str) else names[i] for i in faults}
    error.param = places[first]
    raise ItemsRefused(error, [{**one, "param": places[one["index"]]} for one in _faults(faults)])


def _with_headers(answer: Answer, outcome: Outcome) -> Answer:
    states = outcome.found.states
    told = states if len(states) <= TOLD else states[:TOLD]
    answer.headers.append((b"x-cache", b",".join(map(RENDERED, told))))
    answer.headers.append((b"server-timing", outcome.spent.header()))
    if states.count(HIT) == len(states) == len(outcome.entries) and not outcome.fetched:
        answer.hits = len(states)
    if outcome.cut:
        answer.headers.append((b"x-truncated", ",".join(map(str, outcome.cut[:TOLD])).encode()))
    return answer
