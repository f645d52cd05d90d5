"""A device that is as late as it may be, and slots that are spoilt as soon as they are free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from litapi.model.engines.slots import Slots
from litapi.model.engines.stream import Stream, Wait

SPOILT = 0xFF  # in every byte: NaN in a float, -1 in a whole number


class LateStream(Stream):
    """Does what it was given only when somebody waits for it, and all that came before."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream.place)
        self.depth = 2
        self.slots = stream.slots
        self.given: deque[Callable[[], None]] = deque()
        self.most = 0  # that were under way at once

    def run(self, work: Callable[[], None]) -> Wait:
        """Keep it for later."""
        self.given.append(work)
        self.most = max(self.most, len(self.given))

        def wait() -> None:
            while work in self.given:
                super(LateStream, self).run(self.given.popleft())()

        return wait


def spoil(slots: Slots[Any]) -> list[Any]:
    """Spoil whatever is in a slot once it is free; returned are all that ever were."""
    free, seen = slots.free, list[Any]()

    def spoilt(slot: Any) -> None:
        for memory in slot.held:
            memory.fill(SPOILT)
        if slot not in seen:
            seen.append(slot)
        free(slot)

    slots.free = spoilt  # type: ignore[method-assign]
    return seen


def late(encoder: Any) -> Any:
    """`encoder` with spoilt slots, on a late stream if it is torch's; OpenVINO's own is."""
    engine = encoder.engine
    if engine.name == "torch":
        engine.stream = LateStream(engine.stream)
        encoder.depth = engine.depth = 2
    engine.spoilt = spoil(engine.stream.slots if engine.name == "torch" else engine.slots)
    return encoder
