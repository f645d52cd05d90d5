"""EmbedServer: LitServe with two towers behind one HTTP application.

The composition of the running service: which device each worker gets, which cache each HTTP
process has, what the banner says. Everything that reaches into LitServe is in `supervisor.py`.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

from cache import MemoryTier, RedisChild, RedisStore, VectorCache
from cache.trouble import SIDES
from litapi.calibration import Calibration
from litapi.checkpoint import Checkpoint
from litapi.devices import automatic_devices, planned
from litapi.http.app import App
from litapi.http.connection import Patience, guarded
from litapi.keys import KeysError
from litapi.loop import PipelinedLoop
from litapi.messages import KINDS
from litapi.metrics import Metrics, observe_processes, tower_computes_in
from litapi.preflight import taken, tls_options
from litapi.process import keeps_order, raise_limit, sleep_soon
from litapi.quality.fidelity import Fidelity
from litapi.serving import DEMO_NOTE, Service, seal
from litapi.settings import Settings, StartError, flag_of
from litapi.supervisor import DispatchServer
from litapi.towers import ImageTower, TextTower

log = logging.getLogger("siglit.server")

MB = 1 << 20
RESTART_AFTER = 30.0  # seconds after a private Redis that did not start: an attempt holds all up
COMPILE_NOTE = "--compile has no effect on a CPU: its engine needs no compiling."
OBSERVE_EVERY = 2.0  # seconds between two readings of CPU and memory


class EmbedServer(DispatchServer):
    def __init__(
        self,
        settings: Settings,
        checkpoint: Checkpoint,
        quality: Fidelity | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        towers = [tower(settings, checkpoint, PipelinedLoop()) for tower in (TextTower, ImageTower)]
        plan = device_plan(settings)
        super().__init__(towers, settings, plan, bulk_plan(settings, plan))
        self.service = Service(settings, checkpoint, quality=quality, calibration=calibration)
        self.app = App(self.service, self.dispatcher, self._cache, self)
        self._observed = 0.0
        self._redis: RedisChild | None = None
        self._redis_url: str | None = None
        self._redis_again = 0.0  # not before
        self._hangups = threading.Event()  # SIGHUP came
        self._said = memoryview(mmap.mmap(-1, len(SIDES)))  # shared by the HTTP processes
        if settings.devices == "auto" and (why := automatic_devices()[1]):
            self._note(why)
        if settings.compile == "on" and "cpu" in plan["text"]:
            self._note(COMPILE_NOTE)

    def _note(self, why: str) -> None:
        log.warning("%s", why)
        self.service.notices.append(why)

    def serve(self) -> None:
        settings = self.service.settings
        sleep_soon()
        raise_limit()
        if settings.api_keys_file:
            signal.signal(signal.SIGHUP, lambda *_: self._hangups.set())
        self._open_redis()
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
                proxy_headers=_reads_forwarded(settings),
                **tls_options(settings),
            )
        except SystemExit:  # uvicorn's: somebody bound the port a moment ago
            raise StartError(taken(settings.port)) from None
        finally:
            if self._redis is not None:
                self._redis.stop()

    def _cache(self, metrics: Metrics) -> VectorCache:
        """The cache of one HTTP process; made in that process, in its event loop."""
        settings, store = self.service.settings, None
        memory = MemoryTier(settings.memory_cache_mb * MB if settings.cache == "on" else 0)
        if self._redis_url is not None:
            budget, ttl = settings.redis_budget_ms / 1e3, settings.cache_ttl_days * 86_400
            store = RedisStore(
                self._redis_url, budget=budget, ttl=ttl, watcher=metrics, said=self._said
            )
        dim, secret = self.service.checkpoint.dim, seal(settings.cache_tenant)
        return VectorCache(dim, memory, store, metrics, secret)

    def _open_redis(self) -> None:
        """Find the Redis tier: the shared one that was named, else a private child."""
        settings, service = self.service.settings, self.service
        service.cache_tiers = ("memory",) if settings.cache == "on" else ("off",)
        if settings.cache == "off":
            return
        if settings.redis_url:
            self._redis_url = settings.redis_url
            service.cache_tiers = ("memory", "redis (shared)")
        elif settings.redis_private == "on" and RedisChild.find():
            self._redis = RedisChild(megabytes=settings.redis_private_mb)
            if self._start_redis(self._redis):
                self._redis_url = self._redis.url
                service.cache_tiers = ("memory", "redis (private)")

    def tend(self) -> None:
        if self._hangups.is_set():
            self._hangups.clear()
            self._read_keys()
        if self._redis is not None and self._redis_url and not self._redis.alive:
            self._restart_redis(self._redis)
        if time.monotonic() - self._observed > OBSERVE_EVERY:
            self._observed = time.monotonic()
            self._observe()

    def _read_keys(self) -> None:
        """The keys file again, for HTTP processes that live and for those that are started yet."""
        try:
            keys = self.service.settings.keys()
        except KeysError as error:
            log.error("the keys are as before: %s: %s", flag_of(error.option), error)
            return
        self.app.take_keys(keys)
        self.tell_keys(keys)
        log.warning("the keys file was read again: %d keys", len(keys))

    def _restart_redis(self, child: RedisChild) -> None:
        if time.monotonic() < self._redis_again:
            return
        log.warning("the private redis-server ended; starting another")
        if not self._start_redis(child):
            self._redis_again = time.monotonic() + RESTART_AFTER

    def _observe(self) -> None:
        compiled = "on" if self.service.compiled else "off"
        for kind, precision in self.service.precision.items():
            tower_computes_in(kind, precision, compiled)
        roles = {"main": os.getpid(), **self.children()}
        if self._redis is not None and self._redis.pid is not None:
            roles["redis"] = self._redis.pid
        observe_processes(roles, self.restarts)

    @staticmethod
    def _start_redis(child: RedisChild) -> bool:
        try:
            child.start()
        except (OSError, RuntimeError) as error:  # a cache that cannot start costs only speed
            log.warning("the private redis-server did not start (%s)", type(error).__name__)
        return child.alive

    def ready(self) -> None:
        facts = dict(self.board)
        keys = [f"{kind}_{n}" for kind in KINDS for n in range(len(self.plan[kind]))]
        self.service.workers = [facts[key] for key in keys]
        for kind in KINDS:
            _require_alike(kind, self.service.workers)
        self.service.precision = {kind: facts[f"{kind}_0"]["precision"] for kind in KINDS}
        self.service.arithmetic = {kind: facts[f"{kind}_0"]["arithmetic"] for kind in KINDS}

    def listening(self) -> None:
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


def _reads_forwarded(settings: Settings) -> bool:
    """Whether anybody asks for the client's address, or the scheme, that a proxy names."""
    links = settings.image_urls != "off"
    return bool(settings.rate_limit or settings.otlp_endpoint or links)


def device_plan(settings: Settings) -> dict[str, list[str]]:
    per_device = {"text": settings.text_workers, "image": settings.image_workers}
    return {kind: planned(settings) * count for kind, count in per_device.items()}


def bulk_plan(settings: Settings, plan: dict[str, list[str]]) -> dict[str, list[str]]:
    """On a CPU as many workers for bulk alone. A card cannot put one process before another, and
    would hold the weights twice."""
    if settings.bulk_workers == "off" or not keeps_order():
        return {}
    return {kind: devices for kind, devices in plan.items() if set(devices) == {"cpu"}}


def banner(service: Service) -> str:
    settings, checkpoint = service.settings, service.checkpoint
    host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
    scheme = "https" if settings.tls_cert else "http"
    compiled = " compiled" if service.compiled else ""
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
