"""Ports that a server started a second later can still have."""

import socket
from pathlib import Path

import pytest

from bench.rig.port import LOWEST, PORTS, free_port


def test_a_port_is_none_that_the_kernel_hands_to_clients() -> None:
    """Neither it nor the second one of a Redis Cluster node, 10 000 above; and they differ."""
    span = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not span.exists():
        pytest.skip("this kernel does not say which ports it hands out")
    lowest = int(span.read_text().split()[0])
    ports = [free_port() for _ in range(50)]
    assert all(LOWEST <= port < LOWEST + PORTS and port + 10_000 < lowest for port in ports)
    assert len(set(ports)) > 40


@pytest.mark.parametrize("how", ["listened on", "given"])
def test_a_port_that_is_taken_is_passed_over(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens on it, or was given it and does not listen yet; in the end none is left."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] if how == "listened on" else free_port()
        monkeypatch.setattr("bench.rig.port.LOWEST", port)
        monkeypatch.setattr("bench.rig.port.PORTS", 1)
        with pytest.raises(OSError, match="no port is free"):
            free_port()
