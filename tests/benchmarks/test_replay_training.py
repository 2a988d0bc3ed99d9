"""A group of networks is trained by the program's own trunk and branches, and becomes complete lines of a table."""

from collections.abc import Iterator
from typing import Any

import pytest
from parent_studies import colours, opened
from replay import timing, training
from replay.lines import KEYS, Line, key_of
from replay.shapes import PRECISIONS, Shape
from replay.table import table_of
from replay.training import Group, network_line, train_group

from scalesearch.chain.planner import Planner
from scalesearch.chain.trainer import Trainer
from scalesearch.training.train import Trained
from scalesearch.values.session import Session

pytestmark = pytest.mark.slow
_train = Trainer.train
SHAPES = tuple(Shape(resolution=1.0, depth=1.0, width=0.5, kernel=1.0, cut=cut) for cut in (0.0, 0.5))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, brief_calm: None) -> Iterator[Session]:
    """A study of images of 16 px, opened as the workers of `make_table` find it."""
    folder = tmp_path_factory.mktemp("replay")
    colours(folder / "colours.npz", 3, seed=0)
    space = {
        "network": "resnet_small",
        "resolution_px": 16,
        "scaling": {"width": [0.5]},
        "pruning": {"channel_fraction": [0.0, 0.5]},
        "quantization": {"precision": list(PRECISIONS)},
    }
    yield opened(folder / "study", folder / "colours.npz", space=space)
    training._held.clear()
    timing._held.clear()


def _second_a_step(trainer: Trainer, *arguments: Any) -> tuple[Trained, float]:
    """Train as ever, but tell a second for each update: how long a machine took, or waited, is no matter here."""
    trained, _ = _train(trainer, *arguments)
    return trained, float(trained.steps)


def test_lines_make_a_table_and_longer_trainings_continue(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "train", _second_a_step)
    training.load(session)
    timing.load(session, 0)
    planner = Planner(session)
    lines: list[Line] = [network_line(shape, planner(shape.candidate(steps=240))) for shape in SHAPES]
    for steps in (9, 18):
        lines += train_group(Group(shapes=SHAPES, steps=steps, seed=0))
    lines += [timing.time_network(shape, precision) for shape in SHAPES for precision in PRECISIONS]
    assert len({key_of(line) for line in lines}) == len(lines) == 2 + 2 * 4 + 4
    assert {line["kind"] for line in lines} < set(KEYS)
    trained = {
        (line["network"], line["steps"]): line for line in lines if "steps" in line and line["precision"] == "fp32"
    }
    for shape in SHAPES:
        brief, longer = (trained[shape.name, steps] for steps in (9, 18))
        assert [curve[0] for curve in brief["losses"]] == [6, 3]
        assert [curve[0] for curve in longer["losses"]] == [12, 6]
        assert (brief["trunk_s"], longer["trunk_s"]) == (6.0, 12.0)  # its whole time, not what was added
        assert (brief["branch_s"], longer["branch_s"]) == (3.0, 6.0)
        assert brief["val"] == pytest.approx(brief["float_val"], abs=0.02)
    assert trained[SHAPES[0].name, 9]["trunk_s"] == trained[SHAPES[1].name, 9]["trunk_s"]
    again = train_group(Group(shapes=SHAPES, steps=9, seed=0))
    assert [line["val"] for line in again] == [line["val"] for line in lines if line.get("steps") == 9]
    assert len(table_of(lines, 9).points) == 4
