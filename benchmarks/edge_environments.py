"""infer.py and model.onnx of one network, in each precision, on old and new Pythons: what runs, and how alike.

    python benchmarks/edge_environments.py --to FOLDER [--pythons FOLDER] [--only NAME ...]

Makes a virtual environment for each row of ENVIRONMENTS below FOLDER (pip fetches the packages; one that is there is
taken), exports a small ResNet with awakened random weights, writes pictures of every mode and file format, and runs the
very infer.py in every environment. The first environment is what the others are compared with: `labels` counts pictures
with the same likeliest class, `logits` is the largest difference of one beside the logits' deviation over the pictures,
`pixels` names the pictures whose network input differs, with the largest difference in grey levels. `--pythons` is a
folder of interpreters as pyenv lays it (VERSION/bin/python); a Python that is not there is told and left out.
"""

import argparse
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.deployment.onnx_file import annotate
from scalesearch.networks import base_spec, scale
from scalesearch.tasks.classification.pieces import build, quantize, to_onnx
from scalesearch.tasks.classification.task import TASK
from scalesearch.tasks.infer_parts import preprocessing as infer_preprocessing
from scalesearch.tasks.infer_parts import versions as infer_versions
from scalesearch.values.candidate import Precision, Quantization, Scaling
from scalesearch.values.target import QuantizationProfile

ENVIRONMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "newest": ("3.13", ("onnxruntime", "numpy", "pillow")),
    "oldest": ("3.8", ("onnxruntime==1.14.0", "numpy==1.21.6", "pillow==8.0.0")),
    "jetpack5": ("3.9", ("onnxruntime==1.15.1", "numpy==1.22.0", "pillow==8.4.0")),
    "bookworm": ("3.11", ("onnxruntime==1.19.2", "numpy==1.24.2", "pillow==9.4.0")),
    "ort1.15": ("3.11", ("onnxruntime==1.15.1", "numpy<2", "pillow")),
}
FILES: tuple[tuple[Precision, QuantizationProfile], ...] = (
    ("fp32", "onnxruntime_cpu"),
    ("fp16", "onnxruntime_cpu"),
    ("int8", "onnxruntime_cpu"),
    ("int8", "openvino"),
    ("int8", "tensorrt"),
    ("fp8", "tensorrt"),
    ("bf16", "tensorrt"),
)
SIDE_PX, STORAGE_PX, CLASSES = 32, 48, 10
_CLIENT = """
    import importlib.util, json, sys
    import numpy as np
    spec = importlib.util.spec_from_file_location("infer", sys.argv[1])
    infer = importlib.util.module_from_spec(spec)
    sys.modules["infer"] = infer
    spec.loader.exec_module(infer)
    answers, failed = {}, {}
    labeller = infer.Labeller(sys.argv[2])
    for path in sys.argv[4:]:
        try:
            image = infer.read_input(infer.Path(path), labeller.preprocessing)
        except infer.UNREADABLE as error:
            failed[path] = str(error)
            continue
        answers["input " + path] = image
        answers["logits " + path] = labeller.logits(image)
    np.savez(sys.argv[3], **answers)
    print(json.dumps(failed))
"""


def pictures(folder: Path) -> Iterator[Path]:
    """Files of every mode, format and orientation."""
    random = np.random.default_rng(0)
    for place in range(3):
        width, height = int(random.integers(90, 240)), int(random.integers(90, 240))
        photo = Image.fromarray(random.integers(0, 256, (9, 7, 3), dtype=np.uint8)).resize((width, height))
        soft = Image.linear_gradient("L").resize(photo.size)
        clear, grey = photo.convert("RGBA"), photo.convert("L")
        clear.putalpha(soft)
        deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        palette = photo.quantize(64)
        turned = Image.Exif()
        turned[0x0112] = (6, 3, 7)[place]
        turned[0x010F] = "camera"
        two = Image.merge("LA", (grey, soft))
        made: tuple[tuple[str, Image.Image, dict[str, object]], ...] = (
            ("rgb.jpg", photo, {"quality": 85}),
            ("large.jpg", photo.resize((1200, 900)), {"quality": 85}),
            ("cmyk.jpg", photo.convert("CMYK"), {}),
            ("grey.jpg", grey, {}),
            ("turned.jpg", photo, {"exif": turned.tobytes()}),
            ("turned.png", photo, {"exif": turned.tobytes()}),
            ("turned.webp", photo, {"exif": turned.tobytes(), "lossless": True}),
            ("turned.tif", photo, {"exif": turned.tobytes()}),
            ("rgb.png", photo, {}),
            ("rgba.png", clear, {}),
            ("grey.png", grey, {}),
            ("la.png", two, {}),
            ("one.png", photo.convert("1"), {}),
            ("16bit.png", deep, {}),
            ("16bit.tif", deep, {}),
            ("float.tif", Image.fromarray(np.asarray(grey).astype(np.float32) / 255), {}),
            ("palette.png", palette, {}),
            ("palette_clear.png", palette, {"transparency": 3}),
            ("palette.gif", palette, {}),
            ("palette_clear.gif", palette, {"transparency": 3}),
            ("lossy.webp", photo, {"quality": 80}),
            ("clear.webp", clear, {"lossless": True}),
            ("rgb.bmp", photo, {}),
            ("rgb.tif", photo, {}),
            ("cmyk.tif", photo.convert("CMYK"), {}),
        )
        for name, image, options in made:
            path = folder / f"{place}_{name}"
            image.save(path, **options)  # type: ignore[arg-type]  # what a format's writer takes is its own
            yield path


def exported(folder: Path) -> Iterator[tuple[str, Path]]:
    """One network in every precision, with the metadata that infer.py reads."""
    torch.manual_seed(0)
    spec = scale(base_spec("resnet_small"), Scaling(), resolution_px=SIDE_PX, num_classes=CLASSES, channel_multiple=8)
    network = build(spec, seed=0)
    random = np.random.default_rng(1)
    strength, colour = random.uniform(0.3, 3, (32, 1, 1, 1)), random.normal(0, 2, (32, 3, 1, 1))
    images = (strength * random.normal(size=(32, 3, SIDE_PX, SIDE_PX)) + colour).astype(np.float32)
    for layer in network.module.modules():  # statistics of real activations, so that no signal dies on its way
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    with torch.no_grad():
        network.module.train()(torch.from_numpy(images))
    network.module.eval()
    model = to_onnx(fold_batchnorm(network), to=folder / "float.onnx", check_images=images[:4])
    metadata = {
        "scalesearch.preprocessing": infer_preprocessing.VERSION,
        "scalesearch.class_names": json.dumps([f"class {place}" for place in range(CLASSES)]),
        "scalesearch.mean": json.dumps((0.5, 0.4, 0.3)),
        "scalesearch.std": json.dumps((0.2, 0.2, 0.2)),
        "scalesearch.storage_px": str(STORAGE_PX),
        "scalesearch.resolution_px": str(SIDE_PX),
    }
    for precision, profile in FILES:
        name = f"{precision}-{profile}"
        asked = Quantization(precision=precision)
        made = quantize(model, asked, calibration=images, profile=profile, to=folder / f"{name}.raw.onnx")
        yield name, annotate(made, metadata, folder / f"{name}.onnx").path


def python_of(version: str, pythons: Path) -> Path | None:
    """An interpreter of that minor version: this one, or one of the folder."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    found = sorted(pythons.expanduser().glob(f"{version}.*/bin/python"))
    return found[-1] if found else None


def environment(name: str, folder: Path, pythons: Path) -> Path | None:
    """The Python of an environment, made where it is not there yet; None where its Python is missing."""
    version, packages = ENVIRONMENTS[name]
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        base = python_of(version, pythons)
        if base is None:
            print(f"{name}: no Python {version} below {pythons}: left out")
            return None
        subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "whole").touch()
    return python


def run(
    python: Path, script: Path, model: Path, to: Path, files: list[Path]
) -> tuple[dict[str, NDArray[np.float32]], str]:
    """What an environment answers, and its error's last line where it does not."""
    names = [str(path) for path in files]
    command = [str(python), "-W", "ignore", "-c", textwrap.dedent(_CLIENT), str(script), str(model), str(to), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"ended by signal {-done.returncode}, without a word"]
        return {}, last[0][:300]
    failed = json.loads(done.stdout.splitlines()[-1])
    with np.load(to) as answers:
        return dict(answers), "".join(f"; cannot read {Path(path).name}: {why}" for path, why in failed.items())


def compared(newest: dict[str, NDArray[np.float32]], other: dict[str, NDArray[np.float32]]) -> str:
    """A line on how alike two environments answered."""
    names = [name.partition(" ")[2] for name in other if name.startswith("logits ") and name in newest]
    mine, theirs = (np.concatenate([answers[f"logits {name}"] for name in names]) for answers in (newest, other))
    levels = {
        Path(name).name: float(np.abs(newest[f"input {name}"] - other[f"input {name}"]).max()) * 0.2 * 255
        for name in names
    }
    unlike = {name: level for name, level in levels.items() if level}
    same = int((mine.argmax(1) == theirs.argmax(1)).sum())
    pixels = ", ".join(f"{name} by {level:.0f}" for name, level in unlike.items()) or "all equal"
    equal_input = [place for place, name in enumerate(names) if Path(name).name not in unlike]
    on_equal = float(np.abs(mine - theirs)[equal_input].max()) if equal_input else float("nan")
    return (
        f"labels {same} of {len(names)}, logits {np.abs(mine - theirs).max():.2g} ({on_equal:.2g} where pixels are "
        f"equal; spread {mine.std(0).mean():.2g}, {len(set(mine.argmax(1)))} classes answered); pixels: {pixels}"
    )


def main() -> None:
    """Prints a line for each file in each environment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--pythons", type=Path, default=Path("~/.pyenv/versions"))
    parser.add_argument("--only", nargs="+", choices=sorted(ENVIRONMENTS), help="besides the newest")
    arguments = parser.parse_args()
    to: Path = arguments.to.resolve()
    (to / "pictures").mkdir(parents=True, exist_ok=True)
    files = list(pictures(to / "pictures"))
    models = dict(exported(to))
    script = to / "infer.py"
    script.write_bytes(TASK.infer_script())
    newest: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name, (version, packages) in ENVIRONMENTS.items():
        if newest and arguments.only and name not in arguments.only:
            continue
        python = environment(name, to / "environments" / name, arguments.pythons)
        if python is None:
            continue
        print(f"\n{name}: Python {version}, {', '.join(packages)}", flush=True)
        for kind, model in models.items():
            answers, said = run(python, script, model, to / f"{kind}.npz", files)
            if name == "newest":
                newest[kind] = answers
            told = compared(newest[kind], answers) if answers and newest.get(kind) else ""
            needs = infer_versions.onnxruntime_needed(model)
            print(f"  {kind} (names ONNX Runtime {needs}): {told}{said}", flush=True)


if __name__ == "__main__":
    main()
