"""The table: every row by its number, and what all of them together compared."""

from __future__ import annotations

from bench.faults.attacks import ATTACKS
from bench.faults.bad_requests import bad_traffic, ssrf
from bench.faults.classes import classes
from bench.faults.fuzz import fuzz
from bench.faults.kill import killed_http, killed_workers, poison, shut_down
from bench.faults.outage import hanging_redis, killed_redis, spoilt_redis
from bench.faults.overload import above_capacity, near_capacity, soak
from bench.faults.rollout import rollout
from bench.faults.row import Finding, Row
from bench.faults.slow_clients import disconnects, floods, slow_clients
from bench.faults.stage import Stage

ROWS = (
    Row(1, "load at 0.8 × capacity", near_capacity),
    Row(2, "load at 2 × capacity", above_capacity),
    Row(3, "kill -9 of an inference worker", killed_workers),
    Row(4, "kill -9 of the HTTP process", killed_http),
    Row(5, "kill -9 of Redis, restart", killed_redis),
    Row(6, "Redis stopped, black hole, half replies", hanging_redis),
    Row(7, "Redis slow, full, flushed, damaged values", spoilt_redis),
    Row(8, "slow heads, half bodies, idle connections", slow_clients),
    Row(9, "endless head, 1 GB body, endless body", floods),
    Row(10, "bad requests, one for each good one", bad_traffic),
    Row(11, "an item that kills or hangs its worker", poison),
    Row(12, "URLs that lead inside", ssrf),
    Row(13, "clients that leave in the middle", disconnects),
    Row(14, "SIGTERM at load, once and twice", shut_down),
    Row(15, "soak", soak),
    *ATTACKS,
    Row(27, "fuzzing around the attacks, from a seed", fuzz),
    Row(28, "instances behind a balancer: killed, restarted, other model", rollout),
    Row(29, "a bulk flood beside interactive clients, shares of clients", classes),
)


async def _counted(stage: Stage, finding: Finding) -> None:
    """Nothing to play: it sums up what the other rows compared."""
    del stage, finding


TRUTH = Row(16, "cache truth: all answers of the rows above", _counted)


def truth(findings: list[Finding]) -> Finding:
    """Row 16: every answer of the others was held against a fresh computation."""
    total = Finding(long=any(finding.long for finding in findings))
    for finding in findings:
        total.tally.add(finding.tally)
    tally = total.tally
    hits = tally.states["hit-l1"] + tally.states["hit-l2"]
    total.must(tally.wrong == 0, f"0 wrong: {dict(tally.reasons)}")
    total.note(f"{tally.compared} vectors compared, {hits} of them from a cache")
    return total
