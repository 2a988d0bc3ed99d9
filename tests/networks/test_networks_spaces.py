"""The shipped search spaces: every base has one, and every corner of it can be built within its limit on MACs."""

import functools
import itertools
import math
import random
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from scalesearch.measurement.cost import formula_cost
from scalesearch.networks import BASES, base_spec, scale
from scalesearch.tasks.classification.head import ImageClassifier
from scalesearch.values.candidate import Pruning, Quantization, Recipe, Scaling, StageScaling
from scalesearch.values.network import Network
from scalesearch.values.network_spec import InputSize, NetworkSpec
from scalesearch.values.space import Limits

SPACES = Path(__file__).parents[2] / "search_spaces"
FIELDS = {
    "scaling": {field.name for field in fields(Scaling)},
    "pruning": {field.name for field in fields(Pruning)},
    "quantization": {field.name for field in fields(Quantization)},
    "training": {field.name for field in fields(Recipe)},
    "limits": {field.name for field in fields(Limits)},
}
every_space = pytest.mark.parametrize("name", sorted(path.stem for path in SPACES.glob("*.toml")))


def read(name: str) -> dict[str, Any]:
    return tomllib.loads((SPACES / f"{name}.toml").read_text())


def values_of(axis: Any) -> list[float]:
    """Every value of a list, a stepped range or a fixed number."""
    if isinstance(axis, dict):
        steps = round((axis["high"] - axis["low"]) / axis["step"])
        return [axis["low"] + axis["step"] * step for step in range(steps + 1)]
    return list(axis) if isinstance(axis, list) else [axis]


def scalings(name: str) -> Iterator[Scaling]:
    """Every combination of multipliers that the space allows."""
    table = read(name)["scaling"]
    stages = table.pop("stages", {})
    places = [(0, key, values_of(axis)) for key, axis in table.items()]
    places += [(int(number), key, values_of(axis)) for number, own in stages.items() for key, axis in own.items()]
    for combination in itertools.product(*(values for _, _, values in places)):
        chosen = [(number, key, value) for (number, key, _), value in zip(places, combination, strict=True)]
        per_stage = [
            StageScaling(**{key: value for place, key, value in chosen if place == number})
            for number in range(1, len(base_of(name).stages) + 1)
        ]
        overall: dict[str, Any] = {key: value for place, key, value in chosen if place == 0}
        yield Scaling(**overall, stages=tuple(per_stage) if stages else ())


def base_of(name: str) -> NetworkSpec:
    return base_spec(read(name)["network"])


def spec_of(name: str, scaling: Scaling) -> NetworkSpec:
    return scale(base_of(name), scaling, resolution_px=size_of(name), num_classes=43)


def size_of(name: str) -> InputSize:
    """The size at resolution multiplier 1: a number in the file is the side of a square."""
    given = read(name)["resolution_px"]
    height_px, width_px = given if isinstance(given, list) else (given, given)
    return InputSize(height_px=height_px, width_px=width_px)


@functools.cache
def macs_of(spec: NetworkSpec) -> int:
    with torch.device("meta"):
        return formula_cost(Network(spec=spec, module=ImageClassifier(spec))).macs


def test_every_base_has_a_space_of_its_name_and_others_begin_with_it() -> None:
    names = {path.stem for path in SPACES.glob("*.toml")}
    assert set(BASES) <= names
    assert all(name.startswith(read(name)["network"]) for name in names)


@every_space
def test_a_space_names_its_network_resolution_and_fields(name: str) -> None:
    space = read(name)
    # 224 px, at which its weights were made, are too many for brief trainings on a CPU.
    asked = {"efficientnet_lite0": InputSize.square(96)}.get(name, base_of(name).input_size)
    assert size_of(name) == asked
    assert 20 < len(space["summary"]) < 90
    for table, known in FIELDS.items():
        assert set(space.get(table, {})) <= known, table


@every_space
def test_no_two_resolutions_round_to_the_same_and_all_are_what_was_meant(name: str) -> None:
    multipliers, height_px = values_of(read(name)["scaling"]["resolution"]), size_of(name).height_px
    sides = [height_px * multiplier for multiplier in multipliers]
    rounded = [spec_of(name, Scaling(resolution=multiplier)).resolution_px for multiplier in multipliers]
    assert len(set(rounded)) == len(rounded)
    assert rounded == pytest.approx(sides, abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=[pytest.mark.slow] * ("small" not in path.stem))
        for path in sorted(SPACES.glob("*.toml"))
    ],
)
def test_few_choices_collapse_and_few_break_the_limit(name: str) -> None:
    space = read(name)
    specs = [spec_of(name, scaling) for scaling in scalings(name)]
    assert len(set(specs)) >= 0.9 * len(specs)
    # Counting all of them takes a minute, so a seeded sample; the default space is counted whole below.
    distinct = list(dict.fromkeys(specs))
    sample = random.Random(0).sample(distinct, min(8, len(distinct)))
    most = space.get("limits", {}).get("max_macs", math.inf)
    rejected = [spec for spec in sample if macs_of(spec) > most]
    assert len(rejected) <= 0.25 * len(sample)


@pytest.mark.slow
def test_the_default_space_stays_small_enough_for_two_cores() -> None:
    space = read("resnet_small")
    costs = [macs_of(spec_of("resnet_small", scaling)) for scaling in scalings("resnet_small")]
    allowed = [macs for macs in costs if macs <= space["limits"]["max_macs"]]
    assert space["limits"]["max_macs"] <= 25_000_000
    assert len(allowed) >= 0.8 * len(costs)
    assert sum(allowed) / len(allowed) <= 8_000_000
