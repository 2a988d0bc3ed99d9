"""Decide who proposes the candidates of a study, and say why."""

from dataclasses import dataclass
from typing import Final

from scalesearch.spaces.axes import field_type
from scalesearch.spaces.moves import free_axes
from scalesearch.spaces.suggest import for_target
from scalesearch.study.lengths import is_longer
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.session import Session
from scalesearch.values.settings import DEFAULT_SAMPLER, MANY_TRIALS, QUICK_SAMPLER, RunSettings, SamplerName
from scalesearch.values.space import Choice, NamedAxis, SearchSpace
from scalesearch.values.target import Target

_TASK: Final = "classification"
_TABLE: Final = "the first to find the front of a table of resnet_small's trained networks"
_EVIDENCE: Final = {
    "resnet_small": _TABLE,
    "mobilenet_small": f"{_TABLE}, and ahead of {QUICK_SAMPLER} in three live searches of mobilenet_small",
}
"""What docs/measurements.md shows for the default sampler in the spaces where it was compared, which are named after
their networks."""
_AXES: Final = frozenset(
    {
        *(f"scaling.{name}" for name in ("resolution", "depth", "width", "kernel")),
        *(f"quantization.{name}" for name in ("precision", "calibration", "clip_percentile")),
        *(f"scaling.stages.{name}" for name in ("3.kernel", "4.kernel", "4.width")),  # of mobilenet_small
        "pruning.channel_fraction",
        "training.steps",
    }
)
"""The axes of these spaces."""
_ELSEWHERE: Final = f"which won in resnet_small as it is shipped, for {_TASK}; samplers were not compared here"
_FEW_NAMES: Final = 2
_MANY: Final = f"{MANY_TRIALS:,} trials"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenSampler:
    """Who proposes the candidates of a study, and why."""

    name: SamplerName
    why: str = ""
    """In words; empty where the user asked for the sampler."""
    gives_way: bool = False
    """Whether `QUICK_SAMPLER` takes its place beyond `MANY_TRIALS`."""

    @property
    def line(self) -> str:
        """The line that a run says; empty where the user asked for the sampler."""
        return f"sampler: {self.name}, {self.why} (--sampler NAME)" if self.why else ""


def chosen_sampler(
    settings: RunSettings, space: SearchSpace, base: NetworkSpec, target: Target, stored: Session | None
) -> ChosenSampler:
    """Return the sampler that was asked for; with `auto` that of the study's last run, or what suits a new study.

    A new study begins with the default sampler if it may choose among lengths of training, which no other does, or if
    at least half of its searched axes are ordered.

    Args:
        settings: The settings that were asked for.
        space: The space that was asked for, as `lengths.with_study_lengths` returned it.
        base: Its base network.
        target: The chip.
        stored: The study's last run; None for a new study.

    Raises:
        ConfigError: The target runs no value of an axis.
    """
    if settings.sampler != "auto":
        return ChosenSampler(name=settings.sampler)
    if stored:
        gives_way = stored.sampler_gives_way and not is_longer(stored, space)
        later = f"; beyond {_MANY} {QUICK_SAMPLER} goes on" if gives_way else ""
        return ChosenSampler(name=stored.settings.sampler_name, why=f"as before{later}", gives_way=gives_way)
    axes, lengths = free_axes(for_target(space, target)), len(space.lengths) > 1 and settings.lengths != "off"
    ordered = sum(map(_is_ordered, axes))
    told = f"{ordered} of {len(axes)} searched axes {'is' if ordered == 1 else 'are'} ordered"
    if 2 * ordered < len(axes) and not lengths:
        why = f"for only {told}, and {DEFAULT_SAMPLER} sees no order in lists of names; samplers were not compared here"
        return ChosenSampler(name=QUICK_SAMPLER, why=why)
    shipped = base.name == space.name and all(named.name in _AXES for named in axes)
    compared = shipped and settings.task == _TASK
    evidence = _EVIDENCE.get(space.name, _ELSEWHERE) if compared else _ELSEWHERE
    later = f"{QUICK_SAMPLER} goes on, which asks faster"
    if lengths:
        later = "it stays, for no other chooses among lengths of training"
    why = "; ".join((evidence, *([told] if axes else []), f"beyond {_MANY} {later}"))
    return ChosenSampler(name=DEFAULT_SAMPLER, why=why, gives_way=not lengths)


def _is_ordered(named: NamedAxis) -> bool:
    """Tell whether the values of an axis are numbers, or so few names that they need no order."""
    numbers = field_type(named.name) in (int, float)
    return numbers or not isinstance(named.axis, Choice) or len(set(named.axis.values)) <= _FEW_NAMES
