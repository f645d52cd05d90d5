"""siglit as a system among the others: one instance, or several behind nginx with one Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

from bench.compare.baselines.system import Ground, Served, System
from bench.rig.balancer import PATIENT_NGINX
from bench.rig.redis_server import RedisServer
from bench.rig.server_process import ServerProcess

# A queue of 500 base-size images is minutes long; here it is what is measured, so nothing is
# refused or given up for waiting.
PATIENT = ("--timeout", "900", "--max-wait", "900", "--hang-timeout", "900")


# How the one kind that is asked gets all cores: as many workers with a thread each, for the most
# items a second; one worker with as many threads, for the soonest answer; or as siglit comes.
Cores = Literal["workers", "threads", "own"]


class Siglit(System):
    """`python -m litapi serve`, in the ground's precision unless the flags say otherwise.

    On a GPU the cores only decode, and siglit spreads that itself.
    """

    def __init__(self, name: str, *flags: str, cores: Cores = "workers") -> None:
        self.name = name
        self._flags = flags
        self._cores = cores

    @contextmanager
    def start(self, ground: Ground) -> Iterator[Served]:
        spread = [] if ground.gpu else self._spread(str(ground.threads()))
        flags = [*_flags(ground), *self._flags, *spread]
        with ServerProcess(*flags, ready_within=600) as server:
            yield Served(server.url, (server.pid,))

    def _spread(self, cores: str) -> Sequence[str]:
        if self._cores == "workers":
            return ["--text-workers", cores, "--image-workers", cores, "--threads", "1"]
        return ["--threads", cores] if self._cores == "threads" else []


class Instances(System):
    """So many instances with one HTTP process each, behind nginx, sharing one Redis."""

    def __init__(self, name: str, many: int) -> None:
        self.name = name
        self._many = many

    def look(self) -> None:
        PATIENT_NGINX.find()

    @contextmanager
    def start(self, ground: Ground) -> Iterator[Served]:
        with ExitStack() as stack:
            redis = stack.enter_context(RedisServer())
            flags = [*_flags(ground), "--http-workers", "1", "--threads", "1"]
            servers = [ServerProcess(*flags, REDIS_URL=redis.url) for _ in range(self._many)]
            for server in servers:
                stack.enter_context(server)
            url, pid = stack.enter_context(PATIENT_NGINX.before([one.port for one in servers]))
            yield Served(url, (pid, redis.pid, *(one.pid for one in servers)))


def _flags(ground: Ground) -> Sequence[str]:
    place = ["--precision", ground.precision, "--devices", ground.device]
    return ["--model", str(ground.checkpoint), *place]
