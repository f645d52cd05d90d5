"""The bare towers: what they time is the whole way from an item to its vector, or its end."""

import numpy as np
import pytest

from bench.compare.baselines.bare import Bare, summaries
from bench.compare.baselines.system import Ground
from bench.load.level import Level
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


@pytest.mark.parametrize("ready", [False, True])
def test_every_batch_is_a_sample_of_that_many_items(ready: bool) -> None:
    """One after another, for as long as the level lasts."""
    bare = Bare("text", DEMO, threads=1)
    for size in (2, 5):
        samples = bare.run(Level(1, 1, duration=0.1), Workload("text", size), ready)
        assert {one.items for one in samples} == {size}
        assert len(samples) >= 2
        ends = [one.done for one in samples]
        starts = [one.sent for one in samples]
        assert all(start >= end for start, end in zip(starts[1:], ends, strict=False))


@pytest.mark.parametrize("ready", [False, True])
def test_a_run_has_a_summary_for_each_size(ready: bool) -> None:
    """Of good batches, two at least."""
    found = summaries("text", Ground(DEMO, cores=1), "float32", (2, 5), 0.1, 0, ready)
    assert [one.level for one in found] == ["batch 2", "batch 5"]
    assert all(one.good == one.requests >= 2 for one in found)
