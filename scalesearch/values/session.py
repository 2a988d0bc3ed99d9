"""A run made ready: what the coordinator and every worker must agree on."""

import re
from dataclasses import dataclass
from pathlib import Path

from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.settings import Machine, RunSettings
from scalesearch.values.space import SearchSpace
from scalesearch.values.target import Device, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """What the data set turned out to be."""

    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Red, green, blue, or grey alone."""
    std: tuple[float, ...]
    train_images: int
    val_images: int
    calibration_images: int
    test_images: int
    val_standard_error_points: float
    """Standard error of a validation accuracy of 60 %, in points of a per cent."""
    warnings: tuple[str, ...]


def model_path(folder: Path, trial: int) -> Path:
    """The deployed ONNX file of a trial in a study's folder; kept for front members."""
    return folder / "models" / f"trial_{trial:06d}.onnx"


def trial_of_model(path: Path) -> int | None:
    """The trial whose file in `models/` this is, by its name; None for any other file.

    Files that its evaluation makes on the way and removes, like `.fp32.onnx`, are the trial's too.
    """
    match = re.fullmatch(r"trial_(\d{6,})(?:\.(?:fp32|dense|tensorrt))?\.onnx", path.name, re.ASCII)
    return int(match[1]) if match else None


def reference_path(folder: Path) -> Path:
    """The reference engine's ONNX file in a study's folder."""
    return folder / "reference.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Settings, space and base network, with everything about this machine that was probed once."""

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
    """Side of the stored images: the largest resolution that the space can ask for."""
    reference_calm_ms: float
    """Calm latency of the reference engine, the unit that every latency of the study is expressed in."""
    reference_sha256: str = ""
    """Of `reference.onnx`; empty in the session of a study that was made before this was kept."""
    run_folder: str = ""
    """The working folder that relative paths in the settings are meant from; empty as above."""

    @property
    def synthetic(self) -> bool:
        """Whether the images were drawn by a program, which every text about their accuracies must say."""
        return self.settings.data.source == "signs"

    @property
    def data_words(self) -> str:
        """The data set's name, synthetic images named as such."""
        return f"{self.data.name} (synthetic images)" if self.synthetic else self.data.name
