"""What is looked at before anything loads: a start that cannot work ends at once, in one line."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
from pathlib import Path

from cache import Address
from litapi.devices import planned, require_devices
from litapi.http.app import make_fetcher
from litapi.messages import KINDS
from litapi.model.engines.toolchain import require_toolchain
from litapi.model.precision import require_compiled
from litapi.settings import Settings, StartError


def preflight(settings: Settings) -> None:
    """Raises StartError or CheckpointError, in one public sentence that names the option."""
    tls_options(settings)
    try:
        make_fetcher(settings)
    except ValueError as error:
        raise StartError(f"image_url_hosts: {error}") from None
    if settings.cache == "on" and settings.redis_url:
        try:
            Address.of(settings.redis_url).tls()
        except ValueError as error:  # its text holds no part of the URL
            raise StartError(str(error)) from None
    if settings.devices != "auto":
        require_devices(settings.devices.split(","))
    _require_gpus_ready(settings)
    if settings.cache_per_key == "on" and not settings.keyed:
        raise StartError("--cache-per-key: there are no API keys whose vectors could be kept apart")
    require_folders(settings)


def _require_gpus_ready(settings: Settings) -> None:
    compiled = settings.compile == "on"
    for device in _gpus(settings)[:1]:
        if compiled:
            require_toolchain(device)
        for kind in KINDS:
            require_compiled(settings.precision_of(kind), device, compiled)


def _gpus(settings: Settings) -> list[str]:
    return [device for device in planned(settings) if device != "cpu"]


def require_folders(settings: Settings) -> None:
    """Raises StartError for folders that are none, or that cannot be used."""
    if settings.pairs and not Path(settings.pairs).is_dir():
        raise StartError(f"--pairs: there is no folder {settings.pairs}")
    if settings.compile == "off" or not _gpus(settings):
        return
    folder = settings.compile_folder
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StartError(f"--compile-cache: {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StartError(f"--compile-cache: {folder} cannot be written to")


class Port:
    """The port, held from the first moment on, so that of two servers that load one gives way.

    The kernel lets two sockets have a port until one of them listens, and one that listened while
    the towers load would take connections that nobody answers. So the name of a socket of another
    kind is held, which is as unique among the programs of one network as the port itself.
    """

    def __init__(self, host: str, port: int) -> None:
        """Raises StartError where somebody else has it, or where it cannot be bound."""
        self._name = socket.socket(socket.AF_UNIX)
        try:
            if sys.platform == "linux":
                self._name.bind(f"\0siglit-port-{port}")
            _try(host, port)
        except OSError as error:
            self.close()
            if error.errno == errno.EADDRINUSE:
                raise StartError(taken(port)) from None
            why = error.strerror or type(error).__name__
            raise StartError(f"--host {host}: port {port} cannot be bound: {why}") from None

    def close(self) -> None:
        self._name.close()


def taken(port: int) -> str:
    return f"port {port} is taken; choose another, as in PORT=8081"


def _try(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def tls_options(settings: Settings) -> dict[str, str]:
    """Of uvicorn, for a pair that was tried. Raises StartError for one that does not serve."""
    if not settings.tls_cert and not settings.tls_key:
        return {}
    if not (settings.tls_cert and settings.tls_key):
        raise StartError("tls_cert and tls_key go together")
    for name, path in (("tls_cert", settings.tls_cert), ("tls_key", settings.tls_key)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise StartError(f"{name}: the file cannot be read: {error.strerror}") from None
    _try_pair(settings.tls_cert, settings.tls_key)
    return {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}


def _no_password() -> str:
    """In place of OpenSSL's own question, which would wait for a person at a terminal."""
    raise StartError("tls_key: the key is encrypted; it has to be one without password")


def _try_pair(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, _no_password)
    except (OSError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise StartError("tls_key: the key is that of another certificate") from None
        raise StartError(_which(certificate)) from None


def _which(certificate: str) -> str:
    """Which of the two files is to blame."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except (OSError, ValueError):
        return "tls_cert: the file holds no certificate that can be used"
    return "tls_key: the file holds no key that can be used"
