"""The texts of the C files that go with the generated network: headers, class names, self-test and Makefile."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.deployment.formats.base import CheckImages
from scalesearch.deployment.formats.c_answer import CAnswer


def c_string(text: str) -> str:
    """Return the text as a C string literal in UTF-8.

    Anything but plain letters, digits and signs is written as an octal code. An octal code ends after three digits,
    whatever follows. Question marks are coded too, since C99 has trigraphs.
    """
    plain = (
        frozenset(b" !#$%&'()*+,-./0123456789:;<=>@[]^_`{|}~") | frozenset(range(65, 91)) | frozenset(range(97, 123))
    )
    coded = (chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode("utf-8", "replace"))
    return f'"{"".join(coded)}"'


def header(shape: Sequence[int], answer: CAnswer) -> Iterator[str]:
    """Yield the lines of model.h.

    Args:
        shape: (C, H, W) of one image.
        answer: What the task says about the network's answer.
    """
    yield f"/* {answer.noun}: see MODEL_CARD.md for what it is, preprocessing.toml for how to make its input. */"
    yield "#ifndef SCALESEARCH_MODEL_H"
    yield "#define SCALESEARCH_MODEL_H"
    yield ""
    yield f"#define MODEL_CHANNELS {shape[0]}"
    yield f"#define MODEL_HEIGHT {shape[1]}"
    yield f"#define MODEL_WIDTH {shape[2]}"
    for name, value in (*answer.sizes.items(), *answer.constants.items()):
        yield f"#define {name} {value}"
    yield ""
    yield "#ifdef __cplusplus"
    yield 'extern "C" {'
    yield "#endif"
    yield ""
    first = f"{answer.parameter}[0]{'[0]' * len(answer.sizes)}"
    yield "/* Writes the answer to one normalised image. It takes memory for its activations and gives it back;"
    yield f"   where there is none it returns without writing: set {first} to NAN before, and it is NAN afterwards. */"
    yield "void model("
    yield "    const float image[1][MODEL_CHANNELS][MODEL_HEIGHT][MODEL_WIDTH],"
    yield f"    float {answer.parameter}[1]{dimensions(answer)});"
    yield ""
    yield "#ifdef __cplusplus"
    yield "}"
    yield "#endif"
    yield "#endif"


def dimensions(answer: CAnswer) -> str:
    """Return the sizes of an answer without the batch, as in the declaration of an array."""
    return "".join(f"[{name}]" for name in answer.sizes)


def labels(names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of labels.c."""
    yield '#include "labels.h"'
    yield ""
    yield f"const char *const model_labels[{len(names)}] = {{"
    for name in names:
        yield f"    {c_string(name)},"
    yield "};"


def labels_header(number: int) -> Iterator[str]:
    """Yield the lines of labels.h for this number of classes."""
    yield "/* Class names in UTF-8, in the order of the logits. */"
    yield "#ifndef SCALESEARCH_LABELS_H"
    yield "#define SCALESEARCH_LABELS_H"
    yield "#ifdef __cplusplus"
    yield 'extern "C" {'
    yield "#endif"
    yield f"extern const char *const model_labels[{number}];"
    yield "#ifdef __cplusplus"
    yield "}"
    yield "#endif"
    yield "#endif"


def self_test(
    check: CheckImages,
    expected: NDArray[np.float32],
    tolerance: float,
    shape: Sequence[int],
    answer: CAnswer,
    *,
    beyond: int = 0,
) -> Iterator[str]:
    """Yield the lines of the self-test program.

    It runs each image through the C code and compares every number of the answer with ONNX Runtime's, and what the task
    compares besides.

    Args:
        check: The check images, of shape (N, C, H, W).
        expected: ONNX Runtime's answers of shape (N, ...).
        tolerance: Allowed difference of a number.
        shape: (C, H, W) of one image.
        answer: What the task says about the network's answer.
        beyond: So many numbers of an answer may differ by more.
    """
    channels, height, width = shape
    yield "/* Checks model.c against what ONNX Runtime answered to the same images when this was exported. */"
    yield "#include <math.h>"
    yield "#include <stdio.h>"
    yield '#include "labels.h"'
    yield '#include "model.h"'
    for name in answer.modules:
        yield f'#include "{name}.h"'
    yield ""
    yield f"#define IMAGES {len(check.images)}"
    yield f"#define NUMBERS ({' * '.join(answer.sizes)})"
    yield f"static const float tolerance = {c_float(tolerance)};"
    yield f"#define MAY_EXCEED {beyond} /* numbers of an answer that may differ by more, but not by FAR times it */"
    yield f"#define FAR {c_float(_FAR)}"
    yield f"/* {_comment(check.told)}, as the network takes them. */"
    yield f"static const float images[IMAGES][1][{channels}][{height}][{width}] = {{"
    for image in check.images:
        yield "{{"
        for plane in image:
            yield "{"
            for row in plane:
                yield f"{{{', '.join(map(c_float, row))}}},"
            yield "},"
        yield "}},"
    yield "};"
    yield "static const float expected[IMAGES][NUMBERS] = {"
    for row in expected.reshape(len(expected), -1):
        yield f"{{{', '.join(map(c_float, row))}}},"
    yield "};"
    yield ""
    yield answer.check
    yield _SELF_TEST_MAIN.replace("DIMENSIONS", dimensions(answer))


def c_float(value: float) -> str:
    """Return a number as a C literal of type float."""
    text = f"{float(value):.9g}"  # nine digits are enough to restore every float32 exactly
    return f"{text}f" if any(sign in text for sign in ".en") else f"{text}.0f"


def _comment(text: str) -> str:
    """Return the text in a form that can neither end nor continue the C comment it is put in."""
    return "".join(sign if sign.isalnum() or sign in " ,.-_" else " " for sign in text)


_FAR: Final = 5.0
"""No number may differ by so many tolerances. In an untrained network in int8, the largest difference was 1.7."""

_SELF_TEST_MAIN: Final = """
int main(void) {
    static float answer[1]DIMENSIONS;
    float *mine = (float *)answer, largest = 0.0f;
    int wrong = 0;
    for (int number = 0; number < IMAGES; number++) {
        for (int place = 0; place < NUMBERS; place++) {
            mine[place] = NAN;
        }
        model(images[number], answer);
        int beyond = 0;
        for (int place = 0; place < NUMBERS; place++) {
            float difference = fabsf(mine[place] - expected[number][place]);
            /* written so that NAN is wrong */
            wrong += !(difference <= (MAY_EXCEED > 0 ? FAR * tolerance : tolerance));
            beyond += !(difference <= tolerance);
            if (!(difference <= largest)) {
                largest = difference;
            }
        }
        wrong += beyond > MAY_EXCEED;
        wrong += check_image(number, mine, expected[number]);
    }
    printf("largest difference of a number %g, allowed %g\\n", (double)largest, (double)tolerance);
    printf("%s\\n", wrong == 0 ? "self-test passed" : "SELF-TEST FAILED");
    return wrong == 0 ? 0 : 1;
}"""


def makefile(modules: Mapping[str, object]) -> str:
    """Return the Makefile for the network, its class names, the self-test and further C files of these names."""
    text = MAKEFILE.replace("OBJECTS = model.o", " ".join(("OBJECTS = model.o", *(f"{name}.o" for name in modules))))
    return text.replace("%.o: %.c model.h", " ".join(("%.o: %.c model.h", *(f"{name}.h" for name in modules))))


MAKEFILE: Final = """# make test: builds the network and checks it. make clean: removes what was built.
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
