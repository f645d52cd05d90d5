"""A real nginx or HAProxy before some instances, with the configuration that `deploy/` ships.

Replaced are only where to listen, who the instances are and, for a comparison in which a long queue
is what is measured, how long an answer may take. So what is measured here is what is deployed.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.rig.child import Absent, child
from bench.rig.port import free_port
from bench.rig.server_process import ROOT

DEPLOY = ROOT / "deploy"
WAITS = re.compile(r"(proxy_read_timeout|proxy_next_upstream_timeout) \d+s")


@dataclass(frozen=True, slots=True)
class Balancer:
    """`with NGINX.before([8001, 8002]) as (url, pid):`"""

    name: str
    package: str  # Debian's
    write: Callable[[Path, int, Sequence[int]], list[str]]  # configuration → arguments

    def find(self) -> str:
        """The program.

        Raises:
            Absent: it is not installed.
        """
        found = shutil.which(self.name) or shutil.which(self.name, path="/usr/sbin")
        if found is None:
            raise Absent(f"{self.name} is not installed (apt-get install {self.package})")
        return found

    def version(self) -> str:
        """What it says of itself, as in `nginx/1.22.1`."""
        done = subprocess.run([self.find(), "-v"], capture_output=True, text=True, check=True)
        said = (done.stdout or done.stderr).splitlines()[0]
        return said.removeprefix("nginx version: ")

    @contextmanager
    def before(self, instances: Sequence[int]) -> Iterator[tuple[str, int]]:
        """URL and process id of one that balances these ports, once it accepts connections.

        Raises:
            Absent: it is not installed.
            StartError: it did not start.
        """
        program, port = self.find(), free_port()
        with tempfile.TemporaryDirectory(prefix=f"{self.name}-") as home:
            Path(home).chmod(0o755)  # nginx's workers run as somebody else where root starts it
            command = [program, *self.write(Path(home), port, instances)]
            with child(command, partial(accepts, port)) as pid:
                yield f"http://127.0.0.1:{port}", pid


def _nginx(home: Path, port: int, instances: Sequence[int], patience: int = 0) -> list[str]:
    shipped = (DEPLOY / "nginx" / "nginx.conf").read_text()
    whole = replaced(shipped, "listen 8080 ", f"listen 127.0.0.1:{port} ")
    if patience:
        whole = WAITS.sub(rf"\1 {patience}s", whole)
    (home / "nginx.conf").write_text(whole)
    servers = [f"server 127.0.0.1:{instance} max_fails=0;" for instance in instances]
    (home / "instances.conf").write_text("\n".join(servers) + "\n")
    place = ["-p", str(home), "-c", str(home / "nginx.conf"), "-e", "stderr"]
    return [*place, "-g", "daemon off; pid nginx.pid;"]


def _haproxy(home: Path, port: int, instances: Sequence[int]) -> list[str]:
    shipped = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    whole = replaced(shipped, "bind :8080", f"bind 127.0.0.1:{port}")
    template = next(line for line in whole.splitlines() if "server-template " in line)
    servers = [f"    server siglit{i} 127.0.0.1:{port}" for i, port in enumerate(instances)]
    (home / "haproxy.cfg").write_text(replaced(whole, template, "\n".join(servers)))
    return ["-db", "-f", str(home / "haproxy.cfg")]


NGINX = Balancer("nginx", "nginx-light", _nginx)
HAPROXY = Balancer("haproxy", "haproxy", _haproxy)
BALANCERS = (NGINX, HAPROXY)
PATIENT_NGINX = Balancer("nginx", "nginx-light", partial(_nginx, patience=900))


def replaced(text: str, old: str, new: str) -> str:
    """`text` with the one place where `old` stands changed; anything but one place is an error."""
    if text.count(old) != 1:
        raise ValueError(f"{old!r} stands in {text.count(old)} places")
    return text.replace(old, new)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
