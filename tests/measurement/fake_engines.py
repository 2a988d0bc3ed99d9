"""Engines with invented noise on a machine with an invented clock and invented moods; nothing really waits."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(kw_only=True)
class Machine:
    """A clock, and the moods that slow down whatever runs at a moment."""

    seed: int
    mood: Callable[[float], float] = lambda now_s: 1.0
    now_s: float = 0.0
    other_cores: list[Callable[[float], float]] = field(default_factory=list)
    """The moods of the cores that the process is not on."""
    moves: int = 0

    def move(self) -> None:
        """To the next core."""
        self.other_cores.append(self.mood)
        self.mood = self.other_cores.pop(0)
        self.moves += 1


@dataclass(kw_only=True)
class FakeEngine:
    """Runs of `run_s`, slowed by the machine's mood and by one-sided jitter, spikes and cold caches of its own."""

    machine: Machine
    run_s: float
    jitter: float = 0.02
    spike_share: float = 0.0
    cold: float = 0.0
    first_runs_slow: int = 0
    power: float = 1.0
    """Of the mood: how much more, or less, than others this engine slows down."""
    batch: int = 1
    runs: int = 0
    calls: list[int] = field(default_factory=list)
    noise: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.machine.seed, int(1e9 * self.run_s)])
        self.noise = 1 + np.abs(rng.normal(size=30_000)) * self.jitter
        self.noise *= 1 + (rng.random(30_000) < self.spike_share) * rng.exponential(5.0, 30_000)

    def time_runs(self, count: int) -> tuple[float, ...]:
        """Seconds per run on the invented clock, which moves on by them."""
        slow = self.noise.take(range(self.runs, self.runs + count), mode="wrap")
        slow[0] *= 1 + self.cold
        slow[: max(0, self.first_runs_slow - self.runs)] *= 10
        times = tuple((self.run_s * self.machine.mood(self.machine.now_s) ** self.power * slow).tolist())
        self.machine.now_s += sum(times)
        self.runs += count
        self.calls.append(count)
        return times


def moody(seed: int, share: float = 0.4, lasting_s: float = 0.05, strength: float = 1.5) -> Callable[[float], float]:
    """Contention that comes and goes: stretches of `lasting_s`, a `share` of them slow."""
    slow = np.random.default_rng(seed).random(100_000) < share
    return lambda now_s: strength if slow[int(now_s / lasting_s) % len(slow)] else 1.0


def long_moods(seed: int, calm_s: float, disturbed_s: float, strength: float = 1.4) -> Callable[[float], float]:
    """A neighbour that comes and goes: exponential stretches of calm and of disturbance, of these mean lengths."""
    rng = np.random.default_rng(seed)
    begins_calm = rng.random() < calm_s / (calm_s + disturbed_s)
    means_s = np.array([calm_s, disturbed_s] if begins_calm else [disturbed_s, calm_s])
    ends_s = np.cumsum(rng.exponential(np.tile(means_s, 500)))
    return lambda now_s: strength if (np.searchsorted(ends_s, now_s) % 2 == 0) != begins_calm else 1.0
