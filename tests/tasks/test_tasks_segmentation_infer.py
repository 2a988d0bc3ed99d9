"""Masks of image files by infer.py and `predict`: where they are written, and what is said if they cannot be."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from scalesearch.cli import predict
from scalesearch.tasks.segmentation.task import TASK

SIDES, LOGITS = (32, 32), (1, 2, 4, 4)


def constant_segmenter(path: Path) -> Path:
    """Write a network that answers class 1 in the lower half, whatever it sees."""
    answer = np.zeros(LOGITS, np.float32)
    answer[0, 1, :2], answer[0, 1, 2:] = -9, 9
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=1, axes=[1, 2, 3]),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "answer"], ["logits"]),
        ],
        "constant",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, *SIDES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *LOGITS[1:]])],
        [numpy_helper.from_array(np.zeros((), np.float32), "zero"), numpy_helper.from_array(answer, "answer")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    told = {
        "preprocessing": "3",
        "class_names": json.dumps(["sky", "road"]),
        "mean": "[0.5, 0.5, 0.5]",
        "std": "[0.25, 0.25, 0.25]",
        "storage_px": json.dumps(SIDES),
        "resolution_px": json.dumps(SIDES),
        "fit": '"stretch"',
        "task": "segmentation",
    }
    helper.set_model_props(proto, {f"scalesearch.{name}": value for name, value in told.items()})
    onnx.save(proto, path)
    return path


def drawn_by(way: str, folder: Path, to: str) -> tuple[int, str]:
    """Draw photo.png by `predict` or by the export's script; return the exit code and what is told."""
    model = constant_segmenter(folder / "model.onnx")
    Image.new("RGB", (40, 20), (90, 120, 200)).save(folder / "photo.png")
    if way == "predict":
        alone = typer.Typer()
        alone.command()(predict.predict)
        asked = [str(model), str(folder / "photo.png"), "--to", to]
        done = CliRunner().invoke(alone, asked, standalone_mode=False)
        return (2, str(done.exception)) if done.exception else (int(done.return_value or 0), done.stderr)
    (folder / "infer.py").write_bytes(TASK.infer_script())
    command = [sys.executable, "-I", "infer.py", "photo.png", "--to", to]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("way", ["predict", "infer.py"])
def test_masks_are_written_or_the_folder_that_cannot_be_is_named(way: str, tmp_path: Path) -> None:
    for _ in range(2):  # the second run replaces the pictures of the first
        assert drawn_by(way, tmp_path, str(tmp_path / "drawn")) == (0, "")
    with Image.open(tmp_path / "drawn" / "photo.png") as picture:
        mask = np.asarray(picture)
    assert mask.shape == (20, 40) and not mask[:9].any() and mask[11:].all()
    (tmp_path / "taken").write_text("a file where the folder should be")
    code, told = drawn_by(way, tmp_path, str(tmp_path / "taken" / "drawn"))
    assert code == 2
    assert "cannot write " in told and "Not a directory" in told and "taken" in told
    assert "image that can be read" not in told and "Traceback" not in told
