"""Kills, rolling restarts and a change of models behind a real nginx and a real HAProxy.

    python -m bench.balance [--front nginx|haproxy] [--short]

Prints a table and keeps it in bench/results/balance-DEVICE.json. Exit code 0: every row holds; 1:
one does not; 2: the program that was asked for is not installed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.balance.balancer import BALANCERS, Balancer, Missing
from bench.balance.rollout import Rollout
from bench.faults.row import HEAD, Finding
from bench.faults.stage import Stage
from bench.rig.result_file import RESULTS, save


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(arguments)
    chosen = [BALANCERS[options.front]] if options.front else list(BALANCERS.values())
    try:
        fronts = [asyncio.run(play(front, not options.short)) for front in chosen]
    except Missing as error:
        print(f"bench.balance: {error}", file=sys.stderr)
        return 2
    form = "short" if options.short else "long"
    print(f"\nkept in {save('balance', {'form': form, 'fronts': fronts}, options.out).name}")
    return 0 if all(row["holds"] for front in fronts for row in front["rows"]) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench.balance", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--front", choices=BALANCERS, help="only this one; default: both")
    parser.add_argument("--short", action="store_true", help="one kill, no waiting, short drains")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    return parser


async def play(front: type[Balancer], long: bool) -> dict[str, Any]:
    """The rows behind one balancer, each printed when it is done."""
    print(f"\n{front.version()}\n\n{HEAD}", flush=True)
    rows = []
    async with Stage(long) as stage, Rollout(front, *flags(long)) as rollout:
        for row in rollout.rows():
            finding: Finding = await row.found(stage)
            rows.append(row.fields(finding))
            print(row.line(finding), flush=True)
    return {"front": front.name, "version": front.version(), "rows": rows}


def flags(long: bool) -> tuple[str, ...]:
    """The short form does not wait until a busy instance falls idle; the balancer hides it."""
    return () if long else ("--drain-timeout", "3")


if __name__ == "__main__":
    sys.exit(main())
