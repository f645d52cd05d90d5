"""What `python -m litapi check` looks at and prints: one line each, pass or FAIL.

The rules that a checkpoint's files must keep; what the precision that was asked for is worth; and,
where asked for, the vectors themselves against published logits and on captioned pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from litapi.checkpoint import DEMO, DEMO_NAME, Checkpoint
from litapi.demo.judge import retrieval
from litapi.devices import planned, require_devices
from litapi.embed import opened
from litapi.messages import KINDS
from litapi.quality.golden import Golden, Verdict
from litapi.quality.pairs import Captioned, PairsError
from litapi.quality.source import Source
from litapi.settings import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class Checks:
    """What was asked for. With `url` a running server is judged, else the towers in this process.

    Its methods raise SettingsError, CheckpointError and SourceError in one line.
    """

    settings: Settings
    golden: bool = False
    cats: Path | None = None
    retrieval: Path | None = None
    url: str | None = None
    key: str | None = None
    verbose: bool = False

    def run(self) -> bool:
        """Print all findings; whether every one passed."""
        if self.url is None and not self._folder():
            return False
        if not (self.golden or self.cats or self.retrieval):
            return True
        try:
            with self._source() as source:
                return self._vectors(source)
        except PairsError as error:
            raise SettingsError(f"--retrieval: {error}") from None

    def _folder(self) -> bool:
        from litapi.model.check import check  # loads torch

        if self.settings.devices != "auto":
            require_devices(self.settings.devices.split(","))
        checkpoint = self._checkpoint()
        findings = check(checkpoint, self.settings.engine, self.settings.compile_folder)
        for finding in findings:
            _print(finding.name, finding.passed, finding.sentence)
        return all(one.passed for one in findings) and self._quality(checkpoint)

    def _quality(self, checkpoint: Checkpoint) -> bool:
        """What the precision that was asked for is worth beside float32."""
        settings = self.settings
        exact = all(settings.precision_of(kind) in ("auto", "float32") for kind in KINDS)
        if settings.compile == "off" and exact:
            return True
        from litapi.quality.gate import Gate

        device = planned(settings)[0]
        gate = Gate(settings, checkpoint, device)
        shown = ", ".join(f"{kind} {precision}" for kind, precision in gate.arithmetic().items())
        compiled = " compiled" if settings.compile == "on" else ""
        fidelity = gate.judge()
        print(f"\n{shown}{compiled} on {device}, beside float32 on {fidelity.pairs} pairs")
        for line in fidelity.lines():
            print(f"      {line}")
        _print("quality", fidelity.passed, fidelity.sentence)
        return fidelity.passed

    def _vectors(self, source: Source) -> bool:
        print(f"\n{source.name}: {source.about}")
        passed = [self._show(verdict) for verdict in self._published(source)]
        if self.retrieval:
            pairs = Captioned.of(self.retrieval)
            print(f"{len(pairs.captions)} captions of {len(pairs.paths)} pictures")
            texts, images = pairs.embedded(source.texts, source.pictures)
            found = retrieval(images, texts, owners=pairs.owners)
            print(f"{'':<20}" + "".join(f"{name:>11}" for name in found["text_to_image"]))
            for way, shares in found.items():
                numbers = "".join(f"{share:>11.1%}" for share in shares.values())
                print(f"      {way.replace('_to_', ' → '):<14}{numbers}")
        return all(passed)

    def _published(self, source: Source) -> Iterator[Verdict]:
        if not (self.golden or self.cats):
            return
        golden = Golden.of(source.name)
        if golden.empty:
            print(f"      {'golden':<24} There are no published numbers of {source.name}.")
        elif golden.cats and not self.cats:
            print(f"      {'cats':<24} --cats FILE takes COCO's picture 000000039769.")
        photo = self.cats.read_bytes() if self.cats else None
        yield from golden.verdicts(source, photo, self._explain(source))

    def _show(self, verdict: Verdict) -> bool:
        _print(verdict.name, verdict.passed, verdict.sentence)
        for line in verdict.table if self.verbose else ():
            print(f"      {line}")
        return verdict.passed

    def _explain(self, source: Source) -> functools.partial[str] | None:
        """Needs the weights at hand; of a server's checkpoint they are where --model names it."""
        if self.url and not self.settings.model:
            if source.name != DEMO_NAME:
                return None
            checkpoint = Checkpoint.open(DEMO)
        else:
            checkpoint = self._checkpoint()
        from litapi.quality.mistake import reason

        return functools.partial(reason, checkpoint)

    @contextmanager
    def _source(self) -> Iterator[Source]:
        if self.url:
            yield Source.remote(self.url, self.key, self.settings.model)
            return
        precision = "float32" if self.settings.precision == "auto" else self.settings.precision
        chosen = self.settings.model_copy(update={"precision": precision})
        with opened(None, None, chosen) as source:
            about = f"{precision} in this process, pictures read by Pillow"
            yield replace(source, about=about)

    def _checkpoint(self) -> Checkpoint:
        settings = self.settings
        return Checkpoint.named(settings.model, settings.revision, settings.compile_folder)


def _print(name: str, passed: bool, sentence: str) -> None:
    print(f"{'pass' if passed else 'FAIL'}  {name:<24} {sentence}")
