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


def test_a_port_that_is_listened_on_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all but two ports away, the one that is free is found, every time."""
    monkeypatch.setattr("bench.rig.port.PORTS", 2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", LOWEST))
        taken.listen()
        assert {free_port() for _ in range(20)} == {LOWEST + 1}
