"""The LitAPIs: hooks that never raise for a bad item, under any loop."""

import base64
import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from PIL import Image

from bench.rig.port import free_port
from bench.rig.server_process import ROOT
from litapi.checkpoint import DEMO, Checkpoint, CheckpointError
from litapi.errors import ItemError
from litapi.messages import Job
from litapi.settings import Settings
from litapi.towers import Decoded, Embedded, ImageTower, Rows, TextTower, Tower
from tests.support.checkpoint import edit_json
from tests.support.desk import b64
from tests.support.encoded import encoded
from tests.support.patience import awaited
from tests.support.picture import picture

CHECKPOINT = Checkpoint.open(DEMO)

T = TypeVar("T", bound=Tower)


def _loaded(kind: type[T], **options: Any) -> T:
    tower = kind(Settings.model_validate(options), CHECKPOINT)
    tower.setup("cpu")
    return tower


@pytest.fixture(scope="module")
def text() -> TextTower:
    return _loaded(TextTower)


@pytest.fixture(scope="module")
def image() -> ImageTower:
    return _loaded(ImageTower)


def _through(tower: Tower, *jobs: Job) -> list[Rows]:
    return tower.unbatch(tower.submit(tower.batch([tower.decode_request(j) for j in jobs]))())


def test_only_short_texts_are_decoded_where_they_come(text: TextTower, image: ImageTower) -> None:
    """A long text or a picture would hold up the jobs behind it."""
    jobs: list[list[str]] = [["a red circle"], [], ["a" * 513], ["a red circle"] * 64]
    parts = [next(text.parts(Job(items)), None) for items in jobs]
    assert [part is None or part.quick for part in parts] == [True, True, False, False]
    assert not next(image.parts(Job([b""]))).quick


def test_base64_images_decode_as_raw_ones(image: ImageTower) -> None:
    """Jobs that came through JSON carry base64."""
    (raw,) = _through(image, Job([picture(4)]))[0]
    encoded, wrong = _through(image, Job([b64(picture(4)), "%%%"]))[0]
    assert isinstance(raw, Embedded)
    assert isinstance(encoded, Embedded)
    assert raw.vector.tolist() == encoded.vector.tolist()
    assert isinstance(wrong, ItemError)


def test_a_job_is_cut_into_parts_that_cover_it(text: TextTower, image: ImageTower) -> None:
    """Every item is in exactly one part, at its own index."""
    words = [str(n) for n in range(200)]
    pictures = [bytes([n]) for n in range(5)]
    for tower, job in ((text, Job(words)), (image, Job(pictures))):
        seen: dict[int, object] = {}
        for part in tower.parts(job):
            seen.update(enumerate(part.job.items, part.start))
        assert list(seen.values()) == list(job.items)
        assert sorted(seen) == list(range(len(job.items)))


def test_fewer_patches_cost_less(image: ImageTower) -> None:
    """The cost of a decoded image is its patches, and a request may ask for fewer."""
    whole, few = (image.decode_request(Job([picture(1)], max_num_patches=n))[0] for n in (0, 64))
    assert isinstance(whole, Decoded)
    assert isinstance(few, Decoded)
    assert few.cost <= 64 < whole.cost <= 256


def test_a_checkpoint_that_fails_its_check_is_refused_with_a_reason(tmp_path: Path) -> None:
    """The start-up check stands between a wrong tokenizer and wrong vectors."""
    folder = shutil.copytree(DEMO, tmp_path / "wrong")
    edit_json(folder / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3])
    tower = ImageTower(Settings(), Checkpoint.open(folder))
    tower.board = {}
    with pytest.raises(CheckpointError):
        tower.setup("cpu")
    assert "image_0_failure" in tower.board


STOCK = """
from litserve import LitServer
from litapi.checkpoint import Checkpoint, fetch
from litapi.settings import Settings
from litapi.towers import ImageTower, TextTower

if __name__ == "__main__":
    checkpoint = Checkpoint.open(fetch("", None))
    apis = [TextTower(Settings(), checkpoint), ImageTower(Settings(), checkpoint)]
    server = LitServer(apis, accelerator="cpu")
    server.run(host="127.0.0.1", port=PORT, num_api_servers=1, generate_client_file=False)
"""


def _healthy(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health", timeout=60).status_code == 200
    return False


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same LitAPIs under LitServe alone: its own loop, routes and server."""
    port = free_port()
    script = tmp_path_factory.mktemp("stock") / "stock.py"
    script.write_text(STOCK.replace("PORT", str(port)))
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, str(script)]
    process = subprocess.Popen(command, env=environment, start_new_session=True, **silent)
    url = f"http://127.0.0.1:{port}"
    try:
        awaited(lambda: _healthy(url), 300)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_same_apis_run_under_litserve_alone(stock: str, text: TextTower) -> None:
    """`LitServer([TextTower, ImageTower])` as LitServe's documentation shows, over its own HTTP."""
    answer = httpx.post(f"{stock}/text", json={"items": ["a red circle", "b"]}, timeout=60)
    assert answer.status_code == 200
    row = np.frombuffer(base64.urlsafe_b64decode(answer.json()["vectors"]), "<f4").reshape(2, -1)[0]
    here = _through(text, Job(["a red circle"]))[0][0]
    assert isinstance(here, Embedded)
    assert float(row @ here.vector) > 0.99999
    body = {"items": [b64(picture(1)), "%%%"]}
    images = httpx.post(f"{stock}/image", json=body, timeout=60).json()
    assert images["errors"] == {"1": "image_base64_invalid"}


def test_draft_decoding_is_used_where_it_is_allowed_and_only_there() -> None:
    """A large JPEG gets other pixels with `jpeg_draft`, and the same vector to 0.99."""
    image = Image.open(io.BytesIO(picture(6))).resize((2400, 1800))
    job = Job([encoded(image, "JPEG", quality=90)])
    patches, vectors = [], []
    for draft in (False, True):
        tower = _loaded(ImageTower, jpeg_draft=draft)
        (decoded,) = tower.decode_request(job)
        (row,) = _through(tower, job)[0]
        assert isinstance(decoded, Decoded)
        assert isinstance(row, Embedded)
        patches.append(decoded.value.patches)
        vectors.append(row.vector)
    assert not np.array_equal(*patches)
    assert float(vectors[0] @ vectors[1]) > 0.99


def test_a_worker_that_finds_other_files_does_not_serve(tmp_path: Path) -> None:
    """One that is started again after the model's folder was written over says so and ends."""
    folder = shutil.copytree(DEMO, tmp_path / "checkpoint")
    tower = TextTower(Settings(threads=1), Checkpoint.open(folder))
    tower.board = {}
    (folder / "config.json").touch()
    tower.setup("cpu")  # other times are not other files
    edit_json(folder / "preprocessor_config.json", image_mean=[0.4, 0.5, 0.5])
    with pytest.raises(CheckpointError, match="changed"):
        tower.setup("cpu")
    assert "start it anew" in tower.board["text_0_failure"]
