"""A converted tower, and the folder it is kept in, so that a second start needs no torch.

    models/KEY/  tower.xml tower.bin   the graph, and its weights, which are mapped: workers of one
                                       machine share their pages
                 arrays.npz            probes with transformers' answers, the position table
                 facts.json            the rest, and how long the files are

Everything that could change a file is in its key: checkpoint, form, calibration, versions, and the
code that converts. The CPU is not: what is compiled for it is compiled at start, in half a second.
A folder appears whole or not at all. One that is read-only or full costs time and nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from litapi.checkpoint import Checkpoint
from litapi.messages import KINDS
from litapi.model.engines.runtime import openvino
from litapi.model.probes import Probes
from litapi.process import version

log = logging.getLogger("siglit.converted")

CODE = (
    "conversion.py", "converted.py", "layers.py", "calibration.py", "torch_engine.py",
    "../probes.py",
)  # fmt: skip
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")  # whole, as it reads them
PACKAGES = ("openvino", "torch", "transformers")
MAKING = ".making-"
GIVEN_UP = 3600.0  # seconds after which what was begun has no owner any more
KEPT = 6  # towers of a kind: of more, those that were used last


@dataclass(frozen=True, slots=True)
class Converted:
    """A tower as OpenVINO takes it. `positions` (side, side, width) is NaFlex's table.

    `scales` is the digest of the numbers that calibration found; empty where nothing is quantized.
    """

    model: Any
    parameters: int
    dim: int
    probes: Probes
    positions: npt.NDArray[np.float32] | None = None
    scales: str = ""

    def write(self, folder: Path) -> None:
        """Raises OSError, or RuntimeError of OpenVINO's."""
        openvino().save_model(self.model, folder / "tower.xml", compress_to_fp16=False)
        arrays = self.probes.arrays()
        if self.positions is not None:
            arrays["positions"] = self.positions
        np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
        facts = {"parameters": self.parameters, "dim": self.dim, "scales": self.scales}
        lengths = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        (folder / "facts.json").write_text(json.dumps({**facts, "lengths": lengths}))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises an error of some kind where a file is missing or damaged."""
        facts = json.loads((folder / "facts.json").read_text())
        for name, length in facts["lengths"].items():
            if (folder / name).stat().st_size != length:
                raise ValueError(f"{name} was cut short")
        with np.load(folder / "arrays.npz") as file:
            arrays = dict(file)
        model = openvino().Core().read_model(folder / "tower.xml")
        probes = Probes.of_arrays(arrays)
        positions = arrays.get("positions")
        return cls(model, facts["parameters"], facts["dim"], probes, positions, facts["scales"])


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where converted towers are kept."""

    folder: Path

    def find(self, key: str) -> Converted | None:
        """The tower of that key; None where there is none, or none that is sound."""
        if not self.has(key):
            return None
        try:
            return Converted.read(self.folder / key)
        except Exception as error:  # whatever a damaged file makes three libraries raise
            log.warning("a converted tower on disk is damaged and made anew (%s)", error)
            self.drop(key)
            return None

    def keep(self, key: str, made: Converted) -> Converted:
        """`made`, as read from disk again where it could be written."""
        try:
            self._write(key, made)
        except (OSError, RuntimeError) as error:
            log.warning("the converted tower is not kept; every start makes it anew (%s)", error)
            return made
        return self.find(key) or made

    def drop(self, key: str) -> None:
        """Forget the tower of that key."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def has(self, key: str) -> bool:
        """Whether there seems to be one, which counts as used now."""
        with suppress(OSError):  # none, or in a folder that is not to be written to
            os.utime(self.folder / key)
        return os.path.isfile(self.folder / key / "facts.json")  # False without access, too

    def writable(self) -> bool:
        """Whether anything can be kept at all."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            return False
        return os.access(self.folder, os.W_OK | os.X_OK)

    def _write(self, key: str, made: Converted) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tidy()
        partial = Path(tempfile.mkdtemp(prefix=MAKING, dir=self.folder))
        try:
            made.write(partial)
            partial.rename(self.folder / key)
        except OSError:
            if not self.has(key):  # else another worker was first, and its files are as good
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _tidy(self) -> None:
        """Take away what was begun by processes that have ended since, and the towers that are too
        many. A server that has mapped one goes on; one that is starting has just used its own.
        """
        paths = sorted(self.folder.iterdir(), key=_used, reverse=True)
        for start, kept in ((MAKING, 0), *((f"{kind}-", KEPT) for kind in KINDS)):
            for path in [path for path in paths if path.name.startswith(start)][kept:]:
                if time.time() - _used(path) > GIVEN_UP:
                    self.drop(path.name)


def _used(path: Path) -> float:
    """When something was last made in a folder, or used; now, where another has taken it away."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def key_of(checkpoint: Checkpoint, kind: str, calibration: str = "") -> str:
    """The name of one tower's folder; `calibration` is the digest of what int8 is calibrated on."""
    digests = [checkpoint.weights_digest, checkpoint.config_digest, checkpoint.preprocessing_digest]
    digests += [_digest(checkpoint.folder / name) for name in PROCESSOR_FILES]
    packages = [*PACKAGES, *(["nncf"] if calibration else [])]
    whole = [kind, digests, calibration, [version(name) for name in packages], _code()]
    return f"{kind}-{hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:32]}"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


@functools.cache
def _code() -> str:
    """Of the files that decide what is made."""
    here = Path(__file__).parent
    texts = [(here / name).read_bytes() for name in CODE]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()
