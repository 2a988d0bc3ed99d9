"""predict: every image gets its line, what cannot be read is named, and names of files stay text."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from small_graphs import CLASSES, small_model
from typer.testing import CliRunner

from scalesearch.cli import predict
from scalesearch.deployment.onnx_file import annotate, onnx_model
from scalesearch.errors import ConfigError
from scalesearch.export.metadata import write_config
from scalesearch.plain_text import visible
from scalesearch.tasks.classification import infer
from scalesearch.tasks.infer_parts import preprocessing as infer_preprocessing
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session

NAMES = ["stop", "yield [bold]", "speed\x1b[5m 30", "no entry"]
METADATA = {
    "scalesearch.preprocessing": infer_preprocessing.VERSION,
    "scalesearch.class_names": json.dumps(NAMES),
    "scalesearch.mean": "[0.5, 0.5, 0.5]",
    "scalesearch.std": "[0.02, 0.02, 0.02]",
    "scalesearch.storage_px": "8",
    "scalesearch.resolution_px": "8",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An export and six images in two folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    (tmp_path / "best").mkdir()
    annotate(small_model(tmp_path), METADATA, tmp_path / "best" / "model.onnx")
    rng = np.random.default_rng(0)
    for place in range(6):
        path = tmp_path / "pictures" / f"{'ab'[place % 2]}" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)).save(path)
    (tmp_path / "pictures" / "notes.txt").write_text("no image")
    return tmp_path


def run(*arguments: str) -> tuple[int, str, str]:
    app = typer.Typer()
    predict.register(app)
    done = CliRunner().invoke(app, list(arguments), standalone_mode=False)
    if done.exception:
        raise done.exception
    return int(done.return_value or 0), done.stdout, done.stderr


def test_every_image_of_a_folder_gets_a_line(folder: Path) -> None:
    code, out, err = run("best", "pictures")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["file", "label", "%", "runner-up", "%"]
    assert [line.split()[0] for line in lines[1:]] == [
        f"pictures/{name}.png" for name in ("a/0", "a/2", "a/4", "b/1", "b/3", "b/5")
    ]
    labeller = infer.Labeller(folder / "best" / "model.onnx")
    for line in lines[1:]:
        (label, share), (other, rest) = labeller.label(line.split()[0], top=2)
        assert all(visible(name) in line for name in (label, other))
        assert f"{100 * share:.1f}" in line and f"{100 * rest:.1f}" in line


def test_json_is_a_list_of_objects(folder: Path) -> None:
    code, out, _ = run("best/model.onnx", "pictures/a/0.png", "pictures/b", "--json", "--top", "9")
    rows = json.loads(out)
    assert code == 0 and [row["file"] for row in rows][:2] == ["pictures/a/0.png", "pictures/b/1.png"]
    for row in rows:
        assert len(row["classes"]) == CLASSES and row["label"] == row["classes"][0]["name"]
        assert sum(each["probability"] for each in row["classes"]) == pytest.approx(1)
        assert row["probability"] == max(each["probability"] for each in row["classes"])


def test_unreadable_images_are_named_and_counted_and_the_others_done(folder: Path) -> None:
    (folder / "pictures" / "a" / "broken.jpg").write_bytes(b"no image")
    code, out, err = run("best", "pictures", "absent.png", "--top", "1")
    assert code == 1
    assert out.count(".png ") == 6 and "runner-up" not in out
    assert "cannot read pictures/a/broken.jpg: cannot identify" in err and "cannot read absent.png: " in err
    assert err.splitlines()[-1] == "2 of 8 images could not be read."
    rows = json.loads(run("best", "pictures", "--json")[1])
    assert [row["file"] for row in rows if "error" in row] == ["pictures/a/broken.jpg"] and len(rows) == 7


def test_names_of_files_and_classes_stay_text(folder: Path) -> None:
    hostile = folder / "pictures" / "a" / "x\x1b[31m\n[red]y[red].png"
    (folder / "pictures" / "a" / "0.png").rename(hostile)
    _, out, _ = run("best", str(hostile.relative_to(folder)), "--top", "4")
    assert "\x1b" not in out and len(out.splitlines()) == 2
    assert "x\\x1b[31m\\n[red]y[red].png" in out and "yield [bold]" in out and "speed\\x1b[5m 30" in out


@pytest.mark.parametrize(
    ("export", "images", "told"),
    [
        ("nowhere", "pictures", r"nowhere is not there: expected a folder that `scalesearch export` wrote"),
        ("pictures", "pictures", r"pictures/model\.onnx is not there"),
        ("pictures/notes.txt", "pictures", r"notes\.txt cannot be used"),
        ("fp32.onnx", "pictures", r"metadata 'scalesearch\.preprocessing'"),
        ("best", "best", r"best holds no image"),
    ],
)
def test_mistakes_are_told(export: str, images: str, told: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        run(export, images)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_answer_that_is_no_number_is_no_label(folder: Path, monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    answered = infer.Labeller.logits
    calls = list[int]()

    def broken_once(self: infer.Labeller, images: np.ndarray) -> np.ndarray:
        calls.append(1)
        return answered(self, images) if len(calls) > 1 else np.full((1, CLASSES), bad, np.float32)

    monkeypatch.setattr(infer.Labeller, "logits", broken_once)
    code, out, err = run("best", "pictures", "--json")
    rows = json.loads(out)
    assert code == 1
    assert [row["file"] for row in rows if "error" in row] == ["pictures/a/0.png"]
    assert "no label for pictures/a/0.png: the network answers it with NaN or infinity" in err
    assert "could not be read" not in err and "nan" not in out.replace("NaN", "")


def test_the_script_of_an_export_says_it_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(infer.Labeller, "logits", lambda *_: np.full((1, CLASSES), np.nan, np.float32))
    monkeypatch.setattr("sys.argv", ["infer.py", "pictures/a/0.png", "--model", "best/model.onnx"])
    assert infer.main() == 1
    said = capsys.readouterr()
    assert said.out == "" and "has no label: the network answers it with NaN" in said.err


def test_a_model_that_was_put_into_an_export_is_told_of(
    folder: Path, session: Session, make_record: Callable[..., MeasuredTrial]
) -> None:
    model = folder / "best" / "model.onnx"
    write_config(make_record(1), session, folder / "best", model_sha256=onnx_model(model).sha256)
    assert run("best", "pictures")[2] == ""
    annotate(small_model(folder), METADATA | {"scalesearch.trial": "another/2"}, model)
    code, out, err = run("best", "pictures", "--json")
    assert code == 0 and len(json.loads(out)) == 6
    assert err.startswith("warning: best/model.onnx is not the file that was exported with best/config.toml")
    assert run("best/model.onnx", "pictures")[2] == "", "a file alone claims nothing"


def test_what_a_system_left_is_passed_over_and_counted(folder: Path) -> None:
    before = run("best", "pictures")[1]
    for name in ("@eaDir/0.png/SYNOFILE_THUMB_M.png", "a/.cache/0.png", "__MACOSX/a/0.png", "b/._1.png"):
        path = folder / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((folder / "pictures" / "a" / "0.png").read_bytes())
    (folder / "pictures" / ".DS_Store").write_text("no image, and not worth a word")
    code, out, err = run("best", "pictures")
    assert (code, out) == (0, before)
    assert err == ("passed over 4 files or folders that a system left or hides: @eaDir, __MACOSX, a/.cache, ...\n")
    assert "._1.png" in run("best", "pictures/b/._1.png")[1]  # named by hand: wanted
