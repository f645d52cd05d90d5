"""EmbedServer: LitServe with two towers behind one front.

The composition of the running service: which device each worker gets, when the front may start,
what the banner says. Everything that reaches into LitServe is in `dispatcher.py`.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from cache import Address, MemoryTier, RedisChild, RedisStore, VectorCache
from litapi.checkpoint import Checkpoint
from litapi.dispatcher import DispatchServer, StartError
from litapi.http.app import Front, make_fetcher
from litapi.http.connection import Patience, guarded
from litapi.loop import PipelinedLoop
from litapi.messages import KINDS
from litapi.metrics import Metrics, ProcessMetrics, forget
from litapi.process import raise_limit, sleep_soon
from litapi.quality.fidelity import Fidelity
from litapi.serving import DEMO_NOTE, Service
from litapi.settings import Settings
from litapi.towers import ImageTower, TextTower
from litapi.vitals import THREADS

log = logging.getLogger("siglit.server")

MB = 1 << 20
RESTART_AFTER = 30.0  # seconds after a private Redis that did not start: an attempt holds all up
OBSERVE_EVERY = 2.0  # seconds between two readings of CPU and memory


class EmbedServer(DispatchServer):
    """Serves one checkpoint."""

    def __init__(
        self, settings: Settings, checkpoint: Checkpoint, quality: Fidelity | None = None
    ) -> None:
        towers = [
            tower(settings, checkpoint, PipelinedLoop() if settings.loop == "pipelined" else "auto")
            for tower in (TextTower, ImageTower)
        ]
        super().__init__(towers, device_plan(settings), settings.timeout)
        self.service = Service(settings, checkpoint, quality=quality)
        self.start_timeout = settings.start_timeout
        self.uvicorn_graceful_timeout = settings.drain_timeout
        self.hang_timeout = settings.hang_timeout
        self.decode_timeout = settings.decode_timeout
        self.decode_threads = settings.decode_threads or THREADS
        self.app = Front(self.service, self.dispatcher, self._cache, self)
        self._process_metrics: ProcessMetrics | None = None
        self._observed = 0.0
        self._redis: RedisChild | None = None
        self._redis_url: str | None = None
        self._redis_again = 0.0  # not before
        self._bar = tqdm(
            total=0,
            desc="loading towers",
            unit="worker",
            leave=False,
            disable=None,
            file=sys.stderr,
        )

    def serve(self) -> None:
        """Bind, load, serve; returns when the server has shut down."""
        settings = self.service.settings
        sleep_soon()
        raise_limit()
        try:
            make_fetcher(settings)  # here, once, so that wrong hosts stop the start
        except ValueError as error:
            raise StartError(f"image_url_hosts: {error}") from None
        self._open_redis()
        self._bar.reset(sum(map(len, self.plan.values())))
        quiet = settings.log_level if settings.log_level in ("debug", "error") else "warning"
        try:
            self.run(
                host=settings.host,
                port=settings.port,
                num_api_servers=settings.front_processes,
                log_level=quiet,
                generate_client_file=False,
                access_log=False,
                server_header=False,
                http=guarded(_patience(settings)),
                loop="uvloop",
                ws="none",
                timeout_keep_alive=settings.keep_alive,
                backlog=4096,
                proxy_headers=bool(settings.rate_limit or settings.otlp_endpoint),  # who reads them
                **_tls(settings),
            )
        finally:
            self._bar.close()
            if self._redis is not None:
                self._redis.stop()

    def _cache(self, metrics: Metrics) -> VectorCache:
        """The cache of one HTTP process; made in that process, in its event loop."""
        settings, dim = self.service.settings, self.service.checkpoint.dim
        if settings.cache == "off":
            return VectorCache(dim, MemoryTier(0), None, metrics)
        memory = MemoryTier(settings.memory_cache_mb * MB)
        if self._redis_url is None:
            return VectorCache(dim, memory, None, metrics)
        budget, ttl = settings.redis_budget_ms / 1e3, settings.cache_ttl_days * 86_400
        store = RedisStore(self._redis_url, budget=budget, ttl=ttl, watcher=metrics)
        return VectorCache(dim, memory, store, metrics)

    def _open_redis(self) -> None:
        """Find the Redis tier: the shared one that was named, else a private child."""
        settings, service = self.service.settings, self.service
        service.cache_tiers = ("memory",) if settings.cache == "on" else ("off",)
        if settings.cache == "off":
            return
        if settings.redis_url:
            try:
                Address.of(settings.redis_url)
            except ValueError as error:  # its text holds no part of the URL
                raise StartError(str(error)) from None
            self._redis_url = settings.redis_url
            service.cache_tiers = ("memory", "redis (shared)")
        elif settings.redis_private == "on" and RedisChild.find():
            self._redis = RedisChild(megabytes=settings.redis_private_mb)
            if self._start_redis(self._redis):
                self._redis_url = self._redis.url
                service.cache_tiers = ("memory", "redis (private)")

    def tend(self) -> None:
        if self._redis is not None and self._redis_url and not self._redis.alive:
            self._restart_redis(self._redis)
        if time.monotonic() - self._observed > OBSERVE_EVERY:
            self._observed = time.monotonic()
            self._observe()

    def _restart_redis(self, child: RedisChild) -> None:
        if time.monotonic() < self._redis_again:
            return
        log.warning("the private redis-server ended; starting another")
        if not self._start_redis(child):
            self._redis_again = time.monotonic() + RESTART_AFTER

    def _observe(self) -> None:
        if self._process_metrics is None:
            self._process_metrics = ProcessMetrics()
            for kind, precision in self.service.precision.items():
                compiled = self.service.settings.compile
                self._process_metrics.tower(kind, precision, compiled)
        roles = {"main": os.getpid(), **self.children()}
        if self._redis is not None and self._redis.pid is not None:
            roles["redis"] = self._redis.pid
        self._process_metrics.observe(roles, self.restarts)

    def child_ended(self, pid: int) -> None:
        forget(pid)

    @staticmethod
    def _start_redis(child: RedisChild) -> bool:
        try:
            child.start()
        except (OSError, RuntimeError) as error:  # a cache that cannot start costs only speed
            log.warning("the private redis-server did not start (%s)", type(error).__name__)
        return child.alive

    def loaded(self, done: int) -> None:
        self._bar.n = done
        self._bar.refresh()

    def ready(self) -> None:
        self._bar.close()
        facts = dict(self.board)
        keys = [f"{kind}_{n}" for kind in KINDS for n in range(len(self.plan[kind]))]
        self.service.workers = [facts[key] for key in keys]
        for kind in KINDS:
            _require_alike(kind, self.service.workers)
        self.service.precision = {kind: facts[f"{kind}_0"]["precision"] for kind in KINDS}
        self.service.arithmetic = {kind: facts[f"{kind}_0"]["arithmetic"] for kind in KINDS}
        print(banner(self.service), flush=True)


def _require_alike(kind: str, workers: Sequence[dict[str, Any]]) -> None:
    """One cache key must mean one vector. Raises StartError."""
    found = sorted({str(w["arithmetic"]) for w in workers if w["tower"] == kind})
    if len(found) > 1:
        raise StartError(
            f"the devices of the {kind} tower compute in {' and '.join(found)}: choose one with "
            f"--{kind}-precision, or devices that are alike"
        )


def _patience(settings: Settings) -> Patience:
    processes = settings.front_processes  # each has its share of what all may hold
    return Patience(
        head_seconds=settings.header_timeout,
        head_bytes=settings.max_header_bytes,
        stall_seconds=settings.body_timeout,
        bodies_bytes=max(settings.max_bodies_mb * MB // processes, settings.max_body_bytes),
        answers_bytes=settings.max_answers_mb * MB // processes,
    )


def _tls(settings: Settings) -> dict[str, str]:
    if not settings.tls_cert and not settings.tls_key:
        return {}
    if not (settings.tls_cert and settings.tls_key):
        raise StartError("tls_cert and tls_key go together")
    for name, path in (("tls_cert", settings.tls_cert), ("tls_key", settings.tls_key)):
        if not os.access(path, os.R_OK):
            raise StartError(f"{name}: the file cannot be read")
    return {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}


def device_plan(settings: Settings) -> dict[str, list[str]]:
    """For each tower, the device of each worker, worker by worker."""
    devices = visible_devices() if settings.devices == "auto" else settings.devices.split(",")
    per_device = {"text": settings.text_workers, "image": settings.image_workers}
    return {kind: devices * count for kind, count in per_device.items()}


def visible_devices(run: Callable[..., Any] = subprocess.run) -> list[str]:
    """The CUDA devices that a worker would see, found without torch; else the CPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        count = len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    else:
        try:
            listed = run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
            count = sum(line.startswith("GPU") for line in listed.stdout.splitlines())
        except (OSError, subprocess.SubprocessError):
            count = 0
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]


def banner(service: Service) -> str:
    """What a person who started the server wants to know, in a few lines."""
    settings, checkpoint = service.settings, service.checkpoint
    host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
    scheme = "https" if settings.tls_cert else "http"
    compiled = " compiled" if settings.compile == "on" else ""
    workers = [
        f"{kind} {service.precision[kind]}{compiled} × "
        f"{sum(w['tower'] == kind for w in service.workers)}"
        for kind in KINDS
    ]
    devices = ", ".join(sorted({worker["device"] for worker in service.workers}))
    lines = [
        f"siglit serves {service.name} ({checkpoint.model_type}, {checkpoint.dim} numbers)",
        f"  towers  {' · '.join(workers)} on {devices}",
        f"  cache   {' → '.join(service.cache_tiers)}",
        f"  docs    {scheme}://{host}:{settings.port}/docs",
    ]
    return "\n".join([*lines, f"  note    {DEMO_NOTE}"] if checkpoint.is_demo else lines)


def port_taken(host: str, port: int) -> bool:
    """Whether somebody already listens there; LitServe would find out only after loading."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
