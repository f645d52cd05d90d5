"""A real nginx in front of several instances: the least busy one is next, connections are kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.compare.baselines.child import child
from bench.compare.baselines.system import Absent
from bench.rig.port import free_port

PATIENCE = 900  # seconds; a queue is no failure of nginx's
PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def program() -> str:
    """Where nginx is.

    Raises:
        Absent: it is not installed.
    """
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not found:
        raise Absent("no nginx: apt-get install nginx-light")
    return found


def settings(folder: Path, port: int, upstreams: Sequence[int], log: str = "stderr") -> str:
    """nginx.conf. Everything it writes lies in `folder`."""
    servers = " ".join(f"server 127.0.0.1:{one} max_fails=0;" for one in upstreams)
    places = " ".join(f"{path}_temp_path {folder / path};" for path in PATHS)
    return f"""\
daemon off; worker_processes 1; worker_rlimit_nofile 8192;
pid {folder / "pid"}; error_log {log} error;
events {{ worker_connections 4096; }}
http {{
  access_log off; {places}
  client_max_body_size 64m; client_body_buffer_size 1m;
  upstream instances {{ least_conn; {servers} keepalive 256; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    keepalive_requests 1000000;
    location / {{
      proxy_pass http://instances;
      proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_read_timeout {PATIENCE}s; proxy_send_timeout {PATIENCE}s;
      proxy_next_upstream error timeout non_idempotent;
    }}
  }}
}}
"""


@contextmanager
def nginx(upstreams: Sequence[int], health: str) -> Iterator[tuple[str, int]]:
    """URL and process id of one in front of these ports, once the path `health` answers there.

    Raises:
        Absent: it is not installed.
        StartError: it did not start.
    """
    path = program()
    with tempfile.TemporaryDirectory(prefix="nginx-") as home:
        port = free_port()
        file = Path(home) / "nginx.conf"
        file.write_text(settings(Path(home), port, upstreams))
        url = f"http://127.0.0.1:{port}"
        with child([path, "-e", "stderr", "-p", home, "-c", str(file)], url + health) as pid:
            yield url, pid
