"""What is recorded of one request. Every request that was sent has exactly one.

Times are seconds from the run's start. `scheduled` is when it was meant to leave; latency counts
from there. An open loop may let a request go up to half a millisecond early (the clock of the
event loop is no finer), and latency then counts from `sent`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

BUSY = 429
STOPPED = "stopped"  # cut off by Ctrl-C: neither good nor bad


@dataclass(slots=True)
class Sample:
    """`status` 0: no answer came. `error` names why a point failed; a 429 is not a failure."""

    level: int
    number: int
    target: str
    items: int
    scheduled: float
    sent: float
    first_byte: float | None
    done: float
    status: int = 0
    error: str | None = None
    size: int = 0  # bytes of the body
    checked: bool = False
    cache: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def latency(self) -> float:
        """Seconds from when it was due until its last byte."""
        return self.done - min(self.scheduled, self.sent)

    @property
    def good(self) -> bool:
        """Answered, and as far as it was looked at, right."""
        return self.error is None and self.status != BUSY

    @property
    def failed(self) -> bool:
        """Answered wrong or not at all; being told to come later is not a failure."""
        return self.error not in (None, STOPPED)

    def line(self) -> bytes:
        return orjson.dumps({"record": "sample"} | _plain(self), option=orjson.OPT_APPEND_NEWLINE)


def _plain(sample: Sample) -> dict[str, Any]:
    fields = {name: getattr(sample, name) for name in Sample.__slots__}
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in fields.items()}


def states(value: bytes) -> dict[str, int]:
    """How often each state stands in `X-Cache`."""
    names = [name.strip().decode("latin-1") for name in value.split(b",") if name.strip()]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def timings(value: bytes) -> dict[str, float]:
    """The milliseconds in `Server-Timing`, by name; what cannot be read is left out."""
    found = {}
    for metric in value.decode("latin-1").split(","):
        name, *parameters = (part.strip() for part in metric.split(";"))
        for parameter in parameters:
            key, _, number = parameter.partition("=")
            if key.strip() == "dur" and _is_number(number):
                found[name] = float(number)
    return found


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdecimal()
