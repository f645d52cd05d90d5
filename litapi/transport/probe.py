"""The smallest requests that go the whole way through a tower: to find out whether it answers.

A server decodes only the formats that its settings name, so there is a picture in each.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

from litapi.messages import Job, Kind

PATCHES = 16
FILE = Path(__file__).with_name("probe.json")  # 16 × 16 pixels in base64, by format


def probe(kind: Kind, formats: Sequence[str]) -> Job:
    """One text, or one small picture in the first of these formats."""
    if kind == "text":
        return Job(["ready?"])
    picture = b64decode(json.loads(FILE.read_text())[formats[0]])
    return Job([picture], max_num_patches=PATCHES)
