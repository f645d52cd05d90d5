"""What is sent: distinct unless repeats are asked for, and the same for the same seed."""

import base64
import io
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from bench.load.workload import (
    DRAWINGS,
    SEEDS,
    SIZES,
    Caption,
    Picture,
    Repeats,
    Target,
    Workload,
    WorkloadError,
    drawings,
    folder,
    spelt,
)  # fmt: skip

PICTURES = drawings(0, 4)
TARGETS = pytest.mark.parametrize("target", ["text", "image", "mixed"])
LARGEST = (1 << 60) - 1
TAGS = some.integers(0, LARGEST)
FORMS = pytest.mark.parametrize("form", ["JPEG", "PNG"])


def workload(
    target: Target = "text", batch: int = 1, seed: int = 0, repeats: Repeats | None = None
) -> Workload:
    """With few pictures, so that it is made quickly."""
    return Workload(target, batch, seed, repeats, PICTURES)


def contents(source: Workload, many: int, level: int = 1) -> list[bytes]:
    """The bytes of all items of the first jobs of a level."""
    return [item.data for n in range(many) for item in source.job(level, n).items]


def universe(source: Workload) -> list[bytes]:
    """All that is sent before the first level."""
    return [item.data for n in range(source.primers) for item in source.primer(n).items]


@TARGETS
@pytest.mark.parametrize("batch", [1, 3])
def test_no_item_of_a_run_equals_another(target: Target, batch: int) -> None:
    """Across requests, batches and levels: a cache is of no help."""
    source = workload(target, batch)
    found = [data for level in (0, 1, 2) for data in contents(source, 300, level)]
    assert len(found) == 900 * batch
    assert len(set(found)) == len(found)


@TARGETS
def test_the_seed_settles_what_is_sent(target: Target) -> None:
    """The same byte for byte, and with another seed nothing of it, which a cache could hold."""
    one, again, other = (contents(workload(target, seed=seed), 200) for seed in (5, 5, 6))
    assert one == again
    assert not set(one) & set(other)


def test_a_job_depends_on_its_number_alone() -> None:
    """Processes may build them in any order, of a workload that was pickled on its way there."""
    source = workload("mixed", 2, repeats=Repeats(0.5))
    copy = pickle.loads(pickle.dumps(source))
    forward = [source.job(1, number) for number in range(40)]
    assert forward == [copy.job(1, number) for number in reversed(range(40))][::-1]


def test_a_job_is_all_of_one_kind_and_mixed_means_half_and_half() -> None:
    """Within five standard errors, and for every n-th request too."""
    source = workload("mixed", 4)
    found = [source.job(1, number) for number in range(2000)]
    assert all({item.kind for item in job.items} == {job.kind} for job in found)
    for every in (1, 2, 4):
        part = [job.kind for job in found[::every]]
        assert abs(part.count("image") / len(part) - 0.5) < 2.5 / len(part) ** 0.5


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_of_repeats_is_near_the_asked_one(share: float) -> None:
    """Items of the universe over all items, within five standard errors; the others stay new."""
    source = workload(repeats=Repeats(share, universe=20))
    hot, found = set(universe(source)), contents(source, 4000)
    fresh = [data for data in found if data not in hot]
    seen = 1 - len(fresh) / len(found)
    assert abs(seen - share) < 5 * (share * (1 - share) / len(found)) ** 0.5
    assert len(set(fresh)) == len(fresh)


def test_popularity_follows_zipf() -> None:
    """With exponent one the first comes about twice as often as the second, ten times the tenth."""
    source = workload(repeats=Repeats(1.0, universe=100, zipf=1.0))
    ranks, counts = universe(source), Counter(contents(source, 8000))
    assert counts[ranks[0]] / counts[ranks[1]] == pytest.approx(2, rel=0.2)
    assert counts[ranks[0]] / counts[ranks[9]] == pytest.approx(10, rel=0.3)


@pytest.mark.parametrize(("batch", "primers"), [(1, 10), (4, 3), (16, 1)])
def test_the_primers_send_the_whole_universe(batch: int, primers: int) -> None:
    """Each member at least once, in as few requests as a batch allows."""
    source = workload(batch=batch, repeats=Repeats(1.0, universe=10))
    assert source.primers == primers
    assert set(universe(source)) == set(contents(source, 400))


def test_drawings_come_in_all_sizes_and_both_formats() -> None:
    """Among them the camera's 640 × 480, which weighs what a photograph does."""
    made = drawings(0)
    found = [Image.open(io.BytesIO(data)) for data in made]
    assert len(found) == DRAWINGS
    assert {one.size for one in found} == set(SIZES)
    assert Counter(one.format for one in found) == {"JPEG": 16, "PNG": 8}
    assert (found[0].format, found[0].size) == ("JPEG", (640, 480))
    assert len(made[0]) > 20_000  # flat colours alone would compress to a tenth of it


def test_the_pictures_of_a_folder_are_sent(tmp_path: Path) -> None:
    """With the folders in it, JPEGs and PNGs by what they are; the same pixels, stamped."""
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "b.jpeg").write_bytes(PICTURES[0])
    (tmp_path / "a").write_bytes(PICTURES[2])
    (tmp_path / "notes.png").write_text("not a picture at all, whatever its name may say")
    found = folder(tmp_path)
    assert found == [PICTURES[2], PICTURES[0]]
    sent = Image.open(io.BytesIO(Workload("image", pictures=found[1:]).job(1, 0).items[0].data))
    assert sent.tobytes() == Image.open(io.BytesIO(PICTURES[0])).tobytes()


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    """Nothing could be sent."""
    with pytest.raises(WorkloadError, match="no JPEG and no PNG"):
        folder(tmp_path)


@pytest.mark.parametrize("seed", [-1, SEEDS])
def test_a_seed_beyond_its_bits_is_refused(seed: int) -> None:
    """It would share its items with another."""
    with pytest.raises(WorkloadError, match="between 0 and"):
        Workload(seed=seed)


def encoded(form: str, size: tuple[int, int] = (40, 30)) -> bytes:
    """A small picture with something on it."""
    shown = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, form)
    return buffer.getvalue()


ENCODED = {form: encoded(form) for form in ("JPEG", "PNG")}


@given(one=TAGS, other=TAGS)
def test_different_tags_are_spelt_differently(one: int, other: int) -> None:
    """And equal ones alike."""
    assert (spelt(one) == spelt(other)) == (one == other)


@pytest.mark.parametrize("tag", [-1, LARGEST + 1])
def test_a_tag_that_does_not_fit_is_refused(tag: int) -> None:
    """Cut short it would be another's."""
    with pytest.raises(ValueError, match="60 bits"):
        spelt(tag)


def test_a_caption_keeps_its_words_and_is_quoted_as_json() -> None:
    """Its name comes last; quotes and umlauts survive."""
    item = Caption('a "größer" circle').stamped(5)
    assert (item.kind, item.media_type) == ("text", "text/plain")
    assert item.data.decode().startswith('a "größer" circle, by ')
    assert orjson.loads(item.quoted) == item.data.decode()


@FORMS
def test_a_stamped_picture_shows_the_same(form: str) -> None:
    """Only its bytes are new: every pixel is as it was, and it may be sent as it is."""
    data = encoded(form)
    item = Picture(data).stamped(12345)
    before, after = (np.asarray(Image.open(io.BytesIO(one))) for one in (data, item.data))
    assert item.data != data
    assert (before == after).all()
    assert item.media_type == f"image/{form.lower()}"


@FORMS
@given(one=TAGS, other=TAGS)
def test_pictures_with_different_tags_are_different_bytes(form: str, one: int, other: int) -> None:
    """A cache that hashes bytes never meets one twice."""
    picture = Picture(ENCODED[form])
    assert (picture.stamped(one).data == picture.stamped(other).data) == (one == other)


@FORMS
@pytest.mark.parametrize("width", range(37, 43))
def test_a_picture_is_quoted_as_a_data_uri_of_the_same_bytes(form: str, width: int) -> None:
    """Base64 done in two parts is that of the whole, whatever the length."""
    item = Picture(encoded(form, (width, 30))).stamped(77)
    head, _, text = orjson.loads(item.quoted).partition(",")
    assert head == f"data:image/{form.lower()};base64"
    assert base64.b64decode(text, validate=True) == item.data


def test_the_checksum_of_a_png_stamp_is_right() -> None:
    """A strict reader would refuse a chunk with another."""
    item = Picture(ENCODED["PNG"]).stamped(LARGEST)
    with Image.open(io.BytesIO(item.data)) as picture:
        picture.verify()
        assert picture.info["Comment"] == f"{LARGEST:016x}"
