"""Execute the notebooks in place, each in a fresh kernel of this Python.

    python -m notebooks                  # all of notebooks/
    python -m notebooks 04_cache         # one

A notebook that fails is left as it was, the cell is named, and the others are still executed. What
changes from run to run without meaning anything (times of cells, ids of widgets' models) is not
kept. Exit code 0: all are executed; 1: one failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

FOLDER = Path(__file__).parent
CELL_SECONDS = 300
KERNEL = "python3"
START_SECONDS = 180
QUIET = ["--HistoryManager.enabled=False", "--log-level=ERROR"]


class NotebookError(Exception):
    """A cell failed; says which, and how."""


class Notebook:
    """A file of cells."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]

    @property
    def name(self) -> str:
        return self.path.stem

    def execute(self, cell_seconds: int = CELL_SECONDS) -> None:
        """All cells, in order, from the notebook's own folder as Jupyter does.

        Raises:
            NotebookError: a cell failed, or took too long.
        """
        client = NotebookClient(
            self.cells,
            timeout=cell_seconds,
            kernel_name=KERNEL,
            record_timing=False,
            resources={"metadata": {"path": str(self.path.parent)}},
            startup_timeout=START_SECONDS,
            extra_arguments=QUIET,
        )
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError, RuntimeError) as error:
            raise NotebookError(f"{self.path.name}: {error}") from None

    def save(self) -> None:
        """Over the file it was read from, all at once."""
        partial = self.path.with_suffix(".partial")
        nbformat.write(self.cells, partial)  # type: ignore[no-untyped-call]
        partial.replace(self.path)


def found(folder: Path = FOLDER) -> list[Notebook]:
    """All notebooks of a folder, by name."""
    return [Notebook(path) for path in sorted(folder.glob("*.ipynb"))]


def run(notebooks: Sequence[Notebook], cell_seconds: int) -> list[str]:
    """Execute and save each; what failed."""
    failed = []
    for one in notebooks:
        began = time.monotonic()
        try:
            one.execute(cell_seconds)
            one.save()
        except NotebookError as error:
            failed.append(str(error))
            print(error, file=sys.stderr, flush=True)
            continue
        print(f"{one.path.name}: {time.monotonic() - began:.0f} s", flush=True)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m notebooks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--seconds", type=int, default=CELL_SECONDS, help="of one cell at most")
    options = parser.parse_args(arguments)
    notebooks = found()
    unknown = {*options.names} - {one.name for one in notebooks}
    if unknown:
        parser.error(f"no such notebook: {', '.join(sorted(unknown))}")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # or each kernel warns
    chosen = [one for one in notebooks if not options.names or one.name in options.names]
    return 1 if run(chosen, options.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
