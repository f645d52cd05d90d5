"""The sha256 of files, remembered between starts: hashing a gigabyte takes two seconds.

    digests/KEY    the sha256 in hex; KEY is the digest of path, inode, bytes and times of the file

A file that is written to gets another time of change, which nobody can set back. One that was
changed in the last seconds may be changed again within the clock's step: it is hashed each time.
"""

from __future__ import annotations

import functools
import hashlib
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LARGE = 1 << 20  # bytes, from which a digest is worth a file
SETTLED = 2.0  # seconds without a change
KEPT = 100  # files
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Digests:
    """`folder` holds what is remembered; None: nothing is. One that cannot be used costs time."""

    folder: Path | None = None

    def of(self, path: Path) -> str:
        """The file's sha256; the hub's cache names a large file by it, and then nothing is read."""
        real = path.resolve()
        if real.parent.name == "blobs" and DIGEST.fullmatch(real.name):
            return real.name
        key = _key(real)
        if self.folder is None or real.stat().st_size < LARGE:
            return _hashed(real, key)
        file = self.folder / "digests" / key
        with suppress(OSError, ValueError):
            if DIGEST.fullmatch(said := file.read_text()):
                return said
        return _kept(file, real)


def _kept(file: Path, real: Path) -> str:
    digest, state = _hashed(real, file.name), real.stat()
    settled = time.time() - max(state.st_mtime, state.st_ctime) > SETTLED
    if settled and _key(real) == file.name:
        with suppress(OSError):
            _write(file, digest)
    return digest


def _key(real: Path) -> str:
    state = real.stat()
    about = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return hashlib.sha256(f"{real}\0{about}".encode()).hexdigest()[:32]


@functools.lru_cache(maxsize=64)
def _hashed(path: Path, key: str) -> str:
    """One process hashes each file only once."""
    del key  # so that a rewritten file is hashed again
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(file: Path, digest: str) -> None:
    """The oldest ones make room. What is cut short is not believed."""
    folder = file.parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in sorted(folder.iterdir(), key=lambda one: one.stat().st_mtime)[: 1 - KEPT]:
        old.unlink()
    file.write_text(digest)
