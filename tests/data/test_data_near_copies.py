"""Near copies between splits: pictures that were saved again are found, other pictures are not."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from scalesearch.data import near_copies
from scalesearch.data.dataset import ImageSplit
from scalesearch.data.facts import ImageFacts
from scalesearch.data.near_copies import near_copy_warnings
from scalesearch.data.targets import Labels


def pictures(number: int, *, seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (number, 48, 64, 3), dtype=np.uint8)
    smooth = [Image.fromarray(each).filter(ImageFilter.GaussianBlur(6)) for each in noise]
    spread = [np.asarray(each, np.float64) for each in smooth]
    return np.stack([np.clip(128 + 40 * (each - each.mean()) / each.std(), 0, 255).astype(np.uint8) for each in spread])


def split(images: NDArray[np.uint8], names: list[str] | None = None) -> ImageSplit:
    labels = Labels(np.zeros(len(images), np.int64))
    return ImageSplit(images=images, targets=labels, names=None if names is None else np.asarray(names))


def saved_again(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    held = io.BytesIO()
    cut = Image.fromarray(image).crop((1, 1, 63, 47)).resize((64, 48))
    dark = (0.8 * np.asarray(cut)).astype(np.uint8)
    Image.fromarray(dark).save(held, "JPEG", quality=50)
    return np.asarray(Image.open(held))


def test_pictures_that_were_saved_again_are_counted_with_two_examples() -> None:
    train, val = pictures(40, seed=0), pictures(20, seed=1)
    val[3], val[5], val[8] = (saved_again(train[place]) for place in (7, 9, 11))
    names = [f"val/{place}.png" for place in range(20)]
    parts = (split(train[:9]), split(train[9:]))  # to train on, and to calibrate on
    (warning,) = near_copy_warnings({"train": parts, "val": (split(val, names),)}, name="x", fit="crop")
    assert warning.startswith(
        "data x: 3 of 20 images of val look like images of train, e.g. val/3.png like image 7 of "
    )
    assert "val/5.png like image 9 of train" in warning
    assert "val/8.png" not in warning
    assert "data.group_by" in warning


def test_where_only_some_are_compared_the_count_is_of_those(monkeypatch: pytest.MonkeyPatch) -> None:
    same = split(pictures(10, seed=0))
    monkeypatch.setattr(near_copies, "_MOST_PAIRS", 40)  # 4 of the second with each of 10
    (found,) = near_copy_warnings({"train": (same,), "val": (same,)}, name="x", fit="crop")
    assert found.startswith("data x: 4 of the 4 images of val that were compared look like images of train, e.g. ")
    monkeypatch.setattr(near_copies, "_MOST_PAIRS", 100)
    (found,) = near_copy_warnings({"train": (same,), "val": (same,)}, name="x", fit="crop")
    assert found.startswith("data x: 10 of 10 images of val look like images of train, e.g. ")


def test_other_pictures_and_flat_ones_are_not() -> None:
    flat = np.full((5, 48, 64, 3), 90, np.uint8)
    train = np.concatenate([pictures(60, seed=0), flat])
    test = np.concatenate([pictures(60, seed=2), flat])
    assert not near_copy_warnings({"train": (split(train),), "test": (split(test),)}, name="x", fit="crop")


def padded(images: NDArray[np.uint8]) -> ImageSplit:
    """Pictures of 160 x 32 pixels in squares of 160, with the grey bars of `fit = "pad"`."""
    whole = np.full((len(images), 160, 160, 3), 114, np.uint8)
    whole[:, 64:96] = images
    sizes = np.tile(np.asarray([[160, 32]], np.int32), (len(images), 1))
    facts = ImageFacts(sizes=sizes, kinds=np.zeros(len(images), np.uint8), samples=np.zeros((len(images), 0)))
    return ImageSplit(images=whole, targets=Labels(np.zeros(len(images), np.int64)), facts=facts)


def strips(number: int, *, seed: int, spread: float = 1.0) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).normal(200, 25 * spread, (number, 4, 20, 1))
    return np.clip(np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2), 0, 255).astype(np.uint8).repeat(3, axis=3)


def test_of_padded_pictures_the_bars_are_not_compared() -> None:
    train, val = strips(40, seed=0), strips(20, seed=1)
    val[4] = train[11]
    (warning,) = near_copy_warnings({"train": (padded(train),), "val": (padded(val),)}, name="x", fit="pad")
    assert "1 of 20 images of val look like images of train, e.g. image 4 of val like image 11 of train" in warning
    dark = [padded(strips(20, seed=seed, spread=0.05)) for seed in (2, 3)]
    assert not near_copy_warnings({"train": (dark[0],), "val": (dark[1],)}, name="x", fit="pad"), "of one colour"


def test_parts_of_one_split_are_not_compared_and_later_splits_are() -> None:
    same, other = split(pictures(10, seed=0)), split(pictures(10, seed=3))
    assert not near_copy_warnings({"train": (same, same), "val": (other,)}, name="x", fit="crop")
    (found,) = near_copy_warnings({"train": (other,), "val": (same,), "test": (same,)}, name="x", fit="crop")
    assert "10 of 10 images of test look like images of val" in found
