import ssl
from pathlib import Path

import pytest
from redis.asyncio import SSLConnection, UnixDomainSocketConnection

from cache.redis.address import Address


@pytest.mark.parametrize(
    ("url", "options", "greeting"),
    [
        ("redis://host", {}, []),
        ("redis://host/0", {"db": 0}, []),
        ("redis://host:7000/3", {"port": 7000, "db": 3}, [("SELECT", "3")]),
        ("redis://host?db=2", {"db": 2}, [("SELECT", "2")]),
        ("redis://[::1]:7000", {"host": "::1", "port": 7000}, []),
        ("redis://:word@host", {"password": "word"}, [("AUTH", "word")]),
        ("redis://:word@host\n", {"password": "word"}, [("AUTH", "word")]),  # as files end
        ("redis://user@host", {"username": "user"}, [("AUTH", "user", "")]),
        (
            "redis://user:p%40ss@host/3",
            {"username": "user", "password": "p@ss", "db": 3},
            [("AUTH", "user", "p@ss"), ("SELECT", "3")],
        ),
    ],
)
def test_a_url_is_taken_apart(
    url: str, options: dict[str, object], greeting: list[tuple[str, ...]]
) -> None:
    """Host, port, database, user and password, percent-encoded or not. A greeting says who and
    where, and nothing that the server takes for granted."""
    address = Address.of(url)
    assert address.options == {"host": "host", **options}
    assert address.greeting() == greeting
    assert not address.cluster


def test_tls_unix_sockets_and_clusters_have_schemes_of_their_own() -> None:
    """The scheme decides how the connection is made."""
    assert Address.of("redis+cluster://host:7000").cluster
    tls = Address.of("rediss+cluster://host?ssl_cert_reqs=none")
    assert (tls.cluster, tls.options["ssl_cert_reqs"]) == (True, "none")
    assert Address.of("rediss://host").options["connection_class"] is SSLConnection
    unix = Address.of("unix://user:word@/run/redis.sock?db=2")
    assert unix.options["connection_class"] is UnixDomainSocketConnection
    assert unix.options["path"] == "/run/redis.sock"
    assert unix.greeting() == [("AUTH", "user", "word"), ("SELECT", "2")]


@pytest.mark.parametrize(
    "url",
    [
        "", "host:6379", "http://host", "redis:/host", "memcached+cluster://host", "redis://",
        "unix://", "redis://host:secret-port", "redis://host?socket_timeout=30",
        "redis://host?decode_responses=true", "redis://host?max_conections=5",
        "rediss://host?ssl_cert_reqs=None", "rediss://host?ssl_cert_reqs=",
        "rediss://host?ssl_check_hostname=false&ssl_check_hostname=true",
        "rediss://host?ssl_ca_cert=/ca.pem", "redis://host/-1",
        "redis://host/1/2", "redis://host/1?db=2", "redis://host?db=one", "redis://host?db=",
        "redis://host?db=²", "redis://host?connection_class=x", "redis://host?host=other",
        "redis://host:65536", "redis://host:-1", "redis://host: 6379",
        "unix:///run/redis.sock?db=-1", "redis://host?ssl_ca_certs=/ca.pem",
        "redis+cluster://host/3", "unix+cluster:///run/redis.sock",
    ],
)  # fmt: skip
def test_a_url_that_would_not_do_what_it_says_is_refused(url: str) -> None:
    """At start-up and by name, never by ignoring a part of it."""
    with pytest.raises(ValueError, match="Redis"):
        Address.of(url)


def test_tls_checks_certificate_and_name_unless_told_otherwise() -> None:
    """Without TLS in the scheme there is no context at all."""
    assert Address.of("redis://host").tls() is None
    strict = Address.of("rediss://host").tls()
    assert strict is not None
    assert strict.check_hostname
    assert strict.verify_mode is ssl.CERT_REQUIRED
    lax = Address.of("rediss://host?ssl_cert_reqs=none").tls()
    assert lax is not None
    assert not lax.check_hostname
    assert lax.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("rediss://host?ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs takes none, optional, required"),
        ("rediss://host?ssl_check_hostname=maybe", "ssl_check_hostname takes true, false"),
        ("redis://host/cache", "database"),
        ("redis://host?db=1&db=2", "db twice"),
        ("rediss://host?ssl_ca_certs=", "ssl_ca_certs has no value"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_option(url: str, named: str) -> None:
    """Redis itself would have been blamed for it later: "did not answer"."""
    with pytest.raises(ValueError, match=named):
        Address.of(url)


SECRET = (
    "redis://u:hunter2@host:port", "http://u:hunter2@host", "redis://u:hunter2@?x=1",
    "redis://u:hunter2@host?db=hunter2", "redis://u:hunter2@host/hunter2",
    "rediss://u:hunter2@host?ssl_cert_reqs=hunter2",
    "rediss://u:hunter2@host?ssl_check_hostname=hunter2",
    "rediss://u:hunter2@host?ssl_ca_certs=/hunter2",
)  # fmt: skip


@pytest.mark.parametrize("url", SECRET)
def test_no_error_and_no_repr_shows_a_password(url: str) -> None:
    """Start-up errors are logged, and logs are read by many; a wrong value may be one too."""
    with pytest.raises(ValueError, match="Redis") as caught:
        Address.of(url).tls()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None or "hunter2" not in str(caught.value.__cause__)
    assert "hunter2" not in repr(Address.of("redis://user:hunter2@host"))


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
@pytest.mark.parametrize("place", ["missing.pem", "folder", "garbage.pem"])
def test_tls_files_that_cannot_be_used_are_named_by_their_option(
    tmp_path: Path, option: str, place: str
) -> None:
    """A missing file, a folder, and one that holds no certificate."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage.pem").write_text("no certificate")
    url = f"rediss://host?{option}={tmp_path / place}"
    with pytest.raises(ValueError, match=f"{option} cannot be used"):
        Address.of(url).tls()
