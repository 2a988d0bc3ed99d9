"""The C99 of `scalesearch export --format c` against ONNX Runtime on real images: agreement, and how much slower it is.

    python benchmarks/c_export.py EXPORT [EXPORT ...] --images FOLDER [--count 200] [--cc gcc] [--to FILE]

Each EXPORT was written with `--format c`. Its model.c is compiled as its Makefile does (-O3, C99, warnings are errors)
into a library of this process. `same` counts images with the same likeliest class, against the session as it is
deployed (every graph optimization) and against one that computes each node as written; `difference` is the largest of a
logit, and `spread` what it is small or large against: the logits' deviation over the images. Times are of single images
in one thread, C and ONNX Runtime in turn on the same image; the ratio is of the medians and compares nothing but these
two. FILE keeps the rows as JSON lines.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalesearch.deployment.formats.c99 import answers_as_written, at_batch_one
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.files import replace_file
from scalesearch.tasks.classification.infer import Labeller
from scalesearch.tasks.infer_parts.images import read_input

STRICT = ("-O3", "-std=c99", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One export."""

    export: str
    precision: str
    images: int
    classes_answered: int
    """Different likeliest classes over the images: 1 would make any agreement empty."""
    same: int
    same_as_written: int
    difference: float
    difference_as_written: float
    spread: float
    c_p50_ms: float
    onnxruntime_p50_ms: float
    ratio: float


def compiled(source: Path, to: Path, compiler: str, classes: int) -> Callable[[Logits], Logits]:
    """The C network as a function from one image (1, C, H, W) to its logits (classes,)."""
    subprocess.run([compiler, *STRICT, "-o", str(to), str(source), "-lm"], check=True)
    function = ctypes.CDLL(str(to)).model
    function.restype = None
    pointer = ctypes.POINTER(ctypes.c_float)
    logits = np.full((1, classes), np.nan, np.float32)

    def run(image: Logits) -> Logits:
        logits.fill(np.nan)
        function(image.ctypes.data_as(pointer), logits.ctypes.data_as(pointer))
        return np.array(logits[0])

    return run


def measured(export: Path, images: list[Path], compiler: str) -> Row:
    """Both networks on every image, in turn."""
    labeller = Labeller(export / "model.onnx")
    inputs = [read_input(path, labeller.preprocessing) for path in images]
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch) / "model.so"
        network = compiled(export / "c" / "model.c", library, compiler, len(labeller.preprocessing.class_names))
        for _ in range(3):
            network(inputs[0]), labeller.logits(inputs[0])
        answers: dict[str, list[Logits]] = {"c": [], "onnxruntime": []}
        times_ms: dict[str, list[float]] = {"c": [], "onnxruntime": []}
        for image in inputs:
            for name, run in (("c", network), ("onnxruntime", lambda each: labeller.logits(each)[0])):
                start_ns = time.perf_counter_ns()
                logits = run(image)
                times_ms[name].append((time.perf_counter_ns() - start_ns) / 1e6)
                answers[name].append(logits)
    mine, theirs = np.stack(answers["c"]), np.stack(answers["onnxruntime"])
    proto = read_onnx(export / "model.onnx")
    as_written = answers_as_written(at_batch_one(proto), np.concatenate(inputs))
    c_p50_ms, theirs_p50_ms = (statistics.median(times_ms[name]) for name in ("c", "onnxruntime"))
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    return Row(
        export=export.name,
        precision=metadata["scalesearch.precision"],
        images=len(images),
        classes_answered=len(set(theirs.argmax(axis=1).tolist())),
        same=int((mine.argmax(axis=1) == theirs.argmax(axis=1)).sum()),
        same_as_written=int((mine.argmax(axis=1) == as_written.argmax(axis=1)).sum()),
        difference=float(np.abs(mine - theirs).max()),
        difference_as_written=float(np.abs(mine - as_written).max()),
        spread=float(theirs.std(axis=0).mean()),
        c_p50_ms=c_p50_ms,
        onnxruntime_p50_ms=theirs_p50_ms,
        ratio=c_p50_ms / theirs_p50_ms,
    )


def main() -> None:
    """Prints a row for each export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", nargs="+", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--cc", default="gcc")
    parser.add_argument("--to", type=Path)
    arguments = parser.parse_args()
    every = sorted(path for path in arguments.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = [every[place * len(every) // arguments.count] for place in range(arguments.count)]
    rows = [measured(export, images, arguments.cc) for export in arguments.exports]
    for row in rows:
        print(
            f"{row.export} ({row.precision}): same class {row.same} of {row.images} ({row.same_as_written} as written),"
            f" {row.classes_answered} classes answered; largest difference {row.difference:.2g} "
            f"({row.difference_as_written:.2g} as written) at a spread of {row.spread:.2g}; "
            f"C {row.c_p50_ms:.2f} ms, ONNX Runtime {row.onnxruntime_p50_ms:.3f} ms: {row.ratio:.0f} times slower"
        )
    if arguments.to:
        replace_file(arguments.to, "".join(f"{json.dumps(asdict(row))}\n" for row in rows).encode())


if __name__ == "__main__":
    main()
