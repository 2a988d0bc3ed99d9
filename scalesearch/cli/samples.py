"""Candidates drawn at random, as a run would plan them: what a preview shows and what its prediction is made of."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scalesearch.errors import CandidateRejected, StageFailed
from scalesearch.values.candidate import Candidate
from scalesearch.values.plan import Plan
from scalesearch.values.space import SearchSpace

if TYPE_CHECKING:
    from scalesearch.chain.planner import Planner

_SAMPLES, _SHOWN = 24, 5
_PLANNING_S = 10.0
"""After this many seconds no more samples are planned, once there are some to show. Pruning a large network, to know
its cost, takes seconds."""
_LARGEST_CUT_PARAMS = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Randomly drawn candidates, as a run would plan them."""

    plans: tuple[Plan, ...]
    drawn: int
    refused: tuple[str, ...]
    """Why candidates could not be planned. A run records them as failed and goes on."""
    uncut: int
    """Number of plans whose networks are too large to be pruned just to know the cost. Their cost is that before
    pruning."""


def sampled(space: SearchSpace, planner: "Planner", *, seed: int) -> Samples:
    """Return up to 24 candidates as a run would plan them: rounded, pruned untrained, and compared with the limits."""
    from scalesearch.spaces.suggest import random_candidates
    from scalesearch.training.machine import torch_threads
    from scalesearch.values.settings import Machine

    plans, refused, uncut, drawn = list[Plan](), list[str](), 0, 0
    until = time.monotonic() + _PLANNING_S
    # Cutting consists of many small steps, which threads only slow down.
    with torch_threads(Machine(device="cpu", threads=1, bf16=False, channels_last=True)):
        for candidate in random_candidates(space, _SAMPLES, seed):
            drawn += 1
            try:
                plan, whole = planned(planner, candidate)
                plans.append(plan)
                uncut += not whole
            except (CandidateRejected, StageFailed) as verdict:
                refused.append(str(verdict).splitlines()[0])
            if time.monotonic() > until and len(plans) >= _SHOWN:
                break
    return Samples(plans=tuple(plans), drawn=drawn, refused=tuple(refused), uncut=uncut)


def planned(planner: "Planner", candidate: Candidate) -> tuple[Plan, bool]:
    """Return the plan, and whether its cost is the one after pruning."""
    from scalesearch.values.candidate import Pruning

    dense = planner(replace(candidate, pruning=Pruning()))
    if not candidate.pruning.any:
        return dense, True
    if dense.dense_cost.params > _LARGEST_CUT_PARAMS:
        return replace(dense, candidate=candidate, pruning=candidate.pruning), False
    return planner(candidate), True


def sizes_bytes(plans: Iterable[Plan]) -> list[int]:
    """Return the least size in bytes that each plan's file can have."""
    from scalesearch.chain.planner import least_size_bytes

    return [least_size_bytes(plan.cost, plan.candidate.quantization.precision) for plan in plans]


def sample_notes(samples: Samples) -> Iterable[str]:
    """Yield notes on candidates that were not drawn, pruned or planned, or have too short a branch, and on trunks."""
    from scalesearch.chain.planner import BRANCH
    from scalesearch.views.words import count

    if samples.drawn < _SAMPLES:
        yield (
            f"note: {samples.drawn} of {_SAMPLES} candidates were drawn: planning them all would take over "
            f"{_PLANNING_S:g} s here."
        )
    if samples.uncut:
        yield f"note: {samples.uncut} of them are too large to be cut on paper; their costs are those before pruning."
    if cut := [plan for plan in samples.plans if plan.cut_from]:
        trunks = {plan.trunk_key: plan.begun[1].macs for plan in cut}
        yield (
            f"note: {len(cut)} of {samples.drawn} candidates are cut from {len(trunks)} larger trunks, the largest of "
            f"{count(max(trunks.values()))}MACs: limits hold for what is cut, not for its trunk."
        )
    if short := sum(any(use.limit == BRANCH and use.excess > 0 for use in plan.limits) for plan in samples.plans):
        yield (
            f"note: a run rejects {short} of {samples.drawn} candidates, whose branch is too short for their updates "
            "with simulated rounding: raise training.steps, or lower quantization.qat_steps."
        )
    if samples.refused:
        yield f"note: {len(samples.refused)} of {samples.drawn} cannot be planned: {samples.refused[0]}"


def print_samples(samples: Samples) -> None:
    """Print the first samples as a table."""
    from scalesearch.cli.screen import Column, print_table, wide_console
    from scalesearch.views.words import count, neck_text

    columns = (
        Column(head="resolution", keep=2, right=True),
        Column(head="depth x width x kernel", keep=4, right=True),
        Column(head="pruned", keep=3, right=True),
        Column(head="precision", keep=5),
        Column(head="MACs", keep=9, right=True),
        Column(head="parameters", keep=1, right=True),
    )
    rows = []
    for plan in samples.plans[:_SHOWN]:
        scaling, pruning = plan.candidate.scaling, plan.candidate.pruning
        neck = f", neck {neck}" if (neck := neck_text(scaling)) else ""
        marks = f"{'*' if scaling.stages else ''}{neck}{', cut' if plan.cut_from else ''}"
        shape = f"x{scaling.depth:.4g} x{scaling.width:.4g} x{scaling.kernel:.4g}{marks}"
        rows.append(
            (
                str(plan.spec.input_size),
                shape,
                pruning.label.removeprefix("channels ") or "-",
                plan.candidate.quantization.precision,
                count(plan.cost.macs),
                count(plan.cost.params),
            )
        )
    console = wide_console()
    console.print("Five sampled candidates, as they would be deployed:" if len(rows) == _SHOWN else "Sampled:")
    print_table(console, columns, rows)
