"""Messages between processes: whole, in order, each to one, whoever is killed."""

import contextlib
import multiprocessing
import os
import pickle
import queue
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from litapi.transport.channel import INLINE_BYTES, Channel, Parcel
from tests.support.patience import awaited

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def channel() -> Iterator[Channel]:
    """A channel of its own for each test."""
    laid = Channel()
    yield laid
    laid.close()


def relay(source: Channel, target: Channel, number: int) -> None:
    """A process that passes on what it gets, with its own number, until it gets None."""
    target.put((number, "here"))
    while (message := source.get()) is not None:
        target.put((number, message))


def flood(target: Channel, number: int, count: int) -> None:
    """A process that puts more than the kernel takes at once, and stays until all is sent."""
    for index in range(count):
        target.put((number, index, b"x" * 20_000))
    while target._sender is not None:
        time.sleep(0.01)


def start(work: Any, *args: Any) -> Any:
    """A spawned process, as workers are; it does not outlive the test."""
    process = SPAWN.Process(target=work, args=args, daemon=True)
    process.start()
    return process


def all_of(channel: Channel, count: int, seconds: float = 60.0) -> list[Any]:
    """That many messages."""
    return [channel.get(timeout=seconds) for _ in range(count)]


EXTRA = len(pickle.dumps(bytes(INLINE_BYTES), 5)) - INLINE_BYTES


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(INLINE_BYTES - 200, INLINE_BYTES + 200) | st.integers(0, 3_000_000))
@example(size=INLINE_BYTES - EXTRA)
@example(size=INLINE_BYTES - EXTRA + 1)
def test_a_message_of_any_size_arrives_whole(channel: Channel, size: int) -> None:
    """Above and below the size from which it goes through a file, and on the very edge."""
    message = os.urandom(min(size, 64)) + bytes(max(0, size - 64))
    channel.put(message)
    assert channel.get(timeout=60) == message
    assert channel.empty()


def test_there_being_nothing_is_said_as_queues_say_it(channel: Channel) -> None:
    """At once, or after the time that was given."""
    assert channel.empty()
    with pytest.raises(queue.Empty):
        channel.get_nowait()
    with pytest.raises(queue.Empty):
        channel.get(block=False)
    before = time.monotonic()
    with pytest.raises(queue.Empty):
        channel.get(timeout=0.05)
    assert time.monotonic() - before >= 0.04
    channel.put("a")
    assert not channel.empty()
    assert channel.get(timeout=0.05) == "a"


def test_what_is_there_is_taken_in_order_and_no_more_than_asked_for(channel: Channel) -> None:
    """Large ones among them; taking never waits."""
    put = [b"a", bytes(200_000), "c", None, b"e"]
    for message in put:
        channel.put(message)
    assert list(channel.take(3)) == put[:3]
    assert list(channel.take(9)) == put[3:]
    assert list(channel.take(9)) == []


def test_what_finds_no_room_is_sent_later_in_order_and_putting_never_waits(
    channel: Channel,
) -> None:
    """Many times what the kernel keeps; the one who puts is never held up, and nothing is lost."""
    channel._out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
    messages = [(n, b"y" * 10_000) for n in range(500)]
    for message in messages:
        channel.put(message)
    assert channel._parked
    assert all_of(channel, 500) == messages
    awaited(lambda: channel._sender is None)
    assert not channel._parked
    channel.put("after")  # and the short way is open again
    assert channel.get(timeout=60) == "after"


def test_a_kernel_that_gives_little_room_gets_smaller_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the limit is low, more goes through files; nothing is refused for its size."""
    monkeypatch.setattr("litapi.transport.channel.BUFFER_BYTES", 10_000)
    channel = Channel()
    messages = [bytes(size) for size in (10, 4_000, 20_000, INLINE_BYTES, 200_000)]
    for message in messages:
        channel.put(message)
    assert all_of(channel, len(messages)) == messages
    channel.close()


def test_too_many_files_under_way_only_delay(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses a descriptor; the message is parked and tried again."""
    refusals = iter([OSError(109, "too many references"), OSError(24, "too many open files")])
    create = os.memfd_create

    def memfd_create(name: str, flags: int) -> int:
        if error := next(refusals, None):
            raise error
        return create(name, flags)

    monkeypatch.setattr(os, "memfd_create", memfd_create)
    channel.put(bytes(200_000))
    assert channel.get(timeout=60) == bytes(200_000)


def test_large_messages_leave_no_descriptor_open(channel: Channel) -> None:
    """Neither with the one who puts nor with the one who gets, but for the one to spare."""
    channel.put("first")
    channel.get()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        channel.put(bytes(200_000))
    all_of(channel, 50)
    assert len(os.listdir("/proc/self/fd")) <= before  # others may close theirs meanwhile


def test_a_large_message_arrives_where_no_descriptor_is_left(channel: Channel) -> None:
    """A descriptor is kept to spare for it; two hundred idle clients may have taken the others."""
    channel.put("first")
    assert channel.get(timeout=60) == "first"  # from here on there is one to spare
    for _ in range(3):
        channel.put(bytes(200_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard)
    )
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        got = [channel.get(timeout=60) for _ in range(3)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
    assert got == [bytes(200_000)] * 3


@pytest.mark.parametrize("read", [lambda c: c.get(block=False), lambda c: next(c.take(9))])
def test_a_message_whose_file_was_lost_does_not_stop_the_others(
    channel: Channel, caplog: pytest.LogCaptureFixture, read: Callable[[Channel], Any]
) -> None:
    """The kernel drops a descriptor that finds no place; the log says so, and reading goes on."""
    channel.put(bytes(200_000))
    channel.put("next")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        got = read(channel)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert got == "next"
    assert "a message was lost" in caplog.text


def test_each_message_goes_to_exactly_one_of_many_processes() -> None:
    """Three processes get and put; 3,000 messages in both sizes, none twice, none missing."""
    jobs, replies = Channel(), Channel()
    started = [start(relay, jobs, replies, number) for number in range(3)]
    assert {replies.get(timeout=60)[0] for _ in started} == {0, 1, 2}
    messages = [(n, bytes(100_000 if n % 100 == 0 else 10)) for n in range(3_000)]
    for message in messages:
        jobs.put(message)
    answers = all_of(replies, 3_000)
    assert sorted(message for _, message in answers) == messages
    for _ in started:
        jobs.put(None)
    for process in started:
        process.join(60)
        assert process.exitcode == 0


def test_many_processes_put_at_once_without_losing_order_of_their_own() -> None:
    """Three of them, each with twice what the kernel takes, while nobody gets at first."""
    target = Channel()
    started = [start(flood, target, number, 400) for number in range(3)]
    received = [message[:2] for message in all_of(target, 1_200)]
    for number in range(3):
        assert [index for who, index in received if who == number] == list(range(400))
    for process in started:
        process.join(60)
        assert process.exitcode == 0


def test_a_process_killed_while_it_waits_takes_nothing_along() -> None:
    """The next message goes to one that lives: a dead process cannot be handed anything."""
    jobs, replies = Channel(), Channel()
    doomed = start(relay, jobs, replies, 0)
    assert replies.get(timeout=60) == (0, "here")
    awaited(lambda: psutil.Process(doomed.pid).status() == psutil.STATUS_SLEEPING)
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.join(60)
    other = start(relay, jobs, replies, 1)
    assert replies.get(timeout=60) == (1, "here")
    for n in range(100):
        jobs.put(n)
    assert all_of(replies, 100) == [(1, n) for n in range(100)]
    jobs.put(None)
    other.join(60)


def test_processes_killed_at_random_cost_at_most_the_message_they_had_taken() -> None:
    """Five kills in the middle of work: the queue goes on, and nothing comes twice."""
    jobs, replies = Channel(), Channel()
    for number in range(5):
        process = start(relay, jobs, replies, number)
        assert replies.get(timeout=60) == (number, "here")
        for n in range(200):
            jobs.put((number, n))
        answered = all_of(replies, 50)
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        while not replies.empty():
            answered.append(replies.get(timeout=60))
        left = []
        while not jobs.empty():
            left.append(jobs.get(timeout=60))
        seen = [message for _, message in answered] + left
        assert len(set(seen)) == len(seen) >= 199


def test_the_end_of_all_senders_is_told() -> None:
    """A waiting thread wakes with EOFError, not with garbage."""
    channel, errors = Channel(), []

    def wait() -> None:
        try:
            channel.get()
        except EOFError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    channel._out.shutdown(socket.SHUT_RDWR)
    thread.join(60)
    assert len(errors) == 1
    channel.close()


LARGE = 8 << 20


def file_size(parcel: Parcel) -> int:
    """Bytes of its file; 0 where it has none."""
    return 0 if parcel._file is None else os.fstat(parcel._file).st_size


def test_a_parcel_arrives_like_any_message_and_its_file_is_emptied(channel: Channel) -> None:
    """Its sender may keep the descriptor as long as the work takes, and holds no memory by it."""
    parcel = Parcel(("name", [bytes(LARGE), b"small"]))
    channel.post(parcel)
    assert file_size(parcel) > LARGE
    assert channel.get(timeout=60) == ("name", [bytes(LARGE), b"small"])
    assert file_size(parcel) == 0
    parcel.take_back()


def test_a_parcel_that_is_taken_back_frees_its_memory_and_is_passed_over(channel: Channel) -> None:
    """Nobody has got it yet: whoever gets it later finds the next message."""
    parcels = [Parcel(bytes(LARGE)) for _ in range(3)]
    for parcel in parcels:
        channel.post(parcel)
    channel.put("next")
    files = [os.dup(cast("int", parcel._file)) for parcel in parcels]
    for parcel in parcels:
        parcel.take_back()
        parcel.take_back()
    assert [os.fstat(file).st_size for file in files] == [0, 0, 0]
    assert channel.get(timeout=60) == "next"
    for file in files:
        os.close(file)


def test_more_parcels_that_were_taken_back_than_python_may_recurse_are_passed_over(
    channel: Channel,
) -> None:
    """A worker that was stopped for long finds thousands of them."""
    for _ in range(3_000):
        parcel = Parcel(bytes(10))
        channel.post(parcel)
        parcel.take_back()
    channel.put("next")
    assert channel.get(timeout=60) == "next"


def test_nobody_waits_for_a_large_message_that_is_being_written(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread writes it; the event loop sends small ones meanwhile, and may take it back."""
    begun, go, really = threading.Event(), threading.Event(), os.write

    def write(file: int, data: bytes) -> int:
        begun.set()
        assert go.wait(60)
        return really(file, data)

    parcel = Parcel(bytes(LARGE))
    monkeypatch.setattr(os, "write", write)
    thread = threading.Thread(target=channel.post, args=(parcel,))
    thread.start()
    assert begun.wait(60)
    channel.put("small")
    assert channel.get(timeout=60) == "small"
    parcel.take_back()
    go.set()
    thread.join(60)
    assert file_size(parcel) == 0
    assert channel.empty()


def test_a_parcel_that_waits_for_room_is_dropped_without_being_sent(channel: Channel) -> None:
    """While the kernel takes no more, what nobody wants any more frees its memory at once."""
    while not channel._parked:
        channel.put(b"x" * 20_000)
    parcel = Parcel(bytes(LARGE))
    channel.post(parcel)
    parcel.take_back()
    assert parcel._pieces == []
    channel.put("last")
    got = channel.get(timeout=60)
    while got != "last":
        assert got == b"x" * 20_000
        got = channel.get(timeout=60)


def test_a_parcel_that_is_taken_back_while_it_is_read_is_whole_or_dropped(
    channel: Channel,
) -> None:
    """The reader finds an empty file, or had all of it; never a piece."""
    for delay in range(40):
        parcel = Parcel(bytes(LARGE))
        channel.post(parcel)
        channel.put("next")
        timer = threading.Timer(delay * 2e-4, parcel.take_back)
        timer.start()
        assert channel.get(timeout=60) in (bytes(LARGE), "next")
        timer.join(60)
        while not channel.empty():
            channel.get(timeout=60)
