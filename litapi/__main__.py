"""`python -m litapi COMMAND`: serve, check, prepare, warm, embed, compare-spaces, calibrate."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from litapi.calibration import Calibration
from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.logs import configure
from litapi.messages import KINDS
from litapi.settings import Settings, SettingsError, StartError, add_flags

log = logging.getLogger("siglit")

PREPARE_FLAGS = (
    *("model", "revision", "engine", "precision", "text_precision", "image_precision"),
    *("compile_cache", "pairs", "max_num_patches"),
)
CHECK_FLAGS = (
    *("model", "revision", "engine", "precision", "text_precision", "image_precision"),
    *("compile", "compile_cache", "pairs", "devices", "threads"),
)

PROOFS = ("golden", "cats", "retrieval", "url", "key", "verbose")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 when it went well, 2 when the caller asked for something impossible."""
    options = vars(_parser().parse_args(arguments))
    command, run = options.pop("command"), options.pop("run")
    try:
        code: int = run(**options)
        return code
    except _refusals() as error:
        print(f"siglit: {error}", file=sys.stderr)
    except OSError as error:  # of the machine's, not foreseen: the log knows where it came from
        log.debug("%s failed", command, exc_info=True)
        print(f"siglit: {command} failed: {error}", file=sys.stderr)
    return 2


def _refusals() -> tuple[type[Exception], ...]:
    """What is reported in one line. Imported only once something was raised."""
    from litapi.arguments import ArgumentError
    from litapi.client import ClientError
    from litapi.keys import KeysError
    from litapi.quality.source import SourceError
    from litapi.quality.verdict import Refused

    ours = SettingsError, KeysError, StartError, CheckpointError, ArgumentError
    return *ours, SourceError, ClientError, Refused


def _configured(options: dict[str, Any]) -> Settings:
    settings = Settings.read(options, os.environ)
    configure(settings)
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m litapi", description="SigLIP2 embeddings over HTTP")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(run: Callable[..., int], name: str, text: str, **how: Any) -> Any:
        made = commands.add_parser(name, help=text, **how)
        made.set_defaults(run=run)
        return made

    add_flags(command(_serve, "serve", "serve a checkpoint", allow_abbrev=False))
    check = command(_check, "check", "say whether a checkpoint is served right")
    add_flags(check, CHECK_FLAGS)
    _add_proofs(check)
    ready = command(_prepare, "prepare", "make the towers of a CPU ready on disk, no more")
    add_flags(ready, PREPARE_FLAGS)
    warm = command(_warm, "warm", "fill the cache of a running server")
    _add_sources(warm, "http://localhost:8080")
    embed = command(_embed, "embed", "write the vectors of texts and pictures")
    _add_sources(embed, None)
    embed.add_argument("--out", type=Path, help=".jsonl, .npy or .parquet; else JSON lines here")
    add_flags(embed, (*CHECK_FLAGS, "redis_url", "max_num_patches"))
    _add_servers(command(_compare, "compare-spaces", "may vectors of two servers be mixed?"))
    fit = command(_calibrate, "calibrate", "fit probabilities to pairs of one's own")
    _add_pairs(fit)
    add_flags(fit, (*(one for one in CHECK_FLAGS if one != "pairs"), "max_num_patches"))
    return parser


def _add_pairs(fit: argparse.ArgumentParser) -> None:
    fit.add_argument(
        "--pairs", required=True, type=Path, dest="folder", metavar="FOLDER",
        help="images with a .txt of captions beside each, one a line; or COCO as it is downloaded",
    )  # fmt: skip
    fit.add_argument("--out", required=True, type=Path, metavar="FILE", help="for --calibration")
    fit.add_argument(
        "--matching-share", type=float, default=0.05, dest="share", metavar="X",
        help="of what will be asked, the share of labels that hold (default: 0.05)",
    )  # fmt: skip
    fit.add_argument("--url", help="of a running server; else in this process")
    fit.add_argument("--key", help="API key, where the server asks for one")


def _add_proofs(check: argparse.ArgumentParser) -> None:
    check.add_argument("--golden", action="store_true", help="compare with published logits")
    check.add_argument("--cats", type=Path, metavar="FILE", help="COCO's picture 000000039769")
    check.add_argument("--retrieval", type=Path, metavar="FOLDER", help="recall on captions")
    check.add_argument("--url", help="judge a running server of any make, not this process")
    check.add_argument("--key", help="API key, where that server asks for one")
    check.add_argument("--verbose", action="store_true", help="all logits, found and published")


def _add_servers(compare: argparse.ArgumentParser) -> None:
    compare.add_argument("urls", nargs=2, metavar="URL", help="where a server listens")
    compare.add_argument(
        "--sample", nargs="+", type=Path, default=[], metavar="FILE", dest="paths",
        help="texts by line; images, folders of them; drawn where not given",
    )  # fmt: skip
    compare.add_argument("--key", action="append", help="API key of both, or each, in order")
    compare.add_argument("--verbose", action="store_true", help="the cosine of each item")


def _add_sources(command: argparse.ArgumentParser, url: str | None) -> None:
    command.add_argument(
        "paths", nargs="+", type=Path, metavar="FILE", help="texts by line, or -; images, folders"
    )
    where = "where the server listens" if url else "of a running server; else in this process"
    command.add_argument("--url", default=url, help=where)
    command.add_argument("--key", help="API key, where the server asks for one")


def _warm(paths: list[Path], url: str, key: str | None) -> int:
    from litapi.client import Client
    from litapi.embed import warm
    from litapi.quality.source import either

    with Client(url, key, priority="bulk") as client:
        print(warm(paths, either(client.embed_texts, client.embed_images)))
    return 0


def _embed(
    paths: list[Path], url: str | None, key: str | None, out: Path | None, **options: Any
) -> int:
    """0: all have their vectors; 1: some were refused, and the output names them."""
    from litapi.embed import embed, opened

    with opened(url, key, _configured(options)) as source:
        refused = embed(paths, out, source.ask)
    if refused:
        print(f"siglit: {refused} refused", file=sys.stderr)
    return 1 if refused else 0


def _compare(urls: list[str], key: list[str] | None, paths: list[Path], verbose: bool) -> int:
    """0: vectors of both may be mixed; 1: they may not."""
    from litapi.spaces import compare

    keys = [key[0], key[-1]] if key else [None, None]
    return 0 if compare(urls, keys, paths, verbose) else 1


def _calibrate(
    folder: Path, out: Path, share: float, url: str | None, key: str | None, **options: Any
) -> int:
    from litapi.calibrate import calibrate, lines

    settings = _configured(options)
    for line in lines(calibrate(folder, out, share, url, key, settings)):
        print(line)
    return 0


def _serve(**options: Any) -> int:
    from litapi.metrics import lay

    settings = _configured(options)
    try:
        folder = lay()  # before anything imports prometheus_client
    except OSError as error:
        raise StartError(f"the temporary folder cannot be used: {error.strerror}") from None
    try:
        return _served(settings)
    except KeyboardInterrupt:  # told to end while it was still loading
        return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _served(settings: Settings) -> int:
    from litapi.preflight import Port, preflight
    from litapi.prepare import prepare
    from litapi.quality.verdict import admit
    from litapi.server import EmbedServer, device_plan

    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    preflight(settings)
    with contextlib.closing(Port(settings.host, settings.port)):
        checkpoint = Checkpoint.named(settings.model, settings.revision, settings.compile_folder)
        calibration = Calibration.of(settings.calibration, checkpoint)
        devices = device_plan(settings)
        prepare(settings, checkpoint, devices)
        quality = admit(settings, checkpoint, devices["text"][0])
        server = EmbedServer(settings, checkpoint, quality, calibration)
        server.serve()
    if server.failure:
        print(f"siglit: {server.failure}", file=sys.stderr)
    return 1 if server.failure else 0


def _end(number: int, frame: object) -> None:
    """The first signal drains; the second ends everything at once."""
    del frame
    signal.signal(signal.SIGTERM, _end_now)
    signal.signal(signal.SIGINT, _end_now)
    raise KeyboardInterrupt(number)


def _end_now(number: int, frame: object) -> None:
    del frame
    os._exit(128 + number)  # the children are tied to this process and end with it


def _prepare(**options: Any) -> int:
    from litapi.prepare import make, missing

    settings = _configured(options)
    checkpoint = Checkpoint.named(settings.model, settings.revision, settings.compile_folder)
    plan: dict[str, list[str]] = {kind: ["cpu"] for kind in KINDS}
    for kind in missing(settings, checkpoint, plan):
        print(f"converting the {kind} tower of {checkpoint.name}")
        make(settings, checkpoint, kind)
    left = missing(settings, checkpoint, plan)
    folder = settings.compile_folder
    print(f"{folder} cannot be written to" if left else f"{folder} holds both towers")
    return 1 if left else 0


def _check(**options: Any) -> int:
    from litapi.checks import Checks
    from litapi.preflight import require_folders

    asked = {name: options.pop(name) for name in PROOFS}
    settings = _configured(options)
    require_folders(settings)
    return 0 if Checks(settings, **asked).run() else 1


if __name__ == "__main__":
    sys.exit(main())
