"""Make train, validation, calibration and test from what a source gives: stratified, seeded and checked."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scalesearch.data import facts
from scalesearch.data.dataset import ImageSplit
from scalesearch.data.groups import drawn_groups, groups_of
from scalesearch.data.mapped import MappedImages
from scalesearch.data.normalisation import Images
from scalesearch.data.source import SourceData
from scalesearch.data.targets import Labels
from scalesearch.errors import ConfigError
from scalesearch.values.settings import LEAST_CALIBRATION_IMAGES, DataSettings

# Share taken for validation if the source has no validation images and the settings give no fraction.
DEFAULT_VAL_FRACTION = 0.2
# Calibration images are taken from the training images, never more than this share of them.
MAX_CALIBRATION_FRACTION = 1 / 3

Splits = tuple[ImageSplit, ImageSplit, ImageSplit, ImageSplit]
# Each draw has its own random stream, so that changing one split leaves the others as they were.
_TEST_STREAM, _VAL_STREAM, _CALIBRATION_STREAM = 1, 2, 3


def stratified(
    labels: NDArray[np.int64], count: int, *, rng: np.random.Generator, every_class: bool
) -> NDArray[np.bool_]:
    """Draw about `count` images so that every class has its proportional share (method of largest remainders).

    At least one image of every class is left undrawn. With `every_class`, at least one image is drawn from each class
    that has two or more.

    Args:
        labels: Class indices of shape (number,).
        count: How many images to draw.
        rng: The source of randomness.
        every_class: Whether to draw from every class.

    Returns:
        A mask of shape (number,), True for the drawn images.
    """
    sizes = np.bincount(labels)
    shares = count * sizes / max(len(labels), 1)
    takes = np.floor(shares).astype(np.int64)
    largest = np.argsort(takes - shares, kind="stable")
    takes[largest[: count - int(takes.sum())]] += 1
    if every_class:
        takes = np.maximum(takes, 1)
    takes = np.minimum(takes, np.maximum(sizes - 1, 0))
    drawn = np.zeros(len(labels), np.bool_)
    for index, take in enumerate(takes):
        drawn[rng.permutation(np.flatnonzero(labels == index))[:take]] = True
    return drawn


def require_classes(data: SourceData, least: int) -> None:
    """Raise ConfigError if the data set has fewer classes than it may have.

    Args:
        data: The data set.
        least: The fewest classes that it may have (`Source.least_classes`).
    """
    if len(data.class_names) < least:
        came = f"{len(data.class_names)}: {data.class_names}"
        msg = f"data {data.name!r}: expected at least {'two' if least == 2 else least} classes, came {came}."
        raise ConfigError(msg)


def split_source(data: SourceData, settings: DataSettings) -> Splits:
    """Split the source into train, val, calibration and test.

    If `val_fraction` is above 0, train and val are pooled and split again. If the source has no test images of its own,
    `test_fraction` of the pooled images (of train, if the source's own val is kept) becomes test. Both fractions refer
    to the number of images before any were taken out. With `group_by`, whole groups are drawn for val and test;
    calibration images, which are never scored, are drawn one by one.

    Raises:
        ConfigError: If a split is empty, or there is only one calibration image; or there is nothing to train on: of
            any class of labelled images, or of all classes of images with boxes or masks; or if no image of val or test
            has a box or a labelled pixel, so that there is nothing to score on.
    """
    train, val, test = data.train, data.val, data.test
    val_fraction = settings.val_fraction or (0.0 if val is not None else DEFAULT_VAL_FRACTION)
    if val_fraction and val is not None:
        train, val = _joined(train, val), None
    total = len(train)
    if test is None:
        count, rng = round(settings.test_fraction * total), np.random.default_rng((settings.seed, _TEST_STREAM))
        test, train = _draw(train, count, rng=rng, group_by=settings.group_by, where=f"data {data.name}")
    if val is None:
        count, rng = round(val_fraction * total), np.random.default_rng((settings.seed, _VAL_STREAM))
        val, train = _draw(train, count, rng=rng, group_by=settings.group_by, where=f"data {data.name}")
    calibration, train = _draw_calibration(train, settings)
    _check(data, train=train, val=val, calibration=calibration, test=test)
    return train, val, calibration, test


def missing_classes(data_classes: tuple[str, ...], split: ImageSplit) -> tuple[str, ...]:
    """Return the names of the classes of which this split has no image."""
    present = split.targets.class_counts(len(data_classes))
    return tuple(name for name, count in zip(data_classes, present, strict=True) if count == 0)


def needs_every_class(train: ImageSplit) -> bool:
    """Tell whether a class without a training image is an error: of images that are one class each, not of parts."""
    return isinstance(train.targets, Labels)


def with_labelled_test(data: SourceData) -> SourceData:
    """Return the data set without its test images if none of them has a box or a labelled pixel, with a warning.

    Nothing could be scored on them: test sets are often handed on without their labels. `split_source` then draws test
    images from the others.
    """
    if data.test is None or not _nothing_to_score(data, data.test):
        return data
    warning = (
        f"data {data.name}: none of its {len(data.test)} test images is labelled, so they are left out and test images "
        "are drawn from the others (data.test_fraction)"
    )
    return replace(data, test=None, warnings=(*data.warnings, warning))


def _nothing_to_score(data: SourceData, split: ImageSplit) -> bool:
    """Tell whether these are images without any box or labelled pixel; False for labels, and for no images at all."""
    if not data.class_names or not len(split) or isinstance(split.targets, Labels):
        return False
    return not split.targets.class_counts(len(data.class_names)).any()


def _joined(first: ImageSplit, second: ImageSplit) -> ImageSplit:
    return ImageSplit(
        images=_concatenated(first.images, second.images),
        targets=first.targets.joined(second.targets),
        facts=facts.joined((first.facts, second.facts)) if first.facts and second.facts else None,
        names=None if first.names is None or second.names is None else np.concatenate([first.names, second.names]),
    )


def _concatenated(first: Images | MappedImages, second: Images | MappedImages) -> Images | MappedImages:
    if isinstance(first, MappedImages) and isinstance(second, MappedImages):
        return first.joined(second)
    return np.concatenate([first[:], second[:]])


def _part(split: ImageSplit, where: NDArray[np.bool_] | NDArray[np.int64]) -> ImageSplit:
    part = split.facts.part(where) if split.facts else None
    images = split.images.part(where) if isinstance(split.images, MappedImages) else split.images[where]
    names = None if split.names is None else split.names[where]
    return ImageSplit(images=images, targets=split.targets[where], facts=part, names=names)


def _drawn(pool: ImageSplit, count: int, *, rng: np.random.Generator, every_class: bool) -> NDArray[np.bool_]:
    """Draw about `count` images, stratified if the targets have strata, and return a mask of shape (number,)."""
    strata = pool.targets.strata()
    one = np.zeros(len(pool), np.int64)  # one stratum: plain chance
    return stratified(one if strata is None else strata, count, rng=rng, every_class=every_class)


def _draw(
    pool: ImageSplit, count: int, *, rng: np.random.Generator, group_by: str, where: str
) -> tuple[ImageSplit, ImageSplit]:
    if group_by:
        names = [] if pool.names is None else pool.names.tolist()
        drawn = drawn_groups(groups_of(names, group_by, where=where), pool.targets.strata(), count, rng=rng)
    else:
        drawn = _drawn(pool, count, rng=rng, every_class=True)
    return _part(pool, drawn), _part(pool, ~drawn)


def _draw_calibration(train: ImageSplit, settings: DataSettings) -> tuple[ImageSplit, ImageSplit]:
    count = min(settings.calibration_images, int(MAX_CALIBRATION_FRACTION * len(train)))
    rng = np.random.default_rng((settings.seed, _CALIBRATION_STREAM))
    drawn = _drawn(train, count, rng=rng, every_class=False)
    # Shuffled because the quantizer may take only the first few, and the files of a folder are ordered by class.
    return _part(train, rng.permutation(np.flatnonzero(drawn))), _part(train, ~drawn)


def _check(data: SourceData, **splits: ImageSplit) -> None:
    untrained = missing_classes(data.class_names, splits["train"])
    if untrained and (len(untrained) == len(data.class_names) or needs_every_class(splits["train"])):
        msg = (
            f"data {data.name!r}: expected images of every class to train on, came none of {len(untrained)} classes: "
            f"{', '.join(untrained[:5])}.\nAdd images to them, or take the classes away."
        )
        raise ConfigError(msg)
    for name, split in splits.items():
        if len(split) == 0:
            sizes = ", ".join(f"{other} {len(part)}" for other, part in splits.items())
            msg = f"data {data.name!r}: expected images in every split, came none in {name} ({sizes}).\nAdd images."
            raise ConfigError(msg)
    if len(splits["calibration"]) < LEAST_CALIBRATION_IMAGES:
        msg = (
            f"data {data.name!r}: expected at least {LEAST_CALIBRATION_IMAGES} calibration images, came 1 beside "
            f"{len(splits['train'])} training images.\n"
            "They are drawn from those: at most a third of them, and never the last one of a class. Add images."
        )
        raise ConfigError(msg)
    for name in ("val", "test"):
        if _nothing_to_score(data, splits[name]):
            msg = (
                f"data {data.name!r}: expected boxes or labelled pixels to score on, came none in the "
                f"{len(splits[name])} images of {name}.\n"
                f"Label them, or take them away: {name} is then drawn from train. If it was drawn, label more images."
            )
            raise ConfigError(msg)


def drawn_validation(data: SourceData, val_fraction: float) -> tuple[str, ...]:
    """Warn that validation images are taken from train, if the source brought other splits but none for validation."""
    if not (data.divided or data.test is not None) or data.val is not None or val_fraction:
        return ()
    share = f"{100 * DEFAULT_VAL_FRACTION:g} %"
    how = "at random" if data.train.targets.strata() is None else "by class"
    return (
        f"data {data.name}: has no validation images, so {share} of train, drawn {how}, are taken (data.val_fraction)",
    )
