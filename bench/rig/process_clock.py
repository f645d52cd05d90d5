"""CPU time of another process, to the nanosecond.

`/proc/PID/stat` counts in ticks of 10 ms and `/proc/PID/schedstat` only the first thread. The
kernel's CPU clock of a process counts all its threads, ended ones too; its number is made of the
process id as clock_getcpuclockid(3) does it, which Python does not offer.
"""

from __future__ import annotations

import time

_SCHED = 2  # of the kernel's three clocks of a process: user and system time as scheduled


def cpu_seconds(pid: int) -> float:
    """User and system time that the process has used.

    Raises:
        ProcessLookupError: there is no such process.
    """
    try:
        return time.clock_gettime_ns(~pid << 3 | _SCHED) / 1e9
    except OSError:
        raise ProcessLookupError(pid) from None
