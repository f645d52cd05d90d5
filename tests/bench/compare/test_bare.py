"""The bare towers: what they time is the whole way from an item to its vector, or its end."""

from pathlib import Path

import numpy as np
import pytest

from bench.compare.baselines.bare import Bare, main
from bench.load.recording import Recording
from bench.load.workload import Kind, Workload
from bench.reference import Reference, cosine
from bench.rig.random_checkpoint import DEMO
from litapi.model.picture import PictureReader


@pytest.mark.parametrize("kind", ["text", "image"])
def test_their_vectors_are_right(kind: Kind) -> None:
    """The ceiling computes what the service computes."""
    job = Workload(kind, batch=3).job(1, 0)
    bare = Bare(kind, DEMO, threads=1)
    vectors = np.asarray(bare.embed(bare.prepare(job)))
    reference = Reference(DEMO)
    for item, vector in zip(job.items, vectors, strict=True):
        if kind == "text":
            right = reference.text(item.data.decode())
        else:
            right = reference.image(PictureReader().read(item.data))
        assert cosine(vector, right) > 0.9999


def test_they_compute_in_the_precision_they_are_told() -> None:
    """Close to float32, and not the same."""
    job = Workload("text", batch=3).job(1, 0)
    exact, coarse = (Bare("text", DEMO, 1, precision) for precision in ("float32", "int8"))
    one, other = (np.asarray(bare.embed(bare.prepare(job))) for bare in (exact, coarse))
    assert not np.array_equal(one, other)
    assert min(cosine(a, b) for a, b in zip(one, other, strict=True)) > 0.99


@pytest.mark.parametrize("ready", [[], ["--ready"]])
def test_a_run_is_a_recording_with_a_level_for_each_size(tmp_path: Path, ready: list[str]) -> None:
    """Every batch is a sample of that many items, one after another."""
    path = tmp_path / "bare.jsonl"
    arguments = [str(DEMO), "--batches", "2,5", "--seconds", "0.1", "--threads", "1", *ready]
    assert main([*arguments, "--out", str(path)]) == 0
    recording = Recording.read(path)
    assert not recording.partial
    assert [{one.items for one in stage.samples} for stage in recording.measured] == [{2}, {5}]
    for stage in recording.measured:
        assert len(stage.samples) >= 2
        ends = [one.done for one in stage.samples]
        starts = [one.sent for one in stage.samples]
        assert all(start >= end for start, end in zip(starts[1:], ends, strict=False))
