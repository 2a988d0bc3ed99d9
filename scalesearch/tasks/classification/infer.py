"""Label images with an ONNX file of scalesearch, using only onnxruntime, numpy and Pillow.

    python infer.py IMAGE [IMAGE ...] [--model model.onnx] [--top 3]

All that it needs to know is in the metadata of the ONNX file. From Python: `Labeller(path).label("photo.jpg")`.

It runs with Python 3.8, numpy 1.21, Pillow 8.0, onnxruntime 1.14 and newer; numpy 2 needs onnxruntime 1.19. A model in
bf16, fp8 or TensorRT's int8 needs a newer onnxruntime: the error message says which. AVIF pictures need Pillow 11.3.

`scalesearch export` writes this file into every export. It imports nothing of scalesearch there, and prints, since it
is a script.
"""

from __future__ import annotations  # Python 3.8 and 3.9 could not evaluate some of the types below

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scalesearch.tasks.infer_parts.images import UNREADABLE, printable, read_input
from scalesearch.tasks.infer_parts.preprocessing import read_preprocessing
from scalesearch.tasks.infer_parts.versions import open_session, too_old

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Labeller:
    """An open ONNX file with its preprocessing."""

    def __init__(self, model: str | Path, *, threads: int = 1) -> None:
        """Open the file on the CPU.

        With `threads` 0 it uses all cores, from which small networks rarely gain.

        Raises:
            ValueError: The file's metadata do not describe its preprocessing, or it needs a newer ONNX Runtime.
        """
        self._session = open_session(Path(model), threads)
        self.preprocessing = read_preprocessing(self._session.get_modelmeta().custom_metadata_map)
        self._input = self._session.get_inputs()[0].name

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the network's raw answers (N, classes) for inputs (N, channels, height, width)."""
        return np.asarray(self._session.run(None, {self._input: images})[0], np.float32)

    def label(self, path: str | Path, *, top: int = 1) -> list[tuple[str, float]]:
        """Return the `top` most likely class names of an image file, with their probabilities.

        Raises one of `UNREADABLE`. One of these is `NotFiniteError`, if the network gives no valid answer.
        """
        probabilities = softmax(self.logits(read_input(Path(path), self.preprocessing))[0])
        places = np.argsort(-probabilities, kind="stable")[:top]
        return [(self.preprocessing.class_names[place], float(probabilities[place])) for place in places]


class NotFiniteError(ValueError):
    """The network's answer holds NaN or infinity, so it does not name a class."""


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the probabilities (classes,) of logits (classes,).

    Raises:
        NotFiniteError: A logit is NaN or infinite.
    """
    if not np.isfinite(logits).all():  # otherwise the first class would win, with a probability of nan
        message = "the network answers it with NaN or infinity (fp16 overflows and a failed calibration do this)"
        raise NotFiniteError(message)
    powers = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(powers / powers.sum(), np.float64)


def main() -> int:
    """Print a line for each image; return 1 if an image could not be read, 2 if the model could not."""
    parser = argparse.ArgumentParser(description="Label images with an exported network.")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.onnx"))
    parser.add_argument("--top", type=int, default=2, help="how many classes to name (default: 2)")
    arguments = parser.parse_args()
    message = too_old()
    if message:
        print(f"error: {message}", file=sys.stderr)
        return 2
    try:
        labeller = Labeller(arguments.model)
    except Exception as error:  # ONNX Runtime's errors share no base class
        print(printable(f"error: {arguments.model}: {error}"), file=sys.stderr)
        return 2
    failed = 0
    for path in arguments.images:
        try:
            answers = labeller.label(path, top=max(arguments.top, 1))
        except NotFiniteError as error:
            failed += 1
            print(f"error: {str(path)!r} has no label: {error}", file=sys.stderr)
            continue
        except UNREADABLE as error:
            failed += 1
            print(printable(f"error: {str(path)!r} is no image that can be read: {error}"), file=sys.stderr)
            continue
        line = f"{path}: " + ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in answers)
        print(printable(line))
    return 1 if failed else 0


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # end like any other command when `| head` closes the pipe
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
