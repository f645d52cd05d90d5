"""Options: where they come from, which of two wins, and how a wrong one is named."""

import argparse
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.rig.server_process import ROOT
from litapi.settings import ALIASES, BARE, PREFIX, Settings, SettingsError, add_flags, flag_of

OPTIONS = sorted(Settings.model_fields)
VARIABLES = [PREFIX + name.upper() for name in OPTIONS]
DEFAULTS = Settings.read({}, {})
WITH_DEFAULT = [name for name in OPTIONS if Settings.model_fields[name].default is not None]


def from_flags(*words: str) -> Settings:
    """The settings of a command line with nothing in the environment."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return Settings.read(vars(parser.parse_args(words)), {})


def as_text(value: Any) -> str:
    """An option's value as a person would write it."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def complaints(flags: dict[str, Any], environ: dict[str, str]) -> list[str]:
    """The lines of the refusal of these options."""
    with pytest.raises(SettingsError) as refusal:
        Settings.read(flags, environ)
    return str(refusal.value).splitlines()


def refused(name: str, value: str) -> list[str]:
    """What is said of a wrong value, given by flag and by variable: one line, with that name."""
    variable = PREFIX + name.upper()
    lines = [*complaints({name: value}, {}), *complaints({}, {variable: value})]
    assert [line.partition(": ")[0] for line in lines] == [flag_of(name), variable]
    return lines


def test_without_a_word_every_option_has_its_default() -> None:
    """`make serve` needs no configuration."""
    assert Settings.read({}, {}).model_dump() == {
        name: field.default for name, field in Settings.model_fields.items()
    }
    assert from_flags() == DEFAULTS
    assert Settings.model_validate(DEFAULTS.model_dump()) == DEFAULTS  # within their own limits


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    """What was typed last and nearest decides; argparse says None for a flag that was not given."""
    flags = {"timeout": "5", "threads": None}
    settings = Settings.read(flags, {"SIGLIT_TIMEOUT": "7.5", "SIGLIT_THREADS": "3"})
    assert (settings.timeout, settings.threads) == (5, 3)


@pytest.mark.parametrize("name", BARE)
def test_a_bare_name_is_read_and_the_prefixed_one_wins(name: str) -> None:
    """`PORT=9000 make serve` works; Compose files pass an empty `MODEL=` on."""
    assert set(BARE) == {"model", "revision", "port", "redis_url"}
    assert Settings.read({}, {name.upper(): "" for name in BARE}) == DEFAULTS
    words = {"port": ("9000", "9001"), "redis_url": ("redis://bare", "redis://prefixed")}
    bare, prefixed = words.get(name, ("bare", "prefixed"))
    environ = {name.upper(): bare}
    assert str(getattr(Settings.read({}, environ), name)) == bare
    environ[PREFIX + name.upper()] = prefixed
    assert str(getattr(Settings.read({}, environ), name)) == prefixed


@pytest.mark.parametrize("name", WITH_DEFAULT)
def test_a_default_can_be_written_as_text(name: str) -> None:
    """What --help shows as the default is what one may give, by variable and by flag."""
    default = Settings.model_fields[name].default
    from_environment = Settings.read({}, {PREFIX + name.upper(): as_text(default)})
    assert from_environment == DEFAULTS
    assert from_flags(f"{flag_of(name)}={as_text(default)}") == DEFAULTS


@given(port=st.integers(1024, 65535), timeout=st.floats(0.001, 3600), threads=st.integers(0, 256))
def test_flag_and_variable_read_a_number_alike(port: int, timeout: float, threads: int) -> None:
    """There is one meaning of a value, wherever it was given."""
    values = {"port": str(port), "timeout": repr(timeout), "threads": str(threads)}
    environ = {PREFIX + name.upper(): value for name, value in values.items()}
    words = [f"{flag_of(name)}={value}" for name, value in values.items()]
    settings = from_flags(*words)
    assert settings == Settings.read({}, environ)
    assert (settings.port, settings.timeout, settings.threads) == (port, timeout, threads)


def test_only_the_prefix_makes_a_variable_ours() -> None:
    """In capitals, before a name in any case; a misspelt one is not silently ignored."""
    environ = {"PATH": "/bin", "siglit_port": "x", "MY_SIGLIT_PORT": "x"}
    environ |= {name.upper(): "1" for name in OPTIONS if name not in BARE}
    assert Settings.read({}, environ) == DEFAULTS
    assert Settings.read({}, {"SIGLIT_port": "9000"}).port == 9000
    wrong = complaints({}, {"SIGLIT_TEXT_WORKER": "2"})
    assert wrong == ["SIGLIT_TEXT_WORKER: there is no such option"]


def test_all_wrong_options_are_reported_together_by_the_name_they_were_given_under() -> None:
    """One start tells all there is to mend, in the words of whoever gave it."""
    lines = complaints(
        {"threads": "-1", "host": None},
        {"PORT": "80", "SIGLIT_TIMEOUT": "soon", "SIGLIT_LOOP": "fast", "SIGLIT_TYPO": "1"},
    )
    assert len(lines) == 5
    names = {line.partition(":")[0] for line in lines}
    assert names == {"--threads", "PORT", "SIGLIT_TIMEOUT", "SIGLIT_LOOP", "SIGLIT_TYPO"}


def test_a_complaint_shows_the_limit_and_what_was_given_unless_that_is_a_secret() -> None:
    """A person can mend the option without looking anything up, and many can read the log."""
    (line,) = complaints({}, {"SIGLIT_MAX_ITEMS": "0"})
    assert "greater than or equal to 1" in line
    assert "'0'" in line
    (line,) = complaints({"cache_tenant": 7321}, {})
    assert line.startswith("--cache-tenant: ")
    assert "7321" not in line


# option, a word of what is said, and wrong values
CLUSTERS, SPACE = "redis+cluster://", "a key holds white space, which no header brings whole"
WRONG: list[tuple[str, str, tuple[str, ...]]] = [
    ("port", "", ("80", "65536", "8080.5", "")), ("host", "", ("example.org",)),
    ("precision", "", ("int4",)), ("text_precision", "", ("float64",)), ("compile", "", ("yes",)),
    ("loop", "", ("stoic",)), ("cache", "", ("maybe",)), ("timeout", "", ("0", "nan", "inf")),
    ("max_items", "", ("0",)), ("redis_budget_ms", "", ("1001",)),
    ("jpeg_draft", "", ("perhaps",)), ("log_level", "", ("loud",)),
    ("image_formats", "", ("", "png,exe", "png\nPORT: wrong")),
    ("devices", "", ("", "gpu", "cpu,cuda:0", "cuda:0,cuda:0", "cuda:0,cuda:00", "cuda:²")),
    ("devices", "", ("cuda:-1",)),
    ("redis_url", CLUSTERS, ("http://cache:6379", "cache:6379", "redis://", "redis://:s3cret@")),
    ("redis_url", CLUSTERS, ("redis://:s3cret@cache:port", "redis://:s3cret@cache:99999")),
    ("redis_url", CLUSTERS, ("redis://[::1", "unix://", "redis+unix:///run/s3cret")),
    ("api_keys", "holds no key", (",", " ", ", ,", "\n", ",\n,")),
    ("api_keys", SPACE, ("one,s3cret b", "one,a\tb", "one,a\nb", "one,a\x00b", "one,a\u2003b")),
    ("cors_origins", "", ("https://b.example,example.org", "https://b.example,https://a.ex/path")),
    ("cors_origins", "", ("https://b.example,https://", "https://b.example,a b")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "said", "value"), [(name, said, one) for name, said, all_ in WRONG for one in all_]
)
def test_a_wrong_value_is_refused_by_name(name: str, said: str, value: str) -> None:
    """On one line, with the limit and what was given unless that is a secret; found before anything
    starts, it never turns into another one's default."""
    for line in refused(name, value):
        assert said in line
        assert "s3cret" not in line


@given(st.dictionaries(st.sampled_from([*VARIABLES, "SIGLIT_NO", "PORT", "HOME"]), st.text()))
def test_any_environment_gives_settings_or_a_line_for_a_wrong_name(environ: dict[str, str]) -> None:
    """Whatever stands in the environment, the start never fails in another way."""
    try:
        settings = Settings.read({}, environ)
    except SettingsError as refusal:
        names = [line.partition(":")[0] for line in str(refusal).splitlines()]
        assert len(names) == len(set(names))
        assert set(names) <= set(environ)
    else:
        assert isinstance(settings, Settings)
        assert "SIGLIT_NO" not in environ


def test_settings_in_code_take_no_unknown_option_and_no_change() -> None:
    """Tests and notebooks get no free pass; every process sees the same values."""
    assert pickle.loads(pickle.dumps(DEFAULTS)) == DEFAULTS
    with pytest.raises(ValidationError):
        Settings.model_validate({"text_worker": 2})
    with pytest.raises(ValidationError):
        DEFAULTS.port = 9000  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "given_as", "means"),
    [
        ("devices", "auto", "auto"), ("devices", " cpu ", "cpu"), ("devices", "cuda:1", "cuda:1"),
        ("devices", "cuda:0, cuda:3", "cuda:0,cuda:3"),
        ("image_formats", "PNG, Jpeg", ("png", "jpeg")),
        ("api_keys", "Alpha, beta,,", ("Alpha", "beta")), ("api_keys", "", ()),
        ("cors_origins", "https://b.example:8443,*,null", ("https://b.example:8443", "*", "null")),
        *(("redis_url", url, url) for url in (
            "redis://cache", "rediss://user:word@cache:6380/2", "unix:///run/redis.sock",
            "unix://user:word@/run/redis.sock?db=1", "redis+cluster://one:7000",
            "rediss+cluster://one:7000?ssl_cert_reqs=none", "redis://[::1]:6379",
        )),
    ],
)  # fmt: skip
def test_a_value_is_taken_as_people_write_it(name: str, given_as: str, means: object) -> None:
    """Spaces are allowed where they put them in lists; keys are compared letter by letter; any form
    of a Redis URL is taken that the cache can read."""
    assert getattr(Settings.read({}, {PREFIX + name.upper(): given_as}), name) == means


@pytest.mark.parametrize("name", ["api_keys", "cache_tenant", "redis_url", "tls_key", "model"])
@pytest.mark.parametrize("space", ["\n", "\r\n", " ", "\t"])
def test_white_space_around_a_secret_is_none_of_it(name: str, space: str) -> None:
    """A secret that was read from a file ends with a line feed."""
    plain = "redis://:word@cache:6379" if name == "redis_url" else "abc"
    environ = {PREFIX + name.upper(): f"{space}{plain}{space}"}
    assert Settings.read({}, environ) == Settings.read({name: plain}, {})


def test_keys_come_from_a_file_too(tmp_path: Path) -> None:
    """One a line, with comments, empty lines and white space; beside those of the option."""
    path = tmp_path / "keys"
    path.write_bytes(b"\xef\xbb\xbf# ours\r\none\r\n\r\n  two \n#three\n")
    keys = Settings.read({"api_keys_file": str(path)}, {"SIGLIT_API_KEYS": "zero"}).keys()
    assert [key.secret for key in keys] == ["zero", "one", "two"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# none\n", b"\xff\xfe", b"one two\n"])
def test_a_file_without_a_key_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """Empty, only comments, no text, a key in two parts, or a folder."""
    path = tmp_path / "keys"
    path.write_bytes(content)
    assert refused("api_keys_file", str(path))
    assert refused("api_keys_file", str(tmp_path))


SERVICE = {
    "SIGLIT_SERVICE_HOST": "10.0.0.1", "SIGLIT_SERVICE_PORT": "8080",
    "SIGLIT_SERVICE_PORT_HTTP": "8080", "SIGLIT_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "SIGLIT_PORT_8080_TCP_PROTO": "tcp", "SIGLIT_PORT_8080_TCP_PORT": "8080",
    "SIGLIT_PORT_8080_TCP_ADDR": "10.0.0.1", "SIGLIT_REDIS_SERVICE_HOST": "10.0.0.2",
    "SIGLIT_REDIS_PORT": "tcp://10.0.0.2:6379", "SIGLIT_REDIS_PORT_6379_TCP_ADDR": "10.0.0.2",
}  # fmt: skip


def test_what_kubernetes_sets_for_a_service_is_no_option_but_for_the_port() -> None:
    """A Service named siglit sets them in every pod; the port could be the operator's own."""
    assert Settings.read({}, SERVICE) == DEFAULTS
    environ = {**SERVICE, "SIGLIT_PORT": "tcp://10.0.0.1:8080"}
    (line,) = complaints({}, environ)
    assert line.startswith("SIGLIT_PORT: Kubernetes set it")
    assert "enableServiceLinks" in line
    assert Settings.read({"port": "9000"}, environ).port == 9000
    assert Settings.read({}, {**environ, "PORT": "9001"}).port == 9001


@pytest.mark.parametrize(("count", "processes"), [(1, 1), (2, 1), (4, 1), (8, 2), (64, 16)])
def test_four_cores_have_one_http_process(
    monkeypatch: pytest.MonkeyPatch, count: int, processes: int
) -> None:
    """The rest of the cores belong to decoding and to the towers."""
    monkeypatch.setattr("litapi.settings.cores", lambda: count)
    assert DEFAULTS.front_processes == processes
    assert Settings.read({"http_workers": 3}, {}).front_processes == 3


def test_the_help_lists_every_option_with_its_default_and_the_words_it_takes() -> None:
    """--help is the complete list; a command may offer some options only."""
    parser = argparse.ArgumentParser()
    add_flags(parser, ("model", "threads"))
    assert set(vars(parser.parse_args([]))) == {"model", "threads"}
    parser = argparse.ArgumentParser()
    add_flags(parser)
    text = " ".join(parser.format_help().split())
    for name, field in Settings.model_fields.items():
        assert re.search(rf"{flag_of(name)}\b", text), name
        assert field.description, name
        assert " ".join(field.description.split()) in text, name
    for words in (
        *("image-urls off|allowed|any-public", "text-precision auto|float32"),
        *("jpeg-draft true|false", "port N"),
    ):
        assert f"--{words}" in text


@pytest.mark.parametrize(("name", "alias"), [(n, a) for n, all_ in ALIASES.items() for a in all_])
def test_an_alias_is_the_same_option(name: str, alias: str) -> None:
    """Both spellings of a flag set the one value."""
    value = "float32" if name == "precision" else as_text(Settings.model_fields[name].default)
    assert from_flags(alias, value) == from_flags(flag_of(name), value)


def test_a_tower_has_the_shared_precision_unless_it_has_its_own() -> None:
    """And a complaint names the flag that was meant."""
    one = Settings.read({"precision": "bfloat16", "text_precision": "int8"}, {})
    assert (one.precision_of("text"), one.precision_of("image")) == ("int8", "bfloat16")
    assert one.precision_option("text") == "--text-precision"
    assert one.precision_option("image") == "--precision"


def test_only_the_settings_know_the_prefix() -> None:
    """No other file reads an option from the environment behind the validation's back."""
    reads = re.compile(r"(environ|getenv)\b.*" + PREFIX)
    files = [p for room in ("litapi", "cache") for p in (ROOT / room).rglob("*.py")]
    readers = [p.name for p in files if reads.search(p.read_text())]
    assert readers == []
