"""Memory that a run would need is counted before it is taken."""

from pathlib import Path

import pytest

from scalesearch.config import load_run
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.host import file_bytes
from scalesearch.networks import base_spec
from scalesearch.study.fitted_space import require_batch_memory
from scalesearch.tasks.classification.pieces import build
from scalesearch.values.network_spec import InputSize


def test_a_batch_that_no_memory_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 images of 100 px in float32 are 64 x 100 x 100 x 3 x 4 = 7,680,000 bytes, and may be half of what is free."""
    space = load_run(overrides=["training.batch_size=[16, 64]"])[1]
    monkeypatch.setattr("scalesearch.study.fitted_space.available_bytes", lambda: 2 * 7_680_000)
    require_batch_memory(space, InputSize.square(100))
    with pytest.raises(ConfigError, match="a training batch of 64 images at 101 px takes"):
        require_batch_memory(space, InputSize.square(101))


def test_files_that_a_container_keeps_in_memory_count_as_free(tmp_path: Path) -> None:
    statistics = tmp_path / "memory.stat"
    assert file_bytes(statistics) == 0
    statistics.write_text("anon 5\nfile 90\ninactive_file 30\nactive_file 12\n")
    assert file_bytes(statistics) == 42


def test_weights_that_no_memory_holds_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalesearch.networks.build.available_bytes", lambda: 1000)
    with pytest.raises(StageFailed, match="the weights of resnet_small would take"):
        build(base_spec("resnet_small"))
