"""Images by URL: what is allowed arrives, and nothing else is ever dialled.

127.0.0.2 stands for a machine inside: it listens, counts connections, and must count none. Where
a test needs a public host, a policy that also dials 127.0.0.1 makes that address play one.
"""

import asyncio
import gzip
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from bench.faults.hostile import FORBIDDEN_HOSTS, INVALID_URLS
from litapi.errors import (
    ImageTooLarge,
    ImageUrlDisabled,
    ImageUrlFailed,
    ImageUrlForbidden,
    ImageUrlInvalid,
    ImageUrlTimeout,
    ItemError,
)
from litapi.http import fetch
from litapi.http.fetch import Fetcher, FetchPolicy, canonical_host, is_public
from tests.support.certificate import certify
from tests.support.patience import settled, until

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
        self._talks: set[asyncio.Task[None]] = set()

    async def listen(self, address: str, port: int = 0, tls: ssl.SSLContext | None = None) -> int:
        self._server = await asyncio.start_server(self._accept, address, port, ssl=tls)
        return int(self._server.sockets[0].getsockname()[1])

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            path = head.split(b" ")[1].decode().partition("?")[0]
            await self.paths[path](writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)


def reply(body: bytes = IMAGE, status: str = "200 OK", **headers: str) -> Reply:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join([*lines, "", ""]).encode("utf-8") + body)

    return write


def redirect(location: str, status: str = "302 Found") -> Reply:
    return reply(b"moved", status, location=location)


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

    def __init__(self) -> None:
        self.outside, self.inside = Host(), Host()
        self.port = 0

    async def open(self) -> None:
        self.port = await self.outside.listen(OUTSIDE)
        await self.inside.listen(INSIDE, self.port)
        self.outside.paths["/image"] = self.inside.paths["/image"] = reply()

    async def close(self) -> None:
        await self.outside.close()
        await self.inside.close()

    def url(self, path: str = "/image", host: str = OUTSIDE) -> str:
        return f"http://{host}:{self.port}{path}"

    def stands(self, **changes: object) -> FetchPolicy:
        """A policy that may fetch from the host outside, as from a named private store."""
        options = {"hosts": (OUTSIDE,), "private_ok": True, "ports": (self.port,)}
        return FetchPolicy(**{"max_bytes": 100_000, **options, **changes})  # type: ignore[arg-type]

    def worldly(self, **changes: object) -> FetchPolicy:
        """A policy that may fetch from any public host, the one outside included."""
        options = {"any_public": True, "ports": (self.port,)}
        return Worldly(**{"max_bytes": 100_000, **options, **changes})  # type: ignore[arg-type]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.open()
    yield world
    await world.close()


@asynccontextmanager
async def fetching(
    policy: FetchPolicy, resolver: AbstractResolver | None = None
) -> AsyncIterator[Fetcher]:
    fetcher = Fetcher(policy, resolver)
    await fetcher.start()
    try:
        yield fetcher
    finally:
        await fetcher.close()


async def refusal(policy: FetchPolicy, url: str, resolver: AbstractResolver | None = None) -> str:
    """The code with which a fetch was refused; the bytes it brought fail the test."""
    async with fetching(policy, resolver) as fetcher:
        with pytest.raises(ItemError) as caught:
            await fetcher.fetch(url)
    return caught.value.code


INVALID, FORBIDDEN = ImageUrlInvalid.code, ImageUrlForbidden.code


@pytest.mark.parametrize("host", FORBIDDEN_HOSTS)
async def test_an_address_that_is_not_public_is_never_dialled(world: World, host: str) -> None:
    """Under any-public, each spelling of a private place is refused, and no connection is made."""
    policy = FetchPolicy(max_bytes=1000, any_public=True, ports=(world.port,))
    assert await refusal(policy, world.url(host=host)) == FORBIDDEN
    assert world.inside.connections == world.outside.connections == 0


@pytest.mark.parametrize("url", INVALID_URLS)
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
    async with fetching(world.worldly(), both) as fetcher:
        assert await fetcher.fetch(world.url(host="both.test")) == IMAGE
    names = Names(rebind_test=[[OUTSIDE], [INSIDE]], again_test=[[OUTSIDE], [INSIDE]])
    world.outside.paths["/again"] = redirect("/image")
    async with fetching(world.worldly(), names) as fetcher:
        assert await fetcher.fetch(world.url(host="rebind.test")) == IMAGE
        for path, host in (("/image", "rebind.test"), ("/again", "again.test")):
            with pytest.raises(ImageUrlForbidden):
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
    async with fetching(world.stands(hosts=("good.test", "other.test")), names) as fetcher:
        assert await fetcher.fetch(world.url("/start", "good.test")) == IMAGE


def test_https_does_not_lead_to_http() -> None:
    """A redirect may not take the protection of TLS away; the other way is fine."""
    policy = FetchPolicy(max_bytes=1, hosts=("example.com",))
    plain, safe = URL("http://example.com/a"), URL("https://example.com/a")
    with pytest.raises(ImageUrlForbidden):
        policy.onward(safe, "http://example.com/b")
    assert str(policy.onward(plain, "https://example.com/b")) == "https://example.com/b"
    assert str(policy.onward(safe, "/b?c=%2F")) == "https://example.com/b?c=%2F"


@pytest.mark.parametrize(
    "address",
    [
        *("64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "fec0::1", "224.0.0.1", "192.0.0.8"),
        *("192.88.99.1", "5f00::1", "::ffff:8.8.8.8", "2001:0:808:808::1", "fe80::1%3"),
        *("::ffff:0:7f00:1", "2001:2::1", "ff0e::1"),
    ],
)
def test_addresses_that_the_standard_library_may_call_global_are_not_public(address: str) -> None:
    """Including every form that carries a second address inside, even a public one."""
    assert not is_public(ip_address(address))
    ordinary = ("8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450::1")
    assert all(is_public(ip_address(one)) for one in ordinary)


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "::"])
def test_metadata_services_stay_shut_even_to_private_stores(address: str) -> None:
    """`private_ok` opens private networks, not the addresses that hand out credentials."""
    policy = FetchPolicy(max_bytes=1, hosts=("store",), private_ok=True)
    assert not policy.dialable(address)
    assert policy.dialable("10.0.0.7")
    assert policy.dialable("fd12::7")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        *(("example.com", True), ("EXAMPLE.com", True), ("a.example.org", True)),
        *(("a.b.example.org", True), ("bücher.de", True), ("BÜCHER.de", True)),
        *(("xn--bcher-kva.de", True), ("[2a00:1450:0::1]", True), ("example.org", False)),
        *(("badexample.org", False), ("example.com.evil.net", False), ("a.example.com", False)),
        *(("notexample.com", False), ("example.co", False), ("bucher.de", False)),
        ("93.184.216.34", False),
    ],
)
def test_a_host_is_allowed_by_its_whole_name(host: str, allowed: bool) -> None:
    """Names match whole, in one spelling; a star stands for names below, never for the name."""
    hosts = ("Example.com", "*.example.org", "Bücher.de", "[2a00:1450::1]")
    policy = FetchPolicy(max_bytes=1, hosts=hosts)
    try:
        policy.target(f"http://{host}/")
    except ImageUrlForbidden:
        assert not allowed
    else:
        assert allowed


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


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        *(("minio.internal:9000", True), ("MINIO.internal:9000", True), ("[::1]:9000", True)),
        *(("[0:0:0:0:0:0:0:1]:9000", True), ("a.store.test:9001", True), ("plain.test", True)),
        *(("plain.test:443", True), ("both.test:8080", True), ("both.test:80", True)),
        *(("minio.internal", False), ("minio.internal:9001", False), ("[::1]", False)),
        *(("store.test:9001", False), ("a.store.test:80", False), ("plain.test:9000", False)),
        ("other.test:9000", False),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_entry_with_a_port_opens_that_port_of_that_host(
    scheme: str, place: str, allowed: bool
) -> None:
    """An image store on its own port; without a port it is 80 and 443, and of nobody else.

    A named port stands beside any public host too.
    """
    any_public = FetchPolicy(max_bytes=1, any_public=True, hosts=("images.test:9000",))
    any_public.target("http://images.test:9000/")
    any_public.target("http://other.test/")
    with pytest.raises(ImageUrlForbidden):
        any_public.target("http://other.test:9000/")
    hosts = ("minio.internal:9000", "[::1]:9000", "*.store.test:9001", "plain.test")
    policy = FetchPolicy(max_bytes=1, hosts=(*hosts, "both.test", "both.test:8080"))
    if allowed:
        policy.target(f"{scheme}://{place}/bucket/a.png")
    else:
        with pytest.raises(ImageUrlForbidden):
            policy.target(f"{scheme}://{place}/bucket/a.png")


@pytest.mark.parametrize("host", ["x" * 64, "a." * 130 + "com", "a_b-.com", "ex!ample.com"])
def test_names_beyond_the_rules_of_dns_are_invalid(host: str) -> None:
    """Too long a label, too long a name, a hyphen at an end, other characters."""
    with pytest.raises(ImageUrlInvalid):
        canonical_host(host)


async def test_a_good_image_arrives_byte_for_byte(world: World) -> None:
    """From a named store on a private address; nothing is by default, and no cookie is kept."""
    names = Names()
    plain = FetchPolicy(max_bytes=1000)
    assert await refusal(plain, "http://example.com/", names) == ImageUrlDisabled.code
    assert names.asked == []
    with pytest.raises(RuntimeError, match="start"):
        await Fetcher(FetchPolicy(max_bytes=1, any_public=True)).fetch("http://example.com/")
    world.outside.paths["/image"] = reply(set_cookie="a=b; Path=/")
    async with fetching(world.stands()) as fetcher:
        assert await fetcher.fetch(world.url()) == IMAGE
        assert await fetcher.fetch(world.url() + "#fragment") == IMAGE
    for head in map(bytes.lower, world.outside.requests):
        assert b"accept-encoding: identity" in head
        assert b"cookie" not in head
        assert b"aiohttp" not in head


async def test_a_signed_url_is_requested_as_it_was_written(world: World) -> None:
    """Escapes and the order of parameters belong to the signature; only non-ASCII is escaped."""
    world.outside.paths["/a%2Fb/../~%7E;x=1"] = reply()
    world.outside.paths["/%C3%A4"] = reply()
    async with fetching(world.stands()) as fetcher:
        await fetcher.fetch(world.url("/a%2Fb/../~%7E;x=1?z=%2B+1&a=/?"))
        await fetcher.fetch(world.url("/ä"))
    assert world.outside.requests[0].startswith(b"GET /a%2Fb/../~%7E;x=1?z=%2B+1&a=/? HTTP/1.1")


async def test_three_redirects_are_followed_and_a_fourth_is_not(world: World) -> None:
    """A chain ends in the image or in an error, never in a loop."""
    statuses = ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"]
    for step, status in enumerate(statuses):
        world.outside.paths[f"/{step}"] = redirect(f"/{step + 1}", status)
    world.outside.paths["/4"] = reply()
    async with fetching(world.stands()) as fetcher:
        assert await fetcher.fetch(world.url("/1")) == IMAGE
        with pytest.raises(ImageUrlFailed):
            await fetcher.fetch(world.url("/0"))
    world.outside.connections = 0
    world.outside.paths["/loop"] = reply(b"", "302 Found")  # names nothing, so it asks for itself
    assert await refusal(world.stands(), world.url("/loop")) == ImageUrlFailed.code
    assert world.outside.connections == 4


async def test_a_proxy_in_the_environment_is_not_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would dial for us, past the check."""
    monkeypatch.setenv("HTTP_PROXY", f"http://{INSIDE}:{world.port}")
    monkeypatch.setenv("http_proxy", f"http://{INSIDE}:{world.port}")
    async with fetching(world.stands()) as fetcher:
        assert await fetcher.fetch(world.url()) == IMAGE
    assert world.inside.connections == 0


async def test_a_body_announced_too_large_is_not_read(world: World) -> None:
    """The announcement is enough; the cap is inclusive. Only a plain 200 is an image at all."""
    world.outside.paths |= {"/cap": reply(bytes(100_000)), "/more": reply(bytes(100_001))}
    async with fetching(world.stands()) as fetcher:
        assert len(await fetcher.fetch(world.url("/cap"))) == 100_000
    assert await refusal(world.stands(), world.url("/more")) == ImageTooLarge.code
    for status in ("204 None", "206 Part", "304 Same", "404 No", "500 Oops"):
        world.outside.paths["/other"] = reply(b"", status)
        assert await refusal(world.stands(), world.url("/other")) == ImageUrlFailed.code

    async def announce(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100001\r\n\r\n")
        await asyncio.Event().wait()

    world.outside.paths["/large"] = announce
    assert await refusal(world.stands(), world.url("/large")) == ImageTooLarge.code


async def test_an_endless_body_is_cut_at_the_cap(world: World) -> None:
    """A body without an announced length is counted as it arrives."""
    sent = 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(10_000))
            await writer.drain()
            sent += 10_000

    world.outside.paths["/endless"] = pour
    assert await refusal(world.stands(), world.url("/endless")) == ImageTooLarge.code
    assert sent < 50_000_000


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("path", "host"), [("/drip", "a.test"), ("/to-hang", "a.test"), ("/image", "slow.test")]
)
async def test_a_fetch_ends_at_the_time_out(world: World, path: str, host: str) -> None:
    """Whether bytes drip, a host is silent behind a redirect, or its name is not found."""
    world.outside.paths |= {"/drip": drip, "/hang": hang, "/to-hang": redirect("/hang")}
    names = Names(a_test=[[OUTSIDE]], slow_test=None)
    policy = world.worldly(timeout=0.3)
    assert await refusal(policy, world.url(path, host), names) == ImageUrlTimeout.code


async def test_a_gzip_bomb_does_not_swell(world: World) -> None:
    """Nobody asked for compression, so nothing is unpacked and the fetch fails."""
    bomb = gzip.compress(bytes(20_000_000))
    assert len(bomb) < 100_000
    world.outside.paths["/bomb"] = reply(bomb, content_encoding="gzip")
    world.outside.paths["/hidden"] = reply(bomb)
    assert await refusal(world.stands(), world.url("/bomb")) == ImageUrlFailed.code
    async with fetching(world.stands()) as fetcher:
        assert await fetcher.fetch(world.url("/hidden")) == bomb


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_a_failed_fetch(world: World, answer: bytes) -> None:
    """Whatever the other side says, the caller sees one kind of error."""

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    world.outside.paths["/odd"] = say
    assert await refusal(world.stands(), world.url("/odd")) == ImageUrlFailed.code


async def test_a_host_that_is_not_there_is_a_failed_fetch(world: World) -> None:
    """A name without an address, and a port nobody listens on."""
    names = Names(gone_test=[[OUTSIDE]])
    assert await refusal(world.worldly(), world.url(host="no.test"), names) == ImageUrlFailed.code
    await world.outside.close()
    assert await refusal(world.worldly(), world.url(host="gone.test"), names) == ImageUrlFailed.code


async def test_a_certificate_nobody_vouches_for_is_a_failed_fetch(tmp_path: Path) -> None:
    """TLS is verified, for named private stores as well."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certify(tmp_path))
    host = Host()
    port = await host.listen(OUTSIDE, tls=context)
    policy = FetchPolicy(max_bytes=1000, hosts=(OUTSIDE,), private_ok=True, ports=(port,))
    assert await refusal(policy, f"https://{OUTSIDE}:{port}/image") == ImageUrlFailed.code
    assert host.requests == []
    await host.close()


async def test_one_host_gets_few_connections_at_once(world: World) -> None:
    """The others wait for their turn and are served."""
    crowd = world.outside.paths["/count"] = Crowd(3)
    async with fetching(world.stands(per_host=3)) as fetcher:
        images = await asyncio.gather(*(fetcher.fetch(world.url("/count")) for _ in range(12)))
    assert images == [IMAGE] * 12
    assert crowd.most == 3


async def test_neither_errors_nor_the_log_name_the_place(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """An error text or an info line with an address would map the inside for a stranger."""
    names = Names(secret_test=[[INSIDE]])
    texts = []
    with caplog.at_level(logging.INFO):
        for url in [world.url(host=h) for h in ("secret.test", "10.1.2.3", "no.test", "0x7f.2")]:
            async with fetching(world.worldly(), names) as fetcher:
                with pytest.raises(ItemError) as caught:
                    await fetcher.fetch(url)
            assert caught.value.__suppress_context__ or caught.value.__context__ is None
            texts += [str(caught.value), caught.value.message]
    seen = " ".join([*texts, caplog.text])
    assert not [word for word in ("secret", "10.1", "127.", "no.test", "0x7f") if word in seen]


async def test_all_are_fetched_in_their_order_with_their_own_errors(world: World) -> None:
    """One that fails takes nothing from the others."""
    world.outside.paths["/none"] = reply(status="404 Not Found")
    urls = [world.url("/none"), world.url(), "ftp://a/b", world.url()]
    async with fetching(world.stands()) as fetcher:
        first, second, third, fourth = await fetcher.fetch_all(urls)
    assert second == fourth == IMAGE
    assert isinstance(first, ItemError)
    assert isinstance(third, ItemError)
    assert (first.code, third.code) == (ImageUrlFailed.code, ImageUrlInvalid.code)


async def test_the_images_of_one_request_are_bounded_together(world: World) -> None:
    """A few hundred bytes of URLs must not bring gigabytes; what fits is there."""
    world.outside.paths["/half"] = reply(bytes(50_000))
    async with fetching(world.stands(max_request_bytes=120_000, per_host=1)) as fetcher:
        got = await fetcher.fetch_all([world.url("/half")] * 5)
        assert got[:2] == [bytes(50_000)] * 2
        assert [one.code for one in got[2:] if isinstance(one, ItemError)] == [
            "image_too_large"
        ] * 3
        assert await fetcher.fetch_all([world.url("/half")] * 2) == [bytes(50_000)] * 2


async def test_a_link_that_fails_gives_its_bytes_back(world: World) -> None:
    """What it brought is not kept, and must not be missing to the good ones."""

    async def breaks(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 90000\r\n\r\n" + bytes(80_000))

    world.outside.paths["/breaks"] = breaks
    urls = [*[world.url("/breaks")] * 5, world.url()]
    async with fetching(world.stands(max_request_bytes=100_000, per_host=1)) as fetcher:
        *broken, good = await fetcher.fetch_all(urls)
    assert good == IMAGE
    assert [getattr(one, "code", "") for one in broken] == [ImageUrlFailed.code] * 5


async def test_requests_that_fetch_wait_for_room_in_turn(world: World) -> None:
    """No more is under way at once than memory was given for, and all are served."""
    crowd = world.outside.paths["/count"] = Crowd(2)
    async with fetching(world.stands(max_held_bytes=200_000)) as fetcher:
        got = await asyncio.gather(
            *(fetcher.fetch_all([world.url("/count")], client) for client in range(9))
        )
    assert got == [[IMAGE]] * 9
    assert crowd.most == 2


async def test_room_that_does_not_come_in_time_is_a_time_out(world: World) -> None:
    """And the room of those who left is free again."""
    world.outside.paths["/hang"] = hang
    async with fetching(world.stands(max_held_bytes=100_000, timeout=60.0)) as fetcher:
        hung = asyncio.create_task(fetcher.fetch_all([world.url("/hang")]))
        await until(lambda: world.outside.connections == 1)
        late = asyncio.create_task(fetcher.fetch_all([world.url()] * 2))
        await settled()
        hung.cancel()
        assert await late == [IMAGE] * 2
    async with fetching(world.stands(max_held_bytes=100_000, timeout=0.3)) as fetcher:
        hung = asyncio.create_task(fetcher.fetch_all([world.url("/hang")]))
        codes = [getattr(one, "code", "") for one in await fetcher.fetch_all([world.url("/hang")])]
        assert codes == [ImageUrlTimeout.code]
        await hung


@pytest.mark.parametrize("hosts", [1, 16], ids=["of one host", "of sixteen hosts"])
async def test_links_that_never_answer_keep_waiting_only_who_asked_for_them(
    world: World, hosts: int
) -> None:
    """Several requests with sixteen of them each are under way; another client's link is there."""
    over, silent = asyncio.Event(), asyncio.Event()

    async def hang(writer: asyncio.StreamWriter) -> None:
        silent.set()
        await over.wait()

    world.outside.paths["/hang"] = hang
    names = Names(**{f"host{n}_test": [[OUTSIDE]] for n in range(17)})
    links = [world.url("/hang", f"host{n % hosts}.test") for n in range(16)]
    async with fetching(world.worldly(timeout=200.0), names) as fetcher:
        slow = [asyncio.create_task(fetcher.fetch_all(links, "slow")) for _ in range(9)]
        await silent.wait()
        for _ in range(3):
            async with asyncio.timeout(60):
                assert await fetcher.fetch_all([world.url(host="host16.test")], "good") == [IMAGE]
        assert not any(task.done() for task in slow)
        over.set()
        await asyncio.gather(*slow)


async def test_names_that_get_no_answer_keep_waiting_only_who_asked_for_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their threads cannot be ended: they are few, and neither look-ups nor the pool wait."""
    over, stuck = threading.Event(), threading.Semaphore(0)

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[object]:
        if host != "good.test":
            stuck.release()
            over.wait(600)
            raise OSError("no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (OUTSIDE, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    policy = world.worldly(timeout=200.0, lookup_timeout=100.0)
    async with fetching(policy) as fetcher:
        links = [world.url(host=f"nobody{n}.test") for n in range(16)]
        slow = [asyncio.create_task(fetcher.fetch_all(links, "slow")) for _ in range(3)]
        await until(lambda: stuck.acquire(blocking=False), 60)
        async with asyncio.timeout(60):
            assert await fetcher.fetch_all([world.url(host="good.test")], "good") == [IMAGE]
            assert await asyncio.to_thread(lambda: 1) == 1
        threads = [one for one in threading.enumerate() if one.name == "siglit-lookup"]
        assert len(threads) <= policy.per_host
        assert all(one.daemon for one in threads)
        over.set()
        for got in await asyncio.gather(*slow):
            assert {getattr(one, "code", "") for one in got} == {ImageUrlFailed.code}
        await until(lambda: not any(one.is_alive() for one in threads))


async def test_a_look_up_without_an_answer_ends_in_time_and_holds_its_thread(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is told; the thread counts against it until the system gives up."""
    over = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        over.wait(600)
        raise OSError("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    policy = world.worldly(timeout=100.0, lookup_timeout=0.3, per_host=2)
    async with fetching(policy) as fetcher:
        links = [world.url(host=f"nobody{n}.test") for n in range(6)]
        got = await fetcher.fetch_all(links, "slow")
        assert {getattr(one, "code", "") for one in got} == {ImageUrlTimeout.code}
        threads = [one for one in threading.enumerate() if one.name == "siglit-lookup"]
        assert len(threads) <= 2
        over.set()
        await until(lambda: not any(one.is_alive() for one in threads), 60)


@pytest.mark.parametrize("host", ["localhost", "nobody.invalid", "x" * 64 + ".test"])
async def test_the_systems_own_look_up_is_read(world: World, host: str) -> None:
    """Addresses of the machine's own resolver are judged like all others; no name is no image."""
    policy = world.worldly(hosts=("localhost",))
    try:
        url = policy.target(world.url(host=host))
    except ImageUrlInvalid:
        return
    async with fetching(policy) as fetcher:
        [got] = await fetcher.fetch_all([str(url)])
    if host == "localhost":
        assert got == IMAGE
    else:
        assert getattr(got, "code", "") in (ImageUrlFailed.code, ImageUrlTimeout.code)


async def test_the_bytes_that_are_fetched_are_shown_beside_their_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a request may bring is held while it is fetched, and nothing afterwards."""
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(fetch, "held", lambda *facts: told.append(facts))
    async with fetching(world.stands(max_held_bytes=300_000)) as fetcher:
        await fetcher.fetch_all([world.url()] * 2, "one")
    assert told == [("images_by_url", 200_000, 300_000), ("images_by_url", 0, 300_000)]
