"""The tables of latency_repeatability.py's recordings: estimators over whole sessions, and the rule as a trial has it.

Truth is the mean over the *other* quiet processes that were calm, by the rule now; whether that is the truth is told by
each engine alone, at its fastest. Goals: CV at most 1 % for every kind, intervals that miss the truth
in at most 1 of 20 processes, nothing called stable that is over 2 % off. The replay is exact and repeats to the digit.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from latency_recording import recording_of
from numpy.typing import NDArray

from scalesearch.measurement.duet import ESTIMATORS, OBJECTIVE, PROCESS_SPREAD, Duet, judge, ratio_interval
from scalesearch.measurement.latency import (
    FIRST_LOOK_PAIRS,
    LOOK_GROWTH,
    MIN_S,
    play_duet,
)
from scalesearch.values.quality import Z_975
from scalesearch.values.settings import LatencySettings

QUIET = "quiet"
MODES = "ratio_of_modes"
"""The commonest block median of either engine; no choice for the program, for it has no interval."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a rule made of one process."""

    value: float
    low: float = math.nan
    high: float = math.nan
    stable: bool = True
    calm: bool = True
    """Whether the rule itself says that it saw the machine calm."""
    spent_s: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process: its whole duet, what each rule found, each engine alone, and the plain clock in both moods."""

    found: Mapping[str, Found]
    alone_us: tuple[float, float]
    calm_fraction: float
    moods_us: tuple[float, float]
    slower: float
    """The reference's level where it was counted, over its calm time."""


def print_tables(folder: Path) -> None:
    """Everything about every kind in the folder."""
    kinds = sorted({path.name.split(".")[0] for path in folder.glob("*.*.*.npz")})
    within = 100 * LatencySettings().stable_within
    print(f"All numbers in %. Stable: interval within {within:g} %; the objective now: {OBJECTIVE}, calm pairs.")
    for kind in kinds:
        by_load: dict[str, list[Process]] = {}
        for path in sorted(folder.glob(f"{kind}.*.*.npz")):
            by_load.setdefault(path.name.split(".")[1].replace("_", " "), []).append(read_process(path))
        if QUIET in by_load:
            print_kind(kind, by_load)


def read_process(path: Path) -> Process:
    """Replay one process by every rule."""
    recording = recording_of(path)
    calm_s, seconds = recording.calm_ms / 1e3, recording.seconds
    whole = play_duet(*recording.players, settings=LatencySettings(max_s=seconds, half_width=0.0), calm_s=calm_s)
    verdict = judge(whole, calm_s)
    calm = verdict.calm
    found = {f"{name}, all pairs": of_pairs(whole, name) for name in (*ESTIMATORS, MODES)}
    if verdict.enough_calm:
        found |= {f"{name}, calm pairs": of_pairs(whole.where(calm), name) for name in (*ESTIMATORS, MODES)}
    found["RULE BEFORE"] = rule_before(whole)
    found["RULE NOW"] = rule_now(path)
    moods = [
        1e6 * float(np.median(each)) if each.size else math.nan
        for each in (whole.candidate_s[calm], whole.candidate_s[~calm])
    ]
    candidate_us, reference_us = (1e6 * recording.alone_s.min(axis=0)).tolist()
    return Process(
        found=found,
        alone_us=(candidate_us, reference_us),
        calm_fraction=float(calm.mean()),
        moods_us=(moods[0], moods[1]),
        slower=verdict.reference_s / calm_s,
    )


def of_pairs(duet: Duet, estimator: str) -> Found:
    """An estimator with this session's own interval."""
    if estimator == MODES:
        candidate, reference = (
            half_sample_mode(np.median(each, axis=1)) for each in (duet.candidate_s, duet.reference_s)
        )
        return Found(value=candidate / reference)
    low, high = ratio_interval(duet, estimator)
    return Found(value=ESTIMATORS[estimator](duet), low=low, high=high)


def rule_now(path: Path) -> Found:
    """What a trial would get."""
    recording, settings = recording_of(path), LatencySettings()
    settings = replace(settings, max_s=min(recording.seconds, settings.max_s))
    calm_s = recording.calm_ms / 1e3
    duet = play_duet(*recording.players, settings=settings, calm_s=calm_s)
    verdict = judge(duet, calm_s)
    return Found(
        value=verdict.ratio,
        low=verdict.low,
        high=verdict.high,
        stable=verdict.stable(settings.stable_within),
        calm=verdict.enough_calm,
        spent_s=float(duet.candidate_s.sum() + duet.reference_s.sum()),
    )


def rule_before(whole: Duet, half_width: float = 0.005) -> Found:
    """The lower deciles of all pairs, until their interval is within 0.5 %: the method up to version 0.1."""
    spent_s = np.cumsum(whole.candidate_s.sum(axis=1) + whole.reference_s.sum(axis=1))
    look = FIRST_LOOK_PAIRS
    part, narrow = whole, False
    while look <= len(spent_s):
        part = whole.part(0, look)
        low, high = ratio_interval(part, "ratio_of_p10s")
        narrow = high - low <= half_width * (high + low)
        if spent_s[look - 1] >= MIN_S and narrow:
            break
        look = math.ceil(LOOK_GROWTH * look)
    else:
        part = whole
        low, high = ratio_interval(part, "ratio_of_p10s")
        narrow = high - low <= half_width * (high + low)
    value = ESTIMATORS["ratio_of_p10s"](part)
    half = math.hypot((high - low) / 2, Z_975 * PROCESS_SPREAD * value)
    spent = float(spent_s[len(part.candidate_s) - 1])
    return Found(value=value, low=value - half, high=value + half, stable=narrow, spent_s=spent)


def print_kind(kind: str, by_load: Mapping[str, Sequence[Process]]) -> None:
    """Estimators over whole sessions (those of calm pairs where there were enough), then both rules."""
    quiet = by_load[QUIET]
    everybody = [process for processes in by_load.values() for process in processes]
    now = [process.found["RULE NOW"].value for process in quiet if process.found["RULE NOW"].calm]
    truth = statistics.fmean(now) if now else math.nan
    alone = [min(process.alone_us[which] for process in everybody) for which in (0, 1)]
    calm = {load: statistics.fmean(process.calm_fraction for process in each) for load, each in by_load.items()}
    print(f"\n## {kind}: ratio {truth:.4f}; alone, at the fastest, {alone[0]:.1f} / {alone[1]:.1f} us =", end=" ")
    print(f"{alone[0] / alone[1]:.4f}, so the duet is {100 * (truth / (alone[0] / alone[1]) - 1):+.1f} % off that")
    told = ", ".join(f"{load} {100 * share:.0f} %" for load, share in calm.items())
    moods = [
        statistics.median([us for process in everybody if (us := process.moods_us[which]) > 0] or [math.nan])
        for which in (0, 1)
    ]
    print(f"calm pairs: {told}; plain clock in calm {moods[0]:.0f} us, disturbed {moods[1]:.0f} us")
    names = list(dict.fromkeys(name for process in everybody for name in process.found))
    estimators = pd.DataFrame({name: spread(name, by_load) for name in names if "RULE" not in name}).T
    rules = pd.DataFrame({name: spread(name, by_load) | judged(name, by_load) for name in names if "RULE" in name}).T
    with pd.option_context("display.width", 250, "display.max_columns", None):
        for table in (estimators.sort_values("worst"), rules):
            print(table.to_string(float_format="{:.2f}".format, na_rep=""), "\n")


def spread(name: str, by_load: Mapping[str, Sequence[Process]]) -> dict[str, float]:
    """CV and shift in percent, by load; `worst`: root of the sum of their squares in the worst load."""
    row: dict[str, float] = {}
    values = {load: found_values(name, processes) for load, processes in by_load.items()}
    filled = {load: each for load, each in values.items() if len(each) > 1}
    center = float(values[QUIET].mean()) if len(values[QUIET]) else math.nan
    for load, each in filled.items():
        row[f"CV {load}"] = 100 * float(each.std(ddof=1) / each.mean())
    for load, each in filled.items():
        if load != QUIET:
            row[f"shift {load}"] = 100 * float(each.mean() / center - 1)
    row["worst"] = max(
        (math.hypot(row[f"CV {each}"], row.get(f"shift {each}", 0.0)) for each in filled), default=math.nan
    )
    halves = [p.found[name].high - p.found[name].low for ps in by_load.values() for p in ps if name in p.found]
    half = 50 * float(np.mean(halves)) / center if halves else math.nan
    if "RULE" not in name:
        square = statistics.fmean(row[f"CV {load}"] ** 2 for load in filled) if filled else math.nan
        row["processes"] = math.sqrt(max(0.0, square - (half / Z_975) ** 2))
    return row


def found_values(name: str, processes: Sequence[Process]) -> NDArray[np.float64]:
    """The values of one rule or estimator, where it gave one."""
    return np.array([process.found[name].value for process in processes if name in process.found])


def judged(name: str, by_load: Mapping[str, Sequence[Process]]) -> dict[str, float]:
    """Coverage, stability, error and time of a rule: over all loads, and the share of unstable trials by load."""
    row: dict[str, float] = {}
    errors, covered, stable, values = [], [], [], []
    for load, processes in by_load.items():
        for index, process in enumerate(processes):
            truth = truth_beside(by_load[QUIET], index if load == QUIET else -1)
            mine = process.found[name]
            errors.append(100 * abs(mine.value / truth - 1))
            covered.append(mine.low <= truth <= mine.high)
            stable.append(mine.stable)
            values.append(mine.value)
        row[f"unstable {load}"] = 100 * statistics.fmean(not process.found[name].stable for process in processes)
    everybody = [process.found[name] for processes in by_load.values() for process in processes]
    good = [value for value, settled in zip(values, stable, strict=True) if settled]
    row["CV stable"] = 100 * statistics.stdev(good) / statistics.fmean(good) if len(good) > 1 else math.nan
    row["worst stable"] = max((e for e, settled in zip(errors, stable, strict=True) if settled), default=math.nan)
    row["worst error"] = max(errors)
    row["covered"] = 100 * statistics.fmean(covered)
    row["half width"] = statistics.median(50 * (each.high - each.low) / each.value for each in everybody)
    row["seconds"] = statistics.fmean(each.spent_s for each in everybody)
    return row


def truth_beside(quiet: Sequence[Process], but: int) -> float:
    """Mean over the other quiet processes that saw the machine calm, by the rule now; over any, where none did."""
    others = [process.found["RULE NOW"] for index, process in enumerate(quiet) if index != but or len(quiet) == 1]
    return statistics.fmean([each.value for each in others if each.calm] or [each.value for each in others])


def half_sample_mode(values: NDArray[np.float64]) -> float:
    """The commonest value: the densest half of the sorted values, halved again and again (Bickel, 2006)."""
    ordered = np.sort(values)
    while len(ordered) > 2:
        kept = (len(ordered) + 1) // 2
        widths = ordered[kept - 1 :] - ordered[: len(ordered) - kept + 1]
        start = int(widths.argmin())
        ordered = ordered[start : start + kept]
    return float(ordered.mean())
