"""Images by URL: off unless allowed, and checked where it counts, at the socket.

    URL ──target──► host, port ──resolve──► addresses ──dial──► bytes, no more than the cap
          │                                          │
     ImageUrlInvalid                         ImageUrlForbidden
     ImageUrlForbidden

A check of the URL alone can be walked around: a name answers with another address the second time,
a redirect leads inside. So redirects are followed here, hop by hop, and no socket is opened before
its final address was judged. One parser reads the URL; what it read is what is dialled.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import quote, urljoin

import idna
from aiohttp import (
    AddrInfoType,
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver
from yarl import URL

from litapi.errors import (
    ImageTooLarge,
    ImageUrlDisabled,
    ImageUrlFailed,
    ImageUrlForbidden,
    ImageUrlInvalid,
    ImageUrlTimeout,
    ItemError,
)
from litapi.http.byte_budget import ByteBudget

log = logging.getLogger("siglit.fetch")

MAX_URL_CHARS = 8192
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
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

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
    """What may be fetched. With neither `hosts` nor `any_public`, nothing.

    Raises:
        ValueError: an entry of `hosts` is no host name, or `private_ok` lacks named hosts.
    """

    max_bytes: int  # of one image
    max_request_bytes: int = 64 << 20  # of all images of one request
    max_held_bytes: int = 512 << 20  # of all requests that fetch at the same time
    hosts: tuple[str, ...] = ()  # "example.com"; "*.example.com" is every name below it, not itself
    any_public: bool = False  # any host with a public address
    private_ok: bool = False  # named hosts may have private addresses: an image store inside
    ports: tuple[int, ...] = (80, 443)
    timeout: float = 10.0  # seconds for all of it, redirects and waiting for a turn included
    connect_timeout: float = 3.0  # seconds for one connection with its TLS handshake
    max_redirects: int = 3
    per_host: int = 8  # connections at once to one host
    total: int = 16  # connections at once

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", tuple(map(_pattern, self.hosts)))
        if self.private_ok and (self.any_public or not self.hosts):
            raise ValueError("private addresses can be allowed for named hosts only")

    @property
    def enabled(self) -> bool:
        """Whether anything may be fetched at all."""
        return self.any_public or bool(self.hosts)

    def target(self, text: str) -> URL:
        """The URL to request, if its form, host and port are allowed.

        Raises:
            ImageUrlInvalid: not a plain http or https URL without credentials.
            ImageUrlForbidden: a host or port that is not allowed.
        """
        url = _parse(text)
        if url.port not in self.ports or not self._names(url.raw_host or ""):
            raise ImageUrlForbidden
        return url

    def onward(self, url: URL, location: str) -> URL:
        """Where a redirect leads; judged as the first URL was.

        Raises:
            ImageUrlForbidden: it leads where this policy does not go, or from https to http.
        """
        try:
            target = self.target(urljoin(str(url), location))
        except (ItemError, ValueError):
            raise ImageUrlForbidden from None
        if url.scheme == "https" and target.scheme == "http":
            raise ImageUrlForbidden
        return target

    def dialable(self, address: str) -> bool:
        """Whether a connection may be opened to this address."""
        ip = ip_address(address)
        if ip in _METADATA:
            return False
        return is_public(ip) or (self.private_ok and any(ip in network for network in _PRIVATE))

    def _names(self, host: str) -> bool:
        if self.any_public:
            return True
        return any(
            host.endswith(name[1:]) if name.startswith("*.") else host == name
            for name in self.hosts
        )


class Allowance:
    """The bytes that the images of one request may still bring."""

    def __init__(self, left: int) -> None:
        self._left = left

    def spend(self, received: int) -> None:
        """Raises ImageTooLarge beyond it."""
        self._left -= received
        if self._left < 0:
            raise ImageTooLarge(TOGETHER)

    def give_back(self, received: int) -> None:
        """What an image had brought that failed after all."""
        self._left += received


class Fetcher:
    """Fetches images within a policy; belongs to the event loop it was started in."""

    def __init__(self, policy: FetchPolicy, resolver: AbstractResolver | None = None) -> None:
        self.policy = policy
        self._resolver = resolver
        self._session: ClientSession | None = None
        self._room = ByteBudget(policy.max_held_bytes)

    async def start(self) -> None:
        """Call before the first `fetch`. Opens no connection."""
        policy = self.policy
        connector = TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,
            limit=policy.total,
            limit_per_host=policy.per_host,
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
        """Close all connections; fetches in flight fail."""
        if self._session is not None:
            await self._session.close()

    async def fetch_all(self, urls: Sequence[str]) -> list[bytes | ItemError]:
        """The bytes behind each URL, or its own error; all at the same time, within the memory."""
        policy = self.policy
        ends = asyncio.get_running_loop().time() + policy.timeout
        wanted = min(len(urls) * policy.max_bytes, policy.max_request_bytes)
        try:
            async with asyncio.timeout_at(ends):
                taken = await self._room.take(wanted)
        except TimeoutError:
            return [ImageUrlTimeout() for _ in urls]
        allowance = Allowance(taken)
        try:
            return await asyncio.gather(*(self._tried(url, allowance, ends) for url in urls))
        finally:
            self._room.give_back(taken)

    async def _tried(self, url: str, allowance: Allowance, ends: float) -> bytes | ItemError:
        try:
            return await self.fetch(url, allowance, ends)
        except ItemError as error:
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
        if not self.policy.enabled:
            raise ImageUrlDisabled
        try:
            ends = ends or asyncio.get_running_loop().time() + self.policy.timeout
            async with asyncio.timeout_at(ends):
                allowance = allowance or Allowance(self.policy.max_bytes)
                return await self._follow(self.policy.target(url), allowance)
        except TimeoutError:
            raise ImageUrlTimeout from None
        except (ClientError, OSError, ValueError) as error:
            log.debug("an image was not fetched: %s", type(error).__name__)
            raise _told(error) from None

    async def _follow(self, url: URL, allowance: Allowance) -> bytes:
        if self._session is None:
            raise RuntimeError("start() comes first")
        for _ in range(self.policy.max_redirects + 1):
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status not in REDIRECTS:
                    return await self._read(response, allowance)
                url = self.policy.onward(url, response.headers.get("Location", ""))
        raise ImageUrlFailed

    async def _read(self, response: ClientResponse, allowance: Allowance) -> bytes:
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if response.status != 200 or encoding != "identity":
            raise ImageUrlFailed
        if (response.content_length or 0) > self.policy.max_bytes:
            raise ImageTooLarge
        body = bytearray()
        try:
            async for piece in response.content.iter_any():
                body += piece
                allowance.spend(len(piece))
                if len(body) > self.policy.max_bytes:
                    raise ImageTooLarge
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
    """The one spelling of a host: lower-case ASCII; an address in its shortest form.

    Raises:
        ImageUrlInvalid: no name and no address; also an IPv4 address in any but the usual form.
    """
    try:
        if text.startswith("["):
            return str(IPv6Address(text[1:-1]))
        name = _ascii(text)
        if _NUMBER.fullmatch(name.rpartition(".")[2]):
            return str(IPv4Address(name))
    except ValueError:
        raise ImageUrlInvalid from None
    if not _NAME.fullmatch(name):
        raise ImageUrlInvalid
    return name


def _ascii(text: str) -> str:
    """A name in ASCII. Strict: digits in circles and dots of other scripts are errors."""
    lower = text.lower()
    if text.isascii():
        return lower
    if lower.isascii():  # such as the Kelvin sign, which lowers to a plain k
        raise ValueError
    return idna.encode(lower, strict=True).decode("ascii")


def _pattern(text: str) -> str:
    star = "*." if text.startswith("*.") else ""
    try:
        return star + canonical_host(text.removeprefix("*."))
    except ImageUrlInvalid:
        raise ValueError(f"{text!r} is not a host name") from None


def _parse(text: str) -> URL:
    if len(text) > MAX_URL_CHARS or not text.isprintable() or " " in text or "\\" in text:
        raise ImageUrlInvalid
    found = _URL.fullmatch(text)
    if found is None:
        raise ImageUrlInvalid
    scheme, host, port, rest = found.groups()
    if port is not None and not 0 < int(port) < 65536:
        raise ImageUrlInvalid
    host = canonical_host(host)
    host = f"[{host}]" if ":" in host else host
    place = f"{host}:{int(port)}" if port else host
    path = quote(rest or "/", safe=_PRINTABLE)  # only what is not ASCII; signed URLs stay as is
    path = path if path.startswith("/") else "/" + path
    return URL(f"{scheme.lower()}://{place}{path}", encoded=True)


def _told(error: Exception) -> ItemError:
    """The error to raise instead: aiohttp's own names hosts and addresses."""
    refused = isinstance(error, ClientConnectorError) and isinstance(error.os_error, _Refused)
    return ImageUrlForbidden() if refused else ImageUrlFailed()
