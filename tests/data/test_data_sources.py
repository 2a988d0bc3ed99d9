"""What holds for every kind of source, and how a source is found."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalesearch.data import (
    LABEL_SOURCES,
    find_source,
    load_dataset,
    refuse_ambiguous_source,
    signs,
    torchvision_sets,
)
from scalesearch.data.source import Source
from scalesearch.errors import ConfigError
from scalesearch.values.settings import DataSettings

Maker = Callable[[Path, pytest.MonkeyPatch], str]


def make_signs(_: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(signs, "SPLIT_SIZES", (("train", 80), ("val", 20), ("test", 20)))
    return "signs"


def make_folder(root: Path, _: pytest.MonkeyPatch) -> str:
    rng = np.random.default_rng(0)
    for index in range(40):
        folder = root / "tree" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / f"{index}.png")
    return str(root / "tree")


def make_npz(root: Path, _: pytest.MonkeyPatch) -> str:
    images = np.random.default_rng(0).integers(0, 256, (40, 20, 30, 3), np.uint8)
    np.savez(root / "set.npz", images=images, labels=np.arange(40) % 2)
    return str(root / "set.npz")


def make_torchvision(_: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    rng = np.random.default_rng(0)

    class Fake:
        """Pairs of image and label, as torchvision's sets give them."""

        classes = ("no", "yes")

        def __init__(self, root: str, *, train: bool, download: bool) -> None:
            self._images = rng.integers(0, 256, (40 if train else 10, 20, 30), np.uint8)

        def __len__(self) -> int:
            return len(self._images)

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return Image.fromarray(self._images[index]), index % 2

    monkeypatch.setattr(pytest.importorskip("torchvision").datasets, "MNIST", Fake)
    return "mnist"


# A kind of source without a line here fails the suite.
MAKERS: dict[str, Maker] = {
    "synthetic": make_signs,
    "torchvision": make_torchvision,
    "folder": make_folder,
    "npz": make_npz,
}


@pytest.mark.parametrize("source", LABEL_SOURCES, ids=lambda source: source.kind)
def test_every_source_gives_the_same_kind_of_data(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = MAKERS[source.kind](tmp_path, monkeypatch)
    assert find_source(name, LABEL_SOURCES) is source
    settings = DataSettings(source=name, calibration_images=6)
    data, again = (
        load_dataset(settings, LABEL_SOURCES, storage_px=16, cache_folder=tmp_path / "cache") for _ in range(2)
    )
    assert data.fingerprint == again.fingerprint
    assert data.resolution_px == 16
    classes = len(data.class_names)
    for split in (data.train, data.val, data.calibration, data.test):
        assert split.images.dtype == np.uint8
        assert split.images.shape == (len(split), 16, 16, 3)
        assert split.images[:].flags.writeable  # torch warns of those that are not
        assert np.asarray(split.targets).dtype == np.int64
        assert np.asarray(split.targets).shape == (len(split),)
        assert len(split) > 0
        assert 0 <= np.asarray(split.targets).min() <= np.asarray(split.targets).max() < classes
        assert split.images[:].std() > 10
    assert set(np.asarray(data.train.targets).tolist()) == set(range(classes))
    assert len(data.calibration) == 6
    assert data.at(8).train.images.shape == (len(data.train), 8, 8, 3)


def test_names_are_taken_once_and_found_in_any_spelling() -> None:
    names = [name for source in LABEL_SOURCES for name in source.names]
    assert len(names) == len(set(names))
    assert find_source("Fashion_MNIST", LABEL_SOURCES) is torchvision_sets.SOURCE


@pytest.mark.parametrize(("source", "here"), [("signs", "signs"), ("GTSRB", "GTSRB"), ("cifar-10", "cifar-10")])
def test_a_built_in_name_that_is_also_here_is_asked_about(
    source: str, here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refuse_ambiguous_source(source, LABEL_SOURCES)
    (tmp_path / here).mkdir()
    name = source.lower().replace("cifar-10", "cifar10")
    if name != source.lower():
        refuse_ambiguous_source(source, LABEL_SOURCES)  # no name of ours
        return
    with pytest.raises(
        ConfigError, match=rf"For the one here: --data \./{here}; for the built-in set: .*builtin:{name}"
    ):
        refuse_ambiguous_source(source, LABEL_SOURCES)
    refuse_ambiguous_source(f"./{here}", LABEL_SOURCES)
    refuse_ambiguous_source(f"builtin:{name}", LABEL_SOURCES)
    assert find_source(f"./{here}", LABEL_SOURCES).kind == "folder"
    assert find_source(f"builtin:{name}", LABEL_SOURCES).kind in ("synthetic", "torchvision")
    assert find_source(source, LABEL_SOURCES).kind in ("synthetic", "torchvision")  # as stored studies mean it


def test_a_folder_in_another_spelling_and_an_archive_are_asked_about_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Fashion_MNIST").mkdir()
    (tmp_path / "signs.npz").write_bytes(b"")
    (tmp_path / "gtsrb").write_text("a note")  # no data set
    with pytest.raises(
        ConfigError, match=r"--data \./Fashion_MNIST; for the built-in set: --data builtin:fashion-mnist"
    ):
        refuse_ambiguous_source("fashion-mnist", LABEL_SOURCES)
    with pytest.raises(ConfigError, match=r"--data \./signs\.npz; .*builtin:signs"):
        refuse_ambiguous_source("signs", LABEL_SOURCES)
    refuse_ambiguous_source("gtsrb", LABEL_SOURCES)


def test_a_folder_hidden_by_the_default_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_signs(tmp_path, monkeypatch)

    def told(source: str) -> list[str]:
        settings = DataSettings(source=source, calibration_images=6)
        texts = load_dataset(settings, LABEL_SOURCES, storage_px=16, cache_folder=tmp_path / "cache").warnings
        return [text for text in texts if "not ./signs here (--data ./signs)" in text]

    assert not told("signs")
    (tmp_path / "signs").mkdir()
    assert told("signs") and not told("builtin:signs")


@pytest.mark.parametrize("test", [True, False], ids=["train and test", "train alone"])
@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_validation_drawn_from_train_is_said(kind: str, test: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = {"train": 60, **({"test": 20} if test else {})}
    arrays = {split: rng.integers(0, 256, (count, 8, 8, 3), np.uint8) for split, count in parts.items()}
    path = tmp_path / ("set.npz" if kind == "npz" else "set")
    if kind == "npz":
        labels = {f"{split}_labels": np.arange(count) % 2 for split, count in parts.items()}
        np.savez(path, **{f"{split}_images": array for split, array in arrays.items()}, **labels)  # type: ignore[arg-type]
    else:
        for split, array in arrays.items():
            for index, image in enumerate(array):
                (path / split / "xy"[index % 2]).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path / split / "xy"[index % 2] / f"{index}.png")

    def load(**settings: float) -> tuple[int, bool]:
        chosen = DataSettings(source=str(path), calibration_images=6, **settings)  # type: ignore[arg-type]
        data = load_dataset(chosen, LABEL_SOURCES, storage_px=8, cache_folder=tmp_path / "cache")
        return len(data.val), any("no validation images, so 20 % of train" in text for text in data.warnings)

    assert load() == (12, True)
    assert load(val_fraction=0.5) == (30, False)


def test_builtin_stands_before_names_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a folder"):
        find_source(f"builtin:{tmp_path}", LABEL_SOURCES)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cifar", r"came 'cifar'; did you mean cifar10\?\nKnown names: signs, cifar10, cifar100"),
        ("zebra", r"came 'zebra'\nKnown names"),
        ("no/such/folder", r"came 'no/such/folder', where there is nothing"),
        ("missing.npz", r"came 'missing.npz', where there is nothing"),
        ("", r"expected a folder, an .npz file or a known name"),
    ],
)
def test_unknown_sources_are_named(source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as caught:
        find_source(source, LABEL_SOURCES)
    assert str(caught.value).count("\n") == 2


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_text("")
    with pytest.raises(ConfigError, match=r"came the file .*photos.zip, which is of no kind that is read"):
        find_source(str(tmp_path / "photos.zip"), LABEL_SOURCES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DataSettings(val_fraction=1.0), r"data.val_fraction: expected 0, or a fraction below 1, came 1.0"),
        (DataSettings(val_fraction=-0.1), r"data.val_fraction: .* came -0.1"),
        (DataSettings(test_fraction=0.0), r"data.test_fraction: expected a fraction above 0 and below 1, came 0.0"),
        (DataSettings(val_fraction=0.6, test_fraction=0.4), r"data.test_fraction: expected below 1 together with"),
        (DataSettings(calibration_images=1), r"data.calibration_images: expected at least 2, came 1"),
        (DataSettings(max_skipped_fraction=2), r"data.max_skipped_fraction: expected a fraction from 0 to 1, came 2"),
        (DataSettings(seed=-1), r"data.seed: expected 0 or more, came -1"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: DataSettings, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_dataset(settings, LABEL_SOURCES, storage_px=16, cache_folder=tmp_path)
