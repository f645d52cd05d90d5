"""A real nginx or HAProxy before some instances, with the configuration that `deploy/` ships.

Only two lines of it are replaced: where to listen, and who the instances are. So what is measured
here is what is deployed.
"""

from __future__ import annotations

import abc
import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from bench.rig.port import free_port

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
UP_WITHIN = 10.0  # seconds


class Missing(Exception):
    """A program that is not installed here; the text says which and where it comes from."""


class Balancer(abc.ABC):
    """`with Nginx([8001, 8002]) as balancer:` and ask `balancer.url`."""

    name: ClassVar[str]
    package: ClassVar[str]  # Debian's

    def __init__(self, instances: Sequence[int]) -> None:
        self.program = self.find()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._instances = instances
        self._home = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self._home.chmod(0o755)  # nginx's workers run as somebody else where it is started as root
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def find(cls) -> str:
        """The program.

        Raises:
            Missing: it is not installed.
        """
        found = shutil.which(cls.name) or shutil.which(cls.name, path="/usr/sbin")
        if found is None:
            raise Missing(f"{cls.name} is not installed (apt-get install {cls.package})")
        return found

    @classmethod
    def version(cls) -> str:
        """What it says of itself, as in `nginx/1.22.1`."""
        done = subprocess.run([cls.find(), "-v"], capture_output=True, text=True, check=True)
        said = (done.stdout or done.stderr).splitlines()[0]
        return said.removeprefix("nginx version: ")

    @abc.abstractmethod
    def _write(self, home: Path, port: int, instances: Sequence[int]) -> list[str]:
        """Lay the configuration into `home`; the arguments that start the program with it."""

    def start(self) -> Self:
        """Start it and wait until it accepts connections."""
        arguments = self._write(self._home, self.port, self._instances)
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self.program, *arguments], stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + UP_WITHIN
        while not accepts(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start: {self.log()}")
            time.sleep(0.02)
        return self

    def log(self) -> str:
        """What it printed so far."""
        return (self._home / "log").read_text(errors="replace")

    def stop(self) -> None:
        """End it and forget its folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class Nginx(Balancer):
    """deploy/nginx/nginx.conf with instances of our own."""

    name = "nginx"
    package = "nginx-light"

    def _write(self, home: Path, port: int, instances: Sequence[int]) -> list[str]:
        shipped = (DEPLOY / "nginx" / "nginx.conf").read_text()
        whole = replaced(shipped, "listen 8080 ", f"listen 127.0.0.1:{port} ")
        (home / "nginx.conf").write_text(whole)
        servers = [f"server 127.0.0.1:{instance} max_fails=0;" for instance in instances]
        (home / "instances.conf").write_text("\n".join(servers) + "\n")
        place = ["-p", str(home), "-c", str(home / "nginx.conf"), "-e", "stderr"]
        return [*place, "-g", "daemon off; pid nginx.pid;"]


class HAProxy(Balancer):
    """deploy/haproxy/haproxy.cfg with instances of our own."""

    name = "haproxy"
    package = "haproxy"

    def _write(self, home: Path, port: int, instances: Sequence[int]) -> list[str]:
        shipped = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
        whole = replaced(shipped, "bind :8080", f"bind 127.0.0.1:{port}")
        template = next(line for line in whole.splitlines() if "server-template " in line)
        servers = [f"    server siglit{i} 127.0.0.1:{port}" for i, port in enumerate(instances)]
        (home / "haproxy.cfg").write_text(replaced(whole, template, "\n".join(servers)))
        return ["-db", "-f", str(home / "haproxy.cfg")]


BALANCERS: dict[str, type[Balancer]] = {one.name: one for one in (Nginx, HAProxy)}


def replaced(text: str, old: str, new: str) -> str:
    """`text` with the one place where `old` stands changed; anything but one place is an error."""
    if text.count(old) != 1:
        raise ValueError(f"{old!r} stands in {text.count(old)} places")
    return text.replace(old, new)


def accepts(port: int) -> bool:
    """Whether somebody listens on that port now."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
