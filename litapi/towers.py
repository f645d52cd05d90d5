"""The two LitAPIs: one tower of SigLIP2 each, from the bytes of a job to rows of float32.

A hook never raises for a bad item: the item's `ItemError` travels through batch, predict and
unbatch in the item's place, so neighbours are unharmed under any loop. The hooks take and give
lists of groups, one group for each job, which is what LitServe's stock loop batches; the pipelined
loop calls them with single groups of its own making. LitServe reads the annotations of the hooks to
make its routes, so they are real types here, not strings.
"""

import contextlib
import functools
import itertools
import logging
import math
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pybase64
from litserve import LitAPI

from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.errors import ImageBase64Invalid, ItemError
from litapi.logs import configure
from litapi.messages import Job, JobId, Kind, Reply
from litapi.metrics import held
from litapi.model.plan import Plan, default_patches
from litapi.process import die_with_parent, give_way
from litapi.provoke import provoke, provoked
from litapi.settings import Settings

if TYPE_CHECKING:  # these import torch, and a tower is made where torch must stay out
    from litapi.model.check import Finding
    from litapi.model.encoder import ImageEncoder, TextEncoder
    from litapi.model.engines.slots import Collect
    from litapi.model.picture import PictureReader
    from litapi.model.pixel_budget import PixelBudget
    from litapi.model.pixels import PixelMaker
    from litapi.model.tokens import Tokenizer

log = logging.getLogger("siglit.towers")

STOCK_BATCH = 8  # requests that LitServe's own loop puts into a batch, where it is used
STOCK_WAIT = 0.002  # seconds; with 0 that loop would spin
QUICK_CHARS = 512


class Part(NamedTuple):
    """Some items of a job, which are decoded together."""

    start: int  # the index of the first
    job: Job
    estimate: int  # the likely cost before it is decoded
    size: int  # bytes or characters
    quick: bool  # decoding it takes less than handing it to another thread is worth


class Decoded(NamedTuple):
    value: Any  # int64 ids (64,) or Pixels
    cost: int  # tokens or patches
    tokens: int
    truncated: bool


class Embedded(NamedTuple):
    """One row of the answer: unit float32 of shape (dim,)."""

    vector: np.ndarray[Any, np.dtype[np.float32]]
    tokens: int
    truncated: bool


Group = list[Decoded | ItemError]  # of a job
Rows = list[Embedded | ItemError]  # of a group


@dataclass(slots=True)
class Batch:
    """Model input of the good items, and the groups they came from."""

    groups: list[Group]
    values: list[Any]


class Tower(LitAPI):
    """What both towers share. Picklable: everything heavy is made in `setup`, in the worker."""

    kind: Kind
    _encoder: Any

    def __init__(self, settings: Settings, checkpoint: Checkpoint, loop: Any = "auto") -> None:
        super().__init__(
            api_path=f"/{self.kind}",
            loop=loop,
            max_batch_size=STOCK_BATCH,
            batch_timeout=STOCK_WAIT,
        )
        self.settings = settings
        self.checkpoint = checkpoint
        self.board: Any = {}  # set by the server: what each worker loaded, by its name
        self.vitals: Any = None  # set by the server: what each worker is at
        self.ledger: Any = None  # set by the server: which jobs somebody still waits for
        self.bulk_jobs: Any = None  # set by the server: the channel of bulk jobs
        self.bulk_from: int | None = None  # the first worker for bulk alone; None: all do both
        self.urgency: Any = None  # set by the server: for each worker, who on its device is urgent
        self.budget = 0
        self.decode_threads = self.depth = 1
        self._number = 0
        self.dim = checkpoint.dim

    # -- the hooks that a loop calls, in their order -------------------------------------------

    @abstractmethod
    def decode_request(self, request: Job) -> Group:
        """The items of a job as model input, or each its own error."""

    def batch(self, inputs: Sequence[Group]) -> Batch:
        groups = list(inputs)
        return Batch(groups, [d.value for g in groups for d in g if isinstance(d, Decoded)])

    def predict(self, x: Batch | Group) -> list[Rows] | Rows:
        """The rows of a batch, or of a bare group: LitServe hands that over where it does not
        batch."""
        return self.submit(x)() if isinstance(x, Batch) else self.submit(self.batch([x]))()[0]

    def submit(self, batch: Batch) -> Callable[[], list[Rows]]:
        """The first half of `predict`; what is returned is the second, and waits for the vectors.
        `depth` batches are worth having under way."""
        collect = self._submit(batch.values)
        return lambda: _in_groups(batch.groups, collect())

    def unbatch(self, output: list[Rows]) -> list[Rows]:
        return output

    def encode_response(self, output: Rows) -> Reply:
        """Rows → the reply: raw little-endian float32, zeros where an item failed."""
        blank = np.zeros(self.dim, "<f4")
        vectors = [blank if isinstance(row, ItemError) else row.vector for row in output]
        return Reply(
            vectors=np.asarray(vectors, "<f4").tobytes(),
            tokens=[0 if isinstance(row, ItemError) else row.tokens for row in output],
            truncated=[i for i, r in enumerate(output) if isinstance(r, Embedded) and r.truncated],
            errors={i: row.code for i, row in enumerate(output) if isinstance(row, ItemError)},
        )

    # -- loading ---------------------------------------------------------------------------------

    def setup(self, device: str) -> None:
        """Load this tower on `device`, check it, and put what was loaded on the board."""
        worker = os.environ.get("LITSERVE_WORKER_ID")  # none in somebody's notebook
        if worker is not None:
            die_with_parent()
            configure(self.settings)
        self._number = int(worker or 0)
        name = f"{self.kind}_{self._number}"
        try:
            facts = self._load(device)
        except Exception as error:
            self.board[f"{name}_failure"] = self._public(error)
            if worker and isinstance(error, CheckpointError):  # or LitServe logs a traceback
                log.error("the %s tower is not served: %s", self.kind, error)
                raise SystemExit(1) from None
            raise
        if self._for_bulk:
            give_way()  # not before: the first bulk job waits, and others may keep the cores busy
        self.board[name] = {"tower": self.kind, "worker": self._number, **facts}

    def _public(self, error: Exception) -> str:
        if isinstance(error, CheckpointError):
            return str(error)
        return f"the {self.kind} tower failed to load ({type(error).__name__}); the log says more"

    def _load(self, device: str) -> dict[str, Any]:
        plan = Plan.of(self.settings, self.checkpoint, self.kind, device)
        self.budget, self.decode_threads = plan.budget, plan.decode_threads
        self._load_encoder(device, plan.threads)
        self.checkpoint.require_unchanged()
        failed = [one.sentence for one in self._check() if not one.passed]
        if failed:
            raise CheckpointError(f"this checkpoint would be served wrong: {' '.join(failed)}")
        encoder = self._encoder
        self.depth = encoder.depth
        return {
            "device": device,
            "engine": encoder.name,
            "precision": encoder.precision,
            "compiled": encoder.compiled,
            "arithmetic": encoder.arithmetic,
            "parameters": encoder.parameters,
            "threads": plan.threads,
            "batch_budget": self.budget,
        }

    # -- what the pipelined loop asks beside the hooks -------------------------------------------

    def pulse(self, since: float) -> None:
        """Say since when this worker has been in the model; 0 when it is not."""
        if self.vitals is not None:
            self.vitals.in_model(self._number, since)

    def beat(self) -> None:
        """Say that this worker lives; called now and then by a thread of its own."""
        if self.vitals is not None:
            self.vitals.beat(self._number)

    def channels(self, interactive: Any) -> tuple[Any, ...]:
        """What this worker fetches from: what comes first goes first."""
        if self.bulk_from is None:
            return interactive, self.bulk_jobs
        return (self.bulk_jobs if self._for_bulk else interactive,)

    @property
    def _for_bulk(self) -> bool:
        return self.bulk_from is not None and self._number >= self.bulk_from

    def relieve(self) -> None:
        self._encoder.relieve()

    def about(self, job_id: JobId, index: int) -> None:
        """The calling thread decodes this item of a job next."""

    @abstractmethod
    def _load_encoder(self, device: str, threads: int) -> None: ...

    @abstractmethod
    def _check(self) -> "list[Finding]": ...

    @abstractmethod
    def _submit(self, values: list[Any]) -> "Collect": ...

    @abstractmethod
    def parts(self, job: Job) -> Iterator[Part]:
        """A job in pieces that decode on their own."""


class TextTower(Tower):
    """Texts → vectors. A text costs its 64 tokens, whatever its length."""

    kind: Kind = "text"
    _encoder: "TextEncoder"
    _reference: Any  # transformers' tokenizer, until it is checked
    _tokenizer: "Tokenizer"

    def _load_encoder(self, device: str, threads: int) -> None:
        from litapi.model.served import text_encoder
        from litapi.model.tokens import load_reference

        # The decode threads are this worker's cores; the tokenizer would start as many again.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._reference = load_reference(self.checkpoint)
        self._encoder = text_encoder(self.settings, self.checkpoint, device, threads)

    def _check(self) -> "list[Finding]":
        from litapi.model.check import check_text
        from litapi.model.tokens import Tokenizer

        findings = check_text(self.checkpoint, self._encoder, self._reference)
        # The very one that was checked: loading Gemma's twice is slow.
        self._tokenizer = Tokenizer(self._reference.backend_tokenizer)
        del self._reference
        return findings

    def parts(self, job: Job) -> Iterator[Part]:
        """One part for each batch's worth: the tokenizer is fast, and faster on many. Every text is
        padded to the full length. A short one or a few take about 0.1 ms."""
        length = self.checkpoint.text_length
        step = max(1, self.budget // length)
        for start in range(0, len(job.items), step):
            some = job.items[start : start + step]
            size, part = sum(map(len, some)), Job(some, deadline=job.deadline, ending=job.ending)
            yield Part(start, part, len(some) * length, size, size <= QUICK_CHARS)

    def decode_request(self, request: Job) -> Group:
        texts = [str(text) for text in request.items]
        tokens = self._tokenizer.encode(texts, ending=request.ending)
        cost = self.checkpoint.text_length
        values: Any = tokens.ids
        if self.settings.test_hooks == "on":
            values = list(zip(map(provoked, texts), tokens.ids, strict=True))
        return [
            Decoded(value, cost, count, cut)
            for value, count, cut in zip(values, tokens.counts, tokens.truncated, strict=True)
        ]

    def _submit(self, values: list[Any]) -> "Collect":
        if self.settings.test_hooks == "on":
            provoke(fault for fault, _ in values)
            values = [ids for _, ids in values]
        return self._encoder.submit(np.asarray(values))


class ImageTower(Tower):
    """Encoded images → vectors. An image costs its patches."""

    kind: Kind = "image"
    _encoder: "ImageEncoder"
    _reader: "PictureReader"
    _pixels: "PixelMaker"
    _decoding: "PixelBudget"

    def _load_encoder(self, device: str, threads: int) -> None:
        from litapi.model.picture import PicturePolicy, PictureReader
        from litapi.model.pixel_budget import PixelBudget
        from litapi.model.pixels import PixelMaker
        from litapi.model.served import image_encoder

        limits = self.settings
        self._thread, self._slots = threading.local(), itertools.count()
        self._decoding = PixelBudget.of(limits, self.decode_threads)
        self._reader = PictureReader(
            PicturePolicy(
                formats=limits.image_formats,
                max_bytes=limits.max_image_bytes,
                max_pixels=limits.max_pixels,
                draft=limits.jpeg_draft,
            ),
            self._decoding,
            self._watched,
        )
        self._pixels = PixelMaker(self.checkpoint)
        self._encoder = image_encoder(limits, self.checkpoint, device, threads)

    def _check(self) -> "list[Finding]":
        from litapi.model.check import check_image

        return check_image(self.checkpoint, self._encoder)

    @property
    def _default_patches(self) -> int:
        return default_patches(self.settings, self.checkpoint)

    def parts(self, job: Job) -> Iterator[Part]:
        """One part for each image, so that the images of a request decode side by side, at the cost
        of one that fills its patches."""
        cost = job.max_num_patches or self._default_patches
        for index, image in enumerate(job.items):
            part = Job([image], job.max_num_patches, job.deadline)  # type: ignore[arg-type]
            yield Part(index, part, cost, len(image), quick=False)

    def decode_request(self, request: Job) -> Group:
        patches = request.max_num_patches or self.settings.max_num_patches
        return [self._decode(item, patches) for item in request.items]

    def _decode(self, item: str | bytes, patches: int) -> Decoded | ItemError:
        try:
            data = _from_base64(item) if isinstance(item, str) else item
            self._decoding.trim.passed(len(data))
            if self.settings.test_hooks == "on" and (fault := provoked(data)):
                with self._watched():
                    provoke([fault])
            make = functools.partial(self._pixels.make, max_num_patches=patches)
            pixels = self._reader.use(data, make, self._draft_side(patches))
        except ItemError as error:
            return error
        return Decoded(pixels, pixels.cost, pixels.cost, False)

    def about(self, job_id: JobId, index: int) -> None:
        self._thread.item = job_id, index

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """While a picture is decoded, after it has waited for memory: its time is counted."""
        thread = self._thread
        if not hasattr(thread, "slot"):
            thread.slot = next(self._slots)
        item = getattr(thread, "item", None)
        if item is None or self.vitals is None or thread.slot >= self.vitals.threads:
            yield
            return
        self.vitals.begin(self._number, thread.slot, *item)
        try:
            yield
        finally:
            self.vitals.end(self._number, thread.slot)

    def beat(self) -> None:
        """And what the decode threads hold."""
        super().beat()
        held("decoding", self._decoding.held_bytes, self._decoding.most_bytes)
        self._decoding.trim.tidy()

    def _draft_side(self, patches: int) -> int:
        """Twice the side that is needed: the least a JPEG may be decoded at, where allowed."""
        if not self.checkpoint.naflex:
            return 2 * self.checkpoint.image_size
        return 2 * math.isqrt(patches or self._default_patches) * self.checkpoint.patch_size

    def _submit(self, values: list[Any]) -> "Collect":
        return self._encoder.submit(values)


def _in_groups(groups: list[Group], vectors: np.ndarray[Any, np.dtype[np.float32]]) -> list[Rows]:
    """The vectors of the good items, in order, and each error in its place."""
    rest = iter(vectors)
    return [
        [d if isinstance(d, ItemError) else Embedded(next(rest), d.tokens, d.truncated) for d in g]
        for g in groups
    ]


def _from_base64(text: str) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        raise ImageBase64Invalid from None
