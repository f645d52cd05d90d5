"""Every option of the service, once: default → environment → flag → validated.

An option `text_workers` is the flag `--text-workers` and the environment variable
`SIGLIT_TEXT_WORKERS`. The names in `BARE` are read without the prefix too (`PORT=… make serve`);
the others are not, because names like `HOST` or `THREADS` mean something else to other programs.
Whatever is wrong is reported together, each by the name it was given under. Nothing else in the
project reads the environment for options.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from litapi.keys import Key, KeysError, lines_of, read_keys, read_limits
from litapi.process import cores

PREFIX = "SIGLIT_"
BARE = ("model", "revision", "port", "redis_url")
ALIASES = {"precision": ["--dtype"]}
_CUDA = re.compile(r"cuda:(0|[1-9][0-9]{0,3})").fullmatch
MOST_PATCHES = 1024  # SigLIP2's NaFlex checkpoints are trained with no more
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,?#@]+").fullmatch
# What Kubernetes sets in every pod of a namespace for a Service named siglit or siglit-something.
_SERVICE = re.compile(
    r"SIGLIT_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
).fullmatch
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://").match
IMAGE_FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "avif", "tiff")
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
SECRET = {"api_keys", "cache_tenant", "redis_url", "otlp_endpoint"}  # may hold a password
Default = TypeVar("Default")
Switch = Literal["off", "on"]
Precision = Literal["auto", "float32", "bfloat16", "float16", "int8", "int8-weights", "float8"]
_SERVICE_SENTENCE = (
    "SIGLIT_PORT: Kubernetes set it to the address of a Service named siglit; give --port or PORT, "
    "or set enableServiceLinks: false in the pod"
)


class SettingsError(Exception):
    """One line for each option that is wrong; the program ends with exit code 2."""


class StartError(Exception):
    """The server could not start; its text is the one line that says why."""


def _option(default: Default, description: str, **bounds: Any) -> Default:
    return Field(default, description=description, **bounds)  # type: ignore[no-any-return]


class Settings(BaseModel):
    """The validated options. Frozen and picklable: workers receive it whole."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        str_strip_whitespace=True,  # a secret or a path from a file ends with a line feed
    )

    model: str = _option("", "hub name or folder; empty: the small demo checkpoint")
    revision: str | None = _option(None, "hub revision (commit, tag or branch)")
    served_name: str | None = _option(None, "name in /v1/models; default: the model's")

    host: Literal["0.0.0.0", "127.0.0.1", "::"] = _option("0.0.0.0", "address to bind")
    port: int = _option(8080, "port to bind", ge=1024, le=65535)
    http_workers: int = _option(0, "HTTP processes; 0: one per 4 cores", ge=0, le=64)

    precision: Precision = _option(
        "auto",
        "number format of the towers: auto (float32 or bfloat16, what the device does"
        " fast), float32, bfloat16, float16, int8, int8-weights or float8",
    )
    text_precision: Literal["", Precision] = _option("", "of the text tower; empty: as precision")
    image_precision: Literal["", Precision] = _option("", "of the image tower; empty: as precision")
    engine: Literal["auto", "torch", "openvino"] = _option(
        "auto", "what runs the towers: auto (OpenVINO on a CPU, torch on a GPU)"
    )
    compile: Switch = _option(
        "off",
        "compile the towers of a GPU at start: a minute or more; needs g++ and"
        " Python's header files",
    )
    compile_cache: str = _option(
        "", "folder of converted and compiled towers, verdicts and digests; empty: ~/.cache/siglit"
    )
    accept_loss: Switch = _option("off", "serve a precision that fails its quality gate")
    pairs: str = _option(
        "",
        "folder of images and .txt captions of the same name, for the quality gate and"
        " to calibrate int8 on",
    )
    devices: str = _option("auto", "auto, cpu, or a list such as cuda:0,cuda:1")
    text_workers: int = _option(1, "text workers on each device", ge=1, le=64)
    image_workers: int = _option(1, "image workers on each device", ge=1, le=64)
    bulk_workers: Literal["auto", "off"] = _option(
        "auto",
        "auto: on a CPU bulk has workers of its own, as many, from the first bulk request on; the"
        " kernel gives them the time that all others leave",
    )
    threads: int = _option(0, "threads of a worker's engine; 0: all cores", ge=0, le=256)
    decode_threads: int = _option(0, "decoding threads of a worker; 0: auto", ge=0, le=64)
    text_batch_tokens: int = _option(0, "token budget of a batch; 0: auto", ge=0)
    image_batch_patches: int = _option(0, "patch budget of a batch; 0: auto", ge=0)

    calibration: str = _option("", "file of `python -m litapi calibrate`, for the probabilities")

    max_num_patches: int = _option(0, "patches of a NaFlex image; 0: model's", ge=0, le=4096)
    max_num_patches_asked: int = _option(
        0, "the most that a request may ask for; 0: max_num_patches, or else 1024", ge=0, le=4096
    )
    max_items: int = _option(2048, "items in one request", ge=1, le=4096)
    max_text_chars: int = _option(32768, "characters of one text", ge=1)
    max_request_chars: int = _option(2 << 20, "characters of all texts of one request", ge=1 << 17)
    max_image_bytes: int = _option(20 << 20, "bytes of one encoded image", ge=1)
    max_body_bytes: int = _option(64 << 20, "bytes of one request, or of its images by URL", ge=1)
    max_pixels: int = _option(50_000_000, "pixels of one image, before decoding", ge=1)
    max_pixels_in_flight: int = _option(
        0,
        "pixels that a worker decodes at the same time; 0: 12.5 million for each"
        " decoding thread, at least 100 million",
        ge=0,
    )
    decode_mb: int = _option(
        0,
        "megabytes that a worker may take for decoding; larger alone: 413; 0: 64 for"
        " each decoding thread, at least 500, and 500 alone",
        ge=0,
    )
    decode_timeout: float = _option(10.0, "CPU seconds to decode an image; beyond: 422", gt=0)
    image_formats: tuple[str, ...] = _option(
        ("jpeg", "png", "webp", "gif", "bmp"),
        "formats that are decoded; avif and tiff can be added",
    )
    jpeg_draft: bool = _option(False, "true: decode large JPEGs at reduced size: faster, not equal")

    api_keys: tuple[str, ...] = _option(
        (),
        "keys that may ask, with commas: KEY, or NAME:KEY:CLASS with interactive or"
        " bulk; none: all",
    )
    api_keys_file: str | None = _option(
        None,
        "file of more keys, one a line, limits behind it; # begins a comment; read again on SIGHUP",
    )
    key_limits: tuple[str, ...] = _option(
        (),
        "limits by name of a key, with commas: NAME weight=3 requests=10 items=500"
        " megapixels=50 in_flight=64; * for all others",
    )
    max_wrong_keys: int = _option(60, "wrong keys a minute from one address; beyond: 429", ge=1)
    rate_limit: float = _option(0.0, "requests a second for each key; 0: no limit", ge=0)
    cors_origins: tuple[str, ...] = _option((), "web origins that may ask, with commas")
    cors_private_network: Switch = _option(
        "off", "let those web origins ask from a public network into a private one"
    )
    tls_cert: str | None = _option(None, "certificate file; with tls_key serves https")
    tls_key: str | None = _option(None, "key file of the certificate")
    image_urls: Literal["off", "allowed", "any-public"] = _option(
        "off", "fetch images by URL: off, allowed (from image_url_hosts) or any-public"
    )
    image_url_hosts: tuple[str, ...] = _option(
        (), "hosts to fetch from, with commas; HOST:PORT for one on its own port"
    )
    image_url_private: Switch = _option("off", "allow image_url_hosts to lie in a private network")
    image_url_timeout: float = _option(10.0, "seconds to fetch an image", gt=0, le=300)
    image_url_mb: int = _option(
        256, "megabytes fetched at once by an HTTP process; beyond: waits", ge=1
    )

    max_queue: int = _option(
        4096, "items in flight for each tower, and half as many in bulk; beyond: 429", ge=1
    )
    max_queue_mb: int = _option(
        256, "megabytes in flight for each tower, and half as many in bulk", ge=1
    )
    max_wait: float = _option(10.0, "seconds of work in flight; beyond: 429", gt=0)
    timeout: float = _option(30.0, "seconds until an item is given up", gt=0, le=3600)
    hang_timeout: float = _option(
        60.0, "seconds a worker may stand still before it is replaced", gt=0
    )
    probe_interval: float = _option(30.0, "seconds between probes of an idle tower", gt=0)
    header_timeout: float = _option(5.0, "seconds for the head of a request", gt=0)
    body_timeout: float = _option(4.0, "seconds in which a body may stand still", gt=0)
    max_header_bytes: int = _option(32 << 10, "bytes of the head of a request", ge=1024)
    keep_alive: int = _option(75, "seconds that an idle connection is kept", ge=1, le=86_400)
    max_bodies_mb: int = _option(
        128, "megabytes of request bodies held at the same time; beyond: 429", ge=1
    )
    max_answers_mb: int = _option(
        64, "megabytes of unread answers; beyond: slow readers are cut", ge=1
    )
    start_timeout: float = _option(600.0, "seconds for all workers to load", gt=0)
    drain_timeout: int = _option(30, "seconds to finish work at shutdown", ge=1, le=3600)

    cache: Literal["on", "off"] = _option("on", "look vectors up before computing them")
    digest_lookups: Literal["on", "off"] = _option(
        "on", "answer an image by its sha256 alone, where the cache has its vector"
    )
    redis_url: str | None = _option(
        None, "a shared cache: redis://, rediss://, unix://, redis+cluster://, rediss+cluster://"
    )
    redis_private: Literal["on", "off"] = _option(
        "on", "without redis_url: a private redis-server, where one is installed"
    )
    redis_private_mb: int = _option(64, "memory of the private redis-server, MB", ge=1)
    redis_budget_ms: float = _option(20.0, "longest wait for Redis, ms", gt=0, le=1000)
    memory_cache_mb: int = _option(64, "vectors kept in each HTTP process, MB", ge=0)
    answer_cache_mb: int = _option(16, "whole answers kept in each HTTP process, MB; 0: none", ge=0)
    cache_ttl_days: float = _option(30.0, "life of a vector in Redis, days", gt=0)
    cache_epoch: str = _option("", "changes every cache key; a new value starts afresh")
    cache_tenant: str = _option("", "secret salt of the cache keys on a shared Redis")

    cache_per_key: Switch = _option("off", "on: no API key learns what another one had embedded")

    log_format: Literal["text", "json"] = _option("text", "text or json")
    access_log: Switch = _option("off", "a log line for each request")
    otlp_endpoint: str | None = _option(None, "where OpenTelemetry traces go, over HTTP")
    log_level: Literal["debug", "info", "warning", "error"] = _option(
        "info", "the least severe lines that are logged"
    )

    test_hooks: Switch = _option("off", "faults on demand; for tests only")

    @field_validator(
        "image_formats", "api_keys", "key_limits", "cors_origins", "image_url_hosts", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(part for part in map(str.strip, value.split(",")) if part)

    @field_validator("api_keys", mode="before")
    @classmethod
    def _some_key(cls, value: Any) -> Any:
        """An empty variable is as good as unset; one that lost its keys must not open the door."""
        if isinstance(value, str) and value and not value.strip(", \t\r\n"):
            raise ValueError("holds no key; unset it to let everybody ask")
        return value

    @field_validator("api_keys")
    @classmethod
    def _whole_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(re.search(r"[\s\x00-\x1f\x7f]", key) for key in value):
            raise ValueError("a key holds white space, which no header brings whole")
        return value

    @field_validator("key_limits")
    @classmethod
    def _known_limits(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            read_limits(one)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [origin for origin in value if origin not in ("*", "null") and not _ORIGIN(origin)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no origin such as https://example.org:8443")
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if value and not re.match(r"https?://[^/\s]", value):
            raise ValueError("takes an http:// or https:// URL")
        return value

    @field_validator("image_formats")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        value = tuple(name.lower() for name in value)
        unknown = sorted(set(value) - set(IMAGE_FORMATS))
        if unknown or not value:
            named = ", ".join(map(repr, unknown)) or "nothing"
            raise ValueError(f"{named} not among {', '.join(IMAGE_FORMATS)}")
        return value

    @field_validator("devices")
    @classmethod
    def _devices(cls, value: str) -> str:
        names = value.replace(" ", "").split(",")
        if names in (["auto"], ["cpu"]):
            return names[0]
        if all(map(_CUDA, names)) and len(set(names)) == len(names):
            return ",".join(names)
        raise ValueError("takes auto, cpu, or a list such as cuda:0,cuda:1")

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str | None) -> str | None:
        """Its form only: the cache reads the options. The complaint must not repeat a password."""
        if not value:
            return None
        try:
            parts = urlsplit(value)
            place = parts.path.strip("/") if parts.scheme == "unix" else parts.hostname
            wrong = parts.scheme not in REDIS_SCHEMES or not place or parts.port == 0
        except ValueError:  # a port that is no number, a host that is none
            wrong = True
        if wrong:
            raise ValueError(f"takes {', '.join(f'{one}://' for one in REDIS_SCHEMES)} and a place")
        return value

    @property
    def most_patches(self) -> int:
        return self.max_num_patches_asked or self.max_num_patches or MOST_PATCHES

    @property
    def digests(self) -> bool:
        """Whether images are looked up by their digests: there must be a cache to look in."""
        return self.cache == "on" and self.digest_lookups == "on"

    def precision_of(self, kind: str) -> str:
        own = self.text_precision if kind == "text" else self.image_precision
        return own or self.precision

    def precision_option(self, kind: str) -> str:
        own = self.text_precision if kind == "text" else self.image_precision
        return f"--{kind}-precision" if own else "--precision"

    @property
    def compile_folder(self) -> Path:
        return Path(self.compile_cache) if self.compile_cache else cache_folder()

    @property
    def front_processes(self) -> int:
        return self.http_workers or max(1, cores() // 4)

    @classmethod
    def read(cls, flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
        """Flags win over the environment, the environment over the defaults. Raises SettingsError:
        one line for each unknown or invalid option, naming it as it was given."""
        given = {name: value for name, value in flags.items() if value is not None}
        found, names, problems = _from_environment(environ, given)
        names.update({name: flag_of(name) for name in given})
        try:
            settings = cls.model_validate({**found, **given})
            settings.keys()
        except KeysError as error:
            problems.append(f"{names.get(error.option, flag_of(error.option))}: {error}")
        except ValidationError as error:
            problems += [_sentence(names, one) for one in error.errors()]
        if problems:
            raise SettingsError("\n".join(problems))
        return settings

    @property
    def keyed(self) -> bool:
        """Whether only who has a key may ask."""
        return bool(self.api_keys or self.api_keys_file)

    def keys(self) -> list[Key]:
        """The API keys with their limits, those of the keys file as it is now. Raises KeysError:
        the file cannot be read or holds none, or the limits do not fit."""
        entries, limits = self._in_file(self.api_keys_file) if self.api_keys_file else ((), ())
        return read_keys((*self.api_keys, *entries), (*self.key_limits, *limits))

    def _in_file(self, path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        option = "api_keys_file"
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8-sig")
            entries, limits = lines_of(text)
            self._whole_keys(entries)
            self._known_limits(limits)
        except (OSError, UnicodeError) as error:  # a folder, no right to read, no text
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise KeysError(f"the file cannot be read: {reason}", option) from None
        except ValueError as error:
            raise KeysError(str(error), option) from None
        if not entries:
            raise KeysError("the file holds no key", option)
        return entries, limits


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "siglit"


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def add_flags(parser: argparse.ArgumentParser, only: Sequence[str] | None = None) -> None:
    """Give `parser` a flag for each option (or for those in `only`); unset flags stay None."""
    for name, field in Settings.model_fields.items():
        if only is None or name in only:
            text = f"{field.description} (default: {_shown(field.default)})"
            spellings = [flag_of(name), *ALIASES.get(name, [])]
            parser.add_argument(
                *spellings, dest=name, default=None, metavar=_values(field.annotation), help=text
            )


def _values(kind: Any) -> str:
    """What `--help` shows after a flag: the words that may stand there, if they are few."""
    if get_origin(kind) is Literal:
        return "|".join(filter(None, get_args(kind)))
    return {int: "N", float: "N", bool: "true|false"}.get(kind, "X")


def _shown(default: Any) -> str:
    return ",".join(default) if isinstance(default, tuple) else repr(default)


def _from_environment(
    environ: Mapping[str, str], flags: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name in BARE:
        if environ.get(name.upper()):
            found[name], names[name] = environ[name.upper()], name.upper()
    problems = []
    for variable, value in environ.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name == "port" and _SERVICE_URL(value):
            if not {"port"} & {*found, *flags}:
                problems.append(_SERVICE_SENTENCE)
        elif name in Settings.model_fields:
            found[name], names[name] = value, variable
        elif not _SERVICE(variable) and not (name.endswith("_port") and _SERVICE_URL(value)):
            problems.append(f"{variable}: there is no such option")
    return found, names, problems


def _sentence(names: Mapping[str, str], error: Any) -> str:
    name = str(error["loc"][0]) if error["loc"] else "options"
    text = error["msg"].removeprefix("Value error, ")
    given = "" if name in SECRET else f" (given: {error['input']!r})"
    return f"{names.get(name, flag_of(name))}: {text}{given}"
