"""Work in spans: cut by number and size, several under way at a time, told to a bar."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator

Tell = Callable[[int], object]


def cut(sizes: Iterable[int], most_items: int, most: int) -> Iterator[range]:
    """Consecutive spans of at most so many items and so much size; a larger item goes alone."""
    start, stop, held = 0, 0, 0
    for size in sizes:
        if stop > start and (stop - start >= most_items or held + size > most):
            yield range(start, stop)
            start, held = stop, 0
        stop, held = stop + 1, held + size
    if stop > start:
        yield range(start, stop)


async def side_by_side(
    spans: Iterator[range], send: Callable[[range], Awaitable[None]], lanes: int, tell: Tell
) -> None:
    """Every span sent, so many at a time; the first that fails ends the others and is raised."""

    async def lane() -> None:
        for span in spans:
            await send(span)
            tell(len(span))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(lane())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


@contextlib.contextmanager
def bar(total: int, shown: bool) -> Iterator[Tell]:
    if not shown:
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit="item") as shown_bar:
        yield shown_bar.update
