"""Which space vectors are from, told by two servers: what may be mixed and what may not."""

import asyncio
import base64
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench.rig.port import free_port
from bench.rig.server_process import ServerProcess
from litapi.__main__ import main
from litapi.checkpoint import DEMO, Checkpoint
from litapi.client import AsyncClient, SpaceChanged
from litapi.scoring import Array
from tests.support.checkpoint import write_weights
from tests.support.naive import Naive
from tests.support.picture import picture
from tests.support.stand_in import JSON, Reply, openai_form, stand_in

SPACE = Checkpoint.open(DEMO).space


@pytest.fixture(scope="module")
def half() -> Iterator[ServerProcess]:
    """The same model in bfloat16, on the other engine, behind a key."""
    flags = ("--engine", "torch", "--precision", "bfloat16", "--api-keys", "secret")
    with ServerProcess(*flags) as running:
        yield running


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A model of the same size with other weights, as after more training."""
    folder = shutil.copytree(DEMO, tmp_path_factory.mktemp("other") / "model")
    random = torch.Generator().manual_seed(0)
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if weight.numel() > 1:
            noise = torch.randn(weight.shape, generator=random)
            weights[name] = weight + 0.5 * weight.std() * noise
    write_weights(folder / "model.safetensors", weights)
    with ServerProcess("--model", str(folder)) as running:
        yield running


class Said:
    def __init__(self, *arguments: str) -> None:
        """A run of the command."""
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as error:
            self.code = main(["compare-spaces", *arguments])
        self.lines, self.error = out.getvalue().splitlines(), error.getvalue()
        self.verdict = self.lines[-1] if self.lines else ""


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """A file of two texts, one of them twice."""
    path = tmp_path / "texts.txt"
    path.write_text("a red circle\na blue star\na red circle\n")
    return str(path)


def test_one_model_in_two_precisions_may_mix(server: ServerProcess, half: ServerProcess) -> None:
    """The precisions are stated, and how near the vectors are."""
    said = Said(server.url, half.url, "--key", "secret")
    assert said.code == 0, said.error
    assert "text float32" in said.lines[0]
    assert "text bfloat16" in said.lines[1]
    assert all(f"space {SPACE}" in line for line in said.lines[:2])
    assert said.lines[2].startswith("65 texts: cosine 0.9999")
    assert said.lines[3].startswith("48 pictures: cosine 0.9999")
    assert said.verdict.startswith("They may be mixed: they are of one space, and the least")
    assert float(said.verdict.rstrip(".").split()[-1]) > 0.99


def test_another_model_may_not_be_mixed(server: ServerProcess, other: ServerProcess) -> None:
    """Though it has as many numbers and finds much the same."""
    said = Said(server.url, other.url)
    assert said.code == 1, said.error
    assert SPACE not in said.lines[1]
    assert said.verdict.startswith("They may not be mixed: texts and pictures do not have")


def test_a_sample_of_ones_own_is_compared_item_by_item(
    server: ServerProcess, texts: str, tmp_path: Path
) -> None:
    """None twice; what a server refuses is counted and left out."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(6300 + number))
    (tmp_path / "broken.jpg").write_bytes(b"none")
    said = Said(*[server.url] * 2, "--sample", texts, str(tmp_path), "--verbose")
    assert said.code == 0, said.error
    shown = [line.strip() for line in said.lines if line.startswith("      ")]
    assert [line.split("  ")[0] for line in shown] == ["1.00000"] * 5
    assert shown[0].endswith("'a red circle'")
    assert shown[4].endswith("2.png'")
    assert "1 pictures were refused" in said.lines


def test_a_server_of_another_make_is_measured(server: ServerProcess) -> None:
    """A script around transformers serves the same model, and one that pads wrong does not."""

    def embed(naive: Naive, items: Sequence[str]) -> Array:
        if items[0].startswith("data:"):
            return naive.pictures([base64.b64decode(one.split(",")[1]) for one in items])
        return naive.texts(items)

    with stand_in(openai_form(lambda items: embed(Naive(), items))) as url:
        said = Said(server.url, url)
    assert said.code == 0, said.error
    assert "space not told, a/model" in said.lines[1]
    assert said.verdict.startswith("They may be mixed: they do not say the same space, yet")
    with stand_in(openai_form(lambda items: embed(Naive(pad=None), items))) as url:
        assert Said(url, server.url).verdict.startswith("They may not be mixed: texts do")


def test_without_a_space_a_sample_of_one_kind_proves_nothing(
    server: ServerProcess, texts: str
) -> None:
    """A server of before the header may have the same texts and other pictures."""

    def older(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        kept = {n: v for n, v in headers.items() if n.lower() in ("content-type", "accept")}
        answer = httpx.request(method, server.url + path, headers=kept, content=body, timeout=60)
        if path != "/info":
            told = {n: v for n, v in answer.headers.items() if n != "x-embedding-space"}
            return answer.status_code, told, answer.content
        info = answer.json()
        del info["model"]["space"]
        return 200, JSON, json.dumps(info).encode()

    with stand_in(older) as url:
        alone, both = (Said(server.url, url, *more) for more in (["--sample", texts], []))
    assert (alone.code, both.code) == (1, 0), (alone.error, both.error)
    assert "a sample of one kind" in alone.verdict
    assert "space not told, siglit-demo" in both.lines[1]


def test_vectors_of_another_size_may_not_be_mixed(server: ServerProcess, texts: str) -> None:
    """The sizes are said; a server whose texts and pictures differ in size is no better."""

    def odd(items: Sequence[str]) -> Array:
        return np.ones((len(items), 5 if items[0].startswith("data:") else 3))

    with stand_in(openai_form(odd)) as url:
        said = Said(server.url, url, "--sample", texts)
        twice = Said(url, url)
    assert (said.code, twice.code) == (1, 1), said.error
    assert said.verdict == "They may not be mixed: some vectors have 3 numbers and some 96."
    assert twice.verdict == "They may not be mixed: some vectors have 3 numbers and some 5."


def test_what_cannot_be_compared_is_one_line(
    server: ServerProcess, half: ServerProcess, texts: str, tmp_path: Path
) -> None:
    """No server, no URL, no key, pages instead of vectors, no sample: exit code 2."""
    (tmp_path / "empty").mkdir()
    ours, nobody = server.url, f"http://127.0.0.1:{free_port()}"

    def page(*_: object) -> Reply:
        return 200, {"content-type": "text/html"}, b"<html>"

    with (
        stand_in(page) as pages,
        stand_in(openai_form(lambda items: [[1.0]] * (len(items) - 1))) as short,
        stand_in(openai_form(lambda items: [[1.0] * n for n in range(len(items))])) as ragged,
    ):
        wrong = [
            ("no server answers", [ours, nobody]),
            ("nonsense", [ours, "nonsense"]),
            ("no URL", [ours, "http://\x07"]),
            (half.url, [ours, half.url]),
            (f"{pages}/v1/models", [ours, pages]),
            ("no row of numbers", [ours, short, "--sample", texts]),
            ("no row of numbers", [ours, ragged, "--sample", texts]),
            ("does not exist", [ours, ours, "--sample", str(tmp_path / "gone.txt")]),
            ("neither texts nor pictures", [ours, ours, "--sample", str(tmp_path / "empty")]),
        ]
        for sentence, arguments in wrong:
            said = Said(*arguments)
            assert (said.code, said.verdict.startswith("They may")) == (2, False), said.lines
            assert sentence in said.error
            assert said.error.count("\n") == 1, said.error


class Balancer(httpx.AsyncHTTPTransport):
    """Sends requests to whichever server is set."""

    target = ""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(port=httpx.URL(self.target).port)
        return await super().handle_async_request(request)


def test_a_client_does_not_mix_spaces(server: ServerProcess, other: ServerProcess) -> None:
    """The call in which another model answers fails; the next is of the new one alone."""

    async def ask() -> list[str | None]:
        balancer = Balancer()
        balancer.target = server.url
        async with AsyncClient(server.url, transport=balancer) as client:
            spaces = [(await client.embed_texts(["a"], on_error="return")).space]
            balancer.target = other.url
            with pytest.raises(SpaceChanged, match=SPACE):
                await client.embed_texts(["b"])
            spaces.append((await client.embed_texts(["b"], on_error="return")).space)
            balancer.target = server.url
            with pytest.raises(SpaceChanged, match=SPACE):
                await client.embed_images([picture(1)])
            return [*spaces, await client.space()]

    first, second, third = asyncio.run(ask())
    assert first == third == SPACE
    assert second not in (SPACE, None)
