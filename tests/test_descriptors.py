"""Descriptors: as many as the system lets this user have, within reason."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from litapi.descriptors import ENOUGH, raise_limit

ROOT = Path(__file__).parent.parent
LOW = """
import resource
from litapi.descriptors import raise_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, min(hard, 4096) if hard > 0 else 4096))
print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    """1,024 are used up by idle clients; the hard limit is the administrator's word."""
    said = subprocess.run(
        [sys.executable, "-c", LOW], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert said.split() == ["4096", "4096", "4096"]


def test_a_limit_that_is_high_already_is_left_alone() -> None:
    """Nothing is ever lowered, and there is no walk over a billion descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = raise_limit()
    assert raised >= soft
    assert raised == soft or raised == min(hard, ENOUGH) or hard == resource.RLIM_INFINITY
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == hard
