"""What is sent: distinct unless repeats are asked for, and the same for the same seed."""

import io
import pickle
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from bench.load.workload import (
    DRAWINGS,
    SEEDS,
    SIZES,
    Job,
    Repeats,
    Target,
    Workload,
    WorkloadError,
    captions,
    drawings,
    folder,
)

PICTURES = drawings(0, 4)


def workload(
    target: Target = "text", batch: int = 1, seed: int = 0, repeats: Repeats | None = None
) -> Workload:
    """With few pictures, so that it is made quickly."""
    return Workload(target, batch, seed, repeats, PICTURES)


def jobs(source: Workload, many: int, level: int = 1) -> list[Job]:
    """The first jobs of a level."""
    return [source.job(level, number) for number in range(many)]


def contents(source: Workload, many: int, level: int = 1) -> list[bytes]:
    """The bytes of all their items."""
    return [item.data for job in jobs(source, many, level) for item in job.items]


@pytest.mark.parametrize("target", ["text", "image", "mixed"])
@pytest.mark.parametrize("batch", [1, 3])
def test_no_item_of_a_run_equals_another(target: Target, batch: int) -> None:
    """Across requests, batches and levels: a cache is of no help."""
    source = workload(target, batch)
    found = [data for level in (0, 1, 2) for data in contents(source, 300, level)]
    assert len(found) == 900 * batch
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("target", ["text", "image", "mixed"])
def test_the_same_seed_sends_the_same(target: Target) -> None:
    """A run can be had again, byte for byte."""
    assert contents(workload(target, seed=5), 50) == contents(workload(target, seed=5), 50)


@pytest.mark.parametrize("target", ["text", "image", "mixed"])
def test_another_seed_sends_nothing_of_it(target: Target) -> None:
    """A run does not meet the cache of a run with another seed."""
    one, other = contents(workload(target, seed=5), 200), contents(workload(target, seed=6), 200)
    assert not set(one) & set(other)


def test_a_job_depends_on_its_number_alone() -> None:
    """Processes may build them in any order."""
    source = workload("mixed", 2, repeats=Repeats(0.5))
    forward = [source.job(1, number) for number in range(40)]
    backward = [source.job(1, number) for number in reversed(range(40))]
    assert forward == backward[::-1]


def test_a_copy_in_another_process_sends_the_same() -> None:
    """A workload is pickled on its way there."""
    source = workload("mixed", repeats=Repeats(0.3))
    copy = pickle.loads(pickle.dumps(source))
    assert contents(copy, 50) == contents(source, 50)


def test_a_job_is_all_of_one_kind() -> None:
    """The service's own routes take texts or images."""
    for job in jobs(workload("mixed", 4), 50):
        assert {item.kind for item in job.items} == {job.kind}


def test_mixed_means_half_and_half() -> None:
    """Within five standard errors, and for every n-th request too."""
    kinds = [job.kind for job in jobs(workload("mixed"), 2000)]
    for every in (1, 2, 4):
        part = kinds[::every]
        assert abs(part.count("image") / len(part) - 0.5) < 2.5 / len(part) ** 0.5


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_of_repeats_is_near_the_asked_one(share: float) -> None:
    """Items of the universe over all items, within five standard errors."""
    source = workload(repeats=Repeats(share, universe=20))
    hot = {item.data for n in range(source.primers) for item in source.primer(n).items}
    found = contents(source, 4000)
    seen = sum(data in hot for data in found) / len(found)
    assert abs(seen - share) < 5 * (share * (1 - share) / len(found)) ** 0.5


def test_an_ideal_cache_that_was_primed_hits_as_often_as_aimed() -> None:
    """What the table's last column should show."""
    source = workload(batch=4, repeats=Repeats(0.8, universe=50))
    cache = {item.data for n in range(source.primers) for item in source.primer(n).items}
    hits = 0
    found = contents(source, 1000)
    for data in found:
        hits += data in cache
        cache.add(data)
    assert hits / len(found) == pytest.approx(0.8, abs=0.04)


def test_popularity_follows_zipf() -> None:
    """With exponent one the first comes about twice as often as the second, ten times the tenth."""
    source = workload(repeats=Repeats(1.0, universe=100, zipf=1.0))
    ranks = [source.primer(n).items[0].data for n in range(source.primers)]
    counts = Counter(contents(source, 8000))
    assert counts[ranks[0]] / counts[ranks[1]] == pytest.approx(2, rel=0.2)
    assert counts[ranks[0]] / counts[ranks[9]] == pytest.approx(10, rel=0.3)


def test_exponent_zero_makes_all_equally_popular() -> None:
    """Each of ten gets a tenth."""
    counts = Counter(contents(workload(repeats=Repeats(1.0, universe=10, zipf=0.0)), 5000))
    assert len(counts) == 10
    assert all(many == pytest.approx(500, rel=0.25) for many in counts.values())


def test_all_levels_repeat_the_same_universe() -> None:
    """So that it has to be sent only once."""
    source = workload(repeats=Repeats(1.0, universe=5))
    assert set(contents(source, 200, 1)) == set(contents(source, 200, 2))


def test_what_is_new_stays_new_beside_repeats() -> None:
    """No fresh item is ever sent twice or belongs to the universe."""
    source = workload(repeats=Repeats(0.5, universe=10))
    hot = {item.data for n in range(source.primers) for item in source.primer(n).items}
    fresh = [data for data in contents(source, 2000) if data not in hot]
    assert len(fresh) > 800
    assert len(set(fresh)) == len(fresh)


@pytest.mark.parametrize(("batch", "primers"), [(1, 10), (4, 3), (16, 1)])
def test_the_primers_send_the_whole_universe(batch: int, primers: int) -> None:
    """Each member at least once, in as few requests as a batch allows."""
    source = workload(batch=batch, repeats=Repeats(1.0, universe=10))
    assert source.primers == primers
    sent = {item.data for n in range(primers) for item in source.primer(n).items}
    assert sent == set(contents(source, 400))


def test_a_mixed_universe_is_primed_with_both_kinds() -> None:
    """Each kind has its members."""
    source = workload("mixed", repeats=Repeats(1.0, universe=6))
    sent = {(job.kind, job.items[0].data) for job in map(source.primer, range(source.primers))}
    assert Counter(kind for kind, _ in sent) == {"text": 6, "image": 6}
    assert {(job.kind, job.items[0].data) for job in jobs(source, 600)} == sent


def test_captions_vary_in_length() -> None:
    """From a few words to a few dozen."""
    words = [len(text.split()) for text in captions(0)]
    assert min(words) < 6
    assert max(words) > 25


def test_drawings_come_in_all_sizes_and_both_formats() -> None:
    """Among them 640 × 480, the camera's."""
    found = [Image.open(io.BytesIO(data)) for data in drawings(0)]
    assert len(found) == DRAWINGS
    assert {one.size for one in found} == set(SIZES)
    assert (640, 480) in SIZES
    assert Counter(one.format for one in found) == {"JPEG": 16, "PNG": 8}


def test_drawn_jpegs_weigh_what_photographs_weigh() -> None:
    """Flat colours alone would compress to a tenth of it."""
    large = Image.open(io.BytesIO(drawings(0, 1)[0]))
    assert large.size == (640, 480)
    assert len(drawings(0, 1)[0]) > 20_000


def test_a_folder_is_read_with_the_folders_in_it(tmp_path: Path) -> None:
    """JPEGs and PNGs by what they are, not by how they are called."""
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "b.jpeg").write_bytes(PICTURES[0])
    (tmp_path / "a").write_bytes(PICTURES[2])
    (tmp_path / "notes.png").write_text("not a picture at all, whatever its name may say")
    assert folder(tmp_path) == [PICTURES[2], PICTURES[0]]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    """Nothing could be sent."""
    with pytest.raises(WorkloadError, match="no JPEG and no PNG"):
        folder(tmp_path)


def test_pictures_of_a_folder_are_sent() -> None:
    """The same pixels, stamped."""
    source = Workload("image", pictures=[PICTURES[0]])
    sent = Image.open(io.BytesIO(source.job(1, 0).items[0].data))
    assert sent.tobytes() == Image.open(io.BytesIO(PICTURES[0])).tobytes()


@pytest.mark.parametrize("seed", [-1, SEEDS])
def test_a_seed_beyond_its_bits_is_refused(seed: int) -> None:
    """It would share its items with another."""
    with pytest.raises(WorkloadError, match="between 0 and"):
        Workload(seed=seed)
