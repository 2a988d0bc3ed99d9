"""The study that a command would continue, as far as it is known before its images are loaded."""

import contextlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.targets import fit_chip
from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.networks.own_module import code_reader, code_sha256
from scalesearch.records.run_file import read_run_file, refuse_changes
from scalesearch.records.store import RecordStore
from scalesearch.study.parent_sources import find_parent
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.parent import Parent
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace
from scalesearch.values.target import Target

_DIGITS = 6
"""Decimals to which the sum of charges is rounded, as in a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A study that lies in a folder."""

    session: Session
    records: tuple[TrialRecord, ...]
    full_updates: int = 0
    """Updates of a member of the front, where candidates are trained by unlike lengths; more if it is made longer."""

    @property
    def charged(self) -> float:
        """What it has used of a budget, in full trainings."""
        return round(sum(record.in_study_of(self.full_updates).charge for record in self.records), _DIGITS)


def begun_study(folder: Path) -> Begun | None:
    """Return the study in the folder; None if there is none.

    Raises:
        ConfigError: One of its files cannot be read, so that a run could not go on either.
    """
    session = read_run_file(folder)
    if session is None:
        return None
    return Begun(session=session, records=RecordStore(folder).all(), full_updates=session.full_updates)


def require_budget(begun: Begun, budget: int) -> None:
    """Raise ConfigError if a study that is made longer has used up the budget: it would be left without a front.

    Args:
        begun: The study, with the updates that a member of the front makes from now on.
        budget: In full trainings.
    """
    if budget - begun.charged < 1:
        message = (
            f"budget {budget}: expected at least {math.ceil(begun.charged + 1)} for a study whose trainings count as "
            f"{begun.charged:g} of {begun.full_updates} updates from now on, {begun.session.folder}.\nWith less there "
            "may be no room for one of that length, without which there is no front. Give a larger --budget."
        )
        raise ConfigError(message)


def target_here(target: Target, stored: Session, *, threads: int) -> Target:
    """Return the target fitted to this machine's chip, as a run does; the study's own where its backend is absent."""
    try:
        get_backend(target.backend).device(threads)
        return fit_chip(target)
    except (MissingBackendError, ConfigError):  # this machine cannot tell; a run would not even begin here
        return stored.target if target.name == stored.target.name else target


def refuse_other_settings(
    stored: Session, settings: RunSettings, space: SearchSpace, base: NetworkSpec, target: Target
) -> None:
    """Raise ConfigError, as a run would, if the study cannot go on with these settings; images are not compared.

    Args:
        stored: The study.
        settings: The settings that are asked for.
        space: The space that is asked for, fitted to the study.
        base: Its base network.
        target: The chip, fitted by `target_here`.
    """
    device = stored.device
    with contextlib.suppress(MissingBackendError, ConfigError):  # else this machine cannot tell
        device = get_backend(target.backend).device(settings.latency.threads)
    asked = replace(
        stored,
        settings=settings,
        space=space,
        base=base,
        target=target,
        device=device,
        parent=_parent(stored, settings, base),
        code_sha256=code_sha256(base) if base.origin else "",
        code_read_by=code_reader() if base.origin else "",
    )
    refuse_changes(stored, asked)


def _parent(stored: Session, settings: RunSettings, base: NetworkSpec) -> Parent | None:
    """Return the parent that is asked for, as far as it can be told without the study's images."""
    if not settings.parent:
        return None
    known = stored.parent
    if known and known.source == settings.parent:  # the study keeps it
        return replace(known, steps=settings.parent_steps if known.steps else 0)
    found = find_parent(settings.parent, base)
    if known:
        return replace(known, sha256=found.sha256, steps=settings.parent_steps if known.steps else 0)
    return Parent(
        source=settings.parent,
        sha256=found.sha256,
        licence=found.licence,
        network=found.spec,
        mean=found.mean,
        std=found.std,
        head="",
        steps=settings.parent_steps,
        key="",
    )
