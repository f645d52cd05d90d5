"""Ray, here or somewhere: how many workers it has room for, and what each of them gets.

Without an address a Ray of this machine alone is started and ended with the run. It is light (no
dashboard, no usage report, a small object store, for only the names of blocks go through it) and
listens on the loopback address only. A device is a GPU, or the cores of a node where no node has a
GPU. Ray hands out GPUs, so on a cluster they are not named.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import ray

from deploy.bulk.source import BulkError
from litapi.process import cores
from litapi.settings import Settings

STARTS = 3  # Ray gives its own parts 15 seconds to start, and a busy machine may need a second try
QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
LOCAL: dict[str, Any] = {
    "address": "local",
    "include_dashboard": False,
    "object_store_memory": 100 << 20,  # bytes
    "_node_ip_address": "127.0.0.1",
}


@dataclass(frozen=True, slots=True)
class Room:
    """What a run gets: `workers` actors of `threads` torch threads, `on_node` of them on a node."""

    workers: int
    on_node: int
    threads: int
    device: str
    cpus: float
    gpus: float

    def settings(self, settings: Settings) -> Settings:
        """As a worker needs them: its share of the node's cores."""
        share = {"threads": self.threads, "text_workers": self.on_node}
        if not settings.decode_threads and self.device == "cpu":
            share["decode_threads"] = self.threads
        return settings.model_copy(update={**share, "image_workers": self.on_node})


class Cluster:
    """A Ray for the time of a `with`."""

    def __init__(self, address: str | None, settings: Settings) -> None:
        named = settings.devices not in ("auto", "cpu")
        if address and named:
            raise BulkError("--devices: with --address it takes auto or cpu; Ray hands out GPUs")
        self._address = address
        self._settings = settings
        self._gpus = settings.devices.split(",") if named else None

    def __enter__(self) -> Self:
        if self._address:
            self._join(self._address)
        else:
            self._start()
        return self

    def _join(self, address: str) -> None:
        try:
            ray.init(address=address, **QUIET)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise BulkError("--address: no Ray cluster answers there") from error

    def _start(self) -> None:
        options = {**LOCAL, "num_cpus": cores(), **QUIET}
        if self._gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = _visible(self._gpus)
            options["num_gpus"] = len(self._gpus)
        for _ in range(STARTS):
            try:
                ray.init(**options)
            except Exception as error:  # Ray raises this very class, and leaves a half behind
                ray.shutdown()
                failure = error
            else:
                return
        raise BulkError("Ray does not start on this machine") from failure

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def room(self, per_device: int) -> Room:
        """For `per_device` workers on each device. Raises BulkError where there is no device."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = [int(node.get("GPU", 0)) for node in nodes]
        if self._settings.devices != "cpu" and any(gpus):
            on_node, share = per_device * max(gpus), 1 / per_device
            return Room(per_device * sum(gpus), on_node, self._settings.threads, "cuda:0", 0, share)
        cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        if not cores:
            raise BulkError("the cluster has neither a GPU nor a core for this")
        threads = self._settings.threads or max(1, min(cores) // per_device)
        many = sum(min(per_device, count // threads) for count in cores)
        if not many:
            raise BulkError(f"--threads: no node has {threads} cores")
        return Room(many, per_device, threads, "cpu", threads, 0)


def _visible(gpus: Sequence[str]) -> str:
    """For Ray: these cards, among those that this process was given, which it counts from 0.

    Raises BulkError where one is not among them.
    """
    numbers = [int(gpu.partition(":")[2]) for gpu in gpus]
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not given:
        return ",".join(map(str, numbers))
    names = given.split(",")
    if max(numbers) >= len(names):
        raise BulkError(f"--devices: CUDA_VISIBLE_DEVICES names {len(names)} cards only")
    return ",".join(names[number] for number in numbers)
