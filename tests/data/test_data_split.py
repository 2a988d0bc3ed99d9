"""Splits: stratified, disjoint, seeded, each drawn from its own stream."""

from dataclasses import replace

import numpy as np
import pytest

from scalesearch.data import ImageSplit
from scalesearch.data.boxes import ImageBoxes, boxes_at
from scalesearch.data.source import SourceData
from scalesearch.data.split import (
    Splits,
    missing_classes,
    require_classes,
    split_source,
    stratified,
    with_labelled_test,
)
from scalesearch.data.targets import Labels
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings


def make_part(sizes: tuple[int, ...], start: int = 0) -> ImageSplit:
    """Images that carry their own number, so that a split can be followed."""
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    numbers = np.arange(start, start + len(labels))
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = numbers % 256, numbers // 256
    return ImageSplit(images=images, targets=Labels(labels))


def make_source(
    sizes: tuple[int, ...], val: tuple[int, ...] | None = None, test: tuple[int, ...] | None = None
) -> SourceData:
    return SourceData(
        name="made",
        class_names=tuple("abcdefgh"[: len(sizes)]),
        train=make_part(sizes),
        val=make_part(val, 1000) if val else None,
        test=make_part(test, 2000) if test else None,
    )


def numbers(split: ImageSplit) -> list[int]:
    return [int(image[0, 0, 0]) + 256 * int(image[0, 0, 1]) for image in split.images[:]]


def counts(split: ImageSplit, classes: int) -> list[int]:
    return [int((np.asarray(split.targets) == index).sum()) for index in range(classes)]


def everything(splits: Splits) -> list[int]:
    return sorted(number for split in splits for number in numbers(split))


def test_the_sources_own_splits_stay_and_only_calibration_leaves_train() -> None:
    source = make_source((60, 30), val=(5, 5), test=(4, 6))
    train, val, calibration, test = split_source(source, DataSettings(calibration_images=9))
    assert numbers(val) == list(range(1000, 1010))
    assert numbers(test) == list(range(2000, 2010))
    assert counts(calibration, 2) == [6, 3]
    assert sorted(numbers(train) + numbers(calibration)) == list(range(90))


def test_calibration_is_at_most_a_third_of_train() -> None:
    _, _, calibration, _ = split_source(make_source((60, 30), val=(5, 5), test=(4, 6)), DataSettings())
    assert len(calibration) == 30


def test_calibration_is_shuffled_so_that_its_first_part_is_a_sample() -> None:
    _, _, calibration, _ = split_source(make_source((600, 600), val=(5, 5), test=(4, 6)), DataSettings())
    assert 20 <= np.asarray(calibration.targets)[:64].sum() <= 44


def test_val_fraction_pools_train_and_val_and_keeps_test() -> None:
    source = make_source((60, 40), val=(20, 0), test=(4, 6))
    splits = split_source(source, DataSettings(val_fraction=0.25, calibration_images=8))
    train, val, _, test = splits
    assert counts(val, 2) == [20, 10]  # a quarter of 80 and 40
    assert numbers(test) == list(range(2000, 2010))
    assert everything(splits) == sorted([*range(100), *range(1000, 1020), *range(2000, 2010)])
    assert len(train) == 120 - 30 - 8


def test_without_test_images_they_are_drawn_from_train_and_val_stays() -> None:
    source = make_source((50, 50), val=(5, 5))
    splits = split_source(source, DataSettings(test_fraction=0.2, calibration_images=10))
    assert counts(splits[3], 2) == [10, 10]
    assert numbers(splits[1]) == list(range(1000, 1010))
    assert everything(splits) == [*range(100), *range(1000, 1010)]


def test_a_source_without_any_split_is_divided_in_three() -> None:
    train, val, calibration, test = split_source(make_source((50, 50)), DataSettings(calibration_images=10))
    assert (len(train), len(val), len(calibration), len(test)) == (50, 20, 10, 20)


def test_equal_seeds_split_alike_and_other_seeds_do_not() -> None:
    source, settings = make_source((50, 50)), DataSettings(calibration_images=10)
    first, again, other = (split_source(source, replace(settings, seed=seed)) for seed in (3, 3, 4))
    assert [numbers(split) for split in first] == [numbers(split) for split in again]
    assert numbers(first[1]) != numbers(other[1])


def test_more_calibration_images_leave_val_and_test_as_they_were() -> None:
    source = make_source((50, 50))
    few, many = (split_source(source, DataSettings(calibration_images=count)) for count in (4, 16))
    assert numbers(few[1]) == numbers(many[1])
    assert numbers(few[3]) == numbers(many[3])


@pytest.mark.parametrize("sizes", [(7, 7, 7), (100, 10, 1), (3, 2, 90), (33, 33, 34)])
@pytest.mark.parametrize("count", [1, 5, 20])
def test_stratified_shares_differ_from_exact_ones_by_less_than_one(sizes: tuple[int, ...], count: int) -> None:
    labels = np.asarray(make_part(sizes).targets)
    count = min(count, sum(sizes) // 2)
    drawn = stratified(labels, count, rng=np.random.default_rng(0), every_class=False)
    taken = np.bincount(labels[drawn], minlength=len(sizes))
    assert (np.abs(taken - count * np.asarray(sizes) / sum(sizes)) < 1).all()
    assert (taken < np.asarray(sizes)).all()


def test_small_classes_are_in_both_parts_and_single_images_stay_in_train() -> None:
    train, val, _, test = split_source(make_source((200, 3, 1)), DataSettings(calibration_images=5))
    assert counts(train, 3)[1:] == [1, 1]
    assert counts(val, 3)[1:] == [1, 0]
    assert counts(test, 3)[1:] == [1, 0]
    assert missing_classes(("a", "b", "c"), val) == ("c",)


def test_a_class_without_train_images_is_an_error() -> None:
    source = replace(make_source((20, 20), val=(3, 3), test=(3, 3)), class_names=("a", "b", "ghost"))
    with pytest.raises(ConfigError, match="came none of 1 classes: ghost"):
        split_source(source, DataSettings())


def boxed(*classes: int) -> ImageSplit:
    """Images with one box each; -1: with an ignored one of class 0."""
    size = InputSize.square(8)
    held = [
        ImageBoxes(
            boxes=np.asarray([[0, 0, 4, 4]], np.float32),
            classes=np.asarray([max(label, 0)]),
            ignored=np.asarray([label < 0]),
        )
        for label in classes
    ]
    targets = boxes_at(held, np.full((len(held), 2), 8), size, "stretch")
    return ImageSplit(images=np.zeros((len(held), 8, 8, 3), np.uint8), targets=targets)


def test_images_with_boxes_may_lack_some_of_the_classes_but_not_all() -> None:
    data = SourceData(name="made", class_names=("cat", "thing", "dog"), train=boxed(*[0] * 6, *[2] * 6, -1))
    splits = split_source(data, DataSettings(calibration_images=2))
    assert missing_classes(data.class_names, splits[0]) == ("thing",)
    nothing = SourceData(name="made", class_names=("cat", "dog"), train=boxed(*[-1] * 12))
    with pytest.raises(ConfigError, match="came none of 2 classes: cat, dog"):
        split_source(nothing, DataSettings(calibration_images=2))


def test_validation_images_without_any_box_are_an_error() -> None:
    data = SourceData(name="made", class_names=("cat", "dog"), train=boxed(*[0] * 6, *[1] * 6), val=boxed(-1, -1))
    with pytest.raises(
        ConfigError, match=r"boxes or labelled pixels to score on, came none in the 2 images of val\.\n"
    ) as caught:
        split_source(data, DataSettings(calibration_images=2))
    assert len(str(caught.value).splitlines()) <= 3
    _, val, _, _ = split_source(replace(data, val=boxed(-1, 1)), DataSettings(calibration_images=2))
    assert len(val) == 2


def test_test_images_without_any_box_are_left_out_and_drawn_from_the_others() -> None:
    data = SourceData(
        name="made",
        class_names=("cat", "dog"),
        train=boxed(*[0] * 10, *[1] * 10),
        val=boxed(0, 1),
        test=boxed(-1, -1, -1),
    )
    with pytest.raises(ConfigError, match="came none in the 3 images of test"):
        split_source(data, DataSettings(calibration_images=2))
    labelled = with_labelled_test(data)
    (told,) = labelled.warnings
    assert told.startswith("data made: none of its 3 test images is labelled, so they are left out and test images are")
    _, val, _, test = split_source(labelled, DataSettings(calibration_images=2, test_fraction=0.2))
    assert len(val) == 2
    assert test.targets.class_counts(2).tolist() == [2, 2]
    for kept in (replace(data, test=boxed(-1, 0)), make_source((20, 20), test=(4, 6))):
        assert with_labelled_test(kept) is kept


def test_one_class_is_an_error() -> None:
    with pytest.raises(ConfigError, match="expected at least two classes, came 1"):
        require_classes(make_source((20,)), 2)
    require_classes(make_source((20,)), 1)


@pytest.mark.parametrize(
    ("classes", "came"),
    [((2, 2), "1 beside 3"), ((3, 2), "1 beside 4"), ((1, 1, 1, 1, 3), "1 beside 6")],
    ids=str,
)
def test_one_calibration_image_is_an_error(classes: tuple[int, ...], came: str) -> None:
    """Of four and five images a third is one; of seven of five classes only one class can spare any."""
    source = make_source(classes, val=(1,) * len(classes), test=(1,) * len(classes))
    with pytest.raises(ConfigError, match=f"at least 2 calibration images, came {came} training images"):
        split_source(source, DataSettings())


def test_two_calibration_images_are_enough() -> None:
    _, _, calibration, _ = split_source(make_source((3, 3), val=(1, 1), test=(1, 1)), DataSettings())
    assert len(calibration) == 2


def test_too_few_images_for_four_splits_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"expected images in every split, came none in calibration \(train 2"):
        split_source(make_source((1, 1), val=(1, 1), test=(1, 1)), DataSettings())
