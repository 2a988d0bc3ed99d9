from dataclasses import replace
from typing import Any

from scalesearch.search.siblings import next_cuts, siblings_of
from scalesearch.spaces.suggest import candidate_with, for_target, suggest, trial_parameters
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Scaling
from scalesearch.values.space import Choice, NamedAxis, Range, SearchSpace
from scalesearch.values.target import Target


def space(**axes: tuple[Any, ...]) -> SearchSpace:
    named = tuple(NamedAxis(name=f"quantization.{name}", axis=Choice(values=values)) for name, values in axes.items())
    return SearchSpace(name="made_up", network="resnet_small", resolution_px=64, axes=named)


CANDIDATE = Candidate(scaling=Scaling(width=0.5), quantization=Quantization(precision="fp32"))


def test_a_sibling_is_the_same_network_in_each_other_precision_and_a_point_of_the_space() -> None:
    asked = space(precision=("fp32", "fp16", "int8"), calibration=("mse", "percentile"), clip_percentile=(99.0, 99.9))
    fp16, int8 = siblings_of(CANDIDATE, asked)
    assert {fp16.scaling, int8.scaling} == {CANDIDATE.scaling}
    assert fp16.quantization == Quantization(precision="fp16")
    assert int8.quantization == Quantization(precision="int8", calibration="mse")
    replayed = trial_parameters(int8, asked)
    assert replayed == {"quantization.precision": "int8", "quantization.calibration": "mse"}


def test_what_a_candidate_asked_for_is_kept() -> None:
    asked = space(precision=("int8", "fp8"), calibration=("minmax", "mse"))
    int8 = Candidate(quantization=Quantization(precision="int8", calibration="mse"))
    (fp8,) = siblings_of(int8, asked)
    assert fp8.quantization == Quantization(precision="fp8", calibration="mse")


def test_a_sibling_never_trains() -> None:
    (int8,) = siblings_of(CANDIDATE, space(precision=("fp32", "int8"), qat_steps=(0, 60)))
    assert int8.quantization.qat_steps == 0
    assert siblings_of(CANDIDATE, space(precision=("fp32", "int8"), qat_steps=(30, 60))) == ()


def test_one_precision_has_no_siblings() -> None:
    assert siblings_of(CANDIDATE, space(calibration=("minmax", "mse"))) == ()
    assert siblings_of(CANDIDATE, space(precision=("fp32",))) == ()


def test_the_next_cuts_are_one_step_away_and_ask_for_what_only_a_cut_has() -> None:
    axes = (
        NamedAxis(name="pruning.criterion", axis=Choice(values=("l1", "taylor"))),
        NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.5, 0.0, 0.25))),
        NamedAxis(name="pruning.block_fraction", axis=Choice(values=(0.0, 0.3))),
    )
    asked = SearchSpace(name="made_up", network="resnet_small", resolution_px=64, axes=axes)
    dense = Candidate(pruning=Pruning(block_fraction=0.3), quantization=Quantization(precision="int8"))
    (quarter,) = next_cuts(dense, asked)
    assert quarter == replace(dense, pruning=Pruning(channel_fraction=0.25, criterion="l1", block_fraction=0.3))
    taylor = replace(quarter, pruning=replace(quarter.pruning, criterion="taylor"))
    less, more = next_cuts(taylor, asked)
    assert less == dense  # nothing is cut, so the criterion is the default
    assert more.pruning == Pruning(channel_fraction=0.5, criterion="taylor", block_fraction=0.3)
    assert trial_parameters(more, asked)["pruning.criterion"] == "taylor"


def test_without_a_list_of_shares_there_are_no_next_cuts() -> None:
    assert next_cuts(CANDIDATE, space(precision=("fp32", "int8"))) == ()
    shares = NamedAxis(name="pruning.channel_fraction", axis=Range(low=0.0, high=0.5))
    assert next_cuts(CANDIDATE, SearchSpace(name="s", network="n", resolution_px=64, axes=(shares,))) == ()


def test_zeros_are_asked_only_where_the_chip_can_use_them() -> None:
    axes = (NamedAxis(name="pruning.sparsity", axis=Choice(values=("none", "2:4"))),)
    asked = SearchSpace(name="made_up", network="resnet_small", resolution_px=64, axes=axes)
    without = Target(name="cpu", backend="onnxruntime", precisions=("fp32",))
    having = Target(name="rtx", backend="tensorrt", precisions=("fp32",), sparsity_2_4=True)
    assert for_target(asked, without).axes[0].axis == Choice(values=("none",))
    assert for_target(asked, having) == asked
    assert suggest(_NeverAsked(), for_target(asked, without)).pruning.sparsity == "none"


class _NeverAsked:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def test_a_fixed_setting_of_one_precision_does_not_concern_the_others() -> None:
    asked = space(precision=("fp32", "fp16", "int8"), qat_steps=(60,), keep_float=(2,))
    fp32, fp16, int8 = (candidate_with({"quantization.precision": name}, asked) for name in ("fp32", "fp16", "int8"))
    assert [each.quantization.label for each in (fp32, fp16, int8)] == ["fp32", "fp16", "int8 QAT but 2 layers"]
    assert siblings_of(fp32, asked) == (fp16,)  # int8 would train
    assert siblings_of(int8, asked) == (fp32, fp16)
