"""How a worker uses its device: threads, decoding threads, and the cost of a batch.

Each number is an option; these are the rules for the options that are left at 0, with the
measurements behind them in docs/tuning-log.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from litapi.checkpoint import Checkpoint
from litapi.messages import Kind
from litapi.model.precision import choose_precision
from litapi.process import cores
from litapi.settings import Settings

# A CPU gains nothing from larger batches of texts, and they cost latency. What each batch of images
# costs beside the products weighs more where these are faster.
TEXT_BATCH_GFLOP = 80.0
IMAGE_BATCH_GFLOP = {"float32": 80.0, "bfloat16": 160.0, "int8": 320.0}
CPU_BATCH_ITEMS = 64
GPU_BATCH_ITEMS = {"text": 256, "image": 64}
LIGHT_GFLOP = 1.0  # below, a second thread waits for the first longer than it computes
MOST_DECODE_THREADS = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What one worker does at the same time."""

    threads: int  # of the engine
    decode_threads: int
    budget: int  # tokens or patches of a batch

    @classmethod
    def of(cls, settings: Settings, checkpoint: Checkpoint, kind: Kind, device: str) -> Plan:
        """The options, and the rules where they are 0."""
        return cls(
            settings.threads or _threads(settings, checkpoint, kind, device),
            settings.decode_threads or _decode_threads(settings, device),
            _budget(settings, checkpoint, kind, device),
        )


def default_patches(settings: Settings, checkpoint: Checkpoint) -> int:
    """Patches of an image for which a request asks nothing else."""
    return settings.max_num_patches or checkpoint.max_num_patches


def batch_gflop(kind: Kind, precision: str) -> float:
    """What a batch may cost on a CPU."""
    return TEXT_BATCH_GFLOP if kind == "text" else IMAGE_BATCH_GFLOP[precision]


def batch_items(gflop: float, budget: float) -> int:
    """Items of a batch on a CPU, where one costs `gflop` and a batch may cost `budget`."""
    return max(1, min(CPU_BATCH_ITEMS, round(budget / max(gflop, 1e-9))))


def _threads(settings: Settings, checkpoint: Checkpoint, kind: Kind, device: str) -> int:
    if device != "cpu" or checkpoint.gflop(kind) < LIGHT_GFLOP:
        return 1
    workers = settings.text_workers if kind == "text" else settings.image_workers
    return max(1, cores() // workers)


def _decode_threads(settings: Settings, device: str) -> int:
    share = cores() // settings.image_workers
    return max(1, min(share if device == "cpu" else 2 * share, MOST_DECODE_THREADS))


def _budget(settings: Settings, checkpoint: Checkpoint, kind: Kind, device: str) -> int:
    if device == "cpu":
        chosen = choose_precision(settings.precision_of(kind), device, settings.engine)
        items = batch_items(checkpoint.gflop(kind), batch_gflop(kind, chosen))
    else:
        items = GPU_BATCH_ITEMS[kind]
    if kind == "text":
        return settings.text_batch_tokens or items * checkpoint.text_length
    return settings.image_batch_patches or items * default_patches(settings, checkpoint)
