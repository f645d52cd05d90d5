"""siglit as a system among the others: one instance, or several behind nginx with one Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
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


def siglit(name: str, *flags: str, cores: Cores = "workers") -> System:
    """`python -m litapi serve`, in the ground's precision unless the flags say otherwise.

    On a GPU the cores only decode, and siglit spreads that itself.
    """
    return System(name, partial(_one, flags, cores))


@contextmanager
def _one(flags: Sequence[str], cores: Cores, ground: Ground) -> Iterator[Served]:
    spread = () if ground.gpu else _spread(cores, str(ground.threads()))
    with ServerProcess(*of_ground(ground), *flags, *spread, ready_within=600) as server:
        yield Served(server.url, (server.pid,))


def _spread(cores: Cores, many: str) -> Sequence[str]:
    if cores == "workers":
        return ("--text-workers", many, "--image-workers", many, "--threads", "1")
    return ("--threads", many) if cores == "threads" else ()


def instances(name: str, many: int) -> System:
    """So many instances with one HTTP process each, behind nginx, sharing one Redis."""
    return System(name, partial(_several, many), PATIENT_NGINX.find)


@contextmanager
def _several(many: int, ground: Ground) -> Iterator[Served]:
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        flags = [*of_ground(ground), "--http-workers", "1", "--threads", "1"]
        servers = [ServerProcess(*flags, REDIS_URL=redis.url) for _ in range(many)]
        for server in servers:
            stack.enter_context(server)
        url, pid = stack.enter_context(PATIENT_NGINX.before([one.port for one in servers]))
        yield Served(url, (pid, redis.pid, *(one.pid for one in servers)))


def of_ground(ground: Ground) -> Sequence[str]:
    """What the ground asks siglit for."""
    place = ["--precision", ground.precision, "--devices", ground.device]
    return ["--model", str(ground.checkpoint), *place]
