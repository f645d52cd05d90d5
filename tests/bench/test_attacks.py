"""The attacks of the table: what they send is what they say, and their judges are not blind."""

import asyncio
import io
import json
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from bench.faults import hostile
from bench.faults.attacks import HTTP_MB, Target, judge
from bench.faults.fuzz import MAKERS, faults, inputs
from bench.faults.row import Finding
from bench.faults.stage import Stage, post
from bench.faults.traffic import Tally
from bench.faults.vitals import Seen, Watch
from bench.rig.server_process import ServerProcess


def opened(picture: bytes) -> Image.Image:
    """The picture, decoded."""
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image


@pytest.mark.parametrize("restarts", [False, True])
def test_each_scan_of_the_slow_picture_takes_ten_bytes_and_it_still_decodes(restarts: bool) -> None:
    """So a few KB have hundreds of scans, each of which goes over all pixels."""
    few, many = (hostile.scanned_jpeg(n, side=64, restarts=restarts) for n in (1, 101))
    assert len(many) - len(few) == 1000
    assert opened(many).size == (64, 64)


def test_the_long_picture_is_a_line_that_decodes() -> None:
    """One pixel, and then the end of a line of thousands."""
    assert opened(hostile.long_bmp(5000)).size == (5000, 1)


def test_the_wide_pictures_have_few_bytes_and_all_channels() -> None:
    """They decode, each is another one by its note, and none has many bytes for its pixels."""
    webp, deep = hostile.even_webp(b"1", side=300), hostile.deep_png(b"1", side=300)
    assert opened(webp).mode == "RGBA"
    assert opened(deep).size == (300, 300)
    assert hostile.even_webp(b"22", side=300) != webp
    assert max(len(webp), len(deep)) < 20_000


def test_hostile_bodies_are_what_they_say() -> None:
    """Just below their size; JSON but for the base64 in it; 370 KB for three billion characters."""
    for name, body in hostile.nested(100_000).items():
        assert 0.9 * 100_000 < len(body) <= 100_000, name
    assert json.loads(hostile.nested(1000)["empty objects"])["images"][0] == {}
    for name, body in hostile.accents(40).items():
        assert json.loads(body), name
    captions = json.loads(hostile.amplified())
    labels = sum(map(len, captions["labels"]))
    assert len(captions["template"]) // len("{label}") * labels == 3 * 10**9


def test_the_neighbours_are_the_same_for_the_same_seed() -> None:
    """A failure can be played again, and there are many of each kind."""
    first, again = list(inputs(20)), list(inputs(20))
    assert first == again
    for maker in MAKERS:
        mine = {wire for kind, wire in first if kind == maker.__name__}
        assert len(mine) > 5, maker.__name__
        assert maker(Random(1)) == maker(Random(1))


ERROR = b'{"error":{"message":"a","type":"b","code":"c","param":null}}'


@pytest.mark.parametrize(
    ("heard", "wrong"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", []),
        (b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\r\n" + ERROR, []),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{}", []),
        (b"HTTP/1.1 200 OK\r\n\r\n{}HTTP/1.1 500 Oh\r\n\r\n" + ERROR, ["500"]),
        (b"HTTP/1.1 503 No\r\n\r\n" + ERROR, ["503"]),
        (b"HTTP/1.1 404 No\r\na: b\r\n\r\n{}", ["404 in no shared form"]),
        (b"", ["no answer"]),
        (b"oh", ["no answer"]),
    ],
)
def test_answers_on_a_connection_are_judged_one_by_one(heard: bytes, wrong: list[str]) -> None:
    """Any but 2xx and 4xx is wrong, and a 4xx without the shared form as well."""
    assert faults(heard) == wrong


def judged(seen: Seen, said: str = "400 invalid_json", *, whole: bool = False) -> Finding:
    """What the judge says of it, with a process of each role that had 100 MB idle."""
    server: Any = SimpleNamespace(url="a")
    stage, finding = Stage(long=True), Finding(long=True)
    stage.idle["a"] = {1: 100.0, 2: 100.0}
    asked: Any = SimpleNamespace(turn=lambda: Tally(sent=1, answered=1, seconds=[0.1]))
    watched: Any = SimpleNamespace(seen=seen)
    target = Target(server, False, 1.0, asked, asked, watched)
    target.said[said] += 1
    judge(stage, finding, target, whole=whole)
    return finding


def seen(front: float = 200.0, worker: float = 200.0, **changes: object) -> Seen:
    """Something harmless, with changes."""
    facts: dict[str, object] = {
        "roles": {1: "http", 2: "worker"},
        "peak": {1: front, 2: worker},
        "shared": [1.0, 2.0, 1.0],
        "asked": 10,
        "longest": 0.01,
    }
    return Seen(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        seen(front=HTTP_MB + 101), seen(worker=801.0), seen(shared=[0.0, 2000.0, 0.0]),
        seen(longest=0.3), seen(failed=1), seen(asked=0), seen(ended=["http process at 3001 MB"]),
        seen(roles={1: "http", 3: "worker"}, peak={1: 100.0, 3: 900.0}),
    ],
)  # fmt: skip
def test_what_passes_a_bound_does_not_hold(bad: Seen) -> None:
    """Each of them, also of a process that was not there before; what stays within does."""
    assert judged(seen()).broken == []
    assert len(judged(bad).broken) == 1


def test_of_all_at_once_what_is_left_counts() -> None:
    """Bounds of single attacks add up while they last; afterwards memory is flat."""
    for left, broken in ((250.0, 0), (350.0, 1)):
        after = seen(front=1200.0, last={1: left, 2: 100.0})
        assert len(judged(after, whole=True).broken) == broken


def test_a_500_to_the_attacker_does_not_hold() -> None:
    """What is refused is named."""
    assert judged(seen(), "500 internal").broken != []


def test_the_watcher_sees_what_processes_hold_and_who_answers(server: ServerProcess) -> None:
    """Both kinds of process of a real server, which answers all the time."""

    async def watched() -> Seen:
        async with Watch(server) as watch:
            await post(server.url, "/livez", b"", {}, "GET")
        return watch.seen

    found = asyncio.run(watched())
    assert set(found.roles.values()) == {"http", "worker"}
    assert found.failed == 0
    assert found.roles.keys() == found.first.keys() == found.last.keys()
    assert all(0 < found.first[pid] <= found.peak[pid] for pid in found.roles)
    assert not found.ended
