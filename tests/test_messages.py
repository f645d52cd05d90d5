"""What crosses between the front and a worker: plain data, small as a pickle."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litapi.messages import Job, Reply

texts = st.lists(st.text(max_size=50), max_size=5)
images = st.lists(st.binary(max_size=50), max_size=5)
seconds = st.floats(0, 1e6)
NUMBERS = np.random.default_rng(0).standard_normal(64 * 768).astype("<f4").tobytes()
jobs = st.builds(
    Job, texts | images, st.integers(0, 4096), st.floats(0, allow_infinity=True), seconds
)
replies = st.builds(
    Reply,
    st.binary(max_size=64),
    st.lists(st.integers(0, 4096), max_size=4),
    st.lists(st.integers(0, 3), max_size=4),
    st.dictionaries(st.integers(0, 3), st.sampled_from(["image_empty", "worker_lost"])),
    seconds,
    seconds,
    seconds,
)


@given(jobs | replies)
def test_a_message_survives_the_queue(message: Job | Reply) -> None:
    """One side reads what the other wrote."""
    assert pickle.loads(pickle.dumps(message)) == message


@pytest.mark.parametrize("message", [Reply(NUMBERS, [64] * 64), Job([NUMBERS])])
def test_vectors_and_images_travel_raw(message: Job | Reply) -> None:
    """A pickle holds their bytes as they are, with little around them: no base64, no lists."""
    wire = pickle.dumps(message)
    assert NUMBERS in wire
    assert len(wire) - len(NUMBERS) < 1000
