"""Images by URL: off unless allowed, and checked where it counts, at the socket.

    URL ──target──► host, port ──resolve──► addresses ──dial──► bytes, no more than the cap
          │                                          │
     ImageUrlInvalid                         ImageUrlForbidden
     ImageUrlForbidden

Checking the URL alone is not enough: a name may resolve to another address the second time, and a
redirect may lead inside. So redirects are followed here, hop by hop, and every address is judged
before its socket is opened. One parser reads the URL; what it read is what is dialled.

Bytes, connections and look-ups are shared by client and by host (see `Shares`): a host that never
answers, or a name that does not resolve, delays only the clients that asked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Hashable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from threading import Thread
from urllib.parse import quote, urljoin

import idna
from aiohttp import (
    AddrInfoType,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from litapi import errors
from litapi.http.shares import Shares
from litapi.metrics import held

log = logging.getLogger("siglit.fetch")

MAX_URL_CHARS = 8192
AT_ONCE = 64  # images of one request that are waited for at the same time
TOGETHER = "The images of this request have together more bytes than this server fetches at once."
REDIRECTS = frozenset({301, 302, 303, 307, 308})
HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "siglit"}

_URL = re.compile(
    r"(https?)://([^/?#@:\[\]]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?([/?][^#]*)?(?:#.*)?",
    re.IGNORECASE | re.ASCII,
)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*{_LABEL}")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII)
_ENTRY = re.compile(r"(\*\.)?([^:\[\]]*|\[[^\[\]]*\])(?::(\d{1,5}))?", re.ASCII)
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
Entry = tuple[str, int | None]  # of a policy's hosts: name or pattern, and a port of its own

# The only IPv6 space handed out for public hosts. Outside it lie loopback, link-local, private,
# site-local (fec0::/10), multicast and segment routing (5f00::/16), and the forms that carry an
# IPv4 address inside: compatible (::/96), mapped (::ffff:0:0/96), NAT64 (64:ff9b::/96).
_PUBLIC_IPV6 = ip_network("2000::/3")
# Not public, whatever `ipaddress.is_global` of this or that Python version says.
_DENIED = [
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # protocol assignments; one cloud's metadata
        "192.88.99.0/24",  # 6to4 relays
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "168.63.129.16/32",  # a public address that is a cloud's own wire server
        "2001::/23",  # protocol assignments, with Teredo, which carries an IPv4 address
        "2002::/16",  # 6to4, which carries an IPv4 address
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
]
# What `private_ok` opens. Link-local, and with it most metadata services, stays shut.
_PRIVATE = [
    ip_network(text)
    for text in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
        *("::1/128", "fc00::/7"),
    )
]
_METADATA = [ip_address(text) for text in ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254")]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """What may be fetched. With neither `hosts` nor `any_public`, nothing. Raises ValueError: an
    entry of `hosts` is no host, or `private_ok` lacks named hosts."""

    max_bytes: int  # of one image
    max_request_bytes: int = 64 << 20  # of all images of one request
    max_held_bytes: int = 256 << 20  # of all requests that fetch at the same time
    # "example.com", also with a port of its own, "example.com:9000"; "*.example.com" is every name
    # below it, not itself.
    hosts: tuple[str, ...] = ()
    any_public: bool = False  # any host with a public address
    private_ok: bool = False  # named hosts may have private addresses: an image store inside
    ports: tuple[int, ...] = (80, 443)
    timeout: float = 10.0  # seconds for all of it, redirects and waiting for a turn included
    connect_timeout: float = 3.0  # seconds for one connection with its TLS handshake
    max_redirects: int = 3
    lookup_timeout: float = 5.0  # seconds to look one name up, waiting for a turn included
    per_host: int = 8  # connections, and look-ups, at once to one host and for one client
    total: int = 32  # connections, and look-ups, at once
    _entries: tuple[Entry, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        entries = {text: _entry(text) for text in self.hosts}
        if wrong := [repr(text) for text, entry in entries.items() if entry is None]:
            raise ValueError(f"{', '.join(wrong)}: takes HOST, *.HOST, HOST:PORT or [IPV6]:PORT")
        object.__setattr__(self, "_entries", tuple(entries.values()))
        if self.private_ok and (self.any_public or not self.hosts):
            raise ValueError("private addresses can be allowed for named hosts only")

    def target(self, text: str) -> URL:
        """The URL to request, if its form, host and port are allowed.

        Raises:
            ImageUrlInvalid: not a plain http or https URL without credentials.
            ImageUrlForbidden: a host or port that is not allowed.
        """
        url = _parse(text)
        if not self._opens(url.raw_host or "", url.port or 0):
            raise errors.ImageUrlForbidden
        return url

    def onward(self, url: URL, location: str) -> URL:
        """Where a redirect leads; judged as the first URL was. Raises ImageUrlForbidden: it leads
        where this policy does not go, or from https to http."""
        try:
            target = self.target(urljoin(str(url), location))
        except (errors.ItemError, ValueError):
            raise errors.ImageUrlForbidden from None
        if url.scheme == "https" and target.scheme == "http":
            raise errors.ImageUrlForbidden
        return target

    def dialable(self, address: str) -> bool:
        ip = ip_address(address)
        if ip in _METADATA:
            return False
        return is_public(ip) or (self.private_ok and any(ip in network for network in _PRIVATE))

    def _opens(self, host: str, port: int) -> bool:
        if self.any_public and port in self.ports:
            return True
        return any(
            (host.endswith(name[1:]) if name.startswith("*.") else host == name)
            and (port in self.ports if own is None else port == own)
            for name, own in self._entries
        )


class Allowance:
    """The bytes that the images of one request may still bring."""

    def __init__(self, left: int) -> None:
        self._left = left

    def spend(self, received: int) -> None:
        self._left -= received
        if self._left < 0:
            raise errors.ImageTooLarge(TOGETHER)

    def give_back(self, received: int) -> None:
        self._left += received


class Fetcher:
    """Fetches images within a policy; belongs to the event loop it was started in."""

    def __init__(self, policy: FetchPolicy, resolver: AbstractResolver | None = None) -> None:
        self.policy = policy
        self._resolver = resolver
        self._session: ClientSession | None = None
        self._room = Shares(policy.max_held_bytes)
        self._connections = Shares(policy.total, policy.per_host)

    async def start(self) -> None:
        """Call before the first `fetch`. Opens no connection."""
        policy = self.policy
        connector = TCPConnector(
            resolver=self._resolver or Lookups(policy),
            use_dns_cache=False,
            limit=0,  # `Shares` limits them, and knows for whom each is
            socket_factory=self._dial,
        )
        self._session = ClientSession(
            connector=connector,
            headers=HEADERS,
            cookie_jar=DummyCookieJar(),
            trust_env=False,  # no proxy, no .netrc
            auto_decompress=False,  # the cap counts what arrives, and nothing swells afterwards
            timeout=ClientTimeout(total=None, sock_connect=policy.connect_timeout),
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def fetch_all(
        self, urls: Sequence[str], client: Hashable = None
    ) -> list[bytes | errors.ItemError]:
        """The bytes behind each URL, or its own error; all at the same time, within the memory.
        `client` is who asks: what one has under way leaves room for the others."""
        policy = self.policy
        _client.set(client)
        ends = asyncio.get_running_loop().time() + policy.timeout
        wanted = min(len(urls) * policy.max_bytes, policy.max_request_bytes)
        try:
            async with asyncio.timeout_at(ends):
                taken = await self._room.take(wanted, client)
        except TimeoutError:
            return [errors.ImageUrlTimeout() for _ in urls]
        self._tell()
        allowance, turns = Allowance(taken), asyncio.Semaphore(AT_ONCE)
        try:
            return await asyncio.gather(*(self._tried(url, allowance, ends, turns) for url in urls))
        finally:
            self._room.give_back(taken, client)
            self._tell()

    def _tell(self) -> None:
        held("images_by_url", self._room.size - self._room.free, self._room.size)

    async def _tried(
        self, url: str, allowance: Allowance, ends: float, turns: asyncio.Semaphore
    ) -> bytes | errors.ItemError:
        try:
            async with turns:
                return await self.fetch(url, allowance, ends)
        except errors.ItemError as error:
            return error

    async def fetch(
        self, url: str, allowance: Allowance | None = None, ends: float | None = None
    ) -> bytes:
        """The bytes behind `url`, as they came: not looked at, not decoded.

        Raises:
            ImageUrlDisabled: the policy allows nothing.
            ImageUrlInvalid, ImageUrlForbidden: as `FetchPolicy.target` and `onward` say, or
                the address behind the name may not be dialled.
            ImageTooLarge: more bytes than the policy, or than `allowance`, allows.
            ImageUrlTimeout: not whole within the time-out.
            ImageUrlFailed: anything else, such as another status than 200.
        """
        if not (self.policy.any_public or self.policy.hosts):
            raise errors.ImageUrlDisabled
        try:
            ends = ends or asyncio.get_running_loop().time() + self.policy.timeout
            async with asyncio.timeout_at(ends):
                allowance = allowance or Allowance(self.policy.max_bytes)
                return await self._follow(self.policy.target(url), allowance)
        except TimeoutError:
            raise errors.ImageUrlTimeout from None
        except (ClientError, OSError, ValueError) as error:  # aiohttp's names hosts and addresses
            log.debug("an image was not fetched: %s", type(error).__name__)
            refused = isinstance(getattr(error, "os_error", None), _Refused)
            raise (errors.ImageUrlForbidden if refused else errors.ImageUrlFailed) from None

    async def _follow(self, url: URL, allowance: Allowance) -> bytes:
        if self._session is None:
            raise RuntimeError("start() comes first")
        for _ in range(self.policy.max_redirects + 1):
            async with (
                self._connections.taken(1, _client.get(), url.raw_host),
                self._session.get(url, allow_redirects=False) as response,
            ):
                if response.status not in REDIRECTS:
                    return await self._read(response, allowance)
                url = self.policy.onward(url, response.headers.get("Location", ""))
        raise errors.ImageUrlFailed

    async def _read(self, response: ClientResponse, allowance: Allowance) -> bytes:
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if response.status != 200 or encoding != "identity":
            raise errors.ImageUrlFailed
        if (response.content_length or 0) > self.policy.max_bytes:
            raise errors.ImageTooLarge
        body = bytearray()
        try:
            async for piece in response.content.iter_any():
                body += piece
                allowance.spend(len(piece))
                if len(body) > self.policy.max_bytes:
                    raise errors.ImageTooLarge
        except BaseException:  # whatever ended it, these bytes are not kept
            allowance.give_back(len(body))
            raise
        return bytes(body)

    def _dial(self, info: AddrInfoType) -> socket.socket:
        """Every connection starts here, after names and redirects have been resolved."""
        family, kind, protocol, _, address = info
        if not self.policy.dialable(str(address[0])):
            raise _Refused
        return socket.socket(family, kind, protocol)


_client: ContextVar[Hashable] = ContextVar("client", default=None)  # for whom is fetched


class Lookups(AbstractResolver):
    """Names → addresses, on threads of its own: nobody can end a look-up that gets no answer.

    A thread counts for its client and its name until the system gives up, which may be long after
    the time-out. Threads of a pool would be waited for when the process ends; these are not.
    """

    def __init__(self, policy: FetchPolicy) -> None:
        self._seconds = policy.lookup_timeout
        self._threads = Shares(policy.total, policy.per_host)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Every address behind `host`. Raises OSError: there is none, or it was not found in
        time."""
        loop = asyncio.get_running_loop()
        keys = (_client.get(), host)
        async with asyncio.timeout(self._seconds):
            await self._threads.take(1, *keys)
            found: asyncio.Future[list[ResolveResult]] = loop.create_future()

            def answer(addresses: list[ResolveResult] | None) -> None:
                self._threads.give_back(1, *keys)
                if found.done():  # nobody waits any more
                    return
                if addresses is None:
                    found.set_exception(OSError("no such name"))
                else:
                    found.set_result(addresses)

            def look_up() -> None:
                addresses = _addresses(host, port, family)
                with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(answer, addresses)

            try:
                Thread(target=look_up, daemon=True, name="siglit-lookup").start()
            except RuntimeError:  # the system gives no thread
                answer(None)
            return await found

    async def close(self) -> None:
        """Nothing to wait for."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult] | None:
    try:
        infos = socket.getaddrinfo(
            host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
    except (OSError, UnicodeError):
        return None
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return [
        ResolveResult(
            hostname=host, host=str(at[0]), port=port, family=kind, proto=protocol, flags=flags
        )
        for kind, _, protocol, _, at in infos
    ]


class _Refused(OSError):
    """An address that may not be dialled; aiohttp expects an OSError of its socket factory."""

    def __str__(self) -> str:
        return "refused"  # the same for each, so that several refusals stay a refusal


def is_public(ip: IPv4Address | IPv6Address) -> bool:
    """Whether an address is public in its own right, carrying no other one inside."""
    if isinstance(ip, IPv6Address) and ip not in _PUBLIC_IPV6:
        return False
    return ip.is_global and not any(ip in network for network in _DENIED)


def canonical_host(text: str) -> str:
    """The one spelling of a host: lower-case ASCII; an address in its shortest form. Raises
    ImageUrlInvalid: no name and no address; also an IPv4 address in any but the usual form."""
    try:
        if text.startswith("["):
            return str(IPv6Address(text[1:-1]))
        name = _ascii(text)
        if _NUMBER.fullmatch(name.rpartition(".")[2]):
            return str(IPv4Address(name))
    except ValueError:
        raise errors.ImageUrlInvalid from None
    if not _NAME.fullmatch(name):
        raise errors.ImageUrlInvalid
    return name


def _ascii(text: str) -> str:
    """A name in ASCII. Strict: digits in circles and dots of other scripts are errors."""
    lower = text.lower()
    if text.isascii():
        return lower
    if lower.isascii():  # such as the Kelvin sign, which lowers to a plain k
        raise ValueError
    return idna.encode(lower, strict=True).decode("ascii")


def _entry(text: str) -> Entry | None:
    found = _ENTRY.fullmatch(text)
    if found is None:
        return None
    star, host, port = found.groups(default="")
    if port and not 0 < int(port) < 65536:
        return None
    try:
        return star + canonical_host(host), int(port) if port else None
    except errors.ImageUrlInvalid:
        return None


def _parse(text: str) -> URL:
    if len(text) > MAX_URL_CHARS or not text.isprintable() or " " in text or "\\" in text:
        raise errors.ImageUrlInvalid
    found = _URL.fullmatch(text)
    if found is None:
        raise errors.ImageUrlInvalid
    scheme, host, port, rest = found.groups()
    if port is not None and not 0 < int(port) < 65536:
        raise errors.ImageUrlInvalid
    host = canonical_host(host)
    host = f"[{host}]" if ":" in host else host
    place = f"{host}:{int(port)}" if port else host
    path = quote(rest or "/", safe=_PRINTABLE)  # only what is not ASCII; signed URLs stay as is
    path = path if path.startswith("/") else "/" + path
    return URL(f"{scheme.lower()}://{place}{path}", encoded=True)
