"""What `check` and `--dry-run` say before anything runs."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from parent_studies import colours
from PIL import Image

from scalesearch.chain.planner import PlanBasis, Planner
from scalesearch.cli import compiling, run, samples
from scalesearch.cli.collapsing import collapses
from scalesearch.cli.compiling import compile_space
from scalesearch.cli.data_lines import data_line
from scalesearch.cli.preview import check_space, limit_lines, preview_run
from scalesearch.cli.space_lines import axis_text
from scalesearch.config import load_run, parse_space, space_paths
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.targets import get_target
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.networks import base_spec
from scalesearch.records.run_file import write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.spaces.suggest import ends_short, for_target, random_candidates
from scalesearch.study.fitted_space import fitted_space
from scalesearch.study.lengths import with_lengths
from scalesearch.study.pieces import Pieces
from scalesearch.study.predicted_time import PlannedRun, predict
from scalesearch.study.sampler import chosen_sampler
from scalesearch.study.time_words import PredictedTime
from scalesearch.tasks.registry import get_task, loadable_tasks
from scalesearch.values.plan import Plan
from scalesearch.values.session import Session
from scalesearch.values.settings import MachineSettings, RunSettings
from scalesearch.values.space import SearchSpace

PIECES = Pieces(steps=((1_000, 0.01),), export_s=0.5, quantize_s=0.2, image_s_per_mac=1e-10)
SETTINGS = RunSettings(machine=MachineSettings(threads=1, bf16="off"))


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed; tests/study/test_study_pieces.py does that."""
    monkeypatch.setattr("scalesearch.study.pieces.measure_pieces", lambda *_, **__: PIECES)


def space(scaling: dict[str, object], **limits: float) -> SearchSpace:
    document = {
        "network": "resnet_small",
        "resolution_px": 16,
        "scaling": scaling,
        "training": {"steps": 10, "batch_size": 4},
        "limits": limits,
    }
    return parse_space(document, name="tiny", origin="tiny.toml")


def test_choices_that_round_to_the_same_network_are_named() -> None:
    # 16, 24, 48 and 64 channels times 1.02 round back to themselves, times 1.5 they do not
    lines = list(collapses(space({"width": [1.0, 1.02, 1.5]}), base_spec("resnet_small"), get_target("cpu")))
    assert lines[0].startswith("3 combinations of scaling choices give 2 distinct networks")
    assert lines[1:] == ["  scaling.width 1 and 1.02 give the same network always."]


def test_names_are_counted_where_they_change_the_network() -> None:
    scaling = {"depth": [1.0, 2.0], "kernel": [1.0, 1.67], "neck_follows": ["width", "all"]}
    lines = list(collapses(space(scaling), base_spec("resnet_scene"), get_target("cpu")))
    # At depth and kernel 1 there is nothing to follow.
    assert lines == ["8 combinations of scaling choices give 7 distinct networks."]


def test_distinct_choices_are_not_blamed() -> None:
    lines = list(collapses(space({"width": [0.5, 1.0], "depth": [1, 2]}), base_spec("resnet_small"), get_target("cpu")))
    assert lines == ["4 combinations of scaling choices give 4 distinct networks."]


def test_what_limits_reject_is_counted() -> None:
    lines = list(limit_lines(space({}, max_macs=100, max_size_bytes=50), [50, 150, 200], [40, 60, 70]))
    assert "rejects 2 of 3" in lines[0]
    assert "at least 2 of 3" in lines[1]


@pytest.mark.usefixtures("no_probe")
def test_check_prints_axes_cost_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    check_space(SETTINGS, space({"width": [0.5, 1.0]}), with_data=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "scaling.width = one of [0.5, 1.0]" in text
    assert "A budget of 20 takes about" in text
    assert "The space is sound." in text


@pytest.mark.slow
@pytest.mark.usefixtures("no_probe")
def test_check_tells_which_trunks_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    by_cut = space({"width": [0.5, 1.0, 1.5], "depth": [1.0, 2.0], "width_by": "cut"}, max_macs=1_000_000)
    drawn = [candidate.scaling for candidate in random_candidates(by_cut, 24, SETTINGS.seed)]
    cut = [scaling for scaling in drawn if scaling.width < 1.5]
    assert {scaling.depth for scaling in cut} == {1.0, 2.0}

    check_space(SETTINGS, by_cut, with_data=False)

    text = " ".join(capsys.readouterr().out.split())
    assert "scaling.width_by = 'cut'" in text
    assert f"note: {len(cut)} of 24 candidates are cut from 2 larger trunks, the largest of" in text
    assert "6 combinations of scaling choices give 6 distinct networks" in text
    preview_run(SETTINGS, by_cut)
    assert ", cut" in capsys.readouterr().out


def test_check_refuses_a_stage_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="numbered 1 to 3"):
        check_space(SETTINGS, space({"stages": {"9": {"width": [0.5]}}}), with_data=False)


@pytest.mark.usefixtures("no_probe")
def test_a_space_whose_every_candidate_is_too_large_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    preview_run(SETTINGS, dataclasses.replace(space({}, max_macs=10)))
    assert "nothing would be trained" in " ".join(capsys.readouterr().out.split())  # wherever a narrow screen folds


@pytest.mark.usefixtures("no_probe")
def test_dry_run_shows_settings_and_five_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    preview_run(SETTINGS, space({"width": [0.5, 1.0], "depth": [1.0, 2.0]}))
    text = capsys.readouterr().out
    assert "data.source = 'signs'" in text
    assert "latency.half_width = " in text
    assert text.count(" px ") == 5


@pytest.fixture
def no_clock(no_probe: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed, and one sample of large networks is enough."""
    monkeypatch.setattr(samples, "_PLANNING_S", 0.0)
    monkeypatch.setattr(samples, "_SHOWN", 1)


def task_of(space_name: str) -> str:
    """Return the task that takes the shipped space unless another is named; classification if none does."""
    return next((task.name for task in loadable_tasks() if task.space == space_name), "classification")


@pytest.mark.usefixtures("no_clock")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "resnet_small")) for name in sorted(space_paths())],
)
def test_every_shipped_space_passes_check_and_dry_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings, shipped = load_run(space=name, flags={"target": "cpu", "task": task_of(name)})
    check_space(settings, shipped, with_data=False)
    assert "The space is sound." in capsys.readouterr().out
    preview_run(settings, shipped)
    assert "A budget of 20 takes about" in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("no_clock")
@pytest.mark.parametrize(
    ("sampler", "told"), [("auto", "training.steps = one of [240, 480, 960]"), ("tpe", "training.steps = 960")]
)
def test_lengths_are_for_the_sampler_that_chooses_among_them(
    sampler: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, shipped = load_run(overrides=(f"sampler={sampler}",), flags={"target": "cpu"})
    check_space(settings, shipped, with_data=False)
    words = " ".join(capsys.readouterr().out.split())
    assert told in words
    assert ("lengths: 960 updates for every candidate" in words) == (sampler == "tpe")
    assert ("sampler: growth, the first to find the front of a table" in words) == (sampler == "auto")


def begin(session: Session, settings: RunSettings, asked: SearchSpace, folder: Path) -> Session:
    """Leave run.toml in a folder, as a run with these settings does."""
    base, chip = base_spec(asked.network), get_target("cpu")
    sampler = chosen_sampler(settings, asked, base, chip, None).name
    trained, lengths = with_lengths(asked, settings, sampler, None)
    stored = dataclasses.replace(
        session,
        folder=folder,
        settings=dataclasses.replace(settings, sampler=sampler, lengths=lengths),
        space=fitted_space(trained, base, chip, None),
        base=base,
        target=chip,
        device=get_backend(chip.backend).device(1),
    )
    write_run_file(stored)
    return stored


@pytest.mark.usefixtures("no_clock")
def test_a_run_that_goes_on_is_previewed_by_its_study(
    session: Session, make_record: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, shipped = load_run(flags={"target": "cpu"})
    folder = tmp_path / "study"
    begin(session, dataclasses.replace(settings, sampler="tpe"), shipped, folder)
    for trial in range(12):
        record = make_record(trial)
        training = dataclasses.replace(record.training, steps=960, new_steps=960 if trial < 7 else 320)
        RecordStore(folder).save(dataclasses.replace(record, training=training))

    preview_run(settings, shipped, study=folder)  # without --sampler
    words = " ".join(capsys.readouterr().out.split())
    assert f"continues the study {folder} after 8.6 full trainings (--fresh starts anew)" in words
    assert "sampler = 'tpe'" in words and "training.steps = 960" in words
    assert "lengths: 960 updates for every candidate, as the study was begun" in words
    assert "A budget of 20, of which 8.6 are used, takes about" in words
    assert "here: 12 candidates" in words  # of 20

    preview_run(dataclasses.replace(settings, budget=8), shipped, study=folder)
    assert "The budget of 8 is used up" in " ".join(capsys.readouterr().out.split())

    preview_run(dataclasses.replace(settings, budget=9), shipped, study=folder)
    assert "A budget of 9, of which 8.6 are used, takes about" in " ".join(capsys.readouterr().out.split())
    preview_run(dataclasses.replace(settings, budget=9, sampler="growth"), shipped, study=folder)
    told = " ".join(capsys.readouterr().out.split())
    assert "Of the budget of 9, 8.6 are used: the rest suffices for no whole training." in told

    preview_run(settings, shipped)  # --fresh
    words = " ".join(capsys.readouterr().out.split())
    assert "continues" not in words and "A budget of 20 takes about" in words and "as the search decides" in words


@pytest.mark.usefixtures("no_clock")
def test_a_run_that_would_be_refused_is_not_previewed(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, shipped = load_run(flags={"target": "cpu"})
    begin(session, settings, shipped, tmp_path)
    with pytest.raises(ConfigError, match=r"settings\.seed: was 0, is 3"):
        preview_run(dataclasses.replace(settings, seed=3), shipped, study=tmp_path)
    with pytest.raises(ConfigError, match="need the sampler growth, got tpe"):
        preview_run(dataclasses.replace(settings, sampler="tpe"), shipped, study=tmp_path)
    data = dataclasses.replace(settings.data, source="cifar10")
    preview_run(dataclasses.replace(settings, data=data), shipped, study=tmp_path)
    words = " ".join(capsys.readouterr().out.split())
    assert "note: it was begun with the data signs; a run compares the images, and refuses others" in words


def test_dry_run_looks_at_the_folder_that_the_run_would_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked = list[Path | None]()
    monkeypatch.setattr("scalesearch.cli.preview.preview_run", lambda *_, study: looked.append(study))
    run.run(to=tmp_path, target="cpu", dry_run=True)
    run.run(to=tmp_path, target="cpu", dry_run=True, fresh=True)
    assert looked == [tmp_path, None]


@pytest.mark.usefixtures("no_clock")
def test_the_training_that_decides_flips_is_told_and_predicted(
    tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    undecided = parse_space(
        {"network": "resnet_small", "resolution_px": 16, "training": {"steps": 10, "flip": "auto"}},
        name="tiny",
        origin="tiny.toml",
    )
    asked = list[PlannedRun]()

    def heard(planned: PlannedRun, *given: Any, **more: Any) -> PredictedTime:
        asked.append(planned)
        return predict(planned, *given, **more)

    monkeypatch.setattr("scalesearch.study.predicted_time.predict", heard)
    settings = dataclasses.replace(SETTINGS, target="cpu")
    preview_run(settings, undecided)
    assert "flips: resnet_small is trained once before the search" in " ".join(capsys.readouterr().out.split())
    begin(session, settings, undecided.with_flip(flip=False), tmp_path)
    preview_run(settings, undecided, study=tmp_path)
    assert "flips:" not in capsys.readouterr().out
    judges = [planned.judge for planned in asked]
    assert judges[0] and judges[0].candidate.recipe.steps == 10 and judges[1] is None


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("sampler=tpe", "lengths=on"), "need the sampler growth, got tpe"),
        (("training.steps=480", "lengths=on"), "expected several values of training.steps"),
    ],
)
def test_check_refuses_lengths_as_a_run_does(overrides: tuple[str, ...], told: str) -> None:
    settings, shipped = load_run(overrides=overrides, flags={"target": "cpu"})
    with pytest.raises(ConfigError, match=told):
        check_space(settings, shipped, with_data=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(space_paths()))
def test_every_shipped_space_passes_compile(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(compiling, "_COMPILED", 1)
    settings, shipped = load_run(space=name, flags={"target": "rtx40", "task": task_of(name)})
    compiler, table, refused = compile_space(settings, shipped)
    assert compiler.startswith("Compiled by TensorRT for RTX")
    assert refused == 0
    assert table.row_count == len(get_target("rtx40").precisions)


@pytest.mark.slow
@pytest.mark.usefixtures("no_clock")
@pytest.mark.parametrize(("network", "stage"), [("resnet_small", 1), ("mobilenet_small", 2), ("efficientnet_small", 3)])
def test_a_stage_scaled_alone_is_previewed(network: str, stage: int, capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "network": network,
        "resolution_px": 32,
        "scaling": {"stages": {str(stage): {"width": [0.5, 1.0, 2.0], "kernel": [1.0]}}},
    }
    alone = parse_space(document, name="alone", origin="alone.toml")
    check_space(SETTINGS, alone, with_data=False)
    assert "3 combinations of scaling choices give 3 distinct networks." in capsys.readouterr().out
    preview_run(SETTINGS, alone)


@pytest.mark.usefixtures("no_probe")
def test_limits_are_counted_after_pruning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(samples, "_PLANNING_S", 1000.0)
    document = {"network": "resnet_small", "resolution_px": 32, "pruning": {"channel_fraction": 0.5}}
    target = get_target("cpu")

    def plan(limit: float) -> tuple[SearchSpace, Plan]:
        limits: dict[str, Any] = {"max_macs": limit, "max_size_bytes": 10_000_000}
        pruned = parse_space({**document, "limits": limits}, name="pruned", origin="pruned.toml")
        basis = PlanBasis(base=base_spec("resnet_small"), space=pruned, target=target, num_classes=43, seed=0)
        return pruned, Planner(basis)(random_candidates(pruned, 1, 0)[0])

    _, dense = plan(10**12)
    assert dense.cost.macs < dense.dense_cost.macs / 2
    between, planned = plan((dense.cost.macs + dense.dense_cost.macs) // 2)
    assert not planned.rejected_because  # so a run trains it
    check_space(SETTINGS, between, with_data=False)
    text = " ".join(capsys.readouterr().out.split())
    assert f"rejects 0 of 24 sampled candidates ({dense.cost.macs} to" in text
    assert "nothing would be trained" not in text


@pytest.mark.usefixtures("no_probe")
def test_sampled_plans_are_the_planners_own_and_too_short_branches_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(samples, "_PLANNING_S", 1000.0)
    document = {
        "network": "resnet_small",
        "resolution_px": 16,
        "pruning": {"channel_fraction": [0.0, 0.5]},
        "quantization": {"precision": ["fp32", "int8"], "qat_steps": [0, 3]},
        "training": {"steps": 10, "batch_size": 4, "schedule": "wsd"},
        "limits": {"max_size_bytes": 10_000_000},
    }
    whole = parse_space(document, name="aware", origin="aware.toml")
    basis = PlanBasis(base=base_spec("resnet_small"), space=whole, target=get_target("cpu"), num_classes=43, seed=0)
    planner = Planner(basis)
    found = samples.sampled(whole, planner, seed=0).plans
    assert found == tuple(Planner(basis)(candidate) for candidate in random_candidates(whole, 24, 0))
    rejected = [plan for plan in found if plan.rejected_because]
    assert {plan.candidate.quantization.aware_steps for plan in rejected} == {3}
    check_space(SETTINGS, whole, with_data=False)
    text = " ".join(capsys.readouterr().out.split())
    assert f"a run rejects {len(rejected)} of 24 candidates, whose branch is too short" in text
    assert 0 < len(rejected) < 24


def test_what_cannot_be_planned_is_counted_and_the_others_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run records such a candidate as failed, and goes on."""
    monkeypatch.setattr("scalesearch.study.pieces.measure_pieces", lambda *_, **__: PIECES)
    planned = Planner.__call__

    def call(self: Planner, candidate: Any) -> Plan:
        if candidate.scaling.width == 0.5:
            raise StageFailed("prune", "the layer is too thin")
        return planned(self, candidate)

    monkeypatch.setattr(Planner, "__call__", call)
    preview_run(SETTINGS, space({"width": [1.0, 0.5]}))
    text = " ".join(capsys.readouterr().out.split())
    assert "of 24 cannot be planned: prune: the layer is too thin" in text
    assert "cannot be told" in text  # the first trial, the cheapest, is one of them


def test_the_standard_error_is_in_points() -> None:
    class Split(list[int]):
        pass

    class Data:
        name, class_names, warnings, notes = "made up", ("a", "b"), (), ()
        train = val = calibration = test = Split(range(337))

    # sqrt(0.6 * 0.4 / 337) is 0.0267
    line = data_line(Data(), "classification")  # type: ignore[arg-type]
    assert "standard error of a val accuracy 2.7 points" in line


@pytest.mark.slow
def test_giant_lists_are_sampled_in_seconds() -> None:
    many: Sequence[float] = [round(0.5 + place / 1000, 3) for place in range(900)]
    giant = space({"width": many, "depth": many, "kernel": many, "resolution": many})
    began = time.process_time()
    lines = list(collapses(giant, base_spec("resnet_small"), get_target("cpu")))
    assert time.process_time() - began < 20
    assert lines[0].startswith("656100000000 combinations of scaling choices, too many to compare one by one: 2000")
    assert len(lines) < 50
    assert any("more pairs of neighbouring values" in line for line in lines)


@pytest.mark.parametrize(
    ("section", "key", "raw", "asked", "says"),
    [
        ("scaling", "width", {"low": 0.25, "high": 1.0, "step": 0.5}, (0.25, 0.75), "high = 0.75"),
        ("training", "steps", {"low": 10, "high": 25, "step": 10}, (10, 20), "high = 20"),
        ("scaling", "depth", {"low": 0.1, "high": 0.7, "step": 0.1}, (0.1, 0.7), ""),
        ("pruning", "rounds", {"low": 1, "high": 3, "step": 1}, (1, 3), ""),
    ],
)
def test_steps_that_do_not_meet_the_upper_end_are_told(
    section: str, key: str, raw: dict[str, float], asked: tuple[float, float], says: str
) -> None:
    stepped = parse_space(
        {"network": "resnet_small", "resolution_px": 32, section: {key: raw}}, name="s", origin="s.toml"
    )
    axis = stepped.axes[0].axis
    assert (min(axis.values), max(axis.values)) == asked
    assert axis_text(stepped.axes[0]).startswith(f"{asked[0]:g} to {asked[1]:g} in steps")
    told = ends_short(stepped)
    assert bool(told) == bool(says)
    assert not told or says in told[0]


def _axis(values: st.SearchStrategy[float], low: float, high: float) -> st.SearchStrategy[Any]:
    return st.one_of(
        values,
        st.lists(values, min_size=1, max_size=4, unique=True),
        st.sampled_from([{"low": low, "high": high}, {"low": low, "high": high, "step": (high - low) / 3}]),
    )


MULTIPLIERS = _axis(st.sampled_from([0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0]), 0.5, 2.0)
SPACES = st.fixed_dictionaries(
    {
        "network": st.sampled_from(["resnet_small", "mobilenet_small", "efficientnet_small"]),
        "resolution_px": st.sampled_from([8, 16, 24, 33]),
        "scaling": st.fixed_dictionaries(
            {},
            optional={
                **dict.fromkeys(("resolution", "depth", "width", "kernel"), MULTIPLIERS),
                "stages": st.dictionaries(
                    st.sampled_from("123"),
                    st.fixed_dictionaries({}, optional=dict.fromkeys(("depth", "width", "kernel"), MULTIPLIERS)),
                    max_size=3,
                ),
            },
        ),
        "pruning": st.fixed_dictionaries(
            {},
            optional={
                "channel_fraction": _axis(st.sampled_from([0.0, 0.25, 0.5, 0.9]), 0.0, 0.9),
                "block_fraction": st.sampled_from([0.0, 0.5]),
                "sparsity": st.sampled_from([["none", "unstructured"], "none"]),
                "criterion": st.sampled_from([["l1", "taylor", "random"], "bn_scale"]),
                "scope": st.sampled_from([["uniform", "global", "sensitivity"], "uniform"]),
                "rounds": st.sampled_from([1, [1, 3], {"low": 1, "high": 4, "step": 2}]),
            },
        ),
        "quantization": st.fixed_dictionaries(
            {},
            optional={
                "precision": st.sampled_from([["fp32", "int8"], "int8", ["fp16", "fp8", "fp32"]]),
                "qat_steps": st.sampled_from([0, [0, 10]]),
                "clip_percentile": _axis(st.sampled_from([99.0, 99.9]), 99.0, 100.0),
            },
        ),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "learning_rate": st.sampled_from([{"low": 1e-4, "high": 0.1, "log": True}, 10.0]),
                "steps": st.sampled_from([5, [5, 10], {"low": 5, "high": 16, "step": 5}]),
                "optimizer": st.sampled_from([["muon", "sgd"], "adamw"]),
                "flip": st.sampled_from([True, [True, False]]),
            },
        ),
        "limits": st.fixed_dictionaries(
            {}, optional={"max_macs": st.sampled_from([1, 10**7]), "max_size_bytes": st.sampled_from([10, 10**8])}
        ),
    }
)


@pytest.mark.slow
@pytest.mark.usefixtures("no_clock")
@given(document=SPACES)
@property_settings(
    derandomize=True, deadline=None, max_examples=6, database=None, phases=[Phase.explicit, Phase.generate]
)
def test_what_a_run_would_plan_the_previews_take(document: dict[str, Any]) -> None:
    generated = parse_space(document, name="generated", origin="generated.toml")
    target = get_target("cpu")
    base = base_spec(generated.network)
    fit = for_target(generated, target)
    planner = Planner(PlanBasis(base=base, space=fit, target=target, num_classes=7, seed=0))
    for candidate in random_candidates(fit, 1, 0):
        planner(candidate)
    settings = dataclasses.replace(SETTINGS, target="cpu")
    check_space(settings, generated, with_data=False)
    preview_run(settings, generated)


@pytest.mark.usefixtures("no_clock")
def test_rectangles_are_planned_and_it_is_said_that_signs_are_squares(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"network": "resnet_small", "resolution_px": [32, 64], "scaling": {"resolution": [0.5, 1.0]}}
    wide = parse_space(document, name="wide", origin="wide.toml")
    refusal = "a run cannot start on these data: data signs: expected a square resolution_px"
    assert SETTINGS.data.source == "signs"
    check_space(SETTINGS, wide, with_data=False)
    told = " ".join(capsys.readouterr().out.split())
    assert refusal in told and "came 32x64 px" in told
    padded = dataclasses.replace(SETTINGS, data=dataclasses.replace(SETTINGS.data, fit="pad"))
    check_space(padded, wide, with_data=False)
    assert refusal not in " ".join(capsys.readouterr().out.split())
    preview_run(SETTINGS, wide)
    shown = capsys.readouterr().out
    assert "32x64 px" in shown or "16x32 px" in shown


@pytest.mark.usefixtures("no_clock")
def test_check_tells_of_classes_that_mirror_images_mix_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), np.uint8)
    for number, pixels in enumerate(images):
        path = tmp_path / "arrows" / ("LeftArrow", "RightArrow")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    data = dataclasses.replace(SETTINGS.data, source=str(tmp_path / "arrows"), calibration_images=4)
    training = {"steps": 10, "batch_size": 4, "flip": True}
    document = {"network": "resnet_small", "resolution_px": 16, "training": training}
    flipping = parse_space(document, name="flipping", origin="flipping.toml")
    settings = dataclasses.replace(SETTINGS, data=data)
    check_space(settings, flipping, with_data=True, to=tmp_path / "sheet.png")
    told = " ".join(capsys.readouterr().out.split())
    assert "warning: data arrows: training mirrors images (training.flip = true), but the classes LeftArrow and" in told


@pytest.mark.usefixtures("no_clock")
@pytest.mark.parametrize(("task", "fit"), [("classification", "crop"), ("detection", "pad"), ("segmentation", "pad")])
def test_the_fit_of_a_new_study_is_that_of_its_task(task: str, fit: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = {"network": "resnet_scene", "resolution_px": [32, 64], "training": {"steps": 10, "batch_size": 4}}
    wide = parse_space(document, name="wide", origin="wide.toml")
    preview_run(dataclasses.replace(SETTINGS, task=task), wide)
    assert f"data.fit = '{fit}'" in capsys.readouterr().out
    stretched = dataclasses.replace(SETTINGS, task=task, data=dataclasses.replace(SETTINGS.data, fit="stretch"))
    preview_run(stretched, wide)
    assert "data.fit = 'stretch'" in capsys.readouterr().out


@pytest.mark.usefixtures("no_clock")
def test_sides_that_are_rounded_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"network": "resnet_small", "resolution_px": [30, 60], "training": {"steps": 10, "batch_size": 4}}
    wide = parse_space(document, name="wide", origin="wide.toml")
    for look in (preview_run, lambda *given: check_space(*given, with_data=False)):
        look(SETTINGS, wide)
        told = " ".join(capsys.readouterr().out.split())
        assert "images: resolution_px asks for 30x60 px, which becomes 32x64 px: sides are multiples of 8 px" in told


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_previews_refuse_sizes_that_the_task_cannot_take(task: str) -> None:
    odd = ("resolution_px=[720,1280]", "resolution_multiple=16")
    settings, asked = load_run(space=get_task(task).space, overrides=odd, flags={"task": task, "target": "cpu"})
    for look in (preview_run, lambda *given: check_space(*given, with_data=False)):
        with pytest.raises(ConfigError, match=r"expected sides that are multiples of 32 px.*came 720x1280 px"):
            look(settings, asked)


def test_a_module_in_a_space_that_builds_networks_anew_is_refused() -> None:
    settings, space = load_run(space="resnet_small", overrides=(), flags={"network": "own_modules:residual"})
    for look in (preview_run, lambda *given: check_space(*given, with_data=False)):
        with pytest.raises(
            ConfigError, match=r"scaling\.depth, scaling\.width, scaling\.kernel.*returns a torch module"
        ):
            look(dataclasses.replace(settings, target="cpu"), space)


def test_a_module_is_previewed_like_any_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scalesearch.study.pieces.measure_pieces", lambda *_, **__: PIECES)
    flags = {"network": "own_modules:residual", "target": "cpu"}
    settings, space = load_run(space="resnet_small_compress_only", overrides=(), flags=flags)
    check_space(settings, space, with_data=False)
    told = capsys.readouterr().out
    assert "2 combinations of scaling choices give 2 distinct networks" in told
    assert "The space is sound." in told


def module_space(name: str) -> SearchSpace:
    document = {"network": f"own_modules:{name}", "resolution_px": 16, "training": {"steps": 10, "batch_size": 4}}
    return parse_space(document, name="own", origin="own.toml")


@pytest.mark.usefixtures("no_clock")
@pytest.mark.parametrize("name", ["head_of_maps", "doubled"])
def test_a_module_is_previewed_with_the_outputs_that_it_has(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A run takes it on data of as many classes. Its last linear layer has another number of outputs."""
    settings = dataclasses.replace(SETTINGS, target="cpu")
    preview_run(settings, module_space(name))
    assert "A budget of 20 takes about" in " ".join(capsys.readouterr().out.split())
    check_space(settings, module_space(name), with_data=False)
    assert "The space is sound." in capsys.readouterr().out


@pytest.mark.usefixtures("no_clock")
def test_a_module_is_checked_with_the_classes_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def check(classes: int) -> None:
        colours(tmp_path / f"{classes}.npz", classes, seed=0)
        data = dataclasses.replace(SETTINGS.data, source=str(tmp_path / f"{classes}.npz"))
        settings = dataclasses.replace(SETTINGS, target="cpu", data=data)
        check_space(settings, module_space("head_of_maps"), with_data=True, to=tmp_path / "sheet.png")

    check(7)
    assert "The space is sound." in capsys.readouterr().out
    with pytest.raises(ConfigError, match="expected 3 outputs, or a last linear layer or 1x1 convolution to replace"):
        check(3)


def test_a_space_that_distils_without_a_parent_is_refused_before_anything_is_timed() -> None:
    taught = parse_space(
        {"network": "resnet_small", "resolution_px": 16, "training": {"distill_weight": [0.0, 0.5]}},
        name="taught",
        origin="taught.toml",
    )
    refused = r"distill_weight = 0\.5: expected a parent.*came none\.\nGive --parent"
    with pytest.raises(ConfigError, match=refused):
        preview_run(SETTINGS, taught)
    with pytest.raises(ConfigError, match=refused):
        check_space(SETTINGS, taught, with_data=False)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("latency.objective=end_to_end",), "expected a task whose answers are worked on after the network"),
        (("detection.objective=map50",), "expected --task detection, came classification"),
        (("network=own_modules:residual", "task=segmentation"), "expected a base network of scalesearch for seg"),
    ],
)
def test_previews_refuse_settings_that_a_run_refuses(overrides: tuple[str, ...], told: str) -> None:
    settings, resnet_small = load_run(space="resnet_small", overrides=overrides)
    for look in (preview_run, lambda *given: check_space(*given, with_data=False)):
        with pytest.raises(ConfigError, match=told):
            look(dataclasses.replace(settings, target="cpu"), resnet_small)
