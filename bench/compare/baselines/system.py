"""What a comparison knows of a system: its name, whether it can run here, how to start it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.load.route import Form

LOADED = "model loaded"  # said once by each process that has; whoever waits for it reads the log


@dataclass(frozen=True, slots=True)
class Ground:
    """What every system is given alike: the checkpoint folder, so many cores, and a device.

    torch gets cores ÷ (processes that compute at the same time) threads, so that each system has a
    fair chance; on a GPU all compute in bfloat16, as anybody would serve there.
    """

    checkpoint: Path
    cores: int
    device: str = "cpu"  # or a GPU such as cuda:0

    @property
    def gpu(self) -> bool:
        """Whether the towers are on one; the cores decode all the same."""
        return self.device != "cpu"

    @property
    def precision(self) -> str:
        """What a system that is asked for none in particular computes in."""
        return "bfloat16" if self.gpu else "float32"

    def threads(self, processes: int = 1) -> int:
        """Torch threads of each of these processes."""
        return max(1, self.cores // processes)


@dataclass(frozen=True, slots=True)
class Served:
    """A system that is up: where, in what form it is asked, and its first processes."""

    url: str
    pids: tuple[int, ...]
    form: Form = "embed"
    text_path: str | None = None
    image_path: str | None = None
    model: str | None = None


def always() -> None:
    """Most systems need nothing but this project's packages."""


@dataclass(frozen=True, slots=True)
class System:
    """A system; it holds nothing of a run, so it can be started again and again.

    `start` waits until it is ready, and it ends with the `with`; raises Absent where it cannot
    serve this checkpoint here, StartError where it should have. `look` looks whether it can run
    here at all, and raises Absent with the reason where not.
    """

    name: str
    start: Callable[[Ground], AbstractContextManager[Served]]
    look: Callable[[], object] = always
