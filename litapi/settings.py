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
from typing import Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

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


Precision = Literal["auto", "float32", "bfloat16", "float16", "int8", "int8-weights", "float8"]


_SERVICE_SENTENCE = (
    "SIGLIT_PORT: Kubernetes set it to the address of a Service named siglit; give --port or PORT, "
    "or set enableServiceLinks: false in the pod"
)


class SettingsError(Exception):
    """One line for each option that is wrong; the program ends with exit code 2."""


class Settings(BaseModel):
    """The validated options. Frozen and picklable: workers receive it whole."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        str_strip_whitespace=True,  # a secret or a path from a file ends with a line feed
    )

    model: str = Field("", description="hub name or folder; empty: the small demo checkpoint")
    revision: str | None = Field(None, description="hub revision (commit, tag or branch)")
    served_name: str | None = Field(None, description="name in /v1/models; default: the model's")

    host: Literal["0.0.0.0", "127.0.0.1", "::"] = Field(
        "0.0.0.0", description="address to bind: 0.0.0.0, 127.0.0.1 or ::"
    )
    port: int = Field(8080, ge=1024, le=65535, description="port to bind")
    http_workers: int = Field(0, ge=0, le=64, description="HTTP processes; 0: one per 4 cores")

    precision: Precision = Field(
        "auto",
        description="number format of the towers: auto (float32 or bfloat16, what the device does"
        " fast), float32, bfloat16, float16, int8, int8-weights or float8",
    )
    text_precision: Literal["", Precision] = Field(
        "", description="of the text tower; empty: as precision"
    )
    image_precision: Literal["", Precision] = Field(
        "", description="of the image tower; empty: as precision"
    )
    engine: Literal["auto", "torch", "openvino"] = Field(
        "auto", description="what runs the towers: auto (OpenVINO on a CPU, torch on a GPU)"
    )
    compile: Literal["off", "on"] = Field(
        "off",
        description="compile the towers of a GPU at start: a minute or more; needs g++ and"
        " Python's header files",
    )
    compile_cache: str = Field(
        "",
        description="folder of converted and compiled towers and quality verdicts; empty:"
        " ~/.cache/siglit",
    )
    accept_loss: Literal["off", "on"] = Field(
        "off", description="serve a precision that fails its quality gate"
    )
    pairs: str = Field(
        "",
        description="folder of images and .txt captions of the same name, for the quality gate and"
        " to calibrate int8 on",
    )
    devices: str = Field("auto", description="auto, cpu, or a list such as cuda:0,cuda:1")
    text_workers: int = Field(1, ge=1, le=64, description="text workers on each device")
    image_workers: int = Field(1, ge=1, le=64, description="image workers on each device")
    threads: int = Field(0, ge=0, le=256, description="threads of a worker's engine; 0: all cores")
    decode_threads: int = Field(0, ge=0, le=64, description="decoding threads of a worker; 0: auto")
    text_batch_tokens: int = Field(0, ge=0, description="token budget of a batch; 0: auto")
    image_batch_patches: int = Field(0, ge=0, description="patch budget of a batch; 0: auto")

    calibration: str = Field(
        "",
        description="file of `python -m litapi calibrate`: what it fitted gives the probabilities",
    )

    max_num_patches: int = Field(
        0, ge=0, le=4096, description="patches of a NaFlex image; 0: model's"
    )
    max_num_patches_asked: int = Field(
        0,
        ge=0,
        le=4096,
        description="the most that a request may ask for; 0: max_num_patches, or else 1024",
    )
    max_items: int = Field(2048, ge=1, le=4096, description="items in one request")
    max_text_chars: int = Field(32768, ge=1, description="characters of one text")
    max_request_chars: int = Field(
        2 << 20, ge=1 << 17, description="characters of all texts of one request"
    )
    max_image_bytes: int = Field(20 << 20, ge=1, description="bytes of one encoded image")
    max_body_bytes: int = Field(
        64 << 20, ge=1, description="bytes of one request, or of its images by URL"
    )
    max_pixels: int = Field(50_000_000, ge=1, description="pixels of one image, before decoding")
    max_pixels_in_flight: int = Field(
        0,
        ge=0,
        description="pixels that a worker decodes at the same time; 0: 12.5 million for each"
        " decoding thread, at least 100 million",
    )
    decode_mb: int = Field(
        0,
        ge=0,
        description="megabytes that a worker may take for decoding; larger alone: 413; 0: 64 for"
        " each decoding thread, at least 500, and 500 alone",
    )
    decode_timeout: float = Field(
        10.0, gt=0, description="CPU seconds to decode an image; then it is refused: 422"
    )
    image_formats: tuple[str, ...] = Field(
        ("jpeg", "png", "webp", "gif", "bmp"),
        description="formats that are decoded; avif and tiff can be added",
    )
    jpeg_draft: bool = Field(
        False, description="true: decode large JPEGs at reduced size: faster, not equal"
    )

    api_keys: tuple[str, ...] = Field(
        (),
        description="keys that may ask, with commas: KEY, or NAME:KEY:CLASS with interactive or"
        " bulk; none: all",
    )
    api_keys_file: str | None = Field(
        None,
        description="file of more keys, one a line, limits behind it; # begins a comment; read"
        " again on SIGHUP",
    )
    key_limits: tuple[str, ...] = Field(
        (),
        description="limits by name of a key, with commas: NAME weight=3 requests=10 items=500"
        " megapixels=50 in_flight=64; * for all others",
    )
    max_wrong_keys: int = Field(
        60, ge=1, description="wrong keys a minute from one address; beyond: 429"
    )
    rate_limit: float = Field(0.0, ge=0, description="requests a second for each key; 0: no limit")
    cors_origins: tuple[str, ...] = Field((), description="web origins that may ask, with commas")
    cors_private_network: Literal["off", "on"] = Field(
        "off", description="let those web origins ask from a public network into a private one"
    )
    tls_cert: str | None = Field(None, description="certificate file; with tls_key serves https")
    tls_key: str | None = Field(None, description="key file of the certificate")
    image_urls: Literal["off", "allowed", "any-public"] = Field(
        "off",
        description="fetch images by URL: off, allowed (from image_url_hosts) or any-public",
    )
    image_url_hosts: tuple[str, ...] = Field(
        (), description="hosts to fetch from, with commas; HOST:PORT for one on its own port"
    )
    image_url_private: Literal["off", "on"] = Field(
        "off", description="allow image_url_hosts to lie in a private network"
    )
    image_url_timeout: float = Field(10.0, gt=0, le=300, description="seconds to fetch an image")
    image_url_mb: int = Field(
        256, ge=1, description="megabytes fetched at once in each HTTP process; beyond: waits"
    )

    max_queue: int = Field(4096, ge=1, description="items in flight for each tower; beyond: 429")
    max_queue_mb: int = Field(256, ge=1, description="megabytes in flight for each tower")
    max_wait: float = Field(10.0, gt=0, description="seconds of work in flight; beyond: 429")
    timeout: float = Field(30.0, gt=0, le=3600, description="seconds until an item is given up")
    hang_timeout: float = Field(
        60.0, gt=0, description="seconds in which a worker may stand still; then it is replaced"
    )
    probe_interval: float = Field(30.0, gt=0, description="seconds between probes of an idle tower")
    header_timeout: float = Field(5.0, gt=0, description="seconds for the head of a request")
    body_timeout: float = Field(4.0, gt=0, description="seconds in which a body may stand still")
    max_header_bytes: int = Field(32 << 10, ge=1024, description="bytes of the head of a request")
    keep_alive: int = Field(
        75, ge=1, le=86_400, description="seconds that a connection without requests is kept"
    )
    max_bodies_mb: int = Field(
        128, ge=1, description="megabytes of request bodies held at the same time; beyond: 429"
    )
    max_answers_mb: int = Field(
        64, ge=1, description="megabytes of answers not yet taken; beyond: slow readers are cut"
    )
    start_timeout: float = Field(600.0, gt=0, description="seconds for all workers to load")
    drain_timeout: int = Field(30, ge=1, le=3600, description="seconds to finish work at shutdown")

    cache: Literal["on", "off"] = Field("on", description="look vectors up before computing them")
    digest_lookups: Literal["on", "off"] = Field(
        "on", description="answer an image by its sha256 alone, where the cache has its vector"
    )
    redis_url: str | None = Field(
        None,
        description="a shared cache: redis://, rediss://, unix://, redis+cluster://, rediss+cluster://",
    )
    redis_private: Literal["on", "off"] = Field(
        "on", description="without redis_url: a private redis-server, where one is installed"
    )
    redis_private_mb: int = Field(64, ge=1, description="memory of the private redis-server, MB")
    redis_budget_ms: float = Field(20.0, gt=0, le=1000, description="longest wait for Redis, ms")
    memory_cache_mb: int = Field(64, ge=0, description="vectors kept in each HTTP process, MB")
    answer_cache_mb: int = Field(
        16, ge=0, description="whole answers kept in each HTTP process, MB; 0: none"
    )
    cache_ttl_days: float = Field(30.0, gt=0, description="life of a vector in Redis, days")
    cache_epoch: str = Field("", description="changes every cache key; a new value starts afresh")
    cache_tenant: str = Field("", description="secret salt of the cache keys on a shared Redis")

    cache_per_key: Literal["off", "on"] = Field(
        "off", description="on: no API key learns what another one had embedded"
    )

    log_format: Literal["text", "json"] = Field("text", description="text or json")
    access_log: Literal["off", "on"] = Field("off", description="a log line for each request")
    otlp_endpoint: str | None = Field(None, description="where OpenTelemetry traces go, over HTTP")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error"
    )

    test_hooks: Literal["off", "on"] = Field("off", description="faults on demand; for tests only")

    _given: tuple[tuple[str, ...], tuple[str, ...]] = PrivateAttr(((), ()))  # beside the file's

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
        """The most patches of an image that a request may ask for."""
        return self.max_num_patches_asked or self.max_num_patches or MOST_PATCHES

    @property
    def digests(self) -> bool:
        """Whether images are looked up by their digests: there must be a cache to look in."""
        return self.cache == "on" and self.digest_lookups == "on"

    def precision_of(self, kind: str) -> str:
        """The precision asked for one tower, "text" or "image"."""
        own = self.text_precision if kind == "text" else self.image_precision
        return own or self.precision

    def precision_option(self, kind: str) -> str:
        """The flag that `precision_of` was given by."""
        own = self.text_precision if kind == "text" else self.image_precision
        return f"--{kind}-precision" if own else "--precision"

    @property
    def compile_folder(self) -> Path:
        """Where compiled towers and verdicts are kept across restarts."""
        return Path(self.compile_cache) if self.compile_cache else cache_folder()

    @property
    def front_processes(self) -> int:
        """HTTP processes to start."""
        return self.http_workers or max(1, cores() // 4)

    @classmethod
    def read(cls, flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
        """Flags win over the environment, the environment over the defaults.

        Raises:
            SettingsError: one line for each unknown or invalid option, naming it as it was given.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        found, names, problems = _from_environment(environ, given)
        names.update({name: flag_of(name) for name in given})
        try:
            settings = cls.model_validate({**found, **given})
            if settings.api_keys_file:
                settings = settings._with_keys_from(settings.api_keys_file, names)
            settings.keys()
        except KeysError as error:
            problems.append(f"{names.get('key_limits', '--key-limits')}: {error}")
        except ValidationError as error:
            problems += [_sentence(names, one) for one in error.errors()]
        if problems:
            raise SettingsError("\n".join(problems))
        return settings

    def keys(self) -> list[Key]:
        """The API keys with their limits. Raises KeysError where the two do not fit."""
        return read_keys(self.api_keys, self.key_limits)

    def keys_again(self) -> list[Key]:
        """The same with the keys file as it is now.

        Raises:
            SettingsError: it cannot be read, or not used.
        """
        entries, limits = self._given
        plain = self.model_copy(update={"api_keys": entries, "key_limits": limits})
        try:
            return plain._with_keys_from(self.api_keys_file or "", {}).keys()
        except KeysError as error:
            raise SettingsError(f"--key-limits: {error}") from None

    def _with_keys_from(self, path: str, names: Mapping[str, str]) -> Settings:
        option = names.get("api_keys_file", "--api-keys-file")
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8-sig")
            entries, limits = lines_of(text)
            self._whole_keys(entries)
            self._known_limits(limits)
        except (OSError, UnicodeError) as error:  # a folder, no right to read, no text
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise SettingsError(f"{option}: the file cannot be read: {reason}") from None
        except ValueError as error:
            raise SettingsError(f"{option}: {error}") from None
        if not entries:
            raise SettingsError(f"{option}: the file holds no key")
        both = {
            "api_keys": (*self.api_keys, *entries),
            "key_limits": (*self.key_limits, *limits),
        }
        settings = self.model_copy(update=both)
        settings._given = self.api_keys, self.key_limits
        return settings


def cache_folder() -> Path:
    """The user's own, where no option names another."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "siglit"


def flag_of(name: str) -> str:
    """The command-line spelling of an option."""
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
