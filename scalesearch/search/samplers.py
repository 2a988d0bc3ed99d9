"""Optuna samplers by name, seeded so that a continued run asks for what an uninterrupted one would have asked for."""

import hashlib
import warnings
from collections.abc import Callable

import optuna

from scalesearch.analysis.baselines import RANDOM_START
from scalesearch.values.settings import SamplerName


def _tpe(seed: int, workers: int) -> optuna.samplers.BaseSampler:
    # Multivariate, because the axes work together (width pays off at high resolution only); grouped, because some axes
    # are conditional. The constant liar keeps the next candidate away from those still running; with a single worker it
    # only has a cost.
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=workers > 1)


def _gp(seed: int, workers: int) -> optuna.samplers.BaseSampler:
    # It draws conditional axes at random, and would report that at every trial.
    return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)


def _nsga2(seed: int, workers: int) -> optuna.samplers.BaseSampler:
    # Optuna's population of 50 would be one or two generations at the budgets that trainings allow.
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=round(RANDOM_START["nsga2"]))


def _random(seed: int, workers: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: dict[SamplerName, Callable[[int, int], optuna.samplers.BaseSampler]] = {
    "tpe": _tpe,
    "gp": _gp,
    "nsga2": _nsga2,
    "random": _random,
    "growth": _random,
}
"""How Optuna is asked. Of `growth`, it draws the random start alone: other candidates are queued (search/growth.py)."""

LEARNS_FROM_REJECTED: frozenset[SamplerName] = frozenset({"tpe"})
"""Samplers that learn to avoid what a limit rejected. The others read complete trials only, so they would propose the
same rejected corner again until the run ends because of it."""


def make_sampler(name: SamplerName, *, seed: int, trial: int, workers: int) -> optuna.samplers.BaseSampler:
    """Return a fresh sampler for one trial.

    Its random numbers depend on (seed, trial) only, and its knowledge on the study. A sampler that lived through the
    whole run would have a random state that a continued run cannot have.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](seed_of(seed, trial), workers)


def seed_of(seed: int, trial: int) -> int:
    """Return the seed of one trial of a study with this seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{trial}".encode()).digest()[:4], "big")
