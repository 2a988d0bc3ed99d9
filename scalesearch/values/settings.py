"""Everything a run is told besides the space: data, latency, machine, budget. Defaults live here and nowhere else."""

from dataclasses import dataclass, field
from typing import Literal

from scalesearch.values.storage_url import check_storage_url

SamplerName = Literal["tpe", "gp", "nsga2", "random"]
AcceptName = Literal["off", "rtx"]
Fit = Literal["crop", "stretch", "pad"]
Window = tuple[float, float]
WindowSetting = Literal["auto", "full"] | Window


DataLayout = Literal["auto", "classes", "splits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Where the images come from and how they are split."""

    source: str = "signs"
    """`signs`, a folder, an .npz file, or the name of a torchvision data set."""
    val_fraction: float = 0.0
    """0 keeps the source's own train and val; otherwise both are pooled and split anew, stratified."""
    test_fraction: float = 0.2
    """Used only where the source brings no test images."""
    calibration_images: int = 256
    """Images set aside from train (stratified) for quantization; never trained on."""
    seed: int = 0
    max_skipped_fraction: float = 0.01
    """More unreadable files than this fraction is an error."""
    layout: DataLayout = "auto"
    """What the folders of a data folder are: `classes` or `splits`; `auto` finds out."""
    download_folder: str = ""
    """Where torchvision's data sets are kept; empty: the user's cache folder."""
    window: WindowSetting = "auto"
    """Values of images of more than 8 bits that become black and white: `[low, high]`, or `auto`: found on training
    images, and then kept in the study; `full`: 0..65535, in float images 0..1."""
    fit: Fit = "crop"
    """How an image that is no square becomes one: its centre square, stretched, or padded with grey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySettings:
    """How an engine is timed."""

    batch: int = 1
    threads: int = 1
    """Threads of the engine that is timed (and scored)."""
    warmup_s: float = 0.3
    max_s: float = 6.0
    half_width: float = 0.005
    """Go on until the session's own 95 % interval of the ratio is within this of it, or `max_s` are spent."""
    stable_within: float = 0.02
    """A latency whose whole 95 % interval (fresh processes included) is within this of it is called stable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtSettings:
    """How TensorRT builds and runs engines; of no effect on other backends."""

    optimization_level: int = 3
    """Builder effort, 0 (fast build) to 5 (tries every kernel)."""
    workspace_mb: int = 0
    """Memory that kernels may use while they run; 0 leaves the library's limit, all of the GPU."""
    max_batch: int = 0
    """Above 0, the engine takes any batch from 1 to this, at its best at `latency.batch`; 0: that batch only."""
    cuda_graph: bool = True
    """Capture a run once and replay it: a small network is else bound by the host's launches."""
    copies: bool = False
    """Put the copies of input and output between host and GPU inside the clock."""
    sparse_weights: bool = False
    """Let the builder use the 2:4 kernels where weights have that pattern."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """What the machine is used for training with; 0 and "auto" are probed once per study and then kept."""

    threads: int = 0
    bf16: Literal["auto", "on", "off"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLimits:
    """Seconds after which a stage counts as hung and its worker is killed."""

    train_s: float = 1800.0
    other_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """A whole run."""

    space: str = "resnet_small"
    network: str = ""
    """Replaces the space's base network: a name, or `package.module:function`."""
    target: str = "auto"
    accept: AcceptName = "off"
    """`rtx`: every trial's graph must also compile with TensorRT for RTX, which needs no GPU for that."""
    twins: bool = True
    """Measure what each compression step of a trial brought, against the same network without it."""
    siblings: bool = True
    """Evaluate a trained candidate near the front in the space's other precisions too, free of charge."""
    adaptive: bool = False
    """Stop asking for a precision that has never paid on this chip."""
    budget: int = 20
    """Candidates whose training is started."""
    workers: int = 1
    seed: int = 0
    sampler: SamplerName = "tpe"
    storage: str = ""
    """Where Optuna keeps the study: `postgresql://USER@HOST/DATABASE`; empty: study.sqlite3 in the study's folder."""
    data: DataSettings = field(default_factory=DataSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)
    stage_limits: StageLimits = field(default_factory=StageLimits)

    def __post_init__(self) -> None:
        """Refuse a password: settings are written to run.toml, to config.toml and into error messages.

        Raises:
            ConfigError: `storage` may hold one. Not a ValueError, whose wrapping by pydantic would repeat the value.
        """
        if self.storage:
            check_storage_url(self.storage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the probe decided for training on this machine."""

    device: str
    threads: int
    bf16: bool
    channels_last: bool
