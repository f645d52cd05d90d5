"""One tower in one precision, in a process of its own: for its memory is to be its own.

The process loads, runs every batch once, tells what it holds and what vectors it makes, and then
does a slice of work whenever it is asked, so that systems can take turns. What is timed goes from
model input on the host (ids, levels) to unit vectors on the host.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Any], Any]

BASELINE = "AutoModel"
GRACE = 10.0  # seconds for a process to end by itself
SHAPES = ((640, 480), (480, 640), (512, 512), (720, 480))  # width and height of the pictures


class SystemFailed(Exception):
    """A process that was to be measured ended."""


@dataclass(frozen=True, slots=True)
class System:
    """What is measured. `precision` BASELINE is transformers' own model, both towers, float32."""

    tower: str
    precision: str
    compiled: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.precision}{' compiled' if self.compiled else ''}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a process says once it can work."""

    seconds: float
    resident: int
    private: int
    vectors: Vectors


class Running:
    """A system in its process. A context manager; `refused` says why it does not run here."""

    def __init__(
        self, system: System, folder: Path, batches: Sequence[int], threads: int, cache: Path
    ) -> None:
        self.system = system
        self.rates: dict[int, list[float]] = {batch: [] for batch in batches}
        self.loaded: Loaded | None = None
        self.refused = ""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        work = (theirs, system, folder, tuple(batches), threads, cache)
        self._process = context.Process(target=_work, args=work, daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        said = self._heard()
        if isinstance(said, str):
            self.refused = said
        else:
            self.loaded = said
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # one that refused has ended by itself
            self._pipe.send(None)
        self._process.join(GRACE)
        self._process.kill()
        self._process.join()

    def measure(self, batch: int, seconds: float) -> None:
        """One slice of batches of that size."""
        self._pipe.send((batch, seconds))
        self.rates[batch].append(self._heard())

    def _heard(self) -> Any:
        try:
            while not self._pipe.poll(1.0):
                if not self._process.is_alive():
                    raise EOFError
            return self._pipe.recv()
        except EOFError:
            raise SystemFailed(f"{self.system.tower} {self.system.name} ended") from None


def _work(
    pipe: Connection,
    system: System,
    folder: Path,
    batches: Sequence[int],
    threads: int,
    cache: Path,
) -> None:
    from litapi.checkpoint import Checkpoint, CheckpointError

    checkpoint = Checkpoint.open(folder)
    began = time.perf_counter()
    try:
        embed, items = _prepared(system, checkpoint, max(batches), threads, cache)
    except CheckpointError as error:
        pipe.send(str(error))
        return
    vectors = embed(items)
    for batch in batches:
        embed(items[:batch])
    pipe.send(Loaded(time.perf_counter() - began, *_memory(), vectors))
    while asked := pipe.recv():
        batch, seconds = asked
        pipe.send(_rate(embed, items[:batch], seconds))


def _prepared(
    system: System, checkpoint: Any, count: int, threads: int, cache: Path
) -> tuple[Embed, Any]:
    import torch

    from litapi.model.compiled import keep_in
    from litapi.model.precision import choose_precision

    torch.set_num_threads(threads)
    keep_in(cache)
    ids, pictures = _ids(checkpoint, count), _pictures(count)
    if system.precision == BASELINE:
        return _baseline(system.tower, checkpoint, ids, pictures)
    precision = choose_precision(system.precision, "cpu")
    if system.tower == "text":
        from litapi.model.encoder import TextEncoder

        text = TextEncoder.load(checkpoint, "cpu", precision, threads, system.compiled)
        return text.embed, ids
    from litapi.model.encoder import ImageEncoder
    from litapi.model.pixels import PixelMaker

    image = ImageEncoder.load(checkpoint, "cpu", precision, threads, system.compiled)
    maker = PixelMaker(checkpoint)
    return image.embed, [maker.make(picture) for picture in pictures]


def _baseline(
    tower: str, checkpoint: Any, ids: npt.NDArray[np.int64], pictures: list[Image.Image]
) -> tuple[Embed, Any]:
    """The model that a plain service loads, on what its processor makes; padding included."""
    import torch
    from transformers import AutoImageProcessor, AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(checkpoint.folder, dtype=torch.float32).eval()
    if tower == "text":

        def texts(rows: npt.NDArray[np.int64]) -> Vectors:
            with torch.inference_mode():
                features = model.get_text_features(input_ids=torch.from_numpy(rows))
            return _unit(features.pooler_output.numpy())

        return texts, ids
    processor = AutoImageProcessor.from_pretrained(checkpoint.folder, backend="pil")

    def images(rows: list[dict[str, Any]]) -> Vectors:
        inputs = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        with torch.inference_mode():
            return _unit(model.get_image_features(**inputs).pooler_output.numpy())

    return images, [dict(processor(images=[one], return_tensors="pt")) for one in pictures]


def _unit(rows: Vectors) -> Vectors:
    scaled: Vectors = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled


def _ids(checkpoint: Any, count: int) -> npt.NDArray[np.int64]:
    shape = (count, checkpoint.text_length)
    return np.random.default_rng(0).integers(5, checkpoint.vocabulary, shape)


def _pictures(count: int) -> list[Image.Image]:
    """Noise: what is in a picture costs nothing, how many patches it fills does."""
    random = np.random.default_rng(1)
    shapes = [SHAPES[number % len(SHAPES)] for number in range(count)]
    return [
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in shapes
    ]


def _memory() -> tuple[int, int]:
    """Bytes resident, and those of them that no other process shares."""
    import psutil

    found = psutil.Process().memory_full_info()
    return found.rss, found.uss


def _rate(embed: Embed, items: Any, seconds: float) -> float:
    """Items a second, over as many runs as fill `seconds`, at least one."""
    done, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds or not done:
        embed(items)
        done += 1
    return done * len(items) / elapsed
