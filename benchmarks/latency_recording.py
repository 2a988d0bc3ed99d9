"""Recordings of latency_repeatability.py: every call of two engines in one process, stored and played again."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalesearch.files import replace_file
from scalesearch.measurement.latency import TimedEngine


class Recorder:
    """An engine that remembers what its clock said."""

    def __init__(self, engine: TimedEngine) -> None:
        self._engine = engine
        self.calls: list[tuple[float, ...]] = []
        self.batch = engine.batch

    def time_runs(self, count: int) -> tuple[float, ...]:
        """Seconds per run, noted."""
        times = self._engine.time_runs(count)
        self.calls.append(times)
        return times


class Player:
    """An engine that says again what was recorded, call by call."""

    batch = 1

    def __init__(self, calls: list[tuple[float, ...]]) -> None:
        self._calls: Iterator[tuple[float, ...]] = iter(calls)

    def time_runs(self, count: int) -> tuple[float, ...]:
        """The next recorded call.

        Raises:
            ValueError: The rules have changed since: another number of runs is asked for now.
        """
        times = next(self._calls)
        if len(times) != count:
            message = f"recorded were {len(times)} runs where {count} are asked for now: warm-up or block rules changed"
            raise ValueError(message)
        return times


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One process: both engines' calls, the candidate first; alone_s holds rows of (candidate, reference)."""

    players: tuple[Recorder | Player, Recorder | Player]
    alone_s: NDArray[np.float64]
    seconds: float
    calm_ms: float


def save(path: Path, recording: Recording) -> None:
    """Write it whole or not at all; whole nanoseconds."""
    import io

    arrays: dict[str, NDArray[np.generic]] = {
        "alone_s": recording.alone_s,
        "seconds": np.array(recording.seconds),
        "calm_ms": np.array(recording.calm_ms),
    }
    for name, player in zip(("candidate", "reference"), recording.players, strict=True):
        assert isinstance(player, Recorder)
        arrays[f"{name}_counts"] = np.array([len(call) for call in player.calls], dtype=np.int32)
        arrays[f"{name}_ns"] = np.rint(1e9 * np.concatenate(player.calls)).astype(np.int64).astype(np.int32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    replace_file(path, buffer.getvalue())


def recording_of(path: Path) -> Recording:
    """The recording, its engines at the beginning."""
    with np.load(path, allow_pickle=False) as stored:
        players = tuple(Player(_calls(stored[f"{n}_counts"], stored[f"{n}_ns"])) for n in ("candidate", "reference"))
        return Recording(
            players=(players[0], players[1]),
            alone_s=stored["alone_s"],
            seconds=float(stored["seconds"]),
            calm_ms=float(stored["calm_ms"]),
        )


def _calls(counts: NDArray[np.int32], times_ns: NDArray[np.int32]) -> list[tuple[float, ...]]:
    parts = np.split(times_ns / 1e9, np.cumsum(counts)[:-1])
    return [tuple(part.tolist()) for part in parts]
