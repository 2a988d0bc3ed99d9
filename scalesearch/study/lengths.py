"""Decide how long the candidates of a study are trained: all alike, or by lengths that the search chooses from."""

from collections.abc import Iterator, Sequence

from scalesearch.errors import ConfigError
from scalesearch.values.session import Session
from scalesearch.values.settings import LengthsSetting, RunSettings, SamplerName
from scalesearch.values.space import STEPS, Choice, NamedAxis, SearchSpace


def with_lengths(
    space: SearchSpace, settings: RunSettings, sampler: SamplerName, stored: Session | None
) -> tuple[SearchSpace, LengthsSetting]:
    """Return the space as the study trains it, and whether the numbers of `training.steps` are lengths (`on`, `off`).

    A sampler that cannot choose among lengths gets the space with the greatest of them alone: brief and long trainings
    do not compare, so a list of lengths is no axis for it, unless the user says `lengths = "off"`.

    Args:
        space: The space that was asked for.
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
    return space.with_axis(NamedAxis(name=STEPS, axis=Choice(values=longest))), lengths


def _decided(space: SearchSpace, settings: RunSettings, sampler: SamplerName, stored: Session | None) -> LengthsSetting:
    asked = settings.lengths
    if stored:
        # In a study of before this setting it is `auto`.
        begun: LengthsSetting = "on" if stored.settings.lengths == "on" else "off"
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
        message = f"trainings of unlike lengths need the sampler growth, got {sampler}: leave --sampler out"
        raise ConfigError(message)
    return asked


def lengths_notes(
    asked: SearchSpace, trained: SearchSpace, lengths: LengthsSetting, sampler: SamplerName, stored: Session | None
) -> Iterator[str]:
    """Yield a line on how long candidates are trained, where the space that was asked for lists several lengths.

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
    if lengths == "on" and len(trained.lengths) > 1:
        updates = either(trained.lengths)
        yield f"lengths: trainings of {updates} updates, as the search decides; the front: {trained.lengths[-1]}"
    elif len(trained.lengths) < len(asked.lengths):
        alike = f"lengths: {trained.lengths[-1]} updates for every candidate"
        if stored:
            yield f"{alike}, as the study was begun"
        else:
            yield (
                f"{alike}, the most that {asked.name} has; the sampler {sampler} cannot choose among "
                f"{either(asked.lengths)} (--set training.steps=N takes one of them)"
            )


def either(lengths: Sequence[int]) -> str:
    """Return the numbers in words: `240, 480 or 960`."""
    *shorter, longest = map(str, lengths)
    return f"{', '.join(shorter)} or {longest}" if shorter else longest
