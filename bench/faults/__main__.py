"""`python -m bench.faults [--short] [--only 3,5]`: play the table, print it, keep it as JSON.

A part of the table is kept only under a name of its own, such as `--only 1 --name faults-load`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.faults.row import HEAD, Finding
from bench.faults.stage import Stage
from bench.faults.table import ROWS, TRUTH, truth
from bench.rig.command import described, listed
from bench.rig.result_file import RESULTS, save
from litapi.process import raise_limit


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every row holds."""
    parser = described("bench.faults", __doc__)
    parser.add_argument("--short", action="store_true", help="a few of everything, no stopwatch")
    parser.add_argument("--only", type=listed(int), metavar="N[,N…]", help="rows, as in 3,5")
    parser.add_argument("--name", help="of the result: faults, and for a part of the table none")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args(arguments)
    raise_limit()
    record = asyncio.run(play(not options.short, options.only))
    if name := options.name or ("" if options.short or options.only else "faults"):
        save(name, record, options.out)
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


if __name__ == "__main__":
    sys.exit(main())
