"""How many files and connections a process may have open.

The soft limit is 1,024 on most systems, for the sake of old programs; idle clients alone use that
up, and then the answers of workers find no descriptor to arrive in. Not the hard limit as it is:
some containers have a billion, and a program that walks over all of them stands still.
"""

from __future__ import annotations

import resource

ENOUGH = 1 << 16


def raise_limit() -> int:
    """Raise the soft limit for this process and its children, as far as it may; the new one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
