"""The table of faults in its short form, on real processes; and that its judges are not blind.

Rows assert counts (lost, wrong, refused) and states, never a stopwatch: how long things may take
is judged by `python -m bench.faults`, on a machine that does nothing else.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from bench.faults.__main__ import ROWS, TRUTH, truth
from bench.faults.bad_requests import Bad, Verdicts, bad_requests
from bench.faults.hostile import FORMATS, mutated, originals
from bench.faults.question import AnswerKey, Question, as_floats, asked, drawn_pictures, mixed
from bench.faults.row import Finding, Row
from bench.faults.stage import Stage
from bench.faults.traffic import Tally, Traffic
from litapi.process import raise_limit

RIGHT = [1.0, 0.0, 0.0]


def sentence(row: Row) -> str:
    return f"{row.number}: {(row.play.__doc__ or '').strip().rstrip('.')}"


@pytest.fixture(scope="module")
def play() -> Iterator[Callable[[Row], Finding]]:
    """One stage in one event loop for all rows: servers are started once."""
    raise_limit()
    with asyncio.Runner() as runner:
        stage = Stage(long=False)
        yield lambda row: runner.run(row.found(stage))
        runner.run(stage.aclose())


@pytest.mark.timeout(900)
@pytest.mark.parametrize("row", ROWS, ids=sentence)
def test_under_fault(play: Callable[[Row], Finding], row: Row) -> None:
    """Whatever is done to the server: nothing is lost, nothing is wrong, and it stands again."""
    finding = play(row)
    assert finding.broken == [], row.line(finding)


def test_each_row_has_its_number_and_a_sentence() -> None:
    """The table has no gaps, and a failing test says what does not hold."""
    assert sorted(row.number for row in (*ROWS, TRUTH)) == list(range(1, 30))
    assert all(len(sentence(row)) > 20 for row in ROWS)


def judged(answer: dict[str, Any], *, retry: bool = False) -> Tally:
    """What becomes of one question about two texts whose right vector is `RIGHT`; it is answered
    so, or by hanging up."""

    async def handle(request: web.Request) -> web.Response:
        if not answer and request.transport is not None:
            request.transport.abort()
        return web.Response(**answer)

    async def run() -> Tally:
        app = web.Application()
        app.router.add_post("/embed_text", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        key = AnswerKey()
        key.put(("a", "b"), [np.asarray(RIGHT)] * 2)
        questions = [as_floats(["a", "b"])]
        async with Traffic(f"http://{host}:{port}", questions, key, retry=retry) as traffic:
            await traffic.next()
        await runner.cleanup()
        return traffic.whole()

    return asyncio.run(run())


def rows(*vectors: list[float]) -> dict[str, Any]:
    return {"text": json.dumps({"embeddings": vectors})}


SOON = {"retry-after": "1"}
ANSWERED, WRONG, REFUSED, LOST = (1, 0, 0, 0), (1, 0, 0, 1), (0, 1, 0, 0), (0, 0, 1, 0)
ANSWERS = {
    "right": (rows(RIGHT, RIGHT), ANSWERED),
    "almost": (rows(RIGHT, [1.0, 0.02, 0.0]), WRONG),  # a cosine of 0.9998
    "one short": (rows(RIGHT), WRONG),
    "not a number": ({"text": '{"embeddings": [[1, 0, 0], [NaN, 0, 0]]}'}, WRONG),
    "nothing inside": (rows([0.0, 0.0, 0.0], RIGHT), WRONG),
    "refused": ({"status": 400, "text": "{}"}, WRONG),
    "later": ({"status": 429, "headers": SOON}, REFUSED),
    "later some day": ({"status": 429}, LOST),
    "failed": ({"status": 503, "headers": SOON}, LOST),
    "hung up": ({}, LOST),
}


@pytest.mark.parametrize(("answer", "counts"), ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_is_counted_as_it_is(answer: dict[str, Any], counts: tuple[int, ...]) -> None:
    """Wrong vectors, missing ones, failures and silence are all seen."""
    tally = judged(answer)
    assert (tally.answered, tally.refused, tally.lost, tally.wrong) == counts
    assert tally.sent == 1


def test_a_second_try_is_counted_and_only_after_a_broken_connection() -> None:
    """A client that may try again does so once."""
    twice = judged({}, retry=True)
    assert (twice.retried, twice.lost) == (1, 1)
    assert judged({"status": 503, "headers": SOON}, retry=True).retried == 0


def test_a_row_that_loses_or_mistakes_an_answer_does_not_hold() -> None:
    """And neither does the sum of all rows, where something was wrong."""
    finding = Finding(long=False)
    finding.take(Tally(sent=3, answered=2, lost=1, wrong=1))
    assert [what.split(":")[0] for what in finding.broken] == ["0 wrong", "0 lost"]
    assert not truth([finding]).holds


def test_a_stopwatch_counts_in_the_long_form_only() -> None:
    """The short form notes it."""
    long, short = Finding(long=True), Finding(long=False)
    for finding in (long, short):
        finding.timely(False, "quick enough")
    assert (long.holds, short.holds) == (False, True)
    assert short.notes == ["not judged in the short form: quick enough"]


def test_a_row_whose_play_breaks_off_does_not_hold() -> None:
    """An error of the test itself is not a pass."""

    async def play(stage: Stage, finding: Finding) -> None:
        raise RuntimeError("no server")

    row = Row(99, "a | b", play)
    finding = asyncio.run(row.found(Stage(long=False)))
    assert not finding.holds
    assert row.line(finding).startswith("| 99 | a / b | 0 | 0 | 0 | 0 | 0 | NO |")


def test_the_ways_of_asking_take_turns() -> None:
    """JSON and raw bodies, numbers, base64 and raw bytes; texts and pictures together."""
    questions: list[Question] = mixed(["a", "b", "c", "d"], drawn_pictures(4))
    paths = {question.path for question in questions}
    assert paths == {"/embed_text", "/embed_image", "/v1/embeddings"}
    assert {type(thing) for thing in questions[-1].things} <= {str, bytes}
    assert any(len({type(thing) for thing in question.things}) == 2 for question in questions)
    assert len({len(question.things) for question in asked(["a", "b", "c"])}) > 1


def test_every_format_is_damaged_and_the_same_seed_does_the_same_damage() -> None:
    """A failure can be played again."""
    assert len(originals()) == len(FORMATS)
    for picture in originals():
        assert mutated(picture, Random(1)) == mutated(picture, Random(1))
    first, again = list(bad_requests(60)), list(bad_requests(60))
    assert first == again
    assert len(set(map(repr, first))) > 40


def test_bad_requests_are_judged_by_their_codes() -> None:
    """A 4xx without a code, a 5xx and a pass are wrong; a damaged picture may still decode."""
    refusal = json.dumps({"error": {"code": "invalid_json"}}).encode()
    octets = base64.b64encode(np.asarray([0.6, 0.8], "<f4").tobytes()).decode()
    vector = json.dumps({"embedding": octets}).encode()
    verdicts = Verdicts()
    bad, damaged = Bad("/embed_text", b""), Bad("/embed_image", b"", may_pass=True)
    verdicts.judge(bad, 400, b"", refusal)
    verdicts.judge(damaged, 200, b"", vector)
    assert not verdicts.wrong
    for one, status, body in (
        (bad, 400, b"oh"), (bad, 500, refusal), (bad, 200, vector), (damaged, 200, b"{}"),
    ):  # fmt: skip
        verdicts.judge(one, status, b"", body)
    assert sum(verdicts.wrong.values()) == 4
    assert (verdicts.decoded, verdicts.refused["invalid_json"]) == (1, 1)
