"""`python -m deploy.bulk INPUT OUTPUT`: embed a folder or a table into Parquet files, on Ray Data.

    python -m deploy.bulk photos/ vectors/
    python -m deploy.bulk captions.jsonl vectors/ --column caption --redis-url redis://cache:6379
    python -m deploy.bulk table/ vectors/ --column image --model google/siglip2-base-patch16-224

INPUT is a folder of images, or Parquet or JSON Lines: a file, or a folder of them. Run again after
an interruption, it does the blocks that are not there yet. With --address it runs on a cluster
whose nodes all see INPUT, OUTPUT and this folder under the same paths. The other options are the
server's own, environment variables included. The last line is a JSON object of what was done.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import ray

from deploy.bulk.cluster import Cluster
from deploy.bulk.output import Manifest, fingerprint_of, finished, held, sweep
from deploy.bulk.run import Tally, run
from deploy.bulk.source import Block, BulkError, Source, discover
from deploy.bulk.task import Task, open_checkpoint
from litapi.checkpoint import Checkpoint, CheckpointError
from litapi.logs import configure
from litapi.messages import KINDS
from litapi.quality.verdict import Refused, admit
from litapi.serving import Service
from litapi.settings import Settings, SettingsError, add_flags

ROWS = 1024
LIMITS = ("max_text_chars", "max_image_bytes", "max_pixels", "image_formats")
SHARED = (
    *("model", "revision", "precision", "text_precision", "image_precision", "compile"),
    *("engine", "compile_cache", "accept_loss", "pairs", "devices", "threads", "decode_threads"),
    *("text_batch_tokens", "image_batch_patches", "max_num_patches", "jpeg_draft", *LIMITS),
    *("redis_url", "cache_ttl_days", "cache_epoch", "cache_tenant", "log_level"),
)
REFUSALS = (SettingsError, CheckpointError, Refused, BulkError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 when every block is there, 2 when something impossible was asked for."""
    options = _parser().parse_args(arguments)
    try:
        flags = {name: getattr(options, name) for name in SHARED}
        settings = Settings.read(flags, os.environ)
        configure(settings)
        _embed(options, settings)
    except REFUSALS as error:
        print(f"siglit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("siglit: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except ray.exceptions.RayError as error:
        print(f"siglit: Ray gave up; the same command goes on from here\n{error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m deploy.bulk", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.allow_abbrev = False
    parser.add_argument("input", type=Path, metavar="INPUT")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder of the Parquet files")
    parser.add_argument("--column", help="of a table; the only one that can be meant, if there is")
    parser.add_argument("--kind", choices=KINDS, help="found out from the values where not given")
    parser.add_argument("--workers", type=_positive, default=1, help="on each GPU or node")
    parser.add_argument("--block-rows", type=_positive, default=ROWS, help="rows of an output file")
    parser.add_argument("--address", help="of a Ray cluster; without it one is started here")
    add_flags(parser, SHARED)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _embed(options: argparse.Namespace, settings: Settings) -> None:
    source = discover(options.input.absolute(), options.column, options.kind)
    blocks = list(source.blocks(options.block_rows))
    if not blocks:
        raise BulkError("INPUT: there are no rows")
    checkpoint = open_checkpoint(settings)
    output: Path = options.output.absolute()
    with held(output):
        _manifest(options, settings, checkpoint, source).settle(output)
        sweep(output)
        done = finished(output)
        todo = [block for block in blocks if block.name not in done]
        tally = Tally(sum(block.rows for block in blocks) - sum(block.rows for block in todo))
        if todo:
            known = fingerprint_of(output / min(done)) if done else ""
            _compute(options, Task(settings, checkpoint, source, output, known, ""), todo, tally)
    print(orjson.dumps({**tally.fields(), "blocks": len(blocks)}).decode())


def _compute(options: argparse.Namespace, task: Task, blocks: list[Block], tally: Tally) -> None:
    with Cluster(options.address, task.settings) as cluster:
        room = cluster.room(options.workers)
        admit(task.settings, task.checkpoint, room.device)
        task = replace(task, settings=room.settings(task.settings), device=room.device)
        run(task, blocks, room, tally)


def _manifest(
    options: argparse.Namespace, settings: Settings, checkpoint: Checkpoint, source: Source
) -> Manifest:
    limits = orjson.dumps({name: getattr(settings, name) for name in LIMITS})
    return Manifest(
        input=source.fingerprint(),
        model=Service(settings, checkpoint).fingerprints()[source.kind].hex,
        limits=hashlib.sha256(limits).hexdigest(),
        kind=source.kind,
        column=source.column,
        block_rows=options.block_rows,
    )


if __name__ == "__main__":
    sys.exit(main())
