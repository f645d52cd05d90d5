"""How many machines, cards and gigabytes a load needs.

    python -m deploy.capacity [--rates 1e3,1e5,1e7] [--set "found in the cache=0.5"] [--list]
    python -m deploy.capacity --write docs/scaling.md      # puts the tables into the document

Every input is read from bench/results or is an assumption that `--list` names with its source;
`--set` replaces any of them. Nothing here is a measurement of such a load.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from deploy.inputs import ASSUMED, Inputs

RATES = (1e3, 1e5, 1e7)
BEGIN, END = "<!-- python -m deploy.capacity --write docs/scaling.md -->", "<!-- end -->"


@dataclass(frozen=True, slots=True)
class Demand:
    """What a number of items a second asks of each part."""

    rate: float  # items a second
    front_cores: float
    decode_cores: float
    tower_cores: float | None  # on CPUs alone; None where no CPU rate was measured
    cards: float
    redis_lookups: float  # Redis processes by look-ups
    redis_bytes: float
    client_bits: float  # a second, in and out
    redis_bits: float

    @classmethod
    def of(cls, rate: float, inputs: Inputs) -> Self:
        """The plain arithmetic of one rate."""
        load, missed = inputs["load on a core or card"], 1 - inputs["found in the cache"]
        pictures = rate * inputs["images among the items"]
        texts = rate - pictures
        front = rate * _front(missed, inputs)
        dimension = inputs["numbers of a vector"]
        wire = pictures * inputs["a picture on the wire"] + texts * inputs["a text on the wire"]
        return cls(
            rate=rate,
            front_cores=front / load,
            decode_cores=pictures * missed * inputs["decoding a picture"] / load,
            tower_cores=_tower_cores(pictures * missed, texts * missed, inputs),
            cards=_cards(pictures * missed, texts * missed, inputs),
            redis_lookups=rate / inputs["look-ups of a Redis"] / load,
            redis_bytes=rate * missed * inputs["a vector is kept"] * inputs["a vector in Redis"],
            client_bits=8 * (wire + rate * dimension * 4 * 4 / 3),
            redis_bits=8 * rate * dimension * 4,
        )

    def cpu_machines(self, inputs: Inputs) -> float | None:
        """Machines without cards that do all of it but Redis."""
        if self.tower_cores is None:
            return None
        cores = self.front_cores + self.decode_cores + self.tower_cores
        return cores / inputs["cores of a machine"]

    def card_machines(self, inputs: Inputs) -> float:
        """Machines with cards that do all of it but Redis: by cards, by cores, by network."""
        cores = (self.front_cores + self.decode_cores) / inputs["cores of a GPU machine"]
        bits = (self.client_bits + self.redis_bits) / inputs["network of a machine"]
        return max(self.cards / inputs["cards of a GPU machine"], cores, bits)

    def shards(self, inputs: Inputs) -> float:
        """Redis processes: by memory, by look-ups, by network."""
        return max(
            self.redis_bytes / inputs["memory of a Redis shard"],
            self.redis_lookups,
            self.redis_bits / inputs["network of a machine"],
        )


def _front(missed: float, inputs: Inputs) -> float:
    """Core seconds of an HTTP process for an item, with its part of the request around it."""
    items = inputs["items in a request"]
    with_misses: float = 1 - (1 - missed) ** items  # of the requests
    request = inputs["front work of a request"] + with_misses * inputs["front work of a job"]
    hit, miss = inputs["front work of a Redis hit"], inputs["front work of a miss"]
    return request / items + hit * (1 - missed) + miss * missed


def _tower_cores(pictures: float, texts: float, inputs: Inputs) -> float | None:
    if "pictures a core embeds" not in inputs or "texts a core embeds" not in inputs:
        return None
    cores = pictures / inputs["pictures a core embeds"] + texts / inputs["texts a core embeds"]
    return cores / inputs["load on a core or card"]


def _cards(pictures: float, texts: float, inputs: Inputs) -> float:
    cards = pictures / inputs["pictures a card embeds"] + texts / inputs["texts a card embeds"]
    return cards / inputs["share of a card's peak"] / inputs["load on a core or card"]


def table(inputs: Inputs, rates: Sequence[float]) -> str:
    """The demand of each rate, as Markdown; parts of machines are rounded up."""
    demands = [Demand.of(rate, inputs) for rate in rates]
    rows = [
        ("front, cores", [_up(one.front_cores) for one in demands]),
        ("decoding, cores", [_up(one.decode_cores) for one in demands]),
        ("towers on CPUs, cores", [_up(one.tower_cores) for one in demands]),
        ("towers on GPUs, cards", [_up(one.cards) for one in demands]),
        ("machines without cards", [_up(one.cpu_machines(inputs)) for one in demands]),
        ("or machines with cards", [_up(one.card_machines(inputs)) for one in demands]),
        ("Redis memory, GB", [_up(one.redis_bytes / 1e9) for one in demands]),
        ("Redis shards", [_up(one.shards(inputs)) for one in demands]),
        ("network to clients, Gbit/s", [f"{one.client_bits / 1e9:.3g}" for one in demands]),
        ("network to Redis, Gbit/s", [f"{one.redis_bits / 1e9:.3g}" for one in demands]),
    ]
    head = ["items a second", *(f"{rate:,.0f}" for rate in rates)]
    lines = [head, ["---", *("---:" for _ in rates)], *([name, *cells] for name, cells in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _up(value: float | None) -> str:
    return "not measured" if value is None else f"{math.ceil(value):,}"


def sources(inputs: Inputs) -> str:
    """Every input with its source, as Markdown: the measured ones first."""
    ranked = sorted(inputs.figures.items(), key=lambda pair: not pair[1].measured)
    lines = ["| input | value | source |", "|---|---:|---|"]
    for name, one in ranked:
        lines.append(f"| {name} | {one.value:,.4g} {one.unit} | {one.source} |")
    return "\n".join(lines)


def report(inputs: Inputs, rates: Sequence[float]) -> str:
    """Both tables, and which results files are still to be made."""
    missing = [f"Not measured yet: {', '.join(inputs.missing)}."] if inputs.missing else []
    return "\n\n".join([table(inputs, rates), *missing, sources(inputs)])


def written(document: str, text: str) -> str:
    """The document with `text` between its two marks.

    Raises:
        ValueError: it has no such marks.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def changed(inputs: Inputs, settings: Sequence[str]) -> Inputs:
    """The inputs with some of them set by hand, each as `name=value`.

    Raises:
        ValueError: there is no such input, or the value is no number.
    """
    figures = dict(inputs.figures)
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in figures:
            raise ValueError(f"there is no input {name!r}; --list shows them")
        figures[name] = replace(figures[name], value=float(value), source=f"{ASSUMED}: --set")
    return Inputs(figures, inputs.missing)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0, or 2 when it was asked for something impossible."""
    options = _parser().parse_args(arguments)
    try:
        inputs = changed(Inputs.read(), options.set)
        rates = [float(rate) for rate in options.rates.split(",")] if options.rates else RATES
        text = report(inputs, rates)
        if options.write:
            options.write.write_text(written(options.write.read_text(), text))
        else:
            print(text if options.list else table(inputs, rates))
    except (ValueError, OSError) as error:
        print(f"deploy.capacity: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m deploy.capacity", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rates", help="items a second, with commas")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--list", action="store_true", help="show every input with its source")
    parser.add_argument("--write", type=Path, help="put both tables into this document")
    return parser


if __name__ == "__main__":
    sys.exit(main())
