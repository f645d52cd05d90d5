"""What crosses between the front and a worker: plain data, small as a pickle, readable as JSON."""

import base64
import json
import math
import pickle
import subprocess
import sys
import time
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from litapi.messages import KINDS, Item, Job, Kind, Reply

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


def test_the_kinds_are_those_of_the_type() -> None:
    """What the type checker allows is what the front walks through."""
    assert get_args(Kind) == KINDS


def test_an_item_is_its_kind_and_content_for_good() -> None:
    """As a key of a dictionary too; what was hashed for the cache is what is sent to the tower."""
    known = {Item("text", "a"), Item("text", "b")}
    assert known == {*known, Item("text", "a")}
    with pytest.raises(AttributeError):
        Item("text", "a").payload = "b"  # type: ignore[misc]


def test_a_job_without_wishes_has_all_the_time_and_the_models_own_patches() -> None:
    """LitServe's stock route builds jobs from JSON that may hold the items only."""
    job = Job(["a"])
    assert (job.max_num_patches, job.deadline, job.sent) == (0, math.inf, 0.0)


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


def test_two_replies_share_nothing() -> None:
    """A default list that is filled in one reply stays empty in the next."""
    one, other = Reply(b"", []), Reply(b"", [])
    one.truncated.append(0)
    one.errors[0] = "image_empty"
    assert other.truncated == []
    assert other.errors == {}


def test_a_job_can_be_read_from_json() -> None:
    """The towers also run under LitServe's stock route, where FastAPI reads the body."""
    job = TypeAdapter(Job).validate_json('{"items": ["a red circle", "QUJD"]}')
    assert job == Job(["a red circle", "QUJD"])


@given(replies)
def test_a_reply_can_be_written_as_json(reply: Reply) -> None:
    """Under the stock route the vectors are base64, and every other field is itself."""
    content = json.loads(TypeAdapter(Reply).dump_json(reply))
    assert base64.urlsafe_b64decode(content["vectors"]) == reply.vectors
    assert content["tokens"] == reply.tokens
    assert content["truncated"] == reply.truncated
    assert {int(i): code for i, code in content["errors"].items()} == reply.errors


def test_a_deadline_means_the_same_in_another_process() -> None:
    """Deadlines are on a clock that all processes of the machine share."""
    before = time.monotonic()
    command = [sys.executable, "-S", "-c", "import time; print(repr(time.monotonic()))"]
    there = float(subprocess.check_output(command))
    assert before <= there <= time.monotonic()
