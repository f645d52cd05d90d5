"""What crosses between the front and a worker: plain data, small as a pickle, readable as JSON."""

from __future__ import annotations

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


def test_an_item_is_its_kind_and_content() -> None:
    """Equal items are one item, also as a key of a dictionary."""
    assert {Item("text", "a"), Item("text", "a"), Item("text", "b")} == {
        Item("text", "a"),
        Item("text", "b"),
    }


def test_an_item_cannot_be_changed() -> None:
    """What was hashed for the cache is what is sent to the tower."""
    with pytest.raises(AttributeError):
        Item("text", "a").payload = "b"  # type: ignore[misc]


def test_a_job_without_wishes_has_all_the_time_and_the_models_own_patches() -> None:
    """LitServe's stock route builds jobs from JSON that may hold the items only."""
    job = Job(["a"])
    assert (job.max_num_patches, job.deadline, job.sent) == (0, math.inf, 0.0)


@given(jobs)
def test_a_job_survives_the_queue(job: Job) -> None:
    """The worker reads what the front wrote."""
    assert pickle.loads(pickle.dumps(job)) == job


@given(replies)
def test_a_reply_survives_the_queue(reply: Reply) -> None:
    """The front reads what the worker wrote."""
    assert pickle.loads(pickle.dumps(reply)) == reply


def test_vectors_travel_raw() -> None:
    """A pickle of a reply holds the float32 bytes as they are, with little around them."""
    vectors = np.random.default_rng(0).standard_normal(64 * 768).astype("<f4").tobytes()
    wire = pickle.dumps(Reply(vectors, [64] * 64))
    assert vectors in wire
    assert len(wire) - len(vectors) < 1000


def test_images_travel_raw() -> None:
    """An image costs its bytes, not its base64."""
    image = bytes(range(256)) * 4096
    wire = pickle.dumps(Job([image]))
    assert image in wire
    assert len(wire) - len(image) < 500


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
