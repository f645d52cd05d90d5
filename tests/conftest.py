"""Fixtures that several files share: one real server for the whole run."""

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import settings

from bench.rig.server_process import ServerProcess

# Converted towers of tests, kept from run to run; servers that tests start have it from here.
os.environ["XDG_CACHE_HOME"] = f"{tempfile.gettempdir()}/siglit-tests-{os.getuid()}"

# No time limit for an example, and the same examples each time: a run that fails is no accident.
settings.load_profile("ci")

# What `make verify` runs and `make test` leaves out: faults, notebooks, Ray, balancers, requests
# made from the OpenAPI document, compiled and converted towers, mistakes by name, training, and the
# benchmarks' own runs.
VERIFY = frozenset(
    {
        "bench/compare/test_baselines.py", "bench/compare/test_compare.py",
        "bench/compare/test_proof.py", "bench/faults/test_classes.py",
        "bench/faults/test_rollout.py", "bench/gpu/test_dry_run.py", "bench/micro/test_bulk.py",
        "bench/micro/test_client.py", "bench/micro/test_hits.py", "bench/offline/test_precision.py",
        "bench/offline/test_starts.py", "bench/test_interface.py", "bench/test_scripts.py",
        "clients/test_official.py", "deploy/bulk/test_main.py",
        "deploy/test_balancers.py", "model/engines/test_compiled.py",
        "model/engines/test_converted.py", "notebooks/test_notebooks.py", "notebooks/test_trial.py",
        "quality/test_gate.py", "quality/test_golden.py", "quality/test_verdict.py",
        "test_conversation.py", "test_demo.py", "test_examples.py", "test_faults.py",
        "test_on_gpu.py", "test_package.py", "test_served_precision.py", "test_spaces.py",
        "test_stuck_workers.py",
    }
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes long, by file."""
    tests = Path(__file__).parent
    for item in items:
        if item.path.relative_to(tests).as_posix() in VERIFY:
            item.add_marker("verify")


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of the HTTP processes."""
    return "asyncio"


@pytest.fixture(autouse=True)
def root_log() -> Iterator[None]:
    """The root log's level and handlers again as they were: a command that runs in the test's own
    process sets them, and the next test would log to a stream that is closed."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """A server with the demo checkpoint and all defaults, for tests that leave it as it was."""
    with ServerProcess() as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of the shared server."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield http
