"""Logs: one line an event, for people or for machines."""

import inspect
import json
import logging

import pytest

from litapi.logs import ANYBODYS, _formatter
from tests.support.python import ran


def _record(message: str, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("siglit.front", logging.INFO, "x.py", 1, message, None, None)
    record.__dict__.update(extra)
    return record


def test_json_lines_parse_and_keep_their_fields() -> None:
    """Time, level, logger, message and extras; a line break forges no line. Text is for people."""
    line = json.loads(_formatter("json").format(_record("an answer", status=200, request_id="a1")))
    assert line["level"] == "INFO"
    assert line["logger"] == "siglit.front"
    assert line["message"] == "an answer"
    assert line["status"] == 200
    assert line["request_id"] == "a1"
    assert line["time"]
    assert "\n" not in _formatter("json").format(_record('a\n{"level": "INFO"}'))
    assert "INFO siglit.front an answer" in _formatter("text").format(_record("an answer"))


def test_what_any_stranger_can_provoke_is_no_line() -> None:
    """Bytes that are no HTTP would fill the disk; what else uvicorn has to say still comes."""
    from uvicorn.protocols.http import httptools_impl

    for beginning in ANYBODYS:  # or a new uvicorn says it in other words
        assert beginning in inspect.getsource(httptools_impl)
    code = (
        "import logging; from litapi.logs import ANYBODYS, configure;"
        "from litapi.settings import Settings; configure(Settings());"
        "from uvicorn import Config; Config('app', log_level='warning');"
        "log = logging.getLogger('uvicorn.error');"
        "[log.warning(one) for one in ANYBODYS]; log.error('no answer was given')"
    )
    said = ran(code).stderr
    assert "no answer was given" in said
    assert [line for line in said.splitlines() if any(one in line for one in ANYBODYS)] == []


def test_the_level_is_obeyed_and_libraries_stay_quiet() -> None:
    """`warning` hides info; chatty libraries are at warning even under debug."""
    code = (
        "import logging; from litapi.logs import configure; from litapi.settings import Settings;"
        "configure(Settings(log_level='{}'));"
        "logging.getLogger('siglit.x').info('mine');"
        "logging.getLogger('httpx').info('theirs')"
    )
    for level, mine in (("warning", False), ("debug", True)):
        said = ran(code.format(level)).stderr
        assert ("mine" in said) is mine
        assert "theirs" not in said


@pytest.mark.parametrize("name", ["python_multipart.multipart", "PIL.TiffImagePlugin"])
def test_parsers_write_no_line_about_what_a_stranger_sent(name: str) -> None:
    """Their warnings could fill the disk; their errors are still heard."""
    code = (
        "import logging; from litapi.logs import configure; from litapi.settings import Settings;"
        f"configure(Settings(log_level='debug')); log = logging.getLogger({name!r});"
        "log.warning('bad input'); log.error('real trouble')"
    )
    said = ran(code).stderr
    assert "bad input" not in said
    assert "real trouble" in said
