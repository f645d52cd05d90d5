"""The engine gives what the server gives, in this process, and `litapi embed` what either does."""

import gc
import json
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bench.rig.port import free_port
from bench.rig.redis_server import RedisServer
from bench.rig.server_process import ServerProcess
from cache import State
from litapi import Engine
from litapi.__main__ import main
from litapi.checkpoint import DEMO, SPACE_KEY, Checkpoint, CheckpointError
from litapi.client import Client, ItemsRefused
from litapi.messages import Item
from litapi.settings import SettingsError
from tests.support.command import litapi
from tests.support.picture import picture


def test_vectors_equal_the_servers_to_the_bit(server: ServerProcess) -> None:
    """One at a time, for the last digits depend on what shares a batch; and nearly, in batches."""
    texts = [f"engine text {number}" for number in range(8)]
    pictures = [picture(4100 + number) for number in range(8)]
    with Client(server.url) as client, Engine.open(precision="float32", cache="off") as engine:
        for text, image in zip(texts[:4], pictures[:4], strict=True):
            assert np.array_equal(engine.texts([text]), client.embed_texts([text]))
            assert np.array_equal(engine.images([image]), client.embed_images([image]))
        np.testing.assert_allclose(engine.texts(texts), client.embed_texts(texts), atol=1e-6)
        np.testing.assert_allclose(
            engine.images(pictures), client.embed_images(pictures), atol=1e-6
        )
        asked = client.embed_texts(texts[:1], dimensions=5)
        assert np.array_equal(engine.texts(texts[:1], dimensions=5), asked)
        scores = [way.score(texts[:1], pictures[:1]) for way in (engine, client)]
        ranks = [way.classify(pictures[:1], ["red"]) for way in (engine, client)]
        assert engine.space == client.space() == engine.texts([], on_error="return").space
    assert np.array_equal(scores[0].probability, scores[1].probability)
    assert np.array_equal(ranks[0].cosine, ranks[1].cosine)


def test_items_are_refused_as_by_the_server() -> None:
    """By the same codes, each in its place."""
    with Engine.open() as engine:
        texts = engine.texts(["good", "", "a lone \ud800"], on_error="return")
        images = engine.images([picture(1), b"none", "gone.png", b""], on_error="return")
        with pytest.raises(ItemsRefused):
            engine.texts([""])
    said, seen = ({n: e.code for n, e in found.errors.items()} for found in (texts, images))
    assert said == {1: "text_empty", 2: "text_invalid"}
    assert seen == {1: "image_format_unsupported", 2: "image_missing", 3: "image_empty"}
    assert np.isnan(images.vectors).any(axis=1).tolist() == [False, True, True, True]


def test_what_was_asked_once_is_known() -> None:
    """From memory, and from a Redis that is named, in another engine too."""
    with RedisServer() as redis:
        with Engine.open(redis_url=redis.url) as engine:
            first = engine.texts(["kept"], on_error="return")
            assert engine.texts(["kept"], on_error="return").cached.all()
        with Engine.open(redis_url=redis.url) as engine:
            again = engine.texts(["kept"], on_error="return")
            found = engine.embed("text", [Item("text", "kept")])
    assert not first.cached.any()
    assert again.cached.all()
    assert np.array_equal(first.vectors, again.vectors)
    assert found.states == [State.HIT_L1]


def test_several_threads_may_ask_at_once() -> None:
    """Also for the first vector, while the tower is not loaded."""
    asked = [[f"{number} {n}" for n in range(30)] for number in range(4)]
    with Engine.open(precision="float32", cache="off") as engine:
        with ThreadPoolExecutor(4) as pool:
            found: list[Any] = list(pool.map(engine.texts, asked))
        alone: list[Any] = [engine.texts(texts) for texts in asked]
    np.testing.assert_allclose(found, alone, atol=1e-6)


def test_closing_ends_the_threads_and_frees_the_towers() -> None:
    """A notebook opens one after the other."""
    before = set(threading.enumerate())
    engine = Engine.open(cache="off")
    engine.images([picture(1)])
    rooms = [weakref.ref(room) for room in engine._rooms.values()]
    engine.close()
    engine.close()
    del engine
    gc.collect()
    left = [t for t in set(threading.enumerate()) - before if t.name != "tqdm_monitor"]
    for thread in left:
        thread.join(60)
    assert not any(thread.is_alive() for thread in left)
    assert [room() for room in rooms] == [None]


def test_a_folder_may_be_named_and_a_wrong_option_is_refused(tmp_path: Path) -> None:
    """In the words of the command line."""
    with Engine.open(str(DEMO)) as engine:
        assert engine.texts(["a"]).shape == (1, 96)
        with pytest.raises(ValueError, match="dimensions"):
            engine.texts(["a"], dimensions=97)
    for option, value in (("precision", "float3"), ("colour", "red")):
        with pytest.raises(SettingsError, match=f"--{option}"):
            Engine.open(**{option: value})
    with pytest.raises(CheckpointError):
        Engine.open(str(tmp_path / "none"))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two texts, a folder of a picture and a damaged one, and a text again."""
    (tmp_path / "a.txt").write_text("first\n\nsecond\n")
    (tmp_path / "images" / "deep").mkdir(parents=True)
    (tmp_path / "images" / "deep" / "one.png").write_bytes(picture(5100))
    (tmp_path / "images" / "zero.jpg").write_bytes(b"none")
    (tmp_path / "b.txt").write_text("third")
    return [str(tmp_path / name) for name in ("a.txt", "images", "b.txt")]


def test_items_are_written_in_the_order_of_the_arguments(
    server: ServerProcess, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same vectors as JSON lines, matrix and Parquet; a refused item is named, exit code 1."""
    assert main(["embed", *files, "--url", server.url]) == 1
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    names = [Path(row["item"]).name for row in rows]
    assert said.err.strip().endswith("1 refused")
    assert names == ["first", "second", "one.png", "zero.jpg", "third"]
    assert rows[3]["error"] == "image_format_unsupported"
    for suffix in ("npy", "parquet"):
        main(["embed", *files, "--url", server.url, "--out", str(tmp_path / f"o.{suffix}")])
        assert capsys.readouterr().out == ""
    matrix, table = np.load(tmp_path / "o.npy"), pq.read_table(tmp_path / "o.parquet")
    assert table.schema.metadata[SPACE_KEY].decode() == Checkpoint.open(DEMO).space
    assert np.isnan(matrix[3]).all()
    for row, numbers, written in zip(rows, matrix, table.to_pylist(), strict=True):
        assert written["error"] == row.get("error")
        if "error" in row:
            assert written["embedding"] is None
        else:
            assert np.array_equal(numbers, np.array(row["embedding"], np.float32))
            assert np.array_equal(numbers, np.array(written["embedding"], np.float32))
    assert sorted(path.name for path in tmp_path.glob("*o.*")) == ["o.npy", "o.parquet"]


def test_without_a_server_it_computes_here(server: ServerProcess) -> None:
    """The vectors of a server with the same options."""
    here = litapi("embed", "-", "--precision", "float32", said="from a pipe\n")
    there = litapi("embed", "-", "--url", server.url, said="from a pipe\n")
    assert here.returncode == 0, here.stderr
    assert here.stdout == there.stdout


def test_what_cannot_be_embedded_is_one_line(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No server, no file, no such form, no such precision; and nothing is left behind."""
    out = str(tmp_path / "o.npy")
    wrong = {
        "no server": [*files, "--url", f"http://127.0.0.1:{free_port()}", "--out", out],
        "does not exist": [str(tmp_path / "gone.txt")],
        "only .jsonl": [*files, "--out", "o.csv"],
        "precision": [*files, "--precision", "float3"],
    }
    for sentence, arguments in wrong.items():
        assert main(["embed", *arguments]) == 2
        said = capsys.readouterr().err
        assert sentence in said
        assert said.count("\n") == 1
    assert not [*tmp_path.glob("*o.npy*")]
