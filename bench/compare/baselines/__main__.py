"""Which of the systems can run here, or one of them until Ctrl-C.

python -m bench.compare.baselines                                    # a line for each
python -m bench.compare.baselines litserve --checkpoint FOLDER       # serves; says where
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.compare.baselines.catalogue import SYSTEMS
from bench.compare.baselines.system import Ground, System
from bench.rig.child import Absent, StartError
from bench.rig.machine import cores
from bench.rig.random_checkpoint import DEMO


def _line(system: System) -> str:
    try:
        system.look()
    except Absent as reason:
        return f"{system.name:17} skipped: {reason}"
    return f"{system.name:17} can run here"


def _serve(system: System, checkpoint: Path) -> int:
    try:
        system.look()
        with system.start(Ground(checkpoint, cores())) as served:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # or its family would be left
            print(f"{system.name} listens at {served.url}", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    except (Absent, StartError) as reason:
        print(f"bench: {system.name}: {reason}", file=sys.stderr)
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m bench.compare.baselines", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", nargs="?", choices=SYSTEMS)
    parser.add_argument("--checkpoint", type=Path, default=DEMO, metavar="FOLDER")
    options = parser.parse_args(arguments)
    if options.name:
        return _serve(SYSTEMS[options.name], options.checkpoint)
    print("\n".join(map(_line, SYSTEMS.values())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
