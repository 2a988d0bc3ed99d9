"""A training in parts: what is known about each, and about several that follow one another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scalesearch.training.state import TrainingState
from scalesearch.training.weights import KeptTraining
from scalesearch.values.network import Network
from scalesearch.values.record import LossCurve, TrainingResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a training: the network at its end, what is known about it, and how much of it was made now."""

    network: Network
    kept: KeptTraining
    state: TrainingState | None = None
    """State from which the training can be continued."""
    new_steps: int = 0
    """Number of updates that were made now; 0 if the part was stored, or has no updates at all."""


_CURVE_POINTS = 40
NOTHING = KeptTraining(float_score=0.0, train_s=0.0, final_loss=0.0, losses=(), steps=0, safe_recipe_used=False)


def ready(network: Network) -> Network:
    """Return the network in eval mode."""
    network.module.eval()
    return network


def continued(first: KeptTraining, second: KeptTraining) -> KeptTraining:
    """Return what is known about a training in two parts; its score is that of the second."""
    if not second.steps:
        return replace(first, float_score=second.float_score)
    losses = [*_spread(first), *_spread(second)]
    points = min(_CURVE_POINTS, len(losses))
    stretches = [losses[len(losses) * at // points : len(losses) * (at + 1) // points] for at in range(points)]
    return replace(
        second,
        train_s=first.train_s + second.train_s,
        steps=first.steps + second.steps,
        losses=tuple(sum(stretch) / len(stretch) for stretch in stretches),
        safe_recipe_used=first.safe_recipe_used or second.safe_recipe_used,
    )


def _spread(kept: KeptTraining) -> list[float]:
    """Return a loss for each step: the mean of its stretch of the curve."""
    points = len(kept.losses)
    return [kept.losses[min(points - 1, points * step // kept.steps)] for step in range(kept.steps)]


def result(parts: Sequence[Part], *, train_parts: int) -> TrainingResult:
    """Return the result of a training whose first `train_parts` parts are those of the dense network."""
    last, new_steps = parts[-1].kept, sum(part.new_steps for part in parts)
    return TrainingResult(
        float_score=last.float_score,
        train_s=sum(part.kept.train_s for part in parts[:train_parts]),
        retrain_s=sum(part.kept.train_s for part in parts[train_parts:]),
        steps=sum(part.kept.steps for part in parts),
        safe_recipe_used=any(part.kept.safe_recipe_used for part in parts),
        weights_reused=not new_steps,
        final_loss=last.final_loss,
        loss_curves=tuple(
            LossCurve(steps=part.kept.steps, losses=part.kept.losses) for part in parts if part.kept.steps
        ),
        new_steps=new_steps,
    )
