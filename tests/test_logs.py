"""Logs: one line an event, for people or for machines."""

import inspect
import json
import logging

import pytest

from litapi.logs import ANYBODYS, _formatter
from tests.support.command import python


def _line(form: str, message: str, **extra: object) -> str:
    record = logging.LogRecord("siglit.front", logging.INFO, "x.py", 1, message, None, None)
    record.__dict__.update(extra)
    return _formatter(form).format(record)


def test_json_lines_parse_and_keep_their_fields() -> None:
    """Time, level, logger, message and extras; a line break forges no line. Text is for people."""
    line = json.loads(_line("json", "an answer", status=200, request_id="a1"))
    assert line.pop("time")
    assert line == {
        "level": "INFO", "logger": "siglit.front", "message": "an answer", "status": 200,
        "request_id": "a1",
    }  # fmt: skip
    assert "\n" not in _line("json", 'a\n{"level": "INFO"}')
    assert "INFO siglit.front an answer" in _line("text", "an answer")


def _said(level: str, code: str) -> str:
    """What a process with this log level writes while it runs the code."""
    start = (
        "import logging; from litapi.logs import ANYBODYS, configure;"
        f"from litapi.settings import Settings; configure(Settings(log_level={level!r}));"
    )
    return python(start + code).stderr


def test_what_any_stranger_can_provoke_is_no_line() -> None:
    """Bytes that are no HTTP would fill the disk; what else uvicorn has to say still comes."""
    from uvicorn.protocols.http import httptools_impl

    for beginning in ANYBODYS:  # or a new uvicorn says it in other words
        assert beginning in inspect.getsource(httptools_impl)
    said = _said(
        "info",
        "from uvicorn import Config; Config('app', log_level='warning');"
        "log = logging.getLogger('uvicorn.error');"
        "[log.warning(one) for one in ANYBODYS]; log.error('no answer was given')",
    )
    assert "no answer was given" in said
    assert not any(one in said for one in ANYBODYS)


@pytest.mark.parametrize(("level", "mine"), [("warning", False), ("debug", True)])
def test_the_level_is_obeyed_and_libraries_stay_quiet(level: str, mine: bool) -> None:
    """`warning` hides info; chatty libraries are at warning even under debug."""
    code = "[logging.getLogger(one).info('it is ' + one) for one in ('siglit.x', 'httpx')]"
    said = _said(level, code)
    assert ("it is siglit.x" in said) is mine
    assert "it is httpx" not in said


@pytest.mark.parametrize("name", ["python_multipart.multipart", "PIL.TiffImagePlugin"])
def test_parsers_write_no_line_about_what_a_stranger_sent(name: str) -> None:
    """Their warnings could fill the disk; their errors are still heard."""
    log = f"log = logging.getLogger({name!r});"
    said = _said("debug", f"{log} log.warning('bad input'); log.error('real trouble')")
    assert "bad input" not in said
    assert "real trouble" in said
