"""Many rows at once: a folder or a table in, Parquet of vectors out, on Ray Data."""

import os

from litapi.process import sleep_soon

# Read when ray is imported. Below "fatal" Ray tells of its own affairs on standard error.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
sleep_soon()  # decoding and the model share the cores
