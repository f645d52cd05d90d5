"""`python -m bench.faults [--short] [--only 3,5]`: play the table and print it.

The whole table in its long form is kept as JSON.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from bench.faults import attacks, bad_requests, classes, fuzz, kill, outage, overload, rollout
from bench.faults import slow_clients as slow
from bench.faults.attacks import under
from bench.faults.row import HEAD, Finding, Row
from bench.faults.stage import Stage
from bench.rig.command import described, listed
from bench.rig.result_file import save
from litapi.process import raise_limit

ROWS = (
    Row(1, "load at 0.8 × capacity", overload.near_capacity),
    Row(2, "load at 2 × capacity", overload.above_capacity),
    Row(3, "kill -9 of an inference worker", kill.killed_workers),
    Row(4, "kill -9 of the HTTP process", kill.killed_http),
    Row(5, "kill -9 of Redis, restart", outage.killed_redis),
    Row(6, "Redis stopped, black hole, half replies", outage.hanging_redis),
    Row(7, "Redis slow, full, flushed, damaged values", outage.spoilt_redis),
    Row(8, "slow heads, half bodies, idle connections", slow.slow_clients),
    Row(9, "endless head, 1 GB body, endless body", slow.floods),
    Row(10, "bad requests, one for each good one", bad_requests.bad_traffic),
    Row(11, "an item that kills or hangs its worker", kill.poison),
    Row(12, "URLs that lead inside", bad_requests.ssrf),
    Row(13, "clients that leave in the middle", slow.disconnects),
    Row(14, "SIGTERM at load, once and twice", kill.shut_down),
    Row(15, "soak", overload.soak),
    Row(17, "pipelined requests whose answers nobody reads", under(attacks.unread_answers)),
    Row(18, "captions that grow beyond their template and labels", under(attacks.amplification)),
    Row(19, "small pictures that take long to decode", under(attacks.slow_decoding)),
    Row(20, "JSON that becomes many objects", under(attacks.costly_json)),
    Row(21, "letters where base64 belongs", under(attacks.wrong_base64)),
    Row(22, "bodies that stop just before their end", under(attacks.half_bodies)),
    Row(23, "pictures left behind while their worker stands still", attacks.stopped_worker),
    Row(
        24,
        "more patches than the server has by default",
        under(attacks.many_patches, "--max-num-patches", "64"),
    ),
    Row(25, "pictures of few bytes and many pixels", under(attacks.wide_pixels)),
    Row(26, "all of rows 17 to 25 at once", attacks.all_of_it),
    Row(27, "fuzzing around the attacks, from a seed", fuzz.fuzz),
    Row(28, "instances behind a balancer: killed, restarted, other model", rollout.rollout),
    Row(29, "a bulk flood beside interactive clients, shares of clients", classes.classes),
)


async def _counted(stage: Stage, finding: Finding) -> None:
    """Nothing to play: it sums up what the other rows compared."""
    del stage, finding


TRUTH = Row(16, "cache truth: all answers of the rows above", _counted)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every row holds."""
    parser = described("bench.faults", __doc__)
    parser.add_argument("--short", action="store_true", help="a few of everything, no stopwatch")
    parser.add_argument("--only", type=listed(int), metavar="N[,N…]", help="rows, as in 3,5")
    options = parser.parse_args(arguments)
    raise_limit()
    record = asyncio.run(play(not options.short, options.only))
    if not options.short and not options.only:
        save("faults", record)
    return 0 if all(row["holds"] for row in record["rows"]) else 1


async def play(long: bool, only: Sequence[int] | None) -> dict[str, Any]:
    """The rows one after another, each printed when it is done."""
    findings: list[Finding] = []
    rows = []
    print(HEAD, flush=True)
    async with Stage(long) as stage:
        for row in ROWS:
            if only is None or row.number in only:
                finding = await row.found(stage)
                findings.append(finding)
                rows.append(row.fields(finding))
                print(row.line(finding), flush=True)
    total = truth(findings)
    print(TRUTH.line(total), flush=True)
    return {"form": "long" if long else "short", "rows": [*rows, TRUTH.fields(total)]}


def truth(findings: Sequence[Finding]) -> Finding:
    """Row 16: every answer of the others was held against a fresh computation."""
    total = Finding(long=any(finding.long for finding in findings))
    for finding in findings:
        total.tally.add(finding.tally)
    tally = total.tally
    hits = tally.states["hit-l1"] + tally.states["hit-l2"]
    total.must(tally.wrong == 0, f"0 wrong: {dict(tally.reasons)}")
    total.note(f"{tally.compared} vectors compared, {hits} of them from a cache")
    return total


if __name__ == "__main__":
    sys.exit(main())
