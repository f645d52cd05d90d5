"""API keys as they are written: names, classes, limits, and what is no such thing."""

import os
import signal
from pathlib import Path

import httpx
import pytest

from bench.rig.server_process import ServerProcess
from litapi.keys import KeysError, Limits, lines_of, read_keys, read_limits
from litapi.settings import Settings, SettingsError
from tests.support.patience import awaited


def test_an_entry_has_a_name_and_a_class_or_is_a_key_as_a_whole() -> None:
    """Keys with colons stay what they were; those without a name are called by their number."""
    keys = read_keys(["plain", "acme:k3y:bulk", "web:a:b:interactive", "a:b", "x:y:urgent"])
    assert [(key.name, key.secret, key.bulk) for key in keys] == [
        ("key-1", "plain", False),
        ("acme", "k3y", True),
        ("web", "a:b", False),
        ("key-4", "a:b", False),
        ("key-5", "x:y:urgent", False),
    ]
    assert "k3y" not in repr(keys)


def test_limits_are_a_keys_own_or_those_of_all_others() -> None:
    """By name; `*` for whoever has none."""
    limits = ["acme weight=3 items=500", "* requests=10"]
    found = [key.limits for key in read_keys(["acme:k:bulk", "plain"], limits)]
    assert found == [Limits(weight=3, items=500), Limits(requests=10)]


@pytest.mark.parametrize(
    "text", ["", "acme", "acme weight", "acme weight=0", "acme weight=-1", "acme speed=3", "ä x=1"]
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    """A misspelt limit must not be no limit."""
    with pytest.raises(KeysError):
        read_limits(text)


@pytest.mark.parametrize(
    ("entries", "limits"), [(["a:x:bulk", "a:y:bulk"], []), (["a:x:bulk"], ["b weight=2"])]
)
def test_names_are_unique_and_limits_for_known_names(entries: list[str], limits: list[str]) -> None:
    """Two keys of one name would share what only one is meant to have."""
    with pytest.raises(KeysError):
        read_keys(entries, limits)
    with pytest.raises(SettingsError, match="--key-limits"):
        Settings.read({"api_keys": entries, "key_limits": limits}, {})


def test_a_file_has_a_key_a_line_with_its_limits_behind() -> None:
    """White space and comments are no part of it."""
    entries, limits = lines_of("# ours\n  acme:k:bulk   weight=3 items=9 \n\nplain\r\n")
    assert (entries, limits) == (("acme:k:bulk", "plain"), ("acme weight=3 items=9",))
    with pytest.raises(KeysError):
        lines_of("plain weight=3")


def test_the_file_is_read_again_on_sighup_by_every_process(tmp_path: Path) -> None:
    """New keys are good, removed ones are not, limits hold; a file that is none changes nothing."""
    path = tmp_path / "keys"
    path.write_text("acme:k1:bulk\nplain\n")
    options = ("--http-workers", "2", "--redis-private", "off", "--api-keys-file", str(path))
    with ServerProcess(*options) as server:

        def status(key: str, items: int = 1) -> int:
            """Of a request on a connection of its own, so that either process may get it."""
            body = {"texts": [f"{key} {n}" for n in range(items)]}
            headers = {"x-api-key": key}
            answer = httpx.post(f"{server.url}/embed_text", json=body, headers=headers, timeout=60)
            return answer.status_code

        assert [status("k1"), status("plain"), status("k2")] == [200, 200, 401]
        path.write_text("new:k2:interactive items=1\nplain\n")
        os.kill(server.pid, signal.SIGHUP)
        awaited(lambda: {status("k1") for _ in range(8)} == {401})
        assert status("plain") == 200
        assert 429 in [status("k2", 9) for _ in range(2)]
        path.write_text("one two\n")
        os.kill(server.pid, signal.SIGHUP)
        awaited(lambda: "the keys are as before" in server.log())
        assert status("plain") == 200
        assert "k2" not in server.log()
