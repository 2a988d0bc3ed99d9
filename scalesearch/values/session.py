"""A prepared run: everything that the coordinator and every worker must agree on."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scalesearch.files import named
from scalesearch.values.network_spec import InputSize, NetworkSpec
from scalesearch.values.parent import Parent
from scalesearch.values.settings import (
    BUILTIN,
    Machine,
    RunSettings,
    SamplerName,
    sampler_after,
    source_name,
)
from scalesearch.values.space import SearchSpace
from scalesearch.values.target import Device, Target

_DRAWN = {"signs": "road signs", "streets": "street scenes"}
"""What the built-in sources draw, by their names."""
EARLIER_READING: Final = "(earlier versions:"
"""Begins the part of a warning about data that tells how earlier versions read the same files. Where images of a study
differ from what they were, that is why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """What was found out about the data set."""

    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Mean of each channel: red, green and blue, or grey alone."""
    std: tuple[float, ...]
    train_images: int
    val_images: int
    calibration_images: int
    test_images: int
    val_standard_error_points: float | None = None
    """Standard error of a validation accuracy of 60 %, in percentage points; None for any other score, whose error is
    known only once its metric gives an interval (`Quality.score_low`, `score_high`)."""
    warnings: tuple[str, ...]


def model_path(folder: Path, trial: int) -> Path:
    """Return the path of a trial's deployed ONNX file in a study's folder. It is kept for members of the front only."""
    return folder / "models" / f"trial_{trial:06d}.onnx"


def trial_of_model(path: Path) -> int | None:
    """Return the trial that a file in `models/` belongs to, judged by its name; None for any other file.

    Files that the trial's evaluation makes on the way and removes, like `.fp32.onnx` and `.untrained.onnx`, belong to
    the trial too.
    """
    match = re.fullmatch(
        r"trial_(\d{6,})(?:\.untrained)?(?:\.(?:fp32|dense|tensorrt|ranked))?\.onnx", path.name, re.ASCII
    )
    return int(match[1]) if match else None


def reference_path(folder: Path) -> Path:
    """Return the path of the reference engine's ONNX file in a study's folder."""
    return folder / "reference.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Settings, search space and base network, and everything about this machine that was found out once."""

    folder: Path
    """The study's folder."""
    settings: RunSettings
    space: SearchSpace
    base: NetworkSpec
    target: Target
    machine: Machine
    device: Device
    data: DataSummary
    storage_px: int
    """Height of the stored images in pixels: the largest that the space can ask for."""
    reference_calm_ms: float
    """Calm latency of the reference engine in milliseconds. Every latency of the study is expressed in this unit."""
    reference_sha256: str = ""
    """SHA-256 of `reference.onnx`; empty in the session of a study that was made before this was stored."""
    run_folder: str = ""
    """The working folder that relative paths in the settings start from; empty in a study that was made before this was
    stored."""
    samplers: tuple[SamplerName, ...] | None = None
    """The samplers of all runs, each once; empty where the first candidates were given by hand (`scalesearch.evaluate`)
    or no search has begun, None in the session of a study that was made before this was stored."""
    storage_width_px: int = 0
    """Width of the stored images in pixels; 0 means that they are square."""
    parent: Parent | None = None
    """The trained network that all candidates inherit from; None if they begin with random weights."""
    code_sha256: str = ""
    """SHA-256 of what is known of the code of a user's own module (`networks.own_module.code_sha256`); empty for all
    other networks, and in a study that was made before this was stored."""
    code_read_by: str = ""
    """Python and torch by which that code was read: other versions may show the same code otherwise."""
    sampler_gives_way: bool = False
    """Whether `auto` chose the sampler, so that `QUICK_SAMPLER` goes on beyond `MANY_TRIALS`. False in a study that was
    made before this was stored: it goes on with its own sampler."""

    def may_have_code(self, sha256: str, *, read_by: str) -> bool:
        """Tell whether a module's code can be that of this session: equal, or not to be compared."""
        comparable = self.code_sha256 and sha256 and self.code_read_by.partition("+")[0] == read_by
        return not comparable or self.code_sha256 == sha256

    def sampler_after(self, trials: int) -> SamplerName:
        """Return the sampler that proposes the next candidate after so many trials."""
        return sampler_after(trials, self.settings.sampler_name, gives_way=self.sampler_gives_way)

    @property
    def storage(self) -> InputSize:
        """Height and width of the stored images."""
        return InputSize(height_px=self.storage_px, width_px=self.storage_width_px or self.storage_px)

    @property
    def full_updates(self) -> int:
        """Updates of a member of the front, where candidates are trained by unlike lengths; else 0."""
        return max(self.space.lengths, default=0) if self.settings.lengths == "on" else 0

    @property
    def name(self) -> str:
        """The study's name: that of its folder, even if that was given as `.`."""
        return named(self.folder).name

    @property
    def drawn(self) -> str:
        """What the images show that a program drew, such as `road signs`; empty for other images."""
        return _DRAWN.get(source_name(self.settings.data.source.removeprefix(BUILTIN)), "")

    @property
    def synthetic(self) -> bool:
        """Whether the images were drawn by a program. Every text about accuracies on such images must say so."""
        return bool(self.drawn)

    @property
    def data_words(self) -> str:
        """The data set's name, with a note where its images are synthetic."""
        return f"{self.data.name} (synthetic images)" if self.synthetic else self.data.name
