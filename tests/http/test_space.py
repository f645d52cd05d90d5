"""Every answer that is made of vectors says which space they are from, and no other answer does."""

import httpx
import pytest

from litapi.checkpoint import DEMO, Checkpoint
from tests.support.picture import picture

SPACE = Checkpoint.open(DEMO).space
HEADER = "x-embedding-space"


def test_each_route_that_embeds_says_the_space_and_a_refusal_does_not(client: httpx.Client) -> None:
    """With the bodies of /docs, some of which a server refuses by default, and with none.

    In JSON and as raw rows; computed, from memory, and answered whole again.
    """
    assert client.get("/info").json()["model"]["space"] == SPACE
    posts = client.get("/openapi.json").json()["paths"]
    routes = {path: methods["post"] for path, methods in posts.items() if "post" in methods}
    for path, route in routes.items():
        examples = route["requestBody"]["content"]["application/json"]["examples"].values()
        headers = [{}, {}, {}, {"accept": "application/octet-stream"}]
        answers = [
            client.post(path, json=body, headers=header)
            for body in [*(example["value"] for example in examples), {}]
            for header in headers
        ]
        assert any(answer.is_success for answer in answers), path
        for answer in answers:
            assert answer.headers.get(HEADER) == (SPACE if answer.is_success else None), path


def test_a_raw_picture_is_of_the_space(client: httpx.Client) -> None:
    """Sent as its bytes, as raw rows back."""
    headers = {"accept": "application/octet-stream", "content-type": "image/png"}
    answer = client.post("/embed_image", content=picture(2200), headers=headers)
    assert answer.headers[HEADER] == SPACE


@pytest.mark.parametrize("path", ["/info", "/v1/models", "/livez", "/readyz", "/docs", "/nowhere"])
def test_an_answer_without_vectors_says_no_space(client: httpx.Client, path: str) -> None:
    """By GET and by HEAD."""
    assert HEADER not in client.get(path).headers
    assert HEADER not in client.head(path).headers
