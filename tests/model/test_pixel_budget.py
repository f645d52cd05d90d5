"""The pixel budget: memory is bounded whatever arrives, and nothing waits for ever."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from PIL import Image

from litapi.errors import ImageUndecodable
from litapi.model.picture import PicturePolicy, PictureReader
from litapi.model.pixel_budget import PixelBudget
from litapi.settings import Settings
from tests.support.command import python

PHONE, WEIGHS = 12_200_000, 49_000_000  # pixels of a picture, and bytes while it is decoded


@pytest.mark.parametrize("threads", [1, 2, 8, 16])
def test_each_decoding_thread_can_have_a_picture_of_a_phone(threads: int) -> None:
    """Or threads would wait on a machine with many cores, as those with GPUs have."""
    budget = PixelBudget.of(Settings(), threads)
    with ExitStack() as pictures:
        for _ in range(threads):
            assert budget._fits(PHONE, WEIGHS)
            pictures.enter_context(budget.hold(PHONE, WEIGHS))


@pytest.mark.parametrize("threads", [2, 16])
def test_what_one_picture_may_take_does_not_depend_on_the_machine(threads: int) -> None:
    """A request that is refused here is refused everywhere."""
    budget = PixelBudget.of(Settings(), threads)
    assert budget.has_room_for(500 << 20)
    assert not budget.has_room_for((500 << 20) + 1)


def test_what_an_option_says_is_all_there_is() -> None:
    """However many threads decode; without a bound on bytes everything fits."""
    assert PixelBudget(1000).has_room_for(10**12)
    budget = PixelBudget.of(Settings(max_pixels_in_flight=100, decode_mb=1), 16)
    assert budget.most_bytes == 1 << 20
    assert not budget.has_room_for((1 << 20) + 1)
    with budget.hold(60):
        assert budget._fits(40, 1 << 20)
        assert not budget._fits(41, 0)
        assert not budget._fits(1, (1 << 20) + 1)


@pytest.mark.parametrize("cost", [(60, 0), (1, 60)], ids=["pixels", "bytes"])
def test_a_picture_that_does_not_fit_waits_until_there_is_room(cost: tuple[int, int]) -> None:
    """It goes on as soon as another is done; few pixels of many bytes each wait too."""
    budget = PixelBudget(100, most_bytes=100)
    entered = threading.Event()

    def late() -> None:
        with budget.hold(*cost):
            entered.set()

    with budget.hold(*cost):
        waiting = threading.Thread(target=late, daemon=True)
        waiting.start()
        assert not entered.wait(0.1)
        assert (budget.held, budget.held_bytes) == cost
    assert entered.wait(60)
    waiting.join(60)
    assert (budget.held, budget.held_bytes) == (0, 0)


def test_a_failure_gives_its_room_back() -> None:
    """A damaged picture must not shrink the budget, in which one too large is decoded alone."""
    budget = PixelBudget(100)
    with budget.hold(5000):
        assert budget.held == 5000
    with pytest.raises(ValueError, match="x"), budget.hold(80):
        raise ValueError("x")
    assert budget.held == 0


def test_many_threads_never_hold_more_than_the_budget() -> None:
    """Sixteen threads, 400 pictures of different sizes: the sum stays within."""
    budget = PixelBudget(100)
    highest: list[int] = []

    def decode(number: int) -> None:
        with budget.hold(number % 60 + 1):
            highest.append(budget.held)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(decode, range(400)))
    assert max(highest) <= 100
    assert budget.held == 0


def test_the_reader_holds_a_pictures_pixels_and_gives_them_back() -> None:
    """Good or damaged, nothing stays held."""
    budget = PixelBudget(1000)
    reader = PictureReader(PicturePolicy(), budget)
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(buffer, "PNG")
    assert reader.read(buffer.getvalue()).size == (40, 30)
    with pytest.raises(ImageUndecodable):
        reader.read(buffer.getvalue()[:60])
    assert budget.held == 0


def test_memory_is_given_back_after_a_large_picture() -> None:
    """The allocator would keep what many threads have freed."""
    code = (
        "import io, os; from PIL import Image; from litapi.model.picture import *\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def now(): return int(open('/proc/self/statm').read().split()[1]) * 4096 >> 20\n"
        "buffer = io.BytesIO(); Image.new('RGBA', (4000, 4000), (1, 2, 3, 4))"
        ".save(buffer, 'WEBP', lossless=True, method=0)\n"
        "reader = PictureReader()\n"
        "def size(picture): return picture.size\n"
        "before = now()\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    list(pool.map(lambda _: reader.use(buffer.getvalue(), size), range(8)))\n"
        "    print(now() - before)\n"
    )
    done = python(code)
    assert int(done.stdout) < 64
