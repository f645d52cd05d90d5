"""Commands as child processes of their own, without the options of whoever runs the tests."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.rig.server_process import ROOT

Done = subprocess.CompletedProcess[str]


def clean(**environment: str) -> dict[str, str]:
    """This process's environment without options of the service, and these variables."""
    ours = ("SIGLIT_", "PROMETHEUS_MULTIPROC_DIR")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | environment


def command(
    *words: object, cwd: Path = ROOT, said: str = "", env: Mapping[str, str] | None = None
) -> Done:
    """What came of a command that was told so much."""
    return subprocess.run(
        [*map(str, words)],
        cwd=cwd,
        env=clean(**env or {}),
        input=said,
        capture_output=True,
        text=True,
        timeout=240,
    )


def ran(
    *words: object, cwd: Path = ROOT, said: str = "", env: Mapping[str, str] | None = None
) -> Done:
    """What came of a command that goes well."""
    done = command(*words, cwd=cwd, said=said, env=env)
    assert done.returncode == 0, done.stderr
    return done


def output_of(
    *words: object, cwd: Path = ROOT, said: str = "", env: Mapping[str, str] | None = None
) -> str:
    """What it prints."""
    return ran(*words, cwd=cwd, said=said, env=env).stdout


def python(code: str, *words: object, **environment: str) -> Done:
    """What came of a script that goes well, in a Python of its own."""
    return ran(sys.executable, "-c", code, *words, env=environment)


def litapi(*words: object, said: str = "", **environment: str) -> Done:
    """What came of a command of the service, which asks no hub."""
    env = {"HF_HUB_OFFLINE": "1", **environment}
    return command(sys.executable, "-m", "litapi", *words, said=said, env=env)


def one_line(run: Done) -> str:
    """What was said by a command that cannot work: one line, exit code 2, no banner, no trace."""
    assert run.returncode == 2, run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert run.stdout == ""
    return run.stderr
