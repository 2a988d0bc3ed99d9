"""Tiny studies on coloured images, with and without a parent, for tests of what is inherited and taught."""

import functools
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker
from scalesearch.chain.stages import StageClock
from scalesearch.config import load_run, parse_space
from scalesearch.data import LABEL_SOURCES
from scalesearch.data.finding import load_study_data
from scalesearch.export.metadata import write_config
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.study.session import open_session
from scalesearch.values.candidate import Candidate, Recipe
from scalesearch.values.network import Network
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import MachineSettings

SPACE = {"network": "resnet_small", "resolution_px": 16, "scaling": {"width": [0.5, 1.0], "depth": [1.0]}}


def colours(path: Path, classes: int, seed: int) -> None:
    """Write 150 images of 16 px whose class is a colour."""
    random = np.random.default_rng(seed)
    labels = np.arange(150) % classes
    images = random.integers(0, 120, (150, 16, 16, 3))
    images[np.arange(150), :, :, labels % 3] += 60 + 20 * (labels[:, None, None] // 3)
    np.savez(path, images=images.astype(np.uint8), labels=labels)


def opened(
    folder: Path,
    data: Path,
    *,
    parent: str = "",
    parent_steps: int = 240,
    space: Mapping[str, object] = MappingProxyType(SPACE),
) -> Session:
    """Open a study, whose latencies are not worth anything."""
    settings, _ = load_run(flags={"data.source": str(data), "target": "cpu"}, overrides=[])
    settings = replace(
        settings,
        latency=replace(settings.latency, max_s=0.2, warmup_s=0.02),
        machine=MachineSettings(threads=1, bf16="off", device="cpu"),
        parent=parent,
        parent_steps=parent_steps,
    )
    folder.mkdir(exist_ok=True)
    return open_session(settings, parse_space(dict(space), name="s", origin="s.toml"), folder)


@functools.cache
def plain_study(temporary: Path) -> Session:
    """Open a study without a parent, on three classes; all tests that name the same folder share it."""
    folder = temporary / "plain_study"
    folder.mkdir()
    colours(folder / "three.npz", 3, seed=0)
    return opened(folder / "study", folder / "three.npz")


def trained_folder(session: Session, record: MeasuredTrial, folder: Path) -> Network:
    """Train the base network briefly, leave it in a folder as `train` does, and return it."""
    recipe = Recipe(optimizer="adamw", learning_rate=0.01, steps=20, batch_size=16)
    plan = Planner(session)(Candidate(recipe=recipe))
    data = load_study_data(session, LABEL_SOURCES)
    network = Shrinker(session, DeviceLock("cpu", folder=session.folder))(plan, data, StageClock()).network
    (folder / "weights").mkdir(parents=True)
    shutil.copy(session.folder / "weights" / f"{plan.weights_key}.safetensors", folder / "weights")
    write_config(replace(record, spec=plan.spec, candidate=plan.candidate), session, folder)
    return network
