"""What of a space a module of the user's cannot have is refused before anything runs; what is done to it is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from scalesearch.compression.prune import prune
from scalesearch.config import check_axes
from scalesearch.data import Dataset, ImageSplit
from scalesearch.data.targets import Labels
from scalesearch.errors import ConfigError
from scalesearch.networks import find_spec
from scalesearch.networks.own_module import code_reader, code_sha256
from scalesearch.study.own_module import (
    as_begun,
    base_of,
    fitted_module_notes,
    normalised,
    require_classification,
    require_fit,
    require_same_code,
    with_outputs,
)
from scalesearch.values.candidate import Pruning
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.session import Session
from scalesearch.values.space import AUTO, Choice, NamedAxis, SearchSpace

SPACE = SearchSpace(name="module", network="own_modules:residual", resolution_px=32, axes=())


def test_axes_that_a_module_lacks_are_refused_with_a_way_out() -> None:
    axes = tuple(
        NamedAxis(name=name, axis=Choice(values=values))
        for name, values in (
            ("scaling.width", (0.5, 1.0)),
            ("scaling.depth", (1.0,)),
            ("scaling.stages.2.kernel", (2.0,)),
            ("pruning.block_fraction", (0.3,)),
            ("pruning.channel_fraction", (0.0, 0.5)),
        )
    )
    base = find_spec("own_modules:residual")
    with pytest.raises(
        ConfigError, match=r"scaling\.width, scaling\.stages\.2\.kernel, pruning\.block_fraction"
    ) as told:
        check_axes(replace(SPACE, axes=axes), base)
    assert str(told.value).endswith(
        "--set scaling.width=1 --set scaling.stages.2.kernel=1 --set pruning.block_fraction=0"
    )
    assert len(str(told.value).splitlines()) == 3
    check_axes(replace(SPACE, axes=(axes[1], axes[4])), base)
    with pytest.raises(ConfigError, match=r"cannot be traced by torch\.fx"):
        require_fit(SPACE, find_spec("own_modules:with_branches"), 10)
    with pytest.raises(ConfigError, match="expected one tensor"):
        require_fit(SPACE, find_spec("own_modules:returns_tuple"), 10)


def test_a_module_tells_its_outputs_when_it_is_run() -> None:
    guessed = find_spec("own_modules:head_of_maps")
    assert guessed.num_classes == 16
    assert with_outputs(SPACE, guessed) == replace(guessed, num_classes=7)
    assert with_outputs(SPACE, find_spec("resnet_small")) == find_spec("resnet_small")
    with pytest.raises(ConfigError, match="expected one tensor"):
        with_outputs(SPACE, find_spec("own_modules:returns_tuple"))


def test_channels_that_cannot_be_cut_are_refused_where_the_space_cuts_them() -> None:
    base = find_spec("own_modules:shuffled")
    cutting = NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.5,)))
    require_fit(SPACE, base, 10)
    with pytest.raises(ConfigError, match="the channels of own_modules:shuffled cannot be cut") as told:
        require_fit(replace(SPACE, axes=(cutting,)), base, 10)
    assert str(told.value).endswith("--set pruning.channel_fraction=0")


def test_an_attention_is_cut_around_its_heads() -> None:
    cutting = NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.25, 0.5)))
    require_fit(replace(SPACE, axes=(cutting,)), find_spec("own_modules:attending"), 10, channel_multiple=4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("auxiliary", "came a tuple of 2 in training mode: wrap it in a module that returns the logits alone"),
        ("detached", "expected a module that can be trained, its backward pass raised RuntimeError"),
    ],
)
def test_what_a_module_does_in_training_alone_is_found_before_the_training(name: str, words: str) -> None:
    random_state = torch.random.get_rng_state()
    with pytest.raises(ConfigError, match=words) as told:
        require_fit(SPACE, find_spec(f"own_modules:{name}"), 10)
    assert len(str(told.value).splitlines()) <= 3
    require_fit(SPACE, find_spec("own_modules:viewing"), 10)
    assert torch.equal(random_state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runs_twice", "body runs twice, so that its input has no one range"),
        ("of_a_subclass", r"the network cannot be traced by torch\.fx"),
    ],
)
def test_a_module_whose_rounding_cannot_be_simulated_is_refused_where_the_space_asks_for_it(
    name: str, words: str
) -> None:
    base = find_spec(f"own_modules:{name}")
    steps = NamedAxis(name="quantization.qat_steps", axis=Choice(values=(0, 100)))
    precisions = NamedAxis(name="quantization.precision", axis=Choice(values=("fp32", "int8")))
    with pytest.raises(ConfigError, match=words) as told:
        require_fit(replace(SPACE, axes=(precisions, steps)), base, 10)
    assert str(told.value).endswith("--set quantization.qat_steps=0")
    require_fit(replace(SPACE, axes=(precisions, steps)), base, 10, begun=True)  # of an earlier version
    assert len(str(told.value).splitlines()) <= 3
    with pytest.raises(ConfigError, match=words):
        require_fit(replace(SPACE, axes=(replace(precisions, axis=AUTO), steps)), base, 10)
    require_fit(replace(SPACE, axes=(precisions, steps)), find_spec("own_modules:residual"), 10)
    for axes in ((precisions,), (steps,), (replace(precisions, axis=Choice(values=("fp32", "fp8"))), steps)):
        require_fit(replace(SPACE, axes=axes), base, 10)


def test_every_listed_cut_is_tried_as_the_target_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[tuple[float, int]]()

    def note(network: Network, pruning: Pruning, *, channel_multiple: int, follower: nn.Module) -> Network:
        tried.append((pruning.channel_fraction, channel_multiple))
        return prune(network, pruning, channel_multiple=channel_multiple, follower=follower)

    monkeypatch.setattr("scalesearch.study.own_module.prune", note)
    cutting = NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.25, 0.5)))
    for name in ("residual", "in_one_type", "group_normed"):
        require_fit(replace(SPACE, axes=(cutting,)), find_spec(f"own_modules:{name}"), 10, channel_multiple=8)
    assert tried == [(0.25, 8), (0.5, 8)] * 3


def test_a_front_is_not_confirmed_with_other_code(session: Session) -> None:
    base = find_spec("own_modules:residual")
    session = replace(session, base=base, code_sha256=code_sha256(base), code_read_by=code_reader())
    require_same_code(session)
    require_same_code(replace(session, code_sha256=""))
    require_same_code(replace(session, code_sha256="0" * 64, code_read_by="Python 3.8, torch 1.0"))
    with pytest.raises(ConfigError, match="own_modules:residual: its code is not what the study in") as told:
        require_same_code(replace(session, code_sha256="0" * 64))
    assert len(str(told.value).splitlines()) <= 3


def _notes(name: str, base: NetworkSpec | None = None, *, classes: int = 10, multiple: int = 4) -> list[str]:
    empty = ImageSplit(images=np.zeros((0, 8, 8, 3), np.uint8), targets=Labels(np.zeros(0, np.int64)))
    dataset = Dataset(
        name="colours",
        class_names=tuple(map(str, range(classes))),
        mean=(0.11, 0.12, 0.13),
        std=(0.2, 0.2, 0.2),
        fingerprint="",
        train=empty,
        val=empty,
        calibration=empty,
        test=empty,
    )
    base = base or find_spec(name)
    space = replace(SPACE, resolution_multiple=multiple)
    return list(fitted_module_notes(space, base, normalised(dataset, base)))


def test_what_is_done_to_a_module_is_said() -> None:
    notes = _notes("own_modules:with_constants", classes=4, multiple=0)
    assert [note.partition(" ")[0] for note in notes] == ["network:"] * 3
    assert "multiples of 32" in notes[0] and "(fc) is replaced" in notes[1]
    assert notes[2].endswith("as the module's attributes mean and std say (mean (0.4, 0.5, 0.6), std (0.2, 0.25, 0.3))")
    (by_data,) = _notes("own_modules:residual")
    assert "by the data set's constants, since the module names none (mean (0.11, 0.12, 0.13)" in by_data
    (of_timm,) = _notes("own_modules:of_timm")
    assert "pretrained_cfg says (mean (0.5, 0.5, 0.5)" in of_timm
    (by_itself,) = _notes("own_modules:normalising")
    assert "normalised not at all" in by_itself and "(mean (0, 0, 0), std (1, 1, 1))" in by_itself
    (by_parameters,) = _notes("own_modules:normalising_by_parameters")
    assert by_parameters == by_itself.replace("normalising", "normalising_by_parameters", 1)
    assert not _notes("resnet_small")


def test_a_study_goes_on_with_the_normalisation_that_it_was_begun_with(session: Session) -> None:
    """Earlier versions normalised images by the data set's constants beside those of the module's buffers."""
    now = find_spec("own_modules:normalising")
    before = replace(now, mean=(), std=())
    stored = replace(session, base=before)
    assert as_begun(now, None) == now and as_begun(now, replace(session, base=now)) == now
    assert as_begun(now, stored) == before
    (told,) = _notes("", before)
    assert "by the data set's constants, as when this study was begun, and again by the module" in told
    other = find_spec("own_modules:with_constants")
    assert as_begun(other, replace(stored, base=replace(other, mean=(), std=()))) == other


def test_a_study_goes_on_with_parameters_that_normalised_twice(session: Session) -> None:
    now = find_spec("own_modules:normalising_by_parameters")
    before = replace(now, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert as_begun(now, None) == now and as_begun(now, replace(session, base=before)) == before
    (told,) = _notes("", before)
    assert "by the module's mean and std, as when this study was begun, and again by the module" in told
    cutting = NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.5,)))
    require_fit(replace(SPACE, axes=(cutting,)), now, 10)


def test_a_module_that_expects_pixels_in_bytes_is_refused_in_a_new_study_alone(session: Session) -> None:
    base = find_spec("own_modules:buffers_in_bytes")
    for stored in (None, session):
        with pytest.raises(ConfigError, match=r"pixels in 0..1, came 123.7, 116.3.*\n.*mean = \(0, 0, 0\)") as caught:
            as_begun(base, stored)
        assert len(str(caught.value).splitlines()) <= 3
    before = replace(base, mean=(), std=())
    assert as_begun(base, replace(session, base=before)) == before
    (told,) = _notes("", before)
    assert "and again by the module" in told


def test_a_spec_that_normalises_pixels_in_bytes_is_refused_in_a_new_study_alone(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets_in_bytes.py").write_text(
        "from dataclasses import replace\n"
        "from scalesearch.networks import base_spec\n"
        "def spec():\n"
        "    return replace(base_spec('resnet_small'), mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))\n"
        "def in_units():\n"
        "    return replace(base_spec('resnet_small'), mean=(0.0,) * 3, std=(1.0,) * 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=r"expected mean and std of pixels in 0..1, came \(123.7, .*\nDivide both by 255"
    ):
        base_of("nets_in_bytes:spec", None)
    assert base_of("nets_in_bytes:spec", session).mean == (123.7, 116.3, 103.5)
    assert base_of("nets_in_bytes:in_units", None).std == (1.0,) * 3


def test_a_module_serves_classification_alone() -> None:
    base = find_spec("own_modules:residual")
    require_classification(base, "classification")
    require_classification(find_spec("resnet_small"), "segmentation")
    with pytest.raises(ConfigError, match="expected a base network of scalesearch for segmentation, came a torch mod"):
        require_classification(base, "segmentation")
