"""Own pixels beside the reference's: the pure parts, and a short real run of the whole command."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from bench.load.photo import jpeg
from bench.micro.pixels import KINDS, THIN, PixelsDiffer, Ways, main
from bench.rig.random_checkpoint import SIZES, write_size


@pytest.fixture(scope="module", params=KINDS.values())
def ways(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    """Of each kind of checkpoint."""
    size = replace(SIZES[request.param], **THIN)
    return Ways(write_size(tmp_path_factory.mktemp("pixels") / "one", size))


@pytest.mark.parametrize("shape", [(640, 480), (100, 300)])
def test_both_ways_end_with_the_same_values(ways: Ways, shape: tuple[int, int]) -> None:
    """Nothing is raised."""
    ways.compare(jpeg(*shape))


def test_values_that_differ_in_one_bit_are_refused(
    ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A way that is fast and wrong is not measured."""
    table = ways._maker.table.copy()
    table.view("uint32")[128] ^= 1
    monkeypatch.setattr(ways._maker, "table", table)
    with pytest.raises(PixelsDiffer):
        ways.compare(jpeg(200, 150))


def test_a_short_run_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it costs here."""
    arguments = ["--sizes", "640x480", "320x200", "--rounds", "2", "--seconds", "0.01"]
    assert main([*arguments, "--out", str(tmp_path)]) in (0, 1)
    assert "640 × 480" in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    result = orjson.loads(path.read_bytes())
    assert [(one["kind"], one["width"]) for one in result["rows"]] == [
        (kind, width) for kind in KINDS for width in (640, 320)
    ]
    for one in result["rows"]:
        assert len(one["own_ms"]["rounds"]) == 2
        assert one["ratio"] > 0
    assert [one["at_most"] for one in result["targets"]] == [0.75, 0.75]
