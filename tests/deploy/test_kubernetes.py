"""The manifests: Kubernetes would take them, they hang together and agree with the service."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from litapi.settings import Settings

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "kubernetes"
BASE = sorted(path for path in (FOLDER / "base").glob("*.yaml") if path.stem != "kustomization")
OVERLAYS = ("cpu", "gpu")
VERSION = "1.33"
Manifest = dict[str, Any]


def manifests(text: str) -> list[Manifest]:
    return [one for one in yaml.safe_load_all(text) if one]


def base() -> list[Manifest]:
    return [one for path in BASE for one in manifests(path.read_text())]


def of_kind(kind: str, among: list[Manifest]) -> dict[str, Manifest]:
    """By name."""
    return {one["metadata"]["name"]: one for one in among if one["kind"] == kind}


@cache
def built(overlay: str) -> str:
    """What kustomize makes of an overlay."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl, which holds kustomize")
    command = ["kubectl", "kustomize", str(FOLDER / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def deployment(among: list[Manifest]) -> tuple[Manifest, Manifest]:
    """The pod of the service, and its container."""
    pod = of_kind("Deployment", among)["siglit"]["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


@pytest.mark.parametrize("manifest", base(), ids=lambda one: f"{one['kind']} {one['metadata']}")
def test_a_manifest_of_the_base_has_kubernetes_own_form(manifest: Manifest) -> None:
    """Unknown fields too are an error: they would be dropped without a word."""
    kubernetes_validate.validate(manifest, VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_built_and_has_kubernetes_own_form(overlay: str) -> None:
    """And it holds everything of the base, which lists every file."""
    listed = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == [path.name for path in BASE]
    whole = manifests(built(overlay))
    for manifest in whole:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    assert {one["kind"] for one in base()} <= {one["kind"] for one in whole}


def test_every_selector_finds_a_pod() -> None:
    """Of services, deployments, budgets and policies alike."""
    found = base()
    pods = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in of_kind("Deployment", found).values()
    ]
    for one in found:
        spec = one["spec"]
        selector = spec.get("podSelector") or spec.get("selector")
        if selector is None:
            assert one["kind"] == "HorizontalPodAutoscaler"
            assert spec["scaleTargetRef"]["name"] in of_kind("Deployment", found)
            continue
        wanted = selector.get("matchLabels", selector)
        assert any(wanted.items() <= labels.items() for labels in pods), one["metadata"]


def test_every_named_port_is_a_containers() -> None:
    """Of probes and services; and the number is the one that the service binds."""
    found = base()
    pod, container = deployment(found)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": Settings().port}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    assert of_kind("Service", found)["siglit"]["spec"]["ports"][0]["targetPort"] in ports
    assert pod["enableServiceLinks"] is False


def test_the_environment_of_the_pod_is_understood() -> None:
    """Every variable it sets is an option, and the values pass."""
    _, container = deployment(base())
    options = {one["name"]: one.get("value", "key") for one in container["env"]}
    settings = Settings.read({}, options)
    services = of_kind("Service", base())
    assert settings.redis_url is not None
    assert settings.redis_url.split("//")[1].split(":")[0] in services


def test_probes_and_grace_agree_with_the_settings() -> None:
    """A pod may load as long as the server does, and drains before it is killed."""
    pod, container = deployment(base())
    settings, startup = Settings(), container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= settings.start_timeout
    pause = container["lifecycle"]["preStop"]["exec"]["command"][-1]
    seconds = int(pause.partition("sleep(")[2].rstrip(")"))
    assert pod["terminationGracePeriodSeconds"] >= seconds + settings.drain_timeout + 10
    ready = container["readinessProbe"]
    assert seconds >= ready["periodSeconds"] * ready["failureThreshold"]


def test_the_root_is_read_only_and_what_is_written_has_a_volume() -> None:
    """Caches and temporary files; each volume is mounted and each mount has its volume."""
    for one in of_kind("Deployment", base()).values():
        pod = one["spec"]["template"]["spec"]
        container = pod["containers"][0]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert pod["securityContext"]["runAsNonRoot"]
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}
    _, container = deployment(base())
    assert {"/cache", "/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_autoscaler_asks_what_the_adapter_answers() -> None:
    """By the same names; what the adapter asks of Prometheus is exposed (see test_monitoring)."""
    metrics = of_kind("HorizontalPodAutoscaler", base())["siglit"]["spec"]["metrics"]
    asked = {metric["pods"]["metric"]["name"] for metric in metrics}
    rules = yaml.safe_load((FOLDER / "adapter.yaml").read_text())["rules"]["custom"]
    assert asked == {rule["name"]["as"] for rule in rules}


def test_the_gpu_overlay_asks_for_a_card_and_the_cuda_image() -> None:
    """And the other one for neither."""
    _, gpu = deployment(manifests(built("gpu")))
    _, cpu = deployment(manifests(built("cpu")))
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert gpu["image"] == "siglit:cuda"
    assert cpu["image"] == "siglit:cpu"
    assert "nvidia.com/gpu" not in str(cpu["resources"])
