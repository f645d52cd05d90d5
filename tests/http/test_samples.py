"""What /docs shows, sent to a real server: what is shown is what happens."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import pytest

from litapi.http.samples import FACTS, SAMPLES, Sample

FRESH = {"cache-control": "no-cache"}  # the answers that are shown are those to a first request
CASES = [
    pytest.param(path, sample, id=f"{path} {sample.name}")
    for path, samples in SAMPLES.items()
    for sample in samples
]
AWAY = "/embed_image url"  # needs a network and a server that may use it


def about(value: Any) -> Any:
    """Equal, but for the last digits of numbers: another processor rounds another way."""
    if isinstance(value, Mapping):
        return {name: about(one) for name, one in value.items()}
    if isinstance(value, list):
        return [about(one) for one in value]
    return pytest.approx(value, rel=1e-3, abs=1e-3) if type(value) is float else value


@pytest.mark.parametrize(("path", "sample"), CASES)
def test_the_shown_answer_is_the_one_that_comes(
    client: httpx.Client, path: str, sample: Sample
) -> None:
    """Field by field; images by URL are refused by a server that was not told to fetch them."""
    answer = client.post(path, json=sample.request, headers=FRESH)
    if f"{path} {sample.name}" == AWAY:
        assert answer.json()["error"]["code"] == "image_url_disabled"
        return
    assert answer.status_code == 200
    if sample.request.get("encoding_format") == "base64":
        assert rows(answer.json()) == pytest.approx(rows(sample.response), abs=1e-3)
    else:
        assert answer.json() == about(sample.response)


def rows(content: Any) -> list[float]:
    """The numbers of the first vector."""
    return list(np.frombuffer(base64.b64decode(content["data"][0]["embedding"]), "<f4"))


def test_an_image_by_url_is_answered_as_any_other() -> None:
    """The one answer that the test above cannot ask for is that of the same image as base64."""
    image, _, url = SAMPLES["/embed_image"]
    assert url.response == image.response


@pytest.mark.parametrize("path", [path for path in FACTS if path != "/metrics"])
def test_a_shown_fact_has_the_fields_that_come(client: httpx.Client, path: str) -> None:
    """The values are those of another machine; the names are the same."""
    answer = client.get(path.format(model="siglit-demo"))
    assert answer.status_code == 200
    assert missing(FACTS[path], answer.json()) == []


def missing(shown: Any, real: Any, place: str = "") -> list[str]:
    """Names that are shown and do not come."""
    if isinstance(shown, Mapping):
        gone = [f"{place}.{name}" for name in shown if name not in real]
        inner = [missing(one, real[n], f"{place}.{n}") for n, one in shown.items() if n in real]
        return gone + [name for names in inner for name in names]
    if isinstance(shown, Sequence) and shown and isinstance(shown[0], Mapping):
        return missing(shown[0], real[0], f"{place}[0]")
    return []


def test_the_shown_metrics_come(client: httpx.Client) -> None:
    """Each of their lines, the values aside."""
    real = client.get("/metrics").text
    for line in FACTS["/metrics"].splitlines():
        assert line.rpartition(" ")[0] in real
