"""Decide how long the candidates of a study are trained: all alike, or by lengths that the search chooses from."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from scalesearch.config import load_run
from scalesearch.errors import ConfigError
from scalesearch.spaces.axes import axis_of, default_value
from scalesearch.spaces.suggest import usual
from scalesearch.values.session import Session
from scalesearch.values.settings import LengthsSetting, RunSettings, SamplerName
from scalesearch.values.space import STEPS, Choice, NamedAxis, SearchSpace
from scalesearch.values.training_length import trunk_steps, warmup_steps

_SCHEDULE: Final = "training.schedule"
_FORMER_STEPS: Final = {
    "resnet_small": ((240, 480), (240, 480, 960)),
    "resnet_small_compressed": ((240,), (480,)),
    "resnet_small_compress_only": ((240,), (480,)),
}
"""For each shipped space whose default was changed: former numbers of updates of a training, and the present values."""


def with_study_lengths(space: SearchSpace, settings: RunSettings, stored: Session | None) -> SearchSpace:
    """Return the space with the numbers of updates of the stored study, and with longer ones if they are asked for.

    A study can be made longer, since a longer training goes on with the trunk of a shorter one: it then has the lengths
    it had and those that are asked for. The numbers of the space's own file make no study longer, since nobody may have
    asked for them: a study goes on as it is if it has some of them. So it does where its greatest length alone is asked
    for, or the default of a shipped space that was another when the study was begun. Whatever else is asked for stays,
    and is refused later.

    Args:
        space: The space that was asked for.
        settings: The settings that were asked for.
        stored: The study's last run; None for a new study.
    """
    if stored is None:
        return space
    kept, asked = _lengths_of(stored.space), _lengths_of(space)
    if asked == kept or not (kept and asked) or _is_axis(stored):
        return space
    former, now = _FORMER_STEPS.get(space.name, ((), ()))
    if kept[0] in former and asked == now:
        return _with(space, kept)
    if settings.lengths == "off":
        return space
    if asked[-1] == kept[-1] and {*asked} < {*kept}:
        return _with(space, kept)
    if asked == _lengths_of_file(space, settings):
        return _with(space, kept) if {*kept} < {*asked} else space
    longer = _with(space, sorted({*kept, *asked}))
    return longer if is_longer(stored, longer) else space


def _lengths_of_file(space: SearchSpace, settings: RunSettings) -> tuple[int, ...]:
    """Return the numbers of updates that the space has in its file, unasked; none for a space that the caller made."""
    name = settings.space if Path(settings.space).stem == space.name else space.name
    with contextlib.suppress(ConfigError):
        return _lengths_of(load_run(space=name)[1])
    return ()


def made_longer(stored: Session, space: SearchSpace, lengths: LengthsSetting) -> Session:
    """Return the stored session with the lengths of `space`, if the study was made longer by it; else the session.

    Args:
        stored: The study's last run.
        space: The space as `with_lengths` returned it.
        lengths: What it returned beside it.
    """
    if lengths == "off" or not is_longer(stored, space):
        return stored
    return replace(stored, space=_with(stored.space, space.lengths))


def is_longer(stored: Session, space: SearchSpace) -> bool:
    """Tell whether the space has all lengths of the study and greater ones, to which its trunks can be trained on.

    Others must not come between: a trial that a killed run left behind may be known by the position of its length.
    """
    kept = _lengths_of(stored.space)
    if not kept or _is_axis(stored) or axis_of(stored.space.axes, _SCHEDULE) != Choice(values=("wsd",)):
        return False
    return len(space.lengths) > len(kept) and space.lengths[: len(kept)] == kept


def _lengths_of(space: SearchSpace) -> tuple[int, ...]:
    """Return the numbers of updates that the space lists; the default where it has no axis of that name."""
    default = default_value(STEPS)
    return space.lengths if axis_of(space.axes, STEPS) or default is None else (int(default),)


def _is_axis(stored: Session) -> bool:
    """Tell whether the stored study lists several numbers of updates that are a setting like any other."""
    return len(stored.space.lengths) > 1 and stored.settings.lengths != "on"


def _with(space: SearchSpace, lengths: Sequence[int]) -> SearchSpace:
    return space.with_axis(NamedAxis(name=STEPS, axis=Choice(values=tuple(lengths))))


def with_lengths(
    space: SearchSpace, settings: RunSettings, sampler: SamplerName, stored: Session | None
) -> tuple[SearchSpace, LengthsSetting]:
    """Return the space as the study trains it, and whether the numbers of `training.steps` are lengths (`on`, `off`).

    A sampler that cannot choose among lengths gets the space with the greatest of them alone: brief and long trainings
    do not compare, so a list of lengths is no axis for it, unless the user says `lengths = "off"`.

    Args:
        space: The space, as `with_study_lengths` returned it.
        settings: The settings that were asked for.
        sampler: The sampler of this run.
        stored: The study's last run; None for a new study.

    Raises:
        ConfigError: Unlike lengths were asked for, and the space or the sampler has none, or the study was begun
            otherwise.
    """
    lengths, longest = _decided(space, settings, sampler, stored), space.lengths[-1:]
    begun_alike = stored is None or stored.space.lengths == longest
    if lengths == "on" or len(space.lengths) < 2 or settings.lengths != "auto" or not begun_alike:
        return space, lengths
    return _with(space, longest), lengths


def _decided(space: SearchSpace, settings: RunSettings, sampler: SamplerName, stored: Session | None) -> LengthsSetting:
    asked = settings.lengths
    if stored:
        # In a study of before this setting it is `auto`.
        begun: LengthsSetting = "on" if stored.settings.lengths == "on" else "off"
        if asked != "off" and is_longer(stored, space):
            begun = "on"
        if asked not in ("auto", begun):
            message = (
                f"the study in {stored.folder} was begun with lengths = {begun}, got {asked}: its trials would not "
                "compare. Leave the setting out to continue it, or give --fresh or --to another folder."
            )
            raise ConfigError(message)
        asked = begun
    elif asked == "auto":
        asked = "on" if len(space.lengths) > 1 and sampler == "growth" else "off"
    if asked == "on" and len(space.lengths) < 2 and not stored:  # of a stored study, the difference is told later
        message = (
            f"lengths = on: expected several values of training.steps in the space {space.name!r}, got "
            f"{', '.join(map(str, space.lengths)) or 'no list'}. Give some: --set training.steps=[240,480,960]"
        )
        raise ConfigError(message)
    if asked == "on" and sampler != "growth":
        message = f"trainings of unlike lengths need the sampler growth, got {sampler}: give --sampler growth"
        raise ConfigError(message)
    return asked


def lengths_notes(
    asked: SearchSpace, trained: SearchSpace, lengths: LengthsSetting, sampler: SamplerName, stored: Session | None
) -> Iterator[str]:
    """Yield lines on how long candidates are trained, where there is more than one length or the study keeps its own.

    Args:
        asked: The space that was asked for.
        trained: The space as `with_lengths` returned it.
        lengths: What it returned beside it.
        sampler: The sampler of this run.
        stored: The study's last run; None for a new study.
    """
    if not asked.lengths and any(named.name == STEPS for named in asked.axes):
        yield (
            "note: training.steps is a range, so candidates that were trained by unlike numbers of updates are "
            "compared as they are. List some, as [240, 480, 960]: then the front is of one length"
        )
    now, kept = _lengths_of(asked), _lengths_of(trained)
    if lengths == "on" and len(kept) > 1:
        yield f"lengths: trainings of {either(kept)} updates, as the search decides; the front: {kept[-1]}"
    elif len(kept) < len(now) and not stored:
        yield (
            f"lengths: {kept[-1]} updates for every candidate, the most that {asked.name} has; the sampler {sampler} "
            f"cannot choose among {either(now)} (--set training.steps=N takes one of them)"
        )
    elif len(kept) < len(now) and kept[-1] == now[-1]:
        yield f"lengths: {kept[-1]} updates for every candidate, as the study was begun"
    if stored and lengths == "on" and is_longer(stored, trained):
        before, recipe = _lengths_of(stored.space), usual(trained).recipe
        rising = {warmup_steps(replace(recipe, steps=steps)) for steps in (before[-1], kept[-1])}
        goes_on = "goes on with its trunk" if len(rising) == 1 else "begins anew, since its warm-up is longer"
        if not trunk_steps(replace(recipe, steps=before[-1])):
            goes_on = "begins anew, since it has no trunk (branch_fraction)"
        yield (
            f"lengths: longer than before. Candidates of {either(before)} updates leave the front, and each counts as "
            f"that part of a full training of {kept[-1]}; one that is trained longer {goes_on}"
        )
    elif stored and now != kept and kept == _lengths_of(stored.space) and (lengths == "on" or kept[-1] != now[-1]):
        yield (
            f"training: the study goes on with the {either(kept)} updates of each training that it has; {asked.name} "
            f"has {either(now)} by now (--fresh or --to another folder takes them)"
        )


def either(lengths: Sequence[int]) -> str:
    """Return the numbers in words: `240, 480 or 960`."""
    *shorter, longest = map(str, lengths)
    return f"{', '.join(shorter)} or {longest}" if shorter else longest
