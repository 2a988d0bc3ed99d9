from dataclasses import replace

import torch

from scalesearch.networks import find_spec
from scalesearch.tasks.classification.pieces import build
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.session import Session
from scalesearch.views.layer_table import BuiltParts, layer_rows


def _stage_sizes(spec: NetworkSpec) -> list[tuple[int, int]]:
    """(channels, side) of what each stage gives out, as torch computes it."""
    module = build(spec).module.eval()
    stages = module.get_submodule("stages")
    sizes: list[tuple[int, int]] = []
    for stage in stages.children():
        stage.register_forward_hook(lambda _, __, out: sizes.append((out.shape[1], out.shape[2])))
    with torch.inference_mode():
        module(torch.zeros(1, 3, spec.resolution_px, spec.resolution_px))
    return sizes


def test_output_sizes_are_those_of_the_built_network(session: Session) -> None:
    for base in (session.base, find_spec("resnet50"), find_spec("mobilenet_v2")):
        spec = replace(base, resolution_px=72)  # no multiple of the stride
        sizes = _stage_sizes(spec)
        rows = [row for row in layer_rows(spec) if row.stage.isdecimal()]
        assert [(row.channels, row.output.height_px) for row in rows] == sizes
        assert [row.repeats for row in rows] == [stage.depth for stage in spec.stages]


def test_what_stands_around_the_stages(session: Session) -> None:
    spec = replace(session.base, stem=replace(session.base.stem, pool=True, stride=2))
    rows = layer_rows(spec)
    assert [row.block for row in rows] == [
        "convolution", "max pooling", "basic", "basic", "average pooling", "linear",
    ]  # fmt: skip
    assert [row.output.height_px for row in rows] == [32, 16, 8, 4, 1, 1]
    assert rows[-1].channels == spec.num_classes
    assert rows[-2].kernel == 4


def test_rows_of_a_network_that_answers_for_places_end_with_its_stages() -> None:
    spec = find_spec("resnet_scene")
    rows = layer_rows(spec, BuiltParts(stages=4, classifier=False))
    assert [row.stage for row in rows] == ["stem", "1", "2", "3", "4"]
    assert rows == layer_rows(spec)[:5]
    assert rows[-1].output.sides == (3, 5)
    assert layer_rows(spec, BuiltParts(stages=3, classifier=False)) == rows[:-1]
