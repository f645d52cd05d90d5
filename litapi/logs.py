"""How log lines look: text for people, JSON for machines. Contents of requests are never logged."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from litapi.checkpoint import CheckpointError

if TYPE_CHECKING:  # workers configure their logs by this file and must not need pydantic for it
    from litapi.settings import Settings

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
CHATTY = ("httpx", "filelock", "huggingface_hub", "asyncio", "litserve", "urllib3")
PARSERS = ("python_multipart", "PIL")  # they warn of what a stranger sends


# Any stranger can provoke these as fast as he can send; `siglit_connections_refused` counts them.
ANYBODYS = (
    "Invalid HTTP request received.",
    "Unsupported upgrade request.",
    "No supported WebSocket library detected.",
)


def configure(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(settings.log_format))
    handler.addFilter(_without_expected_traces)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in PARSERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_worth_a_line)


def _worth_a_line(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(ANYBODYS)


def _without_expected_traces(record: logging.LogRecord) -> bool:
    """LitServe logs a trace of all that a worker raises; expected errors are one line elsewhere."""
    raised = record.exc_info and record.exc_info[1]
    return not isinstance(raised, CheckpointError)


def _formatter(form: str) -> logging.Formatter:
    if form == "text":
        return logging.Formatter(TEXT)
    from pythonjsonlogger.json import JsonFormatter

    fields = {"asctime": "time", "levelname": "level", "name": "logger"}
    return JsonFormatter(TEXT, rename_fields=fields)
