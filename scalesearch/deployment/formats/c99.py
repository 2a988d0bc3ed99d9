"""Portable C99 by emx-onnx-cgen: one source file without dependencies, class names, and a program that checks it."""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from scalesearch.deployment.formats.base import CheckImages, FormatOptions
from scalesearch.deployment.onnx_file import checking_session, read_onnx
from scalesearch.errors import ConfigError, MissingBackendError, StageFailed
from scalesearch.files import replace_file
from scalesearch.values.candidate import Precision
from scalesearch.values.onnx_model import OnnxModel

_FOLDER: Final = "c"
_HOLDS: Final[tuple[Precision, ...]] = ("fp32", "int8")
# Of the logits' spread over the images. fp32 sums in another order than ONNX Runtime. In int8 an activation that lies
# on the border of two steps falls to either side, and a difference of one step is what follows.
_TOLERANCE_OF_SPREAD: Final = {"fp32": 1e-3, "int8": 0.1}
_TOLERANCE_OF_SIZE: Final = 1e-5
_LEAST_SPREAD: Final = 1e-4
_NUMBERS_A_LINE: Final = 8


class C99:
    """See the `Format` protocol. The batch is fixed to 1; there is no other global state than constants."""

    name: Final = "c"
    what: Final = "portable C99 of the network: `make test` in its folder checks it"

    def ensure_available(self) -> None:
        """Nothing, where the code generator is installed.

        Raises:
            MissingBackendError: It is not.
        """
        if importlib.util.find_spec("emx_onnx_cgen") is None:
            message = "--format c needs the code generator emx-onnx-cgen.\n"
            message += "Install it with: pip install 'scalesearch[c]'"
            raise MissingBackendError(message)

    def ensure_holds(self, precision: Precision) -> None:
        """Nothing for fp32 and int8.

        Raises:
            ConfigError: C99 has no type for the others.
        """
        if precision not in _HOLDS:
            message = (
                f"--format c: expected a network in {' or '.join(_HOLDS)}, came {precision}: C99 has no such type."
            )
            message += "\nExport another trial (`scalesearch front` shows their precision), or another format."
            raise ConfigError(message)

    def write(self, model: OnnxModel, folder: Path, options: FormatOptions) -> tuple[str, ...]:
        """The names of model.c, model.h, labels.c, labels.h, self_test.c and Makefile, in the folder `c`.

        Raises:
            StageFailed: The generator cannot express the network, or the check images do not tell answers apart.
        """
        proto = at_batch_one(read_onnx(model.path))
        check = options.check_images()
        expected = answers_as_written(proto, check.images)
        tolerance = allowed_difference(expected, options.precision)
        shape, classes = model.input_shape[1:], expected.shape[1]
        texts = {
            "model.c": generated(proto),
            "model.h": "\n".join(_header(shape, classes)),
            "labels.c": "\n".join(_labels(options.class_names)),
            "labels.h": "\n".join(_labels_header(len(options.class_names))),
            "self_test.c": "\n".join(_self_test(check, expected, tolerance, shape)),
            "Makefile": _MAKEFILE,
        }
        for name, text in texts.items():
            replace_file(folder / _FOLDER / name, f"{text.rstrip()}\n".encode())
        return tuple(f"{_FOLDER}/{name}" for name in texts)


def at_batch_one(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose batch is 1 throughout, without metadata."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for value in (*fixed.graph.input, *fixed.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.Clear()
        dim.dim_value = 1
    del fixed.graph.value_info[:]
    # The generator copies them into a comment of the C file, where a class name could end the comment.
    del fixed.metadata_props[:]
    fixed.doc_string = fixed.graph.doc_string = ""
    return fixed


def generated(proto: onnx.ModelProto) -> str:
    """The C file: a function `model` and its constants.

    Raises:
        StageFailed: The generator cannot express the network.
    """
    from emx_onnx_cgen import Compiler
    from emx_onnx_cgen.compiler import CompilerOptions

    # 0: all weights stay in the source. Above 100 kB they would go to a file that the caller must load, and without it
    # the answers are silently wrong.
    options = CompilerOptions(model_name="model", large_weight_threshold=0)
    try:
        return str(Compiler(options).compile(proto))
    except Exception as error:  # the generator's errors share no base class
        reason = f"emx-onnx-cgen cannot express the network in C: {' '.join(str(error).split())[:300]}"
        raise StageFailed(stage="export", reason=reason) from error


def answers_as_written(proto: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """ONNX Runtime's logits (N, classes), one image a run and every node as the file has it."""
    session = checking_session(proto, as_written=True)
    name = session.get_inputs()[0].name
    return np.concatenate([np.asarray(session.run(None, {name: image[np.newaxis]})[0]) for image in images])


def allowed_difference(expected: NDArray[np.float32], precision: Precision) -> float:
    """How far a logit of the C code may lie from ONNX Runtime's.

    Raises:
        StageFailed: The answers are nearly the same for all images, so that any code would pass.
    """
    size, spread = float(np.abs(expected).max()), float(expected.std(axis=0).mean())
    if not np.isfinite(size) or spread <= _LEAST_SPREAD * size:
        reason = f"the network answers nearly the same to all {len(expected)} check images: a self-test would be empty"
        raise StageFailed(stage="export", reason=reason)
    return _TOLERANCE_OF_SPREAD[precision] * spread + _TOLERANCE_OF_SIZE * size


def c_string(text: str) -> str:
    """A C string literal of the text in UTF-8: what is not a plain letter, digit or sign is written as its octal code.

    Octal codes end after three digits whatever follows; question marks are coded too, since C99 has trigraphs.
    """
    plain = (
        frozenset(b" !#$%&'()*+,-./0123456789:;<=>@[]^_`{|}~") | frozenset(range(65, 91)) | frozenset(range(97, 123))
    )
    coded = (chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode("utf-8", "replace"))
    return f'"{"".join(coded)}"'


def _header(shape: Sequence[int], classes: int) -> Iterator[str]:
    yield "/* An image classifier: see MODEL_CARD.md for what it is, preprocessing.toml for how to make its input. */"
    yield "#ifndef SCALESEARCH_MODEL_H"
    yield "#define SCALESEARCH_MODEL_H"
    yield ""
    yield f"#define MODEL_CHANNELS {shape[0]}"
    yield f"#define MODEL_HEIGHT {shape[1]}"
    yield f"#define MODEL_WIDTH {shape[2]}"
    yield f"#define MODEL_CLASSES {classes}"
    yield ""
    yield "#ifdef __cplusplus"
    yield 'extern "C" {'
    yield "#endif"
    yield ""
    yield "/* Writes the logits of one normalised image. It takes memory for its activations and gives it back; where"
    yield "   there is none it returns without writing: set logits[0][0] to NAN before, and it is NAN afterwards. */"
    yield "void model(const float image[1][MODEL_CHANNELS][MODEL_HEIGHT][MODEL_WIDTH], float logits[1][MODEL_CLASSES]);"
    yield ""
    yield "#ifdef __cplusplus"
    yield "}"
    yield "#endif"
    yield "#endif"


def _labels(names: Sequence[str]) -> Iterator[str]:
    yield '#include "labels.h"'
    yield ""
    yield f"const char *const model_labels[{len(names)}] = {{"
    for name in names:
        yield f"    {c_string(name)},"
    yield "};"


def _labels_header(number: int) -> Iterator[str]:
    yield "/* Class names in UTF-8, in the order of the logits. */"
    yield "#ifndef SCALESEARCH_LABELS_H"
    yield "#define SCALESEARCH_LABELS_H"
    yield f"extern const char *const model_labels[{number}];"
    yield "#endif"


def _self_test(
    check: CheckImages, expected: NDArray[np.float32], tolerance: float, shape: Sequence[int]
) -> Iterator[str]:
    """The program: each image through the C code, against ONNX Runtime's logits and its likeliest class.

    The class is asked for only where ONNX Runtime's own margin is beyond twice the tolerance.
    """
    channels, height, width = shape
    yield "/* Checks model.c against what ONNX Runtime answered to the same images when this was exported. */"
    yield "#include <math.h>"
    yield "#include <stdio.h>"
    yield '#include "labels.h"'
    yield '#include "model.h"'
    yield ""
    yield f"#define IMAGES {len(check.images)}"
    yield f"static const float tolerance = {_c_float(tolerance)};"
    yield f"/* {_comment(check.told)}, as the network takes them. */"
    yield f"static const float images[IMAGES][1][{channels}][{height}][{width}] = {{"
    for image in check.images:
        yield "{{"
        for plane in image:
            yield "{"
            for row in plane:
                yield f"{{{', '.join(map(_c_float, row))}}},"
            yield "},"
        yield "}},"
    yield "};"
    yield f"static const float expected[IMAGES][{expected.shape[1]}] = {{"
    for row in expected:
        yield f"{{{', '.join(map(_c_float, row))}}},"
    yield "};"
    yield _SELF_TEST_MAIN


def _c_float(value: float) -> str:
    text = f"{float(value):.9g}"  # nine digits give every float32 back
    return f"{text}f" if any(sign in text for sign in ".en") else f"{text}.0f"


def _comment(text: str) -> str:
    """The text inside a C comment, which it can neither end nor continue."""
    return "".join(sign if sign.isalnum() or sign in " ,.-_" else " " for sign in text)


_SELF_TEST_MAIN: Final = """
static int likeliest(const float *logits) {
    int best = 0;
    for (int place = 1; place < MODEL_CLASSES; place++) {
        if (logits[place] > logits[best]) {
            best = place;
        }
    }
    return best;
}

static float margin(const float *logits, int best) {
    float second = -INFINITY;
    for (int place = 0; place < MODEL_CLASSES; place++) {
        if (place != best && logits[place] > second) {
            second = logits[place];
        }
    }
    return logits[best] - second;
}

int main(void) {
    static float logits[1][MODEL_CLASSES];
    float largest = 0.0f;
    int wrong = 0;
    for (int number = 0; number < IMAGES; number++) {
        for (int place = 0; place < MODEL_CLASSES; place++) {
            logits[0][place] = NAN;
        }
        model(images[number], logits);
        for (int place = 0; place < MODEL_CLASSES; place++) {
            float difference = fabsf(logits[0][place] - expected[number][place]);
            if (!(difference <= tolerance)) { /* written so that NAN is wrong */
                wrong++;
            }
            if (!(difference <= largest)) {
                largest = difference;
            }
        }
        int mine = likeliest(logits[0]), theirs = likeliest(expected[number]);
        if (mine != theirs && margin(expected[number], theirs) > 2.0f * tolerance) {
            wrong++;
        }
        printf("image %d: %s, ONNX Runtime %s\\n", number, model_labels[mine], model_labels[theirs]);
    }
    printf("largest difference of a logit %g, allowed %g\\n", (double)largest, (double)tolerance);
    printf("%s\\n", wrong == 0 ? "self-test passed" : "SELF-TEST FAILED");
    return wrong == 0 ? 0 : 1;
}"""

_MAKEFILE: Final = """# make test: builds the network and checks it. make clean: removes what was built.
CC ?= cc
CFLAGS ?= -O3
STRICT = -std=c99 -Wall -Wextra -Werror
OBJECTS = model.o labels.o self_test.o

test: self_test
\t./self_test

self_test: $(OBJECTS)
\t$(CC) $(CFLAGS) -o $@ $(OBJECTS) -lm

%.o: %.c model.h labels.h
\t$(CC) $(CFLAGS) $(STRICT) -c -o $@ $<

clean:
\trm -f $(OBJECTS) self_test

.PHONY: test clean
"""
