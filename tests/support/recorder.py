"""A watcher that remembers."""

from collections import Counter


class Recorder:
    def __init__(self) -> None:
        self.results: Counter[tuple[str, str]] = Counter()
        self.calls = 0
        self.trips: list[tuple[str, float]] = []
        self.held: dict[str, int] = {}
        self.gone = 0
        self.circuits: list[str] = []
        self.depths: list[int] = []
        self.lost = 0
        self.kept = 0
        self.problems: list[tuple[str, str, bool]] = []

    def looked_up(self, tier: str, result: str, n: int) -> None:
        self.calls += 1
        self.results[tier, result] += n

    def lookup_seconds(self, tier: str, seconds: float) -> None:
        self.trips.append((tier, seconds))

    def bytes(self, tier: str, n: int) -> None:
        self.held[tier] = n

    def evicted(self, n: int) -> None:
        self.gone += n

    def breaker(self, state: str) -> None:
        self.circuits.append(str(state))

    def queue(self, depth: int) -> None:
        self.depths.append(depth)

    def dropped(self, n: int) -> None:
        self.lost += n

    def written(self, n: int) -> None:
        self.kept += n

    def problem(self, side: str, reason: str, there: bool) -> None:
        self.problems.append((side, reason, there))
