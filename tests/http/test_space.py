"""Every answer that is made of vectors says which space they are from, and no other answer does."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from litapi.checkpoint import DEMO, Checkpoint
from tests.support.picture import picture

SPACE = Checkpoint.open(DEMO).space
HEADER = "x-embedding-space"
OCTETS = {"accept": "application/octet-stream"}


def documented(client: httpx.Client) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Every route that embeds with the bodies that /docs shows for it."""
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        if "post" in methods:
            content = methods["post"]["requestBody"]["content"]["application/json"]
            yield path, [one["value"] for one in content["examples"].values()]


def test_each_route_that_embeds_says_the_space_and_a_refusal_does_not(client: httpx.Client) -> None:
    """With the bodies of /docs, some of which a server refuses by default, and with none."""
    walked = set()
    for path, bodies in documented(client):
        for body in [*bodies, {}]:
            answer = client.post(path, json=body)
            assert answer.headers.get(HEADER) == (SPACE if answer.is_success else None), path
            walked |= {path} if answer.is_success else set()
    assert walked == {path for path, _ in documented(client)}


def test_text_and_image_in_every_form_are_of_the_space_that_info_states(
    client: httpx.Client,
) -> None:
    """JSON, raw rows and raw pictures; computed, from memory, and answered whole again."""
    text: dict[str, Any] = {"json": {"texts": ["a space"]}}
    ways = {
        "/embed_text": [text, text, text, text | {"headers": OCTETS}],
        "/embed_image": [
            {"content": picture(2200), "headers": OCTETS | {"content-type": "image/png"}}
        ],
    }
    answers = [client.post(path, **way) for path, some in ways.items() for way in some]
    assert [answer.headers[HEADER] for answer in answers] == [SPACE] * 5
    assert client.get("/info").json()["model"]["space"] == SPACE


@pytest.mark.parametrize("path", ["/info", "/v1/models", "/livez", "/readyz", "/docs", "/nowhere"])
def test_an_answer_without_vectors_says_no_space(client: httpx.Client, path: str) -> None:
    """By GET and by HEAD."""
    assert HEADER not in client.get(path).headers
    assert HEADER not in client.head(path).headers
