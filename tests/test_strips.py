"""Long pictures whose class only the whole shows: a crop loses it; stretched, padded or as rectangles it is seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalesearch.data import LABEL_SOURCES, load_dataset
from scalesearch.data.mapped import planes
from scalesearch.networks import base_spec, scale
from scalesearch.tasks.classification.pieces import build, score, train
from scalesearch.values.candidate import Recipe, Scaling
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings, Fit, Machine

HEIGHT, WIDTH = 32, 160
MACHINE = Machine(device="cpu", threads=1, bf16=False, channels_last=True)
RECIPE = Recipe(steps=90, warmup_steps=20, batch_size=32, label_smoothing=0.0, dropout=0.0, shift_fraction=0.0)


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strips with a mark at each end, red or blue; the class is how many are red, which neither end tells alone."""
    root, random = tmp_path_factory.mktemp("strips") / "strips", np.random.default_rng(0)
    for red, name in enumerate(("none", "one", "both")):
        for place in range(60):
            pixels = random.integers(90, 170, (HEIGHT, WIDTH, 3))
            ends = [True] * red + [False] * (2 - red)
            for is_red, left in zip(random.permutation(ends), (2, WIDTH - 26), strict=True):
                pixels[4:28, left : left + 24] = (220, 30, 40) if is_red else (40, 30, 220)
            folder = root / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{place:02}.png")
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fit", "size", "seen"),
    [
        ("crop", InputSize.square(32), False),  # the middle fifth, without either mark
        pytest.param("stretch", InputSize.square(32), True, marks=pytest.mark.slow),
        pytest.param("pad", InputSize.square(40), True, marks=pytest.mark.slow),
        ("crop", InputSize(height_px=16, width_px=80), True),  # of the strip's own shape
    ],
)
def test_the_right_fit_shows_the_class(fit: Fit, size: InputSize, seen: bool, strips: Path) -> None:
    asked = DataSettings(source=str(strips), fit=fit, val_fraction=0.3, calibration_images=6)
    data = load_dataset(asked, LABEL_SOURCES, storage_px=size, cache_folder=strips.parent / "cache")
    assert any("centre crop keeps 20 %" in text for text in data.warnings) == (not seen)
    spec = scale(base_spec("resnet_small"), Scaling(width=0.5), resolution_px=size, num_classes=3)
    assert spec.input_size == size
    network = build(replace(spec, name="strips"), seed=0)
    how = {"mean": data.mean, "std": data.std}
    trained = train(
        network, planes(data.train.images), data.train.targets.tensor(), RECIPE, MACHINE, seed=0, **how
    ).network
    accuracy = score(trained, planes(data.val.images), data.val.targets.tensor(), MACHINE, **how)  # type: ignore[arg-type]
    assert (accuracy > 0.9) if seen else (accuracy < 0.6)  # a third by chance
