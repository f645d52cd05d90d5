"""Towers without a server: the counting, what is refused, the report, and a short real run."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.offline.__main__ import batches_of, main, opened, parser, planned
from bench.offline.stopwatch import (
    SIDES,
    Ceiling,
    EnergyMeter,
    each,
    multiplied,
    per_second,
    product,
)
from bench.offline.sweep import Plan, Point, Series, first_line, sweep, table
from bench.offline.tower import Tower, image_flop, text_flop
from bench.rig.random_checkpoint import SIZES, Size, write_size
from litapi.checkpoint import DEMO, Checkpoint
from litapi.model.encoder import PRECISIONS

CPU = torch.device("cpu")
TINY = {
    "siglip": Size("siglip", 64, 2, 2, 96, vocabulary=700, patch=8, image=48),
    "siglip2": Size("siglip2", 64, 2, 2, 96, vocabulary=700, patch=8, positions=36),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short ceilings; and a sweep sets torch's threads, of which other tests have their own."""
    monkeypatch.setattr("bench.offline.stopwatch.SECONDS", 0.01)
    monkeypatch.setitem(SIDES, "cpu", (64, 256))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A small NaFlex one."""
    return Checkpoint.open(write_size(tmp_path_factory.mktemp("one") / "one", TINY["siglip2"]))


@pytest.fixture(scope="module", params=TINY)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small one of each model type."""
    folder = tmp_path_factory.mktemp("offline") / request.param
    return Checkpoint.open(write_size(folder, TINY[request.param]))


def plan(**changes: Any) -> Plan:
    """The least there is to measure."""
    least = Plan({"text": (1,)}, ("float32",), (1,), rounds=1, seconds=0.0)
    return replace(least, **changes)


@pytest.mark.parametrize("tower", ["text", "image"])
def test_flop_are_those_that_torch_counts(checkpoint: Checkpoint, tower: str) -> None:
    """Of the way that is really gone, item by item, for both towers of both model types."""
    loaded = Tower(checkpoint, tower, "cpu", "float32", 1, engine="torch")
    # Not the fused attention: torch's counter does not know the CPU's.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loaded.batch(3)()
    once = 2 * TINY["siglip"].width ** 2 if tower == "image" else 0  # the query of the head's probe
    assert counter.get_total_flops() == 3 * loaded.flop + once


def test_a_run_that_is_longer_than_its_slice_counts_once() -> None:
    """A slice is never empty."""
    calls: list[int] = []
    assert per_second(lambda: calls.append(1), CPU, 0.0) > 0
    assert calls == [1]


def test_runs_that_are_queued_are_timed_together() -> None:
    """Three at least, after one that warms up and one that says how many fill the time."""
    calls: list[int] = []
    assert each(lambda: calls.append(1), CPU, 0.0) < 1.0
    assert len(calls) == 1 + 1 + 3


def test_quantized_towers_have_a_ceiling_of_their_own() -> None:
    """Those that only store fewer bits multiply floats all the same."""
    found = {name: multiplied(name) for name in PRECISIONS}
    own = {"int8": torch.int8, "float8": torch.float8_e4m3fn, "int8-weights": torch.bfloat16}
    assert own.items() <= found.items()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
def test_the_ceiling_is_a_product_of_two_squares(dtype: torch.dtype) -> None:
    """Finite numbers of many sizes, not an empty promise; measured at one of the sides."""
    result: Any = product(dtype, CPU, 64)()
    assert result.shape == (64, 64)
    assert torch.isfinite(result.float()).all()
    assert result.float().std() > 1
    ceiling = Ceiling(dtype, CPU)
    assert ceiling._side in SIDES["cpu"]
    assert ceiling.measure() > 0


def test_a_sweep_has_a_row_for_each_batch_of_each_series(one: Checkpoint) -> None:
    """Tower, precision, threads, batch, with a figure of each round."""
    wanted = plan(batches={"text": (1, 3), "image": (2,)}, threads=(1, 2), rounds=2)
    rows = sweep(one, wanted)
    assert [(row["tower"], row["threads"], row["batch"]) for row in rows] == [
        ("text", 1, 1), ("text", 1, 3), ("text", 2, 1), ("text", 2, 3), ("image", 1, 2),
        ("image", 2, 2),
    ]  # fmt: skip
    for row in rows:
        assert len(row["items_per_s"]["rounds"]) == 2
        assert row["gflop_per_s"] > 0
        assert row["ceiling_gflop_per_s"] > 0


def test_what_a_machine_refuses_is_a_row_with_the_reason(one: Checkpoint) -> None:
    """And the others are measured."""
    found = sweep(one, plan(precisions=("float8", "float32", "float64")))
    assert [row["precision"] for row in found] == ["float8", "float32", "float64"]
    assert ["refused" in row for row in found] == [True, False, True]
    assert "float8" in found[0]["refused"]


class Fragile(Tower):
    """A tower that breaks at a batch of 4, as one does that runs out of memory."""

    def __init__(self) -> None:
        self.flop = 10**6

    def batch(self, items: int) -> Callable[[], object]:
        def embed() -> None:
            if items >= 4:
                raise RuntimeError("out of memory\nand a long tale")

        return embed


@pytest.mark.parametrize(
    ("longest", "batches", "refused"),
    [(20.0, (8, 1, 4), "out of memory"), (0.0, (1, 4), "would take about 0 s, 0 are allowed")],
)
def test_a_batch_that_does_not_fit_or_takes_too_long_ends_its_series(
    longest: float, batches: tuple[int, ...], refused: str
) -> None:
    """What fitted is measured; of an error the first line is kept."""
    rows = Series(Fragile(), plan(longest=longest), "float32").rows(batches)
    assert [row["batch"] for row in rows] == [1, 4]
    assert rows[0]["items_per_s"]["median"] > 0
    assert rows[1]["refused"] == refused


def test_a_share_of_the_ceiling_is_taken_within_a_round() -> None:
    """A machine that is half as fast for a round changes no share."""
    point = Point(2, lambda: None, rates=[10.0, 5.0, 10.0])
    fields = point.fields(10**9, [20.0, 10.0, 20.0])
    assert fields["of_ceiling"] == 0.5
    assert fields["gflop_per_s"] == 10.0
    assert "watts" not in fields


def test_power_is_energy_over_time() -> None:
    """By a counter of joules, where there is one."""

    class Counter(EnergyMeter):
        used = 0.0

        def joules(self) -> float:
            self.used += 5.0
            return self.used

    point = Point(1, lambda: None)
    point.measure(CPU, Counter(CPU), 0.01)
    assert 0 < point.watts[0] <= 5.0 / 0.01
    assert point.fields(1, [1.0])["joules_per_item"] >= 0
    assert EnergyMeter(CPU).joules() is None


@pytest.mark.parametrize(
    ("said", "kept"), [("a\nb", "a"), ("", "RuntimeError"), ("x" * 999, "x" * 160)]
)
def test_of_an_error_one_line_is_kept(said: str, kept: str) -> None:
    """Libraries say much, or nothing."""
    assert first_line(RuntimeError(said)) == kept


def made(precision: str, threads: int, batch: int, **more: Any) -> dict[str, Any]:
    """A row without a run."""
    rate = {"rounds": [9.0], "median": 9.0 * batch, "low": 8.0 * batch, "high": 10.0 * batch}
    figures = {"gflop_per_item": 11.0, "gflop_per_s": 99.0, "ceiling_gflop_per_s": 198.0}
    names = {"tower": "image", "precision": precision, "threads": threads, "batch": batch}
    return {**names, "items_per_s": rate, **figures, "of_ceiling": 0.5, **more}


def test_the_table_has_a_line_for_each_row_and_each_refusal() -> None:
    """The reason stands where nothing was measured."""
    rows = [made(p, t, b) for p in ("float32", "int8") for t in (1, 2) for b in (1, 8)]
    rows.append({"tower": "image", "precision": "float8", "refused": "no such numbers"})
    lines = table(rows).splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + 8
    assert lines[-1] == "refused  image, float8: no such numbers"
    assert "50 %" in lines[2]


def test_a_column_stands_where_something_of_it_was_measured() -> None:
    """Memory and power on a GPU only; a row without them has a dash."""
    watts = {"rounds": [300.0], "median": 300.0, "low": 300.0, "high": 300.0}
    on_gpu = made("bfloat16", 1, 1, watts=watts, peak_memory_mb=1234, joules_per_item=0.25)
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")][-3:]
        for line in table([made("int8", 1, 1), on_gpu]).splitlines()
    ]
    assert cells[0] == ["GPU MB", "W", "J/item"]
    assert cells[2:] == [["–"] * 3, ["1234", "300", "0.25"]]
    assert "J/item" not in table([made("int8", 1, 1)])


SHORT = ["--model", "demo", "--batches", "1,2", "--precisions", "float32,float8",
         "--threads", "1", "--rounds", "1", "--seconds", "0.01"]  # fmt: skip


def test_a_short_run_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Result and table; and `--report` makes the same table of it again."""
    assert main([*SHORT, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    kept = orjson.loads((tmp_path / "offline-cpu.json").read_bytes())
    assert [(row["tower"], row.get("batch")) for row in kept["rows"]] == [
        ("text", 1), ("text", 2), ("text", None), ("image", 1), ("image", 2), ("image", None),
    ]  # fmt: skip
    assert kept["machine"]["cores"] >= 1
    assert kept["device"] == "cpu"
    assert main(["--report", str(tmp_path / "offline-cpu.json")]) == 0
    assert capsys.readouterr().out == printed


def test_a_result_stays_where_all_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong option does not cost the last good run."""
    (tmp_path / "offline-cpu.json").write_text("kept")
    assert main([*SHORT, "--precisions", "float8", "--out", str(tmp_path)]) == 2
    assert "float8" in capsys.readouterr().err
    assert (tmp_path / "offline-cpu.json").read_text() == "kept"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Before a checkpoint of gigabytes is written."""
    assert main(["--device", "cuda:0"]) == 2
    assert "cuda:0" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--towers", "text,sound"], ["--device", "abacus"]])
def test_a_wrong_option_is_named(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """By its value."""
    with pytest.raises(SystemExit):
        main([*SHORT, *wrong])
    assert wrong[1].rpartition(",")[2] in capsys.readouterr().err


def test_defaults_suit_the_device() -> None:
    """A CPU gets small batches and every precision, a GPU large ones in the two that matter."""
    options = parser().parse_args(["--device", "cpu"])
    assert planned(options).precisions == PRECISIONS
    assert max(planned(options).batches["image"]) == 8
    options = parser().parse_args(["--device", "cuda:0", "--towers", "image"])
    assert planned(options).precisions == ("bfloat16", "float32")
    assert planned(options).batches == {"image": (1, 8, 32, 128, 256)}
    assert planned(options).threads == (0,)


def test_batches_may_be_given_as_work(one: Checkpoint) -> None:
    """By the rule of a worker, for the towers of the plan; equal ones are measured once."""
    costs = replace(one, text_gflop=10.3, image_gflop=35.4)
    wanted = plan(batches={"image": (1,), "text": (1,)})
    found = batches_of(costs, wanted, [320.0, 80.0, 160.0, 81.0])
    assert found == {"text": [8, 16, 31], "image": [2, 5, 9]}
    assert list(batches_of(costs, plan(), [80.0])) == ["text"]


def test_a_named_size_is_made_and_taken_away_and_a_folder_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was made says that its weights are random."""
    monkeypatch.setitem(SIZES, "tiny", TINY["siglip"])
    with opened("tiny") as checkpoint:
        assert (checkpoint.name, checkpoint.dim) == ("tiny, random weights", 64)
    assert not checkpoint.folder.exists()
    folder = write_size(tmp_path / "mine", TINY["siglip2"])
    with opened(str(folder)) as checkpoint:
        assert checkpoint.name == "mine"
    assert folder.exists()
    with opened("demo") as checkpoint:
        assert checkpoint.folder == DEMO


@pytest.mark.parametrize(
    ("name", "text", "image", "patches"),
    [("base-patch16-224", 11.0, 35.4, 196), ("so400m-patch16-naflex", 53.1, 220.5, 256)],
)
def test_flop_of_the_true_sizes(name: str, text: float, image: float, patches: int) -> None:
    """In thousand millions; a text costs less than by the book, for one position is pooled."""
    from transformers import Siglip2Config

    first, second = SIZES[name].towers()
    config = Siglip2Config(text_config=first, vision_config=second)
    assert image_flop(config.vision_config, patches) / 1e9 == pytest.approx(image, rel=0.005)
    assert 0.9 * text < text_flop(config.text_config) / 1e9 < 0.99 * text
