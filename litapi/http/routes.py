"""What each route does with a request: form → items → embedder → answer.

The routes know nothing of sockets and queues. Each takes an `Incoming` and gives an `Answer`, or
raises a `ServiceError`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Any
from uuid import uuid4

import numpy as np

from cache import Entry, State
from litapi import errors
from litapi.http.answer import MANY, Answer, Vectors, wants_octets
from litapi.http.embedder import Embedder, Query
from litapi.http.forms.foreign import FOREIGN, Cut, Embedded, ForeignRequest, listed
from litapi.http.forms.form import Options
from litapi.http.forms.native import (
    ClassifyRequest,
    EmbeddingsRequest,
    EmbedImageRequest,
    EmbedTextRequest,
    ScoreRequest,
)
from litapi.http.forms.validation import validate
from litapi.http.inputs import LABEL, Read, Reader
from litapi.http.pace import Pace, paced
from litapi.http.request import Incoming
from litapi.messages import Item, Kind
from litapi.scoring import Array, ensemble
from litapi.serving import Service

Route = Callable[[Incoming], Awaitable[Answer]]
Table = dict[tuple[str, str], Route]  # by method and path
RENDERED = {state: state.encode() for state in State}.__getitem__
TOKENS = attrgetter("tokens")
HIT = State.HIT_L1
TOLD = 256  # items that a header tells of: aiohttp takes 8 KB of one, Node 16 KB of all
PAIRS = 1 << 15  # of texts and images that are scored in one turn
NOT_WHOLE = "The text has more tokens than the model reads, and truncate says not to cut it."


class Routes:
    def __init__(self, service: Service, reader: Reader, embedder: Embedder) -> None:
        self._service = service
        self._reader = reader
        self._embedder = embedder
        self._dim = service.checkpoint.dim
        self._model = service.name
        self._space = (b"x-embedding-space", service.checkpoint.space.encode())

    def table(self) -> Table:
        return {
            ("POST", "/v1/embeddings"): self.embeddings,
            ("POST", "/embed_text"): self.embed_text,
            ("POST", "/embed_image"): self.embed_image,
            ("POST", "/score"): self.score,
            ("POST", "/classify"): self.classify,
            **{("POST", path): self._foreign(form) for path, form in FOREIGN.items()},
        }

    async def embeddings(self, incoming: Incoming) -> Answer:
        """OpenAI form: any refused item refuses the request, naming every one; good ones stay."""
        form = validate(EmbeddingsRequest, await self._reader.json(incoming))
        vectors = self._vectors(form)
        parts = form.input if isinstance(form.input, list) else [form.input]
        items = await self._reader.items(self._reader.part, parts, incoming)
        query = await self._query(items, incoming, form.max_num_patches)
        _refuse(query, "input" if isinstance(form.input, str) else "input[{}]")
        if wants_octets(incoming.headers.get(b"accept", b"")):
            return self._told(vectors.raw(query.entries), query)
        rows, scales = await vectors.written(query.entries)
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        for index in query.cut:
            data[index]["truncated"] = True
        for one, scale in zip(data, scales, strict=False):
            one["scale"] = scale
        tokens = sum(map(TOKENS, query.entries))
        content = {
            "object": "list",
            "data": data,
            "model": self._model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return self._told(await _written(content, len(data)), query)

    async def embed_text(self, incoming: Incoming) -> Answer:
        form = validate(EmbedTextRequest, await self._reader.json_of_texts(incoming))
        name, texts, single = _one_of(text=form.text, texts=form.texts)
        items = await self._reader.items(self._reader.text, texts, incoming)
        return await self._embed(incoming, form, items, name, single)

    async def embed_image(self, incoming: Incoming) -> Answer:
        """Images, URLs or digests as JSON; files as multipart; or one raw image."""
        if incoming.media_type.startswith(("image/", "multipart/", "application/octet")):
            items, options = await self._reader.upload(incoming)
            single = len(items) == 1
            name = "image" if single else "images"
            return await self._embed(incoming, options, items, name, single)
        form = validate(EmbedImageRequest, await self._reader.json(incoming))
        reader = self._reader
        ways = {"image": reader.image, "url": reader.link, "sha256": reader.digest}
        given = {name: getattr(form, name) for way in ways for name in (way, f"{way}s")}
        name, images, single = _one_of(**given)
        items = await reader.items(ways[name.removesuffix("s")], images, incoming)
        return await self._embed(incoming, form, items, name, single)

    async def _embed(
        self, incoming: Incoming, form: Options, items: list[Read], name: str, single: bool
    ) -> Answer:
        vectors = self._vectors(form)
        query = await self._query(items, incoming, form.max_num_patches)
        if not query.entries or wants_octets(incoming.headers.get(b"accept", b"")):
            _refuse(query, name if single else name + "[{}]")
            return self._told(vectors.raw(query.entries), query)
        found = [one if isinstance(one, Entry) else None for one in query.found.values]
        rows, scales = await vectors.written(found)
        cached = [state in (State.HIT_L1, State.HIT_L2) for state in query.found.states]
        cut = [entry is not None and entry.truncated for entry in found]
        content: dict[str, Any] = {
            "embedding" if single else "embeddings": rows[0] if single else rows,
            "dimension": vectors.dimension,
            "model": self._model,
            "cached": cached[0] if single else cached,
            "truncated": cut[0] if single else cut,
        }
        if scales:
            content["scale" if single else "scales"] = scales[0] if single else scales
        if single:
            return self._told(Answer.json(content), query)
        content["errors"] = _faults(query.faults)
        return self._told(await _written(content, len(rows)), query)

    async def score(self, incoming: Incoming) -> Answer:
        """Cosine and probability of every text against every image."""
        form = validate(ScoreRequest, await self._reader.json(incoming))
        self._same_model(form.model)
        self._reader.count(len(form.texts) + len(form.images), incoming)
        self._reader.count_pairs(len(form.texts), len(form.images))
        texts = await paced(self._reader.text, form.texts)
        images = await paced(self._reader.picture, form.images)
        query = await self._query([*texts, *images], incoming, form.max_num_patches)
        _refuse(query, [*listed("texts", form.texts), *listed("images", form.images)])
        scores = await self._pairs(query.entries, len(texts))
        content = {
            **scores,
            "logit_scale": self._service.checkpoint.logit_scale,
            "logit_bias": self._service.checkpoint.logit_bias,
            "model": self._model,
        }
        return self._told(await Answer.json_in_turns(content), query)

    async def _pairs(self, entries: list[Entry], texts: int) -> dict[str, list[Any]]:
        """Rows of cosines and of probabilities, a row for each text, some of them in one turn."""
        matrix = np.stack([np.frombuffer(entry.vector, "<f4") for entry in entries])
        rows, columns = matrix[:texts].astype(np.float64), matrix[texts:].T
        pace, scores = Pace(), defaultdict[str, list[Any]](list)
        step = max(1, PAIRS // columns.shape[1])
        for at in range(0, texts, step):
            block = rows[at : at + step] @ columns
            scores["cosine"] += [*block]
            for name, found in self._service.scoring.probabilities(block).items():
                scores[name] += [*found]
            await pace.rest()
        return scores

    async def classify(self, incoming: Incoming) -> Answer:
        form = validate(ClassifyRequest, await self._reader.json(incoming))
        self._same_model(form.model)
        templates = _templates(form)
        captions = await self._reader.captions(templates, form.labels, incoming)
        items = [self._reader.picture(form.image), *captions]
        query = await self._query(items, incoming, form.max_num_patches)
        _refuse(query, ["image", *[*listed("labels", form.labels)] * len(templates)])
        image, *rows = (np.frombuffer(entry.vector, "<f4") for entry in query.entries)
        cosine = ensemble(np.stack(rows), len(templates)).astype(np.float64) @ image
        content = self._ranked(form, cosine)
        return self._told(Answer.json({**content, "model": self._model}), query)

    def _ranked(self, form: ClassifyRequest, cosine: Array) -> dict[str, Any]:
        scoring = self._service.scoring
        scores: dict[str, Any] = {**scoring.probabilities(cosine), "cosine": cosine}
        threshold = scoring.threshold if form.threshold is None else form.threshold
        scores["holds"] = scores["probability"] >= threshold
        ranked = [
            {"label": form.labels[i], **{name: found[i] for name, found in scores.items()}}
            for i in np.argsort(-cosine, kind="stable")
        ]
        return {"labels": ranked, "threshold": threshold}

    def _foreign(self, kind: type[ForeignRequest]) -> Route:
        size = "output_dimension" if "output_dimension" in kind.model_fields else "dimensions"

        async def foreign(incoming: Incoming) -> Answer:
            form = validate(kind, await self._reader.json(incoming))
            self._same_model(form.model)
            places = form.items()
            ways = {name: self._vectors(how, size) for name, how in form.wanted().items()}
            items = await self._reader.items(self._reader.part, [*places.values()], incoming)
            query = await self._query(items, incoming, form.max_num_patches, form.cut)
            _refuse(query, [*places])
            kinds: list[Kind] = [i.kind if isinstance(i, Item) else "image" for i in items]
            compared = await self._compared(query.entries, kinds) if form.compares else {}
            embedded = Embedded(
                uuid4().hex,
                self._model,
                kinds,
                list(map(TOKENS, query.entries)),
                self._service.checkpoint.patch_size,
                {name: (await way.written(query.entries))[0] for name, way in ways.items()},
                **compared,
            )
            return self._told(await _written(form.answer(embedded), len(items)), query)

        return foreign

    async def _query(
        self, items: list[Read], incoming: Incoming, patches: int | None, cut: Cut = "END"
    ) -> Query:
        query = self._asked(incoming, patches)
        query.ending = cut == "START"
        if patches is not None:
            self._reader.bound_patches(items, patches, self._service.patches)
        settled = await self._reader.settled(items, incoming, query)
        if incoming.access is not None:
            incoming.access.charge(incoming, settled, self._service.settings.image_formats)
        await self._embedder.embed(settled, query)
        if cut == "NONE" and query.cut:
            for index in query.cut:
                query.found.values[index] = errors.TextTooLong(NOT_WHOLE)
            query.answered(query.found)
        return query

    async def _compared(self, entries: list[Entry], kinds: list[Kind]) -> dict[str, list[float]]:
        """The first item with each other one: the cosine, and from 0 to 1 how well they fit.

        That is the probability for a text and an image. Two of a kind were never compared in
        training: there it is the cosine, scaled.
        """
        scores = {name: row for name, (row,) in (await self._pairs(entries, 1)).items()}
        alike = np.array([kind == kinds[0] for kind in kinds[1:]])
        likeness = np.clip((1 + scores["cosine"]) / 2, 0, 1)
        scores["relevance"] = np.where(alike, likeness, scores.pop("probability"))
        return {name: row.tolist() for name, row in scores.items()}

    def _same_model(self, model: str | None) -> None:
        if model is not None and not self._service.answers_to(model):
            raise errors.ModelUnknown(param="model")

    def _vectors(self, form: Options, size: str = "dimensions") -> Vectors:
        self._same_model(form.model)
        if form.dimensions is not None and form.dimensions > self._dim:
            raise errors.RequestInvalid(f"{size}: this model has {self._dim}", param=size)
        if form.embedding_type.endswith("binary") and (form.dimensions or self._dim) % 8:
            sentence = f"{size}: must be a multiple of 8, for binary packs eight into a byte"
            raise errors.RequestInvalid(sentence, param=size)
        return Vectors(form.encoding_format, form.dimensions, self._dim, form.embedding_type)

    def _asked(self, incoming: Incoming, patches: int | None) -> Query:
        if patches is not None and not self._service.checkpoint.naflex:
            sentence = "max_num_patches: this model takes images of a fixed resolution"
            raise errors.RequestInvalid(sentence, param="max_num_patches")
        control = incoming.headers.get(b"cache-control")
        query = Query(patches or 0, leaving=incoming.gone, bulk=incoming.bulk, asker=incoming.asker)
        if control is not None:
            stated = control.decode("latin-1").lower().split(",")
            wishes = {wish.partition("=")[0].strip() for wish in stated}
            query.read = not wishes & {"no-cache", "no-store"}
            query.write = "no-store" not in wishes
        return query

    def _told(self, answer: Answer, query: Query) -> Answer:
        states = query.found.states
        told = states if len(states) <= TOLD else states[:TOLD]
        answer.headers.append((b"x-cache", b",".join(map(RENDERED, told))))
        answer.headers += [(b"server-timing", query.timing()), self._space]
        if states.count(HIT) == len(states) == len(query.entries) and not query.fetched:
            answer.hits = len(states)
        if query.cut:
            answer.headers.append((b"x-truncated", ",".join(map(str, query.cut[:TOLD])).encode()))
        return answer


def _templates(form: ClassifyRequest) -> list[str]:
    if form.templates is None:
        named = {"template": form.template}
    elif "template" in form.model_fields_set:
        sentence = "templates: exactly one of template and templates is expected"
        raise errors.RequestInvalid(sentence, param="templates")
    else:
        named = {f"templates[{i}]": template for i, template in enumerate(form.templates)}
    for name, template in named.items():
        if LABEL not in template:
            raise errors.RequestInvalid(f"{name}: must hold {LABEL}", param=name)
    return [*named.values()]


def _one_of(**given: Any) -> tuple[str, list[str], bool]:
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        raise errors.RequestInvalid(f"exactly one of {', '.join(given)} is expected")
    ((name, value),) = named.items()
    return (name, value, False) if isinstance(value, list) else (name, [value], True)


async def _written(content: Any, rows: int) -> Answer:
    """`content` as JSON; one of many rows in turns with other requests."""
    return Answer.json(content) if rows <= MANY else await Answer.json_in_turns(content)


def _faults(faults: dict[int, errors.ItemError]) -> list[dict[str, Any]]:
    return [
        {"index": index, "code": fault.code, "message": fault.message}
        for index, fault in faults.items()
    ]


class ItemsRefused(errors.ServiceError):
    """Carries the items of a refused request to where the answer is written."""

    def __init__(self, error: errors.ServiceError, items: list[dict[str, Any]]) -> None:
        super().__init__(error.message, param=error.param)
        self.error = error
        self.items = items


def _refuse(query: Query, names: str | Sequence[str]) -> None:
    if len(query.entries) == len(query.found):
        return
    faults = query.faults
    first = min(faults)
    kinds = {type(fault) for fault in faults.values()}
    several = len(kinds) > 1 and any(kind.status < 500 for kind in kinds)
    error: errors.ServiceError = errors.ItemsInvalid() if several else faults[first]
    places = {i: names.format(i) if isinstance(names, str) else names[i] for i in faults}
    error.param = places[first]
    raise ItemsRefused(error, [{**one, "param": places[one["index"]]} for one in _faults(faults)])
