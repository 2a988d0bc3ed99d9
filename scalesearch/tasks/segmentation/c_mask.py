"""The mask of `infer.py` in C99, for `scalesearch export --format c`."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.deployment.formats.c_answer import MAY_EXCEED_IN_INT8, CAnswer
from scalesearch.tasks.segmentation.infer import class_map
from scalesearch.values.network import OnnxModel


def mask_answer(model: OnnxModel, expected: NDArray[np.float32]) -> CAnswer:
    """Return what the C files of a segmentation network need.

    Args:
        model: The network.
        expected: ONNX Runtime's answers to the check images, (N, classes, rows, columns).
    """
    _, classes, rows, columns = expected.shape
    size = (2 * rows + 1, 3 * columns + 1)  # no whole multiple: the enlargement itself is checked
    masks = [class_map(logits, size, (0.0, 0.0, 1.0, 1.0)) for logits in expected]
    return CAnswer(
        noun="A network that says what each pixel of a picture shows",
        parameter="logits",
        sizes={"MODEL_CLASSES": classes, "MODEL_ROWS": rows, "MODEL_COLUMNS": columns},
        may_exceed_in_int8=MAY_EXCEED_IN_INT8,
        modules={"mask": (_HEADER, _SOURCE)},
        check="\n".join(_check(masks)),
    )


def _check(masks: list[NDArray[np.uint8]]) -> Iterator[str]:
    """Yield the self-test's part: the masks of ONNX Runtime's answers, made in C and by numpy, must agree."""
    height, width = masks[0].shape
    yield f"#define HEIGHT {height}"
    yield f"#define WIDTH {width}"
    yield "static const unsigned char wanted[IMAGES][HEIGHT * WIDTH] = {"
    for mask in masks:
        yield "{"
        yield from (f"{','.join(map(str, row))}," for row in mask.tolist())
        yield "},"
    yield "};"
    yield _CHECK


_HEADER: Final = """/* Makes a mask of what `model` writes: enlarges the logits bilinearly, takes the best class. */
#ifndef SCALESEARCH_MASK_H
#define SCALESEARCH_MASK_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writes the class of each of height x width pixels, row by row, as places in model_labels, and returns 0; or returns
   -1 if the answer holds NAN or infinity. The mask is of what the network sees, in any size: of a cropped picture, the
   part that was kept. After `model(image, logits)`: model_mask(&logits[0][0][0][0], height, width, mask).
   It takes no memory. */
int model_mask(const float *logits, int height, int width, unsigned char *mask);

#ifdef __cplusplus
}
#endif
#endif
"""

_SOURCE: Final = """#include "mask.h"

#include <math.h>

/* The cell before a pixel's middle, and how far the pixel lies towards the next one, 0 to 1. */
static int cell_before(int pixel, int length, int cells, float *share) {
    float place = ((float)pixel + 0.5f) / (float)length * (float)cells - 0.5f;
    int most = cells > 1 ? cells - 2 : 0;
    place = place < 0.0f ? 0.0f : place > (float)(cells - 1) ? (float)(cells - 1) : place;
    int before = (int)place < most ? (int)place : most;
    *share = place - (float)before;
    return before;
}

int model_mask(const float *logits, int height, int width, unsigned char *mask) {
    for (int number = 0; number < MODEL_CLASSES * MODEL_ROWS * MODEL_COLUMNS; number++) {
        if (!isfinite(logits[number])) {
            return -1;
        }
    }
    for (int y = 0; y < height; y++) {
        float down, across;
        int top = cell_before(y, height, MODEL_ROWS, &down), bottom = top + 1 < MODEL_ROWS ? top + 1 : top;
        for (int x = 0; x < width; x++) {
            int left = cell_before(x, width, MODEL_COLUMNS, &across);
            int right = left + 1 < MODEL_COLUMNS ? left + 1 : left;
            float best = 0.0f;
            for (int label = 0; label < MODEL_CLASSES; label++) {
                const float *above = logits + (label * MODEL_ROWS + top) * MODEL_COLUMNS;
                const float *below = logits + (label * MODEL_ROWS + bottom) * MODEL_COLUMNS;
                float upper = above[left] * (1.0f - across) + above[right] * across;
                float lower = below[left] * (1.0f - across) + below[right] * across;
                float score = upper * (1.0f - down) + lower * down;
                if (label == 0 || score > best) {
                    best = score;
                    mask[y * width + x] = (unsigned char)label;
                }
            }
        }
    }
    return 0;
}
"""

_CHECK: Final = """
static int check_image(int number, const float *mine, const float *theirs) {
    static unsigned char mask[HEIGHT * WIDTH];
    int same = 0, equal = 0;
    int wrong = model_mask(theirs, HEIGHT, WIDTH, mask) != 0;
    for (int pixel = 0; pixel < HEIGHT * WIDTH; pixel++) {
        equal += mask[pixel] == wanted[number][pixel];
    }
    wrong += model_mask(mine, HEIGHT, WIDTH, mask) != 0;
    for (int pixel = 0; pixel < HEIGHT * WIDTH; pixel++) {
        same += mask[pixel] == wanted[number][pixel];
    }
    printf("image %d: %.2f %% of the pixels as by ONNX Runtime, the middle one %s\\n", number,
        100.0 * same / (HEIGHT * WIDTH), model_labels[mask[HEIGHT / 2 * WIDTH + WIDTH / 2]]);
    return wrong + (HEIGHT * WIDTH - equal > 3 + HEIGHT * WIDTH / 100); /* two classes may tie in a pixel */
}"""
