"""The engine gives what the server gives, in this process."""

import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from bench.rig.redis_server import RedisServer
from bench.rig.server_process import ServerProcess
from cache import State
from litapi import Engine
from litapi.checkpoint import DEMO, CheckpointError
from litapi.client import Client, ItemsRefused
from litapi.messages import Item
from litapi.settings import SettingsError
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
    codes = {place: error.code for place, error in (images.errors).items()}
    assert codes == {1: "image_format_unsupported", 2: "image_missing", 3: "image_empty"}
    assert {place: one.code for place, one in texts.errors.items()} == {
        1: "text_empty",
        2: "text_invalid",
    }
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
    found = {}
    with Engine.open(precision="float32", cache="off") as engine:

        def ask(number: int) -> None:
            found[number] = engine.texts([f"{number} {n}" for n in range(30)])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, vectors in found.items():
            alone = engine.texts([f"{number} {n}" for n in range(30)])
            np.testing.assert_allclose(vectors, alone, atol=1e-6)
    assert len(found) == 4


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
    with pytest.raises(SettingsError, match="--precision"):
        Engine.open(precision="float3")
    with pytest.raises(SettingsError, match="--colour"):
        Engine.open(colour="red")
    with pytest.raises(CheckpointError):
        Engine.open(str(tmp_path / "none"))
