import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from scalesearch.analysis.comparison import ComparedStudy, common_front, common_reference, compare
from scalesearch.analysis.front import hypervolume, point
from scalesearch.values.candidate import Scaling
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.session import Session

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def make_study(make_record: MakeRecord, session: Session) -> Callable[..., ComparedStudy]:
    def make(name: str, points: list[tuple[float, float]], *, device: str = "", images: str = "") -> ComparedStudy:
        records = []
        for trial, (top1, p50_ms) in enumerate(points):
            record = make_record(trial, top1=top1, p50_ms=p50_ms)
            candidate = replace(record.candidate, scaling=Scaling(width=1 + trial / 4))
            record = replace(record, candidate=candidate)
            if device:
                assert record.device
                record = replace(record, device=replace(record.device, name=device))
            records.append(record)
        data = replace(session.data, fingerprint=images) if images else session.data
        return ComparedStudy(name=name, records=tuple(records), session=replace(session, data=data))

    return make


def test_studies_of_one_device_and_data_share_a_front(make_study: Callable[..., ComparedStudy]) -> None:
    one = make_study("one", [(0.5, 1.0), (0.7, 2.0), (0.9, 8.0)])
    other = make_study("other", [(0.6, 1.5), (0.65, 2.5), (0.95, 9.0)])
    front = [(name, point(record)) for name, record in common_front([one, other])]
    assert front == [
        ("one", (0.5, 1.0)), ("other", (0.6, 1.5)), ("one", (0.7, 2.0)), ("one", (0.9, 8.0)), ("other", (0.95, 9.0)),
    ]  # fmt: skip
    pair = compare(one, other)
    assert pair.second_beaten == pytest.approx(1 / 3)  # 65 % at 2.5 ms, by 70 % at 2 ms
    assert pair.first_beaten == 0


def test_networks_of_unlike_tasks_are_not_the_same(make_study: Callable[..., ComparedStudy]) -> None:
    points = [(0.5, 1.0), (0.7, 2.0), (0.9, 8.0)]
    one, other = make_study("one", points), make_study("other", points)
    assert compare(one, other).shared == 3
    settings = replace(other.session.settings, task="detection")
    pair = compare(one, replace(other, session=replace(other.session, settings=settings)))
    assert pair.shared == 0
    assert pair.latency is None and pair.score is None and pair.latency_ratio is None


def test_hypervolumes_have_one_reference(make_study: Callable[..., ComparedStudy]) -> None:
    fast, slow = make_study("one", [(0.5, 1.0), (0.7, 2.0)]), make_study("other", [(0.5, 2000.0), (0.8, 4000.0)])
    assert common_reference([fast]) == (0.0, 1000.0)
    assert fast.hypervolume((0.0, 1000.0)) == hypervolume([(0.5, 1.0), (0.7, 2.0)])
    reference = common_reference([fast, slow])
    assert reference == (0.0, 8000.0)  # twice the slowest of all
    assert slow.hypervolume(reference) == pytest.approx(0.5 * math.log(4) + 0.3 * math.log(2))
    assert fast.hypervolume(reference) == pytest.approx(0.5 * math.log(8000) + 0.2 * math.log(4000))


@pytest.mark.parametrize(("device", "images"), [("another chip", ""), ("", "f0"), ("another chip", "f0")])
def test_unlike_devices_and_images_never_share_a_front(
    make_study: Callable[..., ComparedStudy], device: str, images: str
) -> None:
    one = make_study("one", [(0.5, 1.0), (0.7, 2.0)])
    other = make_study("other", [(0.9, 0.5)], device=device, images=images)
    assert common_front([one, other]) == ()
    pair = compare(one, other)
    assert (pair.same_device, pair.same_images) == (not device, not images)
    assert pair.second_beaten is None and pair.first_beaten is None


def test_scores_of_unlike_metrics_never_share_a_front(make_study: Callable[..., ComparedStudy]) -> None:
    one, other = make_study("one", [(0.5, 1.0), (0.7, 2.0)]), make_study("other", [(0.9, 0.5)])
    records = tuple(
        replace(record, quality=replace(record.quality, metric="miou")) for record in other.records if record.quality
    )
    assert compare(one, other).scored_unlike == ""
    other = replace(other, records=records)
    assert common_front([one, other]) == ()
    pair = compare(one, other)
    assert pair.scored_unlike == "top-1 and mIoU" and pair.same_images and pair.same_device
    assert pair.second_beaten is None and pair.first_beaten is None


def _stored_larger(study: ComparedStudy, *, seed: int = 0, group_by: str = "") -> ComparedStudy:
    """As a space with a larger greatest resolution has it: the same pictures, other pixels, so another fingerprint."""
    session = study.session
    asked = replace(session.settings.data, seed=session.settings.data.seed + seed, group_by=group_by)
    settings = replace(session.settings, data=asked)
    data = replace(session.data, fingerprint="f1")
    return replace(study, session=replace(session, data=data, settings=settings, storage_px=2 * session.storage_px))


def test_spaces_that_store_other_sizes_share_a_front_if_split_alike(make_study: Callable[..., ComparedStudy]) -> None:
    one, other = make_study("one", [(0.5, 1.0)]), make_study("other", [(0.9, 0.5)])
    assert len(common_front([one, _stored_larger(other)])) == 1
    assert not compare(one, _stored_larger(other, seed=1)).same_images
    # With whole films drawn for validation, other pictures are there than with single ones.
    assert not compare(one, _stored_larger(other, group_by="([^/_]+)_[^/]*$")).same_images


def test_rank_agreement_is_over_the_networks_of_both(make_study: Callable[..., ComparedStudy]) -> None:
    # Networks 0 to 3 are in both; on the other chip all take three times as long, and 1 and 2 change places.
    one = make_study("one", [(0.5, 1.0), (0.6, 2.0), (0.7, 3.0), (0.8, 4.0), (0.81, 5.0)])
    other = make_study("other", [(0.5, 3.0), (0.6, 9.0), (0.7, 6.0), (0.8, 12.0)], device="another chip")
    pair = compare(one, other)
    assert pair.shared == 4
    assert pair.latency is not None and pair.score is not None and pair.latency_ratio == pytest.approx(3)
    assert pair.latency.spearman == pytest.approx(0.8)  # 1 - 6 (1 + 1) / (4 (16 - 1))
    assert pair.score.spearman == pytest.approx(1)


def test_a_network_measured_twice_counts_once_and_by_its_median(make_study: Callable[..., ComparedStudy]) -> None:
    one = make_study("one", [(0.5, 1.0), (0.6, 2.0)])
    again = replace(make_study("x", [(0.5, 3.0)]).records[0], trial=9)
    pair = compare(replace(one, records=(*one.records, again)), make_study("other", [(0.5, 4.0)]))
    assert pair.shared == 1 and pair.latency_ratio == pytest.approx(2)  # 4 over the median of 1 and 3
    assert pair.latency is None


def _of_updates(record: TrialRecord, steps: int, full: int) -> TrialRecord:
    recipe = replace(record.candidate.recipe, steps=steps)
    return replace(record, candidate=replace(record.candidate, recipe=recipe), full_updates=full)


def test_short_trainings_are_no_measurements_of_a_network(make_study: Callable[..., ComparedStudy]) -> None:
    one, other = make_study("one", [(0.8, 2.0), (0.9, 3.0)]), make_study("other", [(0.6, 2.0), (0.4, 3.0)])
    long = tuple(_of_updates(record, 960, 960) for record in one.records)
    short = replace(_of_updates(one.records[0], 240, 960), trial=7)
    pair = compare(replace(one, records=(*long, short)), other)
    alone = compare(replace(one, records=long), other)
    assert (pair.shared, pair.latency_ratio) == (2, 1) and pair.score == alone.score
    only_short = compare(replace(one, records=(long[1], short)), other)
    assert only_short.shared == 1, "the first network was trained in part alone"


def test_fronts_of_unlike_trainings_are_told(make_study: Callable[..., ComparedStudy]) -> None:
    one, other = make_study("one", [(0.5, 1.0)]), make_study("other", [(0.9, 2.0)])
    longer = replace(other, records=tuple(_of_updates(record, 960, 960) for record in other.records))
    assert compare(one, other).trained_unlike == ""
    assert compare(one, longer).trained_unlike == f"{one.front[0].candidate.recipe.steps} and 960 updates"
    assert len(common_front([one, longer])) == 2, "they are still compared, as what each study hands over"


def test_repeated_answers_are_no_measurements(make_study: Callable[..., ComparedStudy]) -> None:
    one, other = make_study("one", [(0.5, 1.0)]), make_study("other", [(0.5, 1.0)])
    cached = tuple(replace(record, state="cached", same_as=0) for record in other.records)
    assert compare(one, replace(other, records=cached)).shared == 0


def _set(
    study: ComparedStudy,
    *,
    target: str = "cpu",
    batch: int = 1,
    objective: Any = "engine",
    backend: str = "onnxruntime",
    **tensorrt: Any,
) -> ComparedStudy:
    session = study.session
    settings = replace(
        session.settings,
        latency=replace(session.settings.latency, batch=batch),
        tensorrt=replace(session.settings.tensorrt, **tensorrt),
    )
    session = replace(session, settings=settings, target=replace(session.target, name=target, backend=backend))
    records = tuple(
        replace(record, latency=replace(record.latency, batch=batch, objective=objective))
        for record in study.records
        if record.latency
    )
    return replace(study, session=session, records=records)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 3}, "batch 1 and 3"),
        ({"objective": "end_to_end"}, "latency.objective engine and end_to_end"),
        ({"target": "openvino"}, "target cpu and openvino"),
        ({"backend": "tensorrt", "copies": True}, "copies in the clock False and True"),
    ],
)
def test_networks_timed_in_another_way_share_no_front(
    make_study: Callable[..., ComparedStudy], change: dict[str, Any], words: str
) -> None:
    backend = change.get("backend", "onnxruntime")
    one = _set(make_study("one", [(0.5, 1.0), (0.7, 2.0)]), backend=backend)
    other = _set(make_study("other", [(0.9, 0.5)]), **change)
    assert common_front([one, other]) == ()
    pair = compare(one, other)
    assert pair.same_device and pair.same_images
    assert pair.timed_unlike == (words,)
    assert pair.second_beaten is None and pair.first_beaten is None


def test_what_only_tensorrt_reads_keeps_nobody_apart_elsewhere(make_study: Callable[..., ComparedStudy]) -> None:
    one, other = make_study("one", [(0.5, 1.0)]), _set(make_study("other", [(0.9, 0.5)]), cuda_graph=False)
    assert len(common_front([one, other])) == 1
