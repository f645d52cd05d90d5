"""What clients share: bounded, in turn, by client, and given back whoever leaves."""

import asyncio
from random import Random

import pytest

from litapi.http.shares import Shares
from tests.support.patience import settled

pytestmark = pytest.mark.anyio


async def test_a_small_one_does_not_pass_a_large_one() -> None:
    """First come, first served, though the small one would fit."""
    budget, order = Shares(100), []

    async def take(name: str, wanted: int) -> None:
        await budget.take(wanted)
        order.append(name)

    await budget.take(50)
    tasks = [asyncio.create_task(take(*one)) for one in (("large", 80), ("small", 10))]
    await settled()
    assert order == []
    budget.give_back(50)
    await asyncio.gather(*tasks)
    assert order == ["large", "small"]


async def test_one_that_leaves_lets_the_next_one_in() -> None:
    """Also when it is cancelled between its turn and the next tick."""
    budget = Shares(100)
    await budget.take(50)
    large, small = (asyncio.create_task(budget.take(wanted)) for wanted in (80, 10))
    await settled()
    large.cancel()
    assert await small == 10
    assert budget.free == 40
    waiting = asyncio.create_task(budget.take(60))
    await settled()
    budget.give_back(60)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.free == 100


@pytest.mark.parametrize("seed", range(5))
async def test_it_is_never_overdrawn_and_ends_as_it_began(seed: int) -> None:
    """Two hundred requests of all sizes, some of which leave at odd moments."""
    rng, budget, held = Random(seed), Shares(100), 0

    async def one(wanted: int, ticks: int) -> None:
        nonlocal held
        taken = await budget.take(wanted)
        held += taken
        assert held <= 100
        try:
            for _ in range(ticks):
                await asyncio.sleep(0)
        finally:
            held -= taken
            budget.give_back(taken)

    tasks = [asyncio.create_task(one(rng.randrange(130), rng.randrange(5))) for _ in range(200)]
    while not all(task.done() for task in tasks):
        rng.choice(tasks).cancel() if rng.random() < 0.2 else None
        await asyncio.sleep(0)
    assert not [task for task in tasks if not task.cancelled() and task.exception()]
    assert (budget.free, held) == (100, 0)


async def test_one_client_leaves_half_and_the_next_half_of_the_rest() -> None:
    """However much the first one wants, a newcomer finds room at once."""
    shares = Shares(64)
    greedy = [asyncio.create_task(shares.take(1, "greedy")) for _ in range(100)]
    await settled()
    assert shares.free == 32
    second = [asyncio.create_task(shares.take(1, "second")) for _ in range(100)]
    await settled()
    assert shares.free == 16
    async with asyncio.timeout(60):
        assert await shares.take(1, "newcomer") == 1
    for task in (*greedy, *second):
        task.cancel()
    await asyncio.gather(*greedy, *second, return_exceptions=True)


async def test_whoever_is_over_its_share_is_passed() -> None:
    """By another client at once; its own turn comes when it has given something back."""
    shares = Shares(100)
    await shares.take(40, "one")
    more = asyncio.create_task(shares.take(40, "one"))
    await settled()
    assert not more.done()
    assert await shares.take(40, "two") == 40
    shares.give_back(40, "one")
    assert await more == 40
    assert shares.free == 20
