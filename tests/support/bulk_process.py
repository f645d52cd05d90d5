"""`python -m deploy.bulk` as a child process, and two Ray nodes on this machine for it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from ray.cluster_utils import Cluster

from bench.faults.vitals import births, survivors
from bench.rig.child import started
from bench.rig.port import free_port
from bench.rig.server_process import ROOT, family
from tests.support.patience import awaited

STARTS = 3  # of a node: Ray has little patience with a busy machine
PORTS = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
LIGHT = {"include_log_monitor": False, "no_monitor": True}

SAME = {"SIGLIT_PRECISION": "float32"}  # as `ServerProcess` has it, for their vectors are compared


class BulkProcess:
    """The command under way."""

    def __init__(self, *arguments: str | Path | int) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SIGLIT_")}
        for name in ("REDIS_URL", "MODEL", "RAY_ADDRESS"):
            clean.pop(name, None)
        self._said = tempfile.NamedTemporaryFile("w+b", suffix=".log")  # noqa: SIM115 - lives as long as this
        command = [sys.executable, "-m", "deploy.bulk", *map(str, arguments)]
        self._process = started(
            command, cwd=ROOT, env={**clean, **SAME}, stdout=subprocess.PIPE, stderr=self._said
        )

    def result(self) -> dict[str, Any]:
        """What it says at the end of a run that went well."""
        try:
            out, _ = self._process.communicate()
        finally:
            self.kill()
        assert self._process.returncode == 0, self.log()
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    def log(self) -> str:
        """What it wrote to standard error."""
        return Path(self._said.name).read_text(errors="replace")

    def await_blocks(self, output: Path, many: int) -> None:
        """Wait until so many blocks are finished; the run must not end before."""
        while len(list(output.glob("rows-*.parquet"))) < many:
            assert self._process.poll() is None, self.log()
            time.sleep(0.005)

    def kill(self) -> None:
        """kill -9, of its own Ray as well: nobody writes any more when this returns."""
        known = births(family(self._process.pid))
        self._process.kill()
        for pid in known:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        awaited(lambda: not survivors(known))


class TwoNodes:
    """A head and another node, one core each."""

    def __init__(self) -> None:
        self._cluster = Cluster()
        self._nodes = [self._add(include_dashboard=False), self._add()]

    def _add(self, starts: int = STARTS, **options: Any) -> Any:
        # With ports of its own to wait for, Ray would give its parts 15 seconds to start.
        ports = {name: free_port() for name in PORTS}
        try:
            return self._cluster.add_node(num_cpus=1, **LIGHT, **ports, **options)
        except Exception:  # Ray's own, of this very class
            if starts == 1:
                raise
            return self._add(starts - 1, **options)

    @property
    def address(self) -> str:
        """For `--address`."""
        return str(self._cluster.address)

    def lose_one(self) -> None:
        """The node that is not the head is gone without a word."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()
