"""The texts of the C files that go with the generated network: headers, class names, self-test and Makefile."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.deployment.formats.base import CheckImages


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


def header(shape: Sequence[int], classes: int) -> Iterator[str]:
    """Yield the lines of model.h.

    Args:
        shape: (C, H, W) of one image.
        classes: Number of classes.
    """
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
    yield f"extern const char *const model_labels[{number}];"
    yield "#endif"


def self_test(
    check: CheckImages, expected: NDArray[np.float32], tolerance: float, shape: Sequence[int]
) -> Iterator[str]:
    """Yield the lines of the self-test program.

    It runs each image through the C code, and compares the logits and the likeliest class with ONNX Runtime's. The
    class is compared only if ONNX Runtime's own margin is larger than twice the tolerance.

    Args:
        check: The check images, of shape (N, C, H, W).
        expected: ONNX Runtime's logits of shape (N, classes).
        tolerance: Allowed difference of a logit.
        shape: (C, H, W) of one image.
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
    text = f"{float(value):.9g}"  # nine digits are enough to restore every float32 exactly
    return f"{text}f" if any(sign in text for sign in ".en") else f"{text}.0f"


def _comment(text: str) -> str:
    """Return the text in a form that can neither end nor continue the C comment it is put in."""
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
