"""Numbers of the demo checkpoint for `python -m litapi check --golden`.

    python -m demo.golden

Computed with transformers' own model and processors, in float32, and kept in golden.json beside
the published ones of other checkpoints. To be run again whenever the demo is trained anew.
"""

from __future__ import annotations

import json
import re

from litapi.checkpoint import DEMO, DEMO_NAME, Checkpoint
from litapi.model.reference import Reference
from litapi.quality.golden import NUMBERS, Golden
from litapi.quality.mistake import right

PICTURES = ((224, 224, "disc"), (224, 1024, "disc"), (500, 700, "dots"))
SOURCE = "transformers' own model and processors in float32 (python -m demo.golden)"


def main() -> None:
    """Write the demo's entry anew."""
    numbers = json.loads(NUMBERS.read_text())
    entry = {"pictures": PICTURES, "logits": {"source": SOURCE, "rows": []}}
    numbers["checkpoints"][DEMO_NAME] = entry
    NUMBERS.write_text(_laid_out(numbers))  # so that the pictures are known below
    reference = Reference(Checkpoint.open(DEMO))
    rows = reference.logits(*right(reference, Golden.of(DEMO_NAME))).tolist()
    entry["logits"] = {"source": SOURCE, "rows": [[round(n, 4) for n in row] for row in rows]}
    NUMBERS.write_text(_laid_out(numbers))


def _laid_out(numbers: object) -> str:
    """JSON with each row of numbers on a line of its own."""
    text = json.dumps(numbers, indent=2)
    flat = re.sub(
        r"\[\s+([^][{}]*?)\s+\]", lambda row: "[" + re.sub(r"\s+", " ", row[1]) + "]", text
    )
    return flat + "\n"


if __name__ == "__main__":
    main()
