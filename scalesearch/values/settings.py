"""All settings of a run besides the space: data, latency, machine, budget. Defaults are set here and nowhere else."""

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from scalesearch.values.candidate import Pruning
from scalesearch.values.latency import LatencyObjective
from scalesearch.values.storage_url import check_storage_url

SamplerName = Literal["tpe", "gp", "nsga2", "random", "growth"]
SamplerSetting = Literal["auto", "tpe", "gp", "nsga2", "random", "growth"]
LengthsSetting = Literal["auto", "on", "off"]
DEFAULT_SAMPLER: Final[SamplerName] = "growth"
"""What `auto` begins with where axes are ordered (docs/measurements.md, "Samplers side by side")."""
QUICK_SAMPLER: Final[SamplerName] = "tpe"
"""What `auto` takes where most axes are names, and where trials are many: its asks stay short."""
MANY_TRIALS: Final = 1000
"""Beyond so many trials, `auto` goes on with `QUICK_SAMPLER`."""
AcceptName = Literal["off", "rtx"]
Fit = Literal["crop", "stretch", "pad"]
FitSetting = Literal["auto", "crop", "stretch", "pad"]
Window = tuple[float, float]
WindowSetting = Literal["auto", "full"] | Window


MemorySetting = Literal["auto", "ram", "disk"]
DetectionObjective = Literal["map50_95", "map50", "recall_at_precision"]
DataLayout = Literal["auto", "classes", "splits"]


UNLIMITED_BUDGET = 1_000_000
"""The budget of a run that only its time limits."""
LEAST_CALIBRATION_IMAGES = 2
"""Exported files are compared with their networks on these images, by how the answers differ from image to image."""
BUILTIN: Final = "builtin:"
"""Prefix that makes the name of a data source mean the built-in data set, never a folder of that name."""


def sampler_after(trials: int, begun_with: SamplerName, *, gives_way: bool) -> SamplerName:
    """Return the sampler that proposes the next candidate after so many trials.

    Args:
        trials: Number of trials that are done.
        begun_with: The study's sampler.
        gives_way: Whether `QUICK_SAMPLER` takes its place beyond `MANY_TRIALS`.
    """
    return QUICK_SAMPLER if gives_way and trials > MANY_TRIALS else begun_with


def source_name(source: str) -> str:
    """Return a data source as names of data sets are spelt; it may be typed in capitals or with underscores."""
    return source.lower().replace("_", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Where the images come from and how they are split."""

    source: str = "signs"
    """`signs`, a folder, an .npz file, or the name of a torchvision data set."""
    val_fraction: float = 0.0
    """Fraction of images for validation. With 0, the source's own train and val are kept; otherwise both are pooled and
    split anew, stratified by class."""
    test_fraction: float = 0.2
    """Fraction of images for testing. It is used only where the source brings no test images."""
    calibration_images: int = 256
    """Number of training images (stratified) that are set aside for quantization and never trained on."""
    seed: int = 0
    max_skipped_fraction: float = 0.01
    """Largest accepted fraction of unreadable files. More than that is an error."""
    layout: DataLayout = "auto"
    """What the folders inside a data folder are: `classes` or `splits`. `auto` finds out."""
    download_folder: str = ""
    """Where torchvision's data sets are stored; empty means the user's cache folder."""
    window: WindowSetting = "auto"
    """Which values become black and white in images of more than 8 bits: `[low, high]`; `auto` finds the two values on
    the training images and then keeps them in the study; `full` means 0..65535, and 0..1 in float images."""
    fit: FitSetting = "auto"
    """How an image of another aspect ratio is fitted to the stored size: its centre is cropped, or the whole image is
    stretched, or padded with grey; `auto` is how the study was begun, and in a new one the task's own `fit`."""
    memory: MemorySetting = "auto"
    """Where a folder's images are held: `ram` is memory, `disk` a file from which each batch is read; `auto` decides by
    their size. The pixels are the same, so a study may go on with either."""
    group_by: str = ""
    """A regular expression for file names with their folders. Where this program splits the images, those for which it
    matches the same text (that of its first pair of brackets, if it has one that takes part) stay together:
    `([^/_]+)_[^/]*$` takes film7 of train/film7_0012.png. Empty: every image is drawn by itself."""

    @property
    def framing(self) -> Fit:
        """How images are fitted to the stored size: `fit`, or `crop` where `auto` was resolved by no task."""
        return "crop" if self.fit == "auto" else self.fit


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySettings:
    """How an engine is timed, and whether the post-processing counts."""

    objective: LatencyObjective = "engine"
    """Which latency the study minimises and `limits.max_latency_ms` bounds: that of the engine, or with `end_to_end`
    its sum with the time of the task's post-processing (in detection: decoding and non-maximum suppression)."""
    batch: int = 1
    threads: int = 1
    """Number of threads of the engine that is timed (and scored)."""
    warmup_s: float = 0.3
    max_s: float = 6.0
    half_width: float = 0.005
    """Timing goes on until the session's own 95 % interval of the ratio is within this fraction of it, or `max_s`
    seconds have passed."""
    coarse_half_width: float = 0.03
    """As `half_width`, for a candidate that is surely not on the front (a member is faster and surely as accurate), and
    for networks that are timed only for a comparison. With 0, `half_width` holds for these, too."""
    stable_within: float = 0.02
    """A latency is called stable if its whole 95 % interval (the differences between processes included) is within this
    fraction of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionSettings:
    """What detectors are judged by."""

    objective: DetectionObjective = "map50_95"
    """The score: mAP over IoUs of 0.5 to 0.95, mAP at an IoU of 0.5, or recall at a given precision."""
    precision: float = 0.9
    """The precision at which recall is measured, over all classes and at an IoU of 0.5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtSettings:
    """How TensorRT builds and runs engines. These settings have no effect on other backends."""

    optimization_level: int = 3
    """Effort of the builder, from 0 (fast build) to 5 (tries every kernel)."""
    workspace_mb: int = 0
    """Memory in MB that kernels may use while they run; 0 keeps the library's limit, which is all of the GPU's
    memory."""
    max_batch: int = 0
    """If above 0, the engine takes any batch size from 1 to this and is tuned for `latency.batch`; 0: only that batch
    size."""
    cuda_graph: bool = True
    """Whether a run is captured once and then replayed. Without this, the host's kernel launches limit the speed of a
    small network."""
    copies: bool = False
    """Whether the timing includes copying input and output between host and GPU."""
    sparse_weights: bool = False
    """Whether the builder may use the 2:4 sparse kernels where the weights have that pattern."""

    def for_pruning(self, pruning: Pruning) -> "TensorRtSettings":
        """Return these settings with sparse kernels allowed where the pruning made weights for them."""
        return replace(self, sparse_weights=True) if pruning.sparsity == "2:4" else self


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """What training uses of the machine. Values of 0 and "auto" are found out once per study and then kept.

    In a study that was begun, only the number of threads may be changed: trainings in another number format do not
    compare.
    """

    threads: int = 0
    bf16: Literal["auto", "on", "off"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLimits:
    """Seconds after which a stage counts as hung and its worker process is killed."""

    train_s: float = 1800.0
    other_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """All settings of one run."""

    space: str = "resnet_small"
    network: str = ""
    """Replaces the space's base network: a name, or `package.module:function`."""
    parent: str = ""
    """A trained network that candidates inherit from: an export or a training of this program, a .safetensors or .pth
    file, `pretrained`, `torchvision:WEIGHTS`, or `timm:NAME`; empty: they begin with random weights."""
    parent_steps: int = 240
    """Updates by which a parent that does not know the study's classes is fine-tuned first, once per study."""
    task: str = "classification"
    """Name of the task that networks are trained for."""
    target: str = "auto"
    accept: AcceptName = "off"
    """With `rtx`, every trial's graph must also compile with TensorRT for RTX, which needs no GPU for that."""
    twins: bool = True
    """Whether to measure what each compression step of a trial brought, against the same network without it."""
    siblings: bool = True
    """Whether a trained candidate near the front is evaluated in the space's other precisions too, free of charge."""
    branches: bool = False
    """Whether a trained candidate near the front is also tried with the next larger and the next smaller share of
    channels cut, where these share its trunk; each costs the budget a branch."""
    adaptive: bool = False
    """Whether the search stops asking for a precision that has never paid on this chip."""
    budget: int = 20
    """Number of full trainings. A candidate whose trunk is stored already counts only the share of updates that it
    makes itself."""
    max_time_s: float = 0.0
    """Seconds of wall time after which a run begins no further candidate, counted anew in each run; 0: no limit. They
    count from the first candidate, with the trainings before it: of the parent, and for `flip = "auto"`."""
    workers: int = 1
    seed: int = 0
    sampler: SamplerSetting = "auto"
    """Who proposes candidates. `auto` is the sampler of the study's last run, in a new one what suits the space
    (`study.sampler`), and gives way to `QUICK_SAMPLER` beyond `MANY_TRIALS` if it began by itself."""
    lengths: LengthsSetting = "auto"
    """Whether the values of `training.steps` are lengths of one training (`on`) or settings like any other (`off`).
    With `on`, the search decides whose training goes on, and only candidates of the greatest length make the front.
    `auto` is how the study was begun; in a new one, `on` if the space lists several lengths and the sampler is
    `growth`. With `auto` and another sampler, every candidate is trained by the greatest of them."""
    storage: str = ""
    """Where Optuna stores the study: `postgresql://USER@HOST/DATABASE`; empty means study.sqlite3 in the study's
    folder."""
    data: DataSettings = field(default_factory=DataSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)
    stage_limits: StageLimits = field(default_factory=StageLimits)

    def __post_init__(self) -> None:
        """Refuse a password in `storage`, because settings are written to run.toml, config.toml and error messages.

        Raises:
            ConfigError: `storage` may contain a password. This is not a ValueError because pydantic would wrap that and
                repeat the value.
        """
        if self.storage:
            check_storage_url(self.storage)

    @property
    def sampler_name(self) -> SamplerName:
        """The sampler that `sampler` stands for, as far as it can be told without the space."""
        return DEFAULT_SAMPLER if self.sampler == "auto" else self.sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was decided for training on this machine after probing it."""

    device: str
    threads: int
    bf16: bool
    channels_last: bool
