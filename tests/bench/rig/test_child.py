"""Nothing that was started is left behind, however the process that started it ends."""

import signal
import subprocess
import sys

import pytest

from bench.faults.vitals import births, survivors
from bench.rig.server_process import ROOT
from tests.support.patience import awaited

OWNER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from bench.rig.child import child, started
from bench.rig.redis_server import RedisServer

class Sleeper:
    def __enter__(self):
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        self.pid = started(sleep).pid
        return self

    def __exit__(self, *_):
        print("left", flush=True)

class Paused(RedisServer):
    def __enter__(self):
        self.pause()
        return self

    def __exit__(self, *_):
        super().__exit__()
        print("left", flush=True)

kind = {"sleeper": Sleeper, "redis": Paused}[sys.argv[1]]
if sys.argv[2] == "aside":
    with ThreadPoolExecutor(1) as aside:
        one = aside.submit(lambda: kind().__enter__()).result()
    print(one.pid, flush=True)
    time.sleep(600)
with kind() as one:
    print(one.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["sleeper", "redis"])
@pytest.mark.parametrize("where", ["main", "aside"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_started_ends_with_who_started_it(
    kind: str, where: str, how: signal.Signals
) -> None:
    """A paused Redis too. A thread that ends takes nobody along. SIGTERM leaves every `with`."""
    command = [sys.executable, "-c", OWNER, kind, where]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
        assert one.stdout is not None
        known = births([int(one.stdout.readline())])
        assert survivors(known) == set(known)
        one.send_signal(how)
        said, _ = one.communicate(timeout=60)
    assert awaited(lambda: not survivors(known), 10)
    assert said.split() == ([b"left"] if (where, how) == ("main", signal.SIGTERM) else [])
