"""Images by URL: what is allowed arrives, and nothing else is ever dialled.

127.0.0.2 stands for a machine inside: it listens, counts connections, and must count none. Where
a test needs a public host, a policy that also dials 127.0.0.1 makes that address play one.
"""

import asyncio
import contextlib
import gzip
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from bench.faults.hostile import FORBIDDEN_HOSTS, INVALID_URLS
from litapi import errors
from litapi.http import fetch
from litapi.http.embedder import Query
from litapi.http.fetch import Fetcher, FetchPolicy
from litapi.http.inputs import Link, Reader
from litapi.http.request import ClientGone
from litapi.settings import Settings
from tests.support.certificate import certify
from tests.support.patience import settled, until
from tests.support.wire import Wire, arrive

pytestmark = pytest.mark.anyio
OUTSIDE, INSIDE = "127.0.0.1", "127.0.0.2"
IMAGE = b"\x89PNG" + bytes(range(256)) * 40

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that the server runs, which resolves and connects in its own way."""
    return "asyncio", {"use_uvloop": True}


class Host:
    """A small HTTP server: a path has a reply, every connection is counted."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.paths: dict[str, Reply] = {}
        self.left = asyncio.Event()  # a caller hung up
        self._talks: set[asyncio.Task[None]] = set()

    async def listen(self, address: str, port: int = 0, tls: ssl.SSLContext | None = None) -> int:
        self._server = await asyncio.start_server(self._accept, address, port, ssl=tls)
        return int(self._server.sockets[0].getsockname()[1])

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._talks.add(asyncio.create_task(self._talk(reader, writer)))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            path = head.split(b" ")[1].decode().partition("?")[0]
            self._talks.add(asyncio.create_task(self._watch(reader)))
            await self.paths[path](writer)
            await writer.drain()

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            await reader.read()  # to the end of the connection
        self.left.set()

    async def close(self) -> None:
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)


def says(octets: bytes, hangs: bool = False) -> Reply:
    """These bytes, and nothing more for ever or the end of the connection."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(octets)
        await writer.drain()
        if hangs:
            await asyncio.Event().wait()

    return write


def reply(body: bytes = IMAGE, status: str = "200 OK", **headers: str) -> Reply:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    return says("\r\n".join([*lines, "", ""]).encode() + body)


def redirect(location: str, status: str = "302 Found") -> Reply:
    return reply(b"moved", status, location=location)


HANG = says(b"", hangs=True)


class Crowd:
    """An image that counts how many ask for it at once; the first wait for so many."""

    def __init__(self, expected: int) -> None:
        self.most = self._now = 0
        self._expected = expected

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        self._now += 1
        self.most = max(self.most, self._now)
        await until(lambda: self.most >= self._expected)
        await asyncio.sleep(0.02)  # for one too many
        self._now -= 1
        await reply()(writer)


class Names(AbstractResolver):
    """Name → addresses; each look-up takes the next answer, the last one stays; None: no answer."""

    def __init__(self, **names: list[list[str]] | None) -> None:
        self._names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        self.asked.append(host)
        if host not in self._names:
            raise OSError("no such name")
        while (answers := self._names[host]) is None:
            await asyncio.Event().wait()
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [_resolved(host, address, port) for address in addresses]

    async def close(self) -> None:
        pass


def _resolved(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(
        hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
    )


class Worldly(FetchPolicy):
    """A policy to which 127.0.0.1 is a public address; every other rule stands."""

    __slots__ = ()

    def dialable(self, address: str) -> bool:
        return address == OUTSIDE or FetchPolicy.dialable(self, address)


class World:
    """The host outside and the host inside, on one port."""

    def __init__(self, outside: Host, inside: Host, port: int) -> None:
        self.outside, self.inside, self.port = outside, inside, port
        outside.paths["/image"] = inside.paths["/image"] = reply()

    def url(self, path: str = "/image", host: str = OUTSIDE) -> str:
        return f"http://{host}:{self.port}{path}"

    def stands(self, **changes: Any) -> FetchPolicy:
        """A policy that may fetch from the host outside, as from a named private store."""
        options = {"hosts": (OUTSIDE,), "private_ok": True, "ports": (self.port,)}
        return FetchPolicy(**{"max_bytes": 100_000, **options, **changes})

    def worldly(self, **changes: Any) -> FetchPolicy:
        """A policy that may fetch from any public host, the one outside included."""
        options = {"any_public": True, "ports": (self.port,)}
        return Worldly(**{"max_bytes": 100_000, **options, **changes})


@pytest.fixture
async def world() -> AsyncIterator[World]:
    outside, inside = Host(), Host()
    port = await outside.listen(OUTSIDE)
    await inside.listen(INSIDE, port)
    yield World(outside, inside, port)
    await outside.close()
    await inside.close()


@asynccontextmanager
async def fetching(policy: FetchPolicy, names: Names | None = None) -> AsyncIterator[Fetcher]:
    fetcher = Fetcher(policy, names)
    await fetcher.start()
    try:
        yield fetcher
    finally:
        await fetcher.close()


async def fetched(policy: FetchPolicy, url: str, names: Names | None = None) -> bytes:
    async with fetching(policy, names) as fetcher:
        return await fetcher.fetch(url)


async def refusal(policy: FetchPolicy, url: str, names: Names | None = None) -> str:
    """The code with which a fetch was refused; the bytes it brought fail the test."""
    with pytest.raises(errors.ItemError) as caught:
        await fetched(policy, url, names)
    return caught.value.code


def codes(got: Iterable[object]) -> list[str]:
    """The code of each refused item."""
    return [getattr(one, "code", "") for one in got]


INVALID, FORBIDDEN = "image_url_invalid", "image_url_forbidden"
FAILED, TIMEOUT, TOO_LARGE = "image_url_failed", "image_url_timeout", "image_too_large"


# The standard library may call these global: they carry a second address inside, even a public one.
GLOBAL_TO_SOME = [
    "[2002:7f00:1::]", "[::ffff:8.8.8.8]", "[2001:0:808:808::1]", "[::ffff:0:7f00:1]",
    "[2001:2::1]", "[ff0e::1]",
]  # fmt: skip


@pytest.mark.parametrize("host", [*FORBIDDEN_HOSTS, *GLOBAL_TO_SOME])
async def test_an_address_that_is_not_public_is_never_dialled(world: World, host: str) -> None:
    """Under any-public, each spelling of a private place is refused, and no connection is made."""
    policy = FetchPolicy(max_bytes=1000, any_public=True, ports=(world.port,))
    assert await refusal(policy, world.url(host=host)) == FORBIDDEN
    assert world.inside.connections == world.outside.connections == 0


# Too long a label, too long a name, a hyphen at an end, other characters.
NO_NAMES = [
    f"http://{host}/" for host in ("x" * 64, "a." * 130 + "com", "a_b-.com", "ex!ample.com")
]


@pytest.mark.parametrize("url", [*INVALID_URLS, *NO_NAMES])
async def test_a_url_of_odd_form_is_refused_before_any_look_up(world: World, url: str) -> None:
    """What two parsers could read differently is refused by form; no name is even looked up."""
    names = Names(example_com=[[INSIDE]])
    policy = FetchPolicy(max_bytes=1000, any_public=True, ports=(80, world.port))
    assert await refusal(policy, url, names) == INVALID
    assert names.asked == []
    assert world.inside.connections == 0


@pytest.mark.parametrize(
    "address", [INSIDE, "10.1.2.3", "fd00::1", "::ffff:127.0.0.2", "fe80::1%1"]
)
async def test_a_name_that_means_a_private_address_is_refused(world: World, address: str) -> None:
    """What counts is the address behind the name; an allow-listed name is no exception."""
    names = Names(example_com=[[address]])
    policy = FetchPolicy(max_bytes=1000, hosts=("example.com",), ports=(world.port,))
    assert await refusal(policy, world.url(host="example.com"), names) == FORBIDDEN
    assert world.inside.connections == 0


async def test_a_name_of_several_addresses_or_of_changing_ones_gains_nothing(world: World) -> None:
    """Each is judged on its own; rebinding: public at first, private by a redirect or later."""
    both = Names(both_test=[[INSIDE, OUTSIDE]])
    assert await fetched(world.worldly(), world.url(host="both.test"), both) == IMAGE
    names = Names(rebind_test=[[OUTSIDE], [INSIDE]], again_test=[[OUTSIDE], [INSIDE]])
    world.outside.paths["/again"] = redirect("/image")
    async with fetching(world.worldly(), names) as fetcher:
        assert await fetcher.fetch(world.url(host="rebind.test")) == IMAGE
        for path, host in (("/image", "rebind.test"), ("/again", "again.test")):
            with pytest.raises(errors.ImageUrlForbidden):
                await fetcher.fetch(world.url(path, host))
    assert names.asked == ["rebind.test"] * 2 + ["again.test"] * 2
    assert world.inside.connections == 0


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/image", "//127.0.0.2:{port}/image",
        "http://inside.test:{port}/image", "http://[::ffff:127.0.0.2]:{port}/image",
        "http://0x7f.2:{port}/image", "http://2130706434:{port}/image",
        "http://u@127.0.0.2:{port}/image", "http://127.0.0.1:{port}\\@127.0.0.2:{port}/image",
        "http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:22/", "file:///etc/passwd",
        "gopher://127.0.0.2:{port}/", "http://[::1", "\\\\127.0.0.2\\image",
    ],
)  # fmt: skip
async def test_a_redirect_leads_nowhere_a_url_may_not(world: World, location: str) -> None:
    """Each hop is judged as the first URL was."""
    world.outside.paths["/start"] = redirect(location.format(port=world.port))
    names = Names(inside_test=[[INSIDE]])
    assert await refusal(world.worldly(), world.url("/start"), names) == FORBIDDEN
    assert world.inside.connections == 0


async def test_a_redirect_leaves_the_named_hosts_only_by_permission(world: World) -> None:
    """A named host cannot widen the list by redirecting."""
    names = Names(good_test=[[OUTSIDE]], other_test=[[OUTSIDE]])
    world.outside.paths["/start"] = redirect(world.url(host="other.test"))
    one = world.stands(hosts=("good.test",))
    assert await refusal(one, world.url("/start", "good.test"), names) == FORBIDDEN
    both = world.stands(hosts=("good.test", "other.test"))
    assert await fetched(both, world.url("/start", "good.test"), names) == IMAGE


def test_https_does_not_lead_to_http() -> None:
    """A redirect may not take the protection of TLS away; the other way is fine."""
    policy = FetchPolicy(max_bytes=1, hosts=("example.com",))
    plain, safe = URL("http://example.com/a"), URL("https://example.com/a")
    with pytest.raises(errors.ImageUrlForbidden):
        policy.onward(safe, "http://example.com/b")
    assert str(policy.onward(plain, "https://example.com/b")) == "https://example.com/b"
    assert str(policy.onward(safe, "/b?c=%2F")) == "https://example.com/b?c=%2F"


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "::"])
def test_metadata_services_stay_shut_even_to_private_stores(address: str) -> None:
    """`private_ok` opens private networks, not the addresses that hand out credentials."""
    policy = FetchPolicy(max_bytes=1, hosts=("store",), private_ok=True)
    assert not policy.dialable(address)
    assert policy.dialable("10.0.0.7")
    assert policy.dialable("fd12::7")
    usual = FetchPolicy(max_bytes=1, any_public=True)
    ordinary = ("8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450::1")
    assert all(usual.dialable(one) for one in ordinary)


@pytest.mark.parametrize(
    "host",
    [
        *("", "*", "*.", "exa mple", "http://a.b", "1.2.3", "a/b", "*:80", "a.b:", "a.b:0"),
        *("a.b:65536", ":80", "a.b:+80", "a.b:80:80", "::1", "::1:80", "[::1", "[::1]:"),
        *("[a.b]:80", "a.b:８０"),
    ],
)
def test_an_entry_that_is_no_host_name_is_reported(host: str) -> None:
    """At start, not as a puzzle later, all in one line; any host with any address is a hole."""
    for hosts in ((), ("example.com",)):
        with pytest.raises(ValueError, match="named hosts"):
            FetchPolicy(max_bytes=1, hosts=hosts, any_public=bool(hosts), private_ok=True)
    with pytest.raises(ValueError, match="takes HOST") as caught:
        FetchPolicy(max_bytes=1, hosts=("good.test", host, "good.test:9000"))
    assert repr(host) in str(caught.value)
    assert "good.test" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^'a b', 'c:0': takes HOST[^\n]*$"):
        FetchPolicy(max_bytes=1, hosts=("a b", "good.test", "c:0"))


HOSTS = (
    *("Example.com", "*.example.org", "Bücher.de", "[2a00:1450::1]", "plain.test", "both.test"),
    *("minio.internal:9000", "[::1]:9000", "*.store.test:9001", "both.test:8080"),
)
ALLOWED = [
    "example.com", "EXAMPLE.com", "a.example.org", "a.b.example.org", "bücher.de", "BÜCHER.de",
    "xn--bcher-kva.de", "[2a00:1450:0::1]", "minio.internal:9000", "MINIO.internal:9000",
    "[::1]:9000", "[0:0:0:0:0:0:0:1]:9000", "a.store.test:9001", "plain.test", "plain.test:443",
    "both.test:8080", "both.test:80",
]  # fmt: skip
REFUSED = [
    "example.org", "badexample.org", "example.com.evil.net", "a.example.com", "notexample.com",
    "example.co", "bucher.de", "93.184.216.34", "minio.internal", "minio.internal:9001", "[::1]",
    "store.test:9001", "a.store.test:80", "plain.test:9000", "other.test:9000",
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("place", [*ALLOWED, *REFUSED])
def test_a_host_is_allowed_by_its_whole_name_and_its_port(scheme: str, place: str) -> None:
    """Names match whole, in one spelling; a star stands for names below, never for the name.

    A named port is that of its host alone; without one it is 80 and 443.
    """
    policy = FetchPolicy(max_bytes=1, hosts=HOSTS)
    refused = pytest.raises(errors.ImageUrlForbidden)
    with contextlib.nullcontext() if place in ALLOWED else refused:
        policy.target(f"{scheme}://{place}/bucket/a.png")


def test_a_named_port_stands_beside_any_public_host() -> None:
    """Which itself is fetched from port 80 or 443."""
    policy = FetchPolicy(max_bytes=1, any_public=True, hosts=("images.test:9000",))
    policy.target("http://images.test:9000/")
    policy.target("http://other.test/")
    with pytest.raises(errors.ImageUrlForbidden):
        policy.target("http://other.test:9000/")


async def test_a_good_image_arrives_byte_for_byte(world: World) -> None:
    """From a named store on a private address; nothing is by default, and no cookie is kept."""
    names = Names()
    plain = FetchPolicy(max_bytes=1000)
    assert await refusal(plain, "http://example.com/", names) == "image_url_disabled"
    assert names.asked == []
    with pytest.raises(RuntimeError, match="start"):
        await Fetcher(FetchPolicy(max_bytes=1, any_public=True)).fetch("http://example.com/")
    world.outside.paths["/image"] = reply(set_cookie="a=b; Path=/")
    for url in (world.url(), world.url() + "#fragment"):
        assert await fetched(world.stands(), url) == IMAGE
    for head in map(bytes.lower, world.outside.requests):
        assert b"accept-encoding: identity" in head
        assert b"cookie" not in head
        assert b"aiohttp" not in head


async def test_a_signed_url_is_requested_as_it_was_written(world: World) -> None:
    """Escapes and the order of parameters belong to the signature; only non-ASCII is escaped."""
    world.outside.paths["/a%2Fb/../~%7E;x=1"] = reply()
    world.outside.paths["/%C3%A4"] = reply()
    for path in ("/a%2Fb/../~%7E;x=1?z=%2B+1&a=/?", "/ä"):
        await fetched(world.stands(), world.url(path))
    assert world.outside.requests[0].startswith(b"GET /a%2Fb/../~%7E;x=1?z=%2B+1&a=/? HTTP/1.1")


async def test_three_redirects_are_followed_and_a_fourth_is_not(world: World) -> None:
    """A chain ends in the image or in an error, never in a loop."""
    statuses = ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"]
    for step, status in enumerate(statuses):
        world.outside.paths[f"/{step}"] = redirect(f"/{step + 1}", status)
    world.outside.paths["/4"] = reply()
    assert await fetched(world.stands(), world.url("/1")) == IMAGE
    assert await refusal(world.stands(), world.url("/0")) == FAILED
    world.outside.connections = 0
    world.outside.paths["/loop"] = reply(b"", "302 Found")  # names nothing, so it asks for itself
    assert await refusal(world.stands(), world.url("/loop")) == FAILED
    assert world.outside.connections == 4


async def test_a_proxy_in_the_environment_is_not_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would dial for us, past the check."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://{INSIDE}:{world.port}")
    assert await fetched(world.stands(), world.url()) == IMAGE
    assert world.inside.connections == 0


OK = b"HTTP/1.1 200 OK\r\n"
BOMB = gzip.compress(bytes(20_000_000))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        *((reply(b"", status), FAILED) for status in ("204 None", "206 Part", "304 Same")),
        *((reply(b"", status), FAILED) for status in ("404 No", "500 Oops")),
        (reply(BOMB, content_encoding="gzip"), FAILED),  # nobody asked for compression
        *((says(odd), FAILED) for odd in (b"", b"SSH-2.0-OpenSSH_9.2\r\n")),
        (says(OK + b"content-length: 50\r\n\r\nshort"), FAILED),
        (says(OK + b"content-length: -1\r\n\r\n"), FAILED),
        (says(OK + b"transfer-encoding: chunked\r\n\r\nZZ\r\n"), FAILED),
        (says(OK + b"x: " + b"a" * 100_000 + b"\r\n\r\n"), FAILED),
        (reply(bytes(100_001)), TOO_LARGE),
        (says(OK + b"content-length: 100001\r\n\r\n", hangs=True), TOO_LARGE),
    ],
)
async def test_only_a_plain_answer_within_the_cap_is_an_image(
    world: World, answer: Reply, code: str
) -> None:
    """Whatever else the other side says is refused, too much by its announcement alone."""
    world.outside.paths["/odd"] = answer
    assert await refusal(world.stands(), world.url("/odd")) == code


@pytest.mark.parametrize("body", [bytes(100_000), BOMB], ids=["the cap", "unpacked by nobody"])
async def test_a_body_up_to_the_cap_arrives_as_it_is(world: World, body: bytes) -> None:
    """The cap is inclusive, and what looks like gzip is not unpacked."""
    world.outside.paths["/body"] = reply(body)
    assert await fetched(world.stands(), world.url("/body")) == body


async def test_an_endless_body_is_cut_at_the_cap(world: World) -> None:
    """A body without an announced length is counted as it arrives."""
    sent = 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(OK + b"\r\n")
        while True:
            writer.write(bytes(10_000))
            await writer.drain()
            sent += 10_000

    world.outside.paths["/endless"] = pour
    assert await refusal(world.stands(), world.url("/endless")) == TOO_LARGE
    assert sent < 50_000_000


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"content-length: 1000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("path", "host"), [("/drip", "a.test"), ("/to-hang", "a.test"), ("/image", "slow.test")]
)
async def test_a_fetch_ends_at_the_time_out(world: World, path: str, host: str) -> None:
    """Whether bytes drip, a host is silent behind a redirect, or its name is not found."""
    world.outside.paths |= {"/drip": drip, "/hang": HANG, "/to-hang": redirect("/hang")}
    names = Names(a_test=[[OUTSIDE]], slow_test=None)
    policy = world.worldly(timeout=0.3)
    assert await refusal(policy, world.url(path, host), names) == TIMEOUT


async def test_a_host_that_is_not_there_is_a_failed_fetch(world: World) -> None:
    """A name without an address, and a port nobody listens on."""
    names = Names(gone_test=[[OUTSIDE]])
    assert await refusal(world.worldly(), world.url(host="no.test"), names) == FAILED
    await world.outside.close()
    assert await refusal(world.worldly(), world.url(host="gone.test"), names) == FAILED


async def test_a_certificate_nobody_vouches_for_is_a_failed_fetch(tmp_path: Path) -> None:
    """TLS is verified, for named private stores as well."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certify(tmp_path))
    host = Host()
    port = await host.listen(OUTSIDE, tls=context)
    policy = FetchPolicy(max_bytes=1000, hosts=(OUTSIDE,), private_ok=True, ports=(port,))
    assert await refusal(policy, f"https://{OUTSIDE}:{port}/image") == FAILED
    assert host.requests == []
    await host.close()


BOUNDS = [({"per_host": 3}, 3), ({"max_held_bytes": 200_000}, 2)]


@pytest.mark.parametrize(("bound", "most"), BOUNDS, ids=["a host", "memory"])
async def test_few_fetches_are_under_way_at_once(world: World, bound: Any, most: int) -> None:
    """As one host may be asked, whoever asks, or memory was given for; the others are served."""
    crowd = world.outside.paths["/count"] = Crowd(most)
    async with fetching(world.stands(**bound)) as fetcher:
        url = world.url("/count")
        got = await asyncio.gather(*(fetcher.fetch_all([url], n % 4) for n in range(12)))
    assert got == [[IMAGE]] * 12
    assert crowd.most == most


async def test_neither_errors_nor_the_log_name_the_place(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """An error text or an info line with an address would map the inside for a stranger."""
    names = Names(secret_test=[[INSIDE]])
    texts = []
    with caplog.at_level(logging.INFO):
        for host in ("secret.test", "10.1.2.3", "no.test", "0x7f.2"):
            with pytest.raises(errors.ItemError) as caught:
                await fetched(world.worldly(), world.url(host=host), names)
            assert caught.value.__suppress_context__ or caught.value.__context__ is None
            texts += [str(caught.value), caught.value.message]
    seen = " ".join([*texts, caplog.text])
    assert not [word for word in ("secret", "10.1", "127.", "no.test", "0x7f") if word in seen]


async def test_all_are_fetched_in_their_order_with_their_own_errors(world: World) -> None:
    """One that fails takes nothing from the others."""
    world.outside.paths["/none"] = reply(status="404 Not Found")
    urls = [world.url("/none"), world.url(), "ftp://a/b", world.url()]
    async with fetching(world.stands()) as fetcher:
        got = await fetcher.fetch_all(urls)
    assert got[1] == got[3] == IMAGE
    assert codes(got) == [FAILED, "", INVALID, ""]


async def test_the_images_of_one_request_are_bounded_together(world: World) -> None:
    """A few hundred bytes of URLs must not bring gigabytes; what fits is there."""
    world.outside.paths["/half"] = reply(bytes(50_000))
    async with fetching(world.stands(max_request_bytes=120_000, per_host=1)) as fetcher:
        got = await fetcher.fetch_all([world.url("/half")] * 5)
        assert got[:2] == [bytes(50_000)] * 2
        assert codes(got[2:]) == [TOO_LARGE] * 3
        assert await fetcher.fetch_all([world.url("/half")] * 2) == [bytes(50_000)] * 2


async def test_a_link_that_fails_gives_its_bytes_back(world: World) -> None:
    """What it brought is not kept, and must not be missing to the good ones."""
    world.outside.paths["/breaks"] = says(OK + b"content-length: 90000\r\n\r\n" + bytes(80_000))
    urls = [*[world.url("/breaks")] * 5, world.url()]
    async with fetching(world.stands(max_request_bytes=100_000, per_host=1)) as fetcher:
        *broken, good = await fetcher.fetch_all(urls)
    assert good == IMAGE
    assert codes(broken) == [FAILED] * 5


async def test_room_that_does_not_come_in_time_is_a_time_out(world: World) -> None:
    """And the room of those who left is free again."""
    world.outside.paths["/hang"] = HANG
    async with fetching(world.stands(max_held_bytes=100_000, timeout=60.0)) as fetcher:
        hung = asyncio.create_task(fetcher.fetch_all([world.url("/hang")]))
        await until(lambda: world.outside.connections == 1)
        late = asyncio.create_task(fetcher.fetch_all([world.url()] * 2))
        await settled()
        hung.cancel()
        assert await late == [IMAGE] * 2
    async with fetching(world.stands(max_held_bytes=100_000, timeout=0.3)) as fetcher:
        hung = asyncio.create_task(fetcher.fetch_all([world.url("/hang")]))
        got = await fetcher.fetch_all([world.url("/hang")])
        assert codes(got) == [TIMEOUT]
        await hung


@pytest.mark.parametrize("hosts", [1, 16], ids=["of one host", "of sixteen hosts"])
async def test_links_that_never_answer_keep_waiting_only_who_asked_for_them(
    world: World, hosts: int
) -> None:
    """Several requests with sixteen of them each are under way; another client's link is there."""
    world.outside.paths["/hang"] = HANG
    names = Names(**{f"host{n}_test": [[OUTSIDE]] for n in range(17)})
    links = [world.url("/hang", f"host{n % hosts}.test") for n in range(16)]
    async with fetching(world.worldly(timeout=200.0), names) as fetcher:
        slow = [asyncio.create_task(fetcher.fetch_all(links, "slow")) for _ in range(9)]
        await until(lambda: bool(world.outside.requests))
        for _ in range(3):
            async with asyncio.timeout(60):
                assert await fetcher.fetch_all([world.url(host="host16.test")], "good") == [IMAGE]
        assert not any(task.done() for task in slow)
        for task in slow:
            task.cancel()


class Stuck:
    """A machine's own resolver that knows one name and gives no answer to others until told."""

    def __init__(self) -> None:
        self.over, self.asked = threading.Event(), threading.Event()

    def __call__(self, host: str, port: int, *_: object, **__: object) -> list[object]:
        if host == "good.test":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (OUTSIDE, port))]
        self.asked.set()
        self.over.wait(600)
        raise OSError("no answer")

    @staticmethod
    def threads() -> list[threading.Thread]:
        """Those that wait for it."""
        return [one for one in threading.enumerate() if one.name == "siglit-lookup"]


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Stuck:
    stuck = Stuck()
    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    return stuck


async def test_names_that_get_no_answer_keep_waiting_only_who_asked_for_them(
    world: World, stuck: Stuck
) -> None:
    """Their threads cannot be ended: they are few, and neither look-ups nor the pool wait."""
    policy = world.worldly(timeout=200.0, lookup_timeout=100.0)
    async with fetching(policy) as fetcher:
        links = [world.url(host=f"nobody{n}.test") for n in range(16)]
        slow = [asyncio.create_task(fetcher.fetch_all(links, "slow")) for _ in range(3)]
        await until(stuck.asked.is_set)
        async with asyncio.timeout(60):
            assert await fetcher.fetch_all([world.url(host="good.test")], "good") == [IMAGE]
            assert await asyncio.to_thread(lambda: 1) == 1
        assert len(stuck.threads()) <= policy.per_host
        assert all(one.daemon for one in stuck.threads())
        stuck.over.set()
        for got in await asyncio.gather(*slow):
            assert set(codes(got)) == {FAILED}
        await until(lambda: not stuck.threads())


async def test_a_look_up_without_an_answer_ends_in_time_and_holds_its_thread(
    world: World, stuck: Stuck
) -> None:
    """The client is told; the thread counts against it until the system gives up."""
    policy = world.worldly(timeout=100.0, lookup_timeout=0.3, per_host=2)
    async with fetching(policy) as fetcher:
        links = [world.url(host=f"nobody{n}.test") for n in range(6)]
        got = await fetcher.fetch_all(links, "slow")
        assert set(codes(got)) == {TIMEOUT}
        assert len(stuck.threads()) <= 2
        stuck.over.set()
        await until(lambda: not stuck.threads())


@pytest.mark.parametrize("host", ["localhost", "nobody.invalid", "x" * 64 + ".test"])
async def test_the_systems_own_look_up_is_read(world: World, host: str) -> None:
    """Addresses of the machine's own resolver are judged like all others; no name is no image."""
    policy = world.worldly(hosts=("localhost",))
    try:
        url = policy.target(world.url(host=host))
    except errors.ImageUrlInvalid:
        return
    async with fetching(policy) as fetcher:
        [got] = await fetcher.fetch_all([str(url)])
    if host == "localhost":
        assert got == IMAGE
    else:
        assert codes([got])[0] in (FAILED, TIMEOUT)


class Parting(Wire):
    """A client that hangs up once its request has made the server call a host."""

    def __init__(self, host: Host) -> None:
        super().__init__([b"body"], gone_after=1)
        self._host = host

    async def receive(self) -> MutableMapping[str, Any]:
        if self.taken:
            await until(lambda: bool(self._host.requests))
        return await super().receive()


async def test_a_fetch_ends_when_its_client_leaves(world: World) -> None:
    """A host that never answers is not waited for on behalf of nobody, and sees its caller go."""
    world.outside.paths["/hang"] = HANG
    incoming = arrive(Parting(world.outside))
    await incoming.body()
    async with fetching(world.stands(timeout=60.0)) as fetcher:
        reader = Reader(Settings.read({}, {}), fetcher)
        with pytest.raises(ClientGone):
            await reader.settled([Link(world.url("/hang"))], incoming, Query())
        await asyncio.wait_for(world.outside.left.wait(), 60)


async def test_the_bytes_that_are_fetched_are_shown_beside_their_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a request may bring is held while it is fetched, and nothing afterwards."""
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(fetch, "held", lambda *facts: told.append(facts))
    async with fetching(world.stands(max_held_bytes=300_000)) as fetcher:
        await fetcher.fetch_all([world.url()] * 2, "one")
    assert told == [("images_by_url", 200_000, 300_000), ("images_by_url", 0, 300_000)]
