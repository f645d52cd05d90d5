"""The price of each type: reading rows by their headers, and a short real run."""

from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest

from bench.micro.output_types import TYPES, main, rows_of
from bench.rig.server_process import ServerProcess


def answer(body: bytes, shape: str, dtype: str) -> httpx.Response:
    headers = {"x-embedding-shape": shape, "x-embedding-dtype": dtype}
    return httpx.Response(200, content=body, headers=headers)


@pytest.mark.parametrize(
    ("dtype", "body", "found"),
    [
        ("float32-le", np.array([[1, 0.5], [-2, 0]], "<f4").tobytes(), [[1, 0.5], [-2, 0]]),
        ("float16-le", np.array([[1, 0.5], [-2, 0]], "<f2").tobytes(), [[1, 0.5], [-2, 0]]),
        (  # each row has its scale after all rows
            "int8",
            np.array([[1, -2], [3, 4]], "i1").tobytes() + np.array([2, 10], "<f4").tobytes(),
            [[2, -4], [30, 40]],
        ),
    ],
)
def test_numbers_are_read_as_they_are(dtype: str, body: bytes, found: list[list[float]]) -> None:
    """Row after row."""
    assert rows_of(answer(body, "2,2", dtype)).tolist() == found


def test_dot_products_of_bits_rank_as_hamming_distance() -> None:
    """Equal bits add one and unequal ones take one away."""
    one, other = rows_of(answer(bytes([0b11110000, 0b11000001]), "2,1", "binary"))
    assert (one @ one, one @ other) == (8, 8 - 2 * 3)


def test_a_run_has_every_type(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the held-out pairs, where float32 finds every one, and fewer bytes never find more."""
    assert main(["--url", server.url, "--sets", "heldout", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    figures = orjson.loads(path.read_bytes())["figures"]
    assert [one["type"] for one in figures] == list(TYPES)
    assert [one["bytes"] for one in figures] == [96 * 4, 96 * 2, 96 + 4, 96 // 8]
    found = [one["retrieval"]["text_to_image"]["recall@1"] for one in figures]
    assert found[0] == 1
    assert found == sorted(found, reverse=True)
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(TYPES)
