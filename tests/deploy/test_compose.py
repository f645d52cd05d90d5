"""The compose file: `docker compose` itself reads it, and its parts fit together."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.rig.redis_server import RedisServer
from litapi.settings import Settings

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
FILE = DEPLOY / "compose.yaml"
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*")


@cache
def services() -> dict[str, Any]:
    """As docker compose understands them; it checks the form of the file on its way."""
    compose = Path(sys.executable).parent / "docker-compose"
    if not compose.exists():
        pytest.skip("docker-compose has no build for this machine")
    command = [str(compose), "-f", str(FILE), "--profile", "haproxy", "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def test_docker_compose_takes_it() -> None:
    """One command starts all of it, and more than one instance behind the balancer."""
    assert services().keys() == {"siglit", "redis", "nginx", "haproxy", "prometheus", "grafana"}
    assert services()["siglit"]["deploy"]["replicas"] >= 2


def test_every_image_is_pinned() -> None:
    """By its exact version; siglit's own is built."""
    images = {name: one["image"] for name, one in services().items() if name != "siglit"}
    assert [image for image in images.values() if not PINNED.fullmatch(image)] == []
    assert services()["siglit"]["build"]["target"] in (DEPLOY.parent / "Dockerfile").read_text()


def test_every_file_that_is_mounted_is_there() -> None:
    """Docker would make an empty folder of a missing one."""
    mounts = [v for one in services().values() for v in one.get("volumes", ())]
    paths = [Path(mount["source"]) for mount in mounts if mount["type"] == "bind"]
    assert len(paths) >= 5
    assert [path for path in paths if not path.exists()] == []


def test_the_environment_of_the_service_is_understood() -> None:
    """Every variable is an option, Redis is the one of this file, and there is time to drain."""
    seconds = services()["siglit"]["stop_grace_period"]  # Docker's own is ten
    assert int(seconds.removesuffix("s")) >= Settings().drain_timeout + 10
    environment = {k: v or "" for k, v in services()["siglit"]["environment"].items()}
    settings = Settings.read({}, environment)
    assert settings.redis_url == "redis://redis:6379"


def test_the_balancers_and_prometheus_ask_the_service_by_its_name() -> None:
    """And on its port."""
    place = f"siglit:{Settings().port}"
    assert f"server {place} " in (DEPLOY / "nginx" / "instances.conf").read_text()
    assert f" {place} " in (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    names = scraped["scrape_configs"][0]["dns_sd_configs"][0]
    assert f"{names['names'][0]}:{names['port']}" == place


@pytest.mark.parametrize("source", ["compose", "kubernetes"])
def test_a_real_redis_takes_its_options(source: str) -> None:
    """Bounded, the least used leaves first, nothing on the disk."""
    command = services()["redis"]["command"] if source == "compose" else _in_kubernetes()
    with RedisServer(*command[1:]) as redis:
        found = {
            name: redis.command("CONFIG", "GET", name)[1].decode()
            for name in ("maxmemory", "maxmemory-policy", "save", "appendonly")
        }
    assert int(found["maxmemory"]) >= 1 << 30
    assert found["maxmemory-policy"] == "allkeys-lfu"
    assert (found["save"], found["appendonly"]) == ("", "no")


def _in_kubernetes() -> list[str]:
    text = (DEPLOY / "kubernetes" / "base" / "redis.yaml").read_text()
    pod = next(iter(yaml.safe_load_all(text)))["spec"]["template"]["spec"]
    command: list[str] = pod["containers"][0]["command"]
    return command
