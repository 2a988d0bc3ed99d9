"""The decoding of `decoding.py` in C99, for `scalesearch export --format c`."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.deployment.formats.c_answer import MAY_EXCEED_IN_INT8, CAnswer
from scalesearch.deployment.formats.c_texts import c_float
from scalesearch.tasks.detection.decoding import (
    LEAST_SCORE,
    MOST_CANDIDATES,
    MOST_DETECTIONS,
    OVERLAP,
    Detections,
    decode_answers,
    sigmoid,
    strides_for,
)
from scalesearch.tasks.detection.decoding_graph import facts_of
from scalesearch.values.network import OnnxModel

_NEAR: Final = 1e-4
"""A score this near to a threshold may be rounded to either side of it."""
_LEAST_CANDIDATES: Final = 10


def detector_answer(model: OnnxModel, expected: NDArray[np.float32]) -> CAnswer:
    """Return what the C files of a detector need.

    Args:
        model: The network; its metadata have the threshold and the size of its input.
        expected: ONNX Runtime's answers to the check images, (N, 4 + classes + 1, points).

    Raises:
        StageFailed: The metadata are those of another task.
    """
    facts = facts_of(model, "c")
    _, values, points = expected.shape
    strides = strides_for(facts.sides_px, points)
    threshold = checked_threshold(expected, facts.threshold)
    found = decode_answers(expected, facts.sides_px, least_score=threshold)
    return CAnswer(
        noun="An object detector",
        parameter="raw",
        sizes={"MODEL_VALUES": values, "MODEL_POINTS": points},
        may_exceed_in_int8=MAY_EXCEED_IN_INT8,
        constants={
            "MODEL_LEAST_SCORE": f"{c_float(LEAST_SCORE)} /* lower scores are never reported */",
            "MODEL_CLASSES": str(values - 5),
            "MODEL_THRESHOLD": f"{c_float(facts.threshold)} /* scores that are reported, unless others are wanted */",
            "MODEL_MOST_DETECTIONS": str(MOST_DETECTIONS),
        },
        modules={"detections": (_HEADER, "\n".join(_source(facts.sides_px, strides)))},
        check="\n".join(_check(found, threshold)),
    )


def checked_threshold(raw: NDArray[np.float32], threshold: float) -> float:
    """Return the self-test's threshold, which no score is near to: the given one, or a lower one that more reach.

    Every image has at least `_LEAST_CANDIDATES` scores above it, if it has that many points and classes.
    """
    scores = (sigmoid(raw[:, 4:-1]) * sigmoid(raw[:, -1:])).reshape(len(raw), -1)
    ranked = np.sort(scores, axis=1)[:, ::-1]
    threshold = min(threshold, float(ranked[:, :_LEAST_CANDIDATES][:, -1].min()))
    while bool((np.abs(scores - threshold) < _NEAR).any()) and threshold > LEAST_SCORE:
        threshold -= 2 * _NEAR
    return max(LEAST_SCORE, threshold)


def _check(found: Sequence[Detections], threshold: float) -> Iterator[str]:
    """Yield the self-test's part: ONNX Runtime's answers, decoded in C, must give what numpy makes of them."""
    yield f"#define THRESHOLD {c_float(threshold)}"
    yield f"static const int counts[IMAGES] = {{{', '.join(str(len(each.scores)) for each in found)}}};"
    yield "static const model_detection wanted[IMAGES][MODEL_MOST_DETECTIONS] = {"
    for each in found:
        rows = [
            f"{{{', '.join(map(c_float, box))}, {c_float(score)}, {label}}}"
            for box, score, label in zip(each.boxes, each.scores, each.classes, strict=True)
        ]
        yield f"    {{{', '.join(rows) or '{0, 0, 0, 0, 0, 0}'}}},"
    yield "};"
    yield _CHECK


def _source(sides_px: tuple[int, int], strides: Sequence[int]) -> Iterator[str]:
    yield _SOURCE_START
    yield "/* Stride, columns and rows of each feature map, in the order of the points. */"
    yield f"static const int levels[{len(strides)}][3] = {{"
    for stride in strides:
        yield f"    {{{stride}, {sides_px[1] // stride}, {sides_px[0] // stride}}},"
    yield "};"
    yield f"#define LEVELS {len(strides)}"
    yield f"#define MOST_CANDIDATES {MOST_CANDIDATES} /* the best ones are compared with one another */"
    yield f"#define OVERLAP {c_float(OVERLAP)} /* IoU above which the better box of a class stays */"
    yield _SOURCE


_HEADER: Final = """/* Makes detections of what `model` writes: decodes it, and drops boxes that a better one covers. */
#ifndef SCALESEARCH_DETECTIONS_H
#define SCALESEARCH_DETECTIONS_H

#include "model.h"

typedef struct {
    float left, top, right, bottom; /* pixels of the network's input */
    float score;                    /* 0 to 1 */
    int label;                      /* place in model_labels */
} model_detection;

#ifdef __cplusplus
extern "C" {
#endif

/* Writes the objects with at least this score, the most certain first, and returns how many there are; -1 if the answer
   holds NAN or infinity. After `model(image, raw)`: model_detections(&raw[0][0][0], MODEL_THRESHOLD, found).
   It takes no memory but about 20 kB of stack. */
int model_detections(const float *raw, float threshold, model_detection found[MODEL_MOST_DETECTIONS]);

#ifdef __cplusplus
}
#endif
#endif
"""

_SOURCE_START: Final = """#include "detections.h"

#include <math.h>
#include <string.h>
"""

_SOURCE: Final = """
typedef struct {
    float score;
    int label, point;
} candidate;

static float chance(float logit) {
    float bounded = logit < -80.0f ? -80.0f : logit > 80.0f ? 80.0f : logit;
    return 1.0f / (1.0f + expf(-bounded));
}

static float bounded(float value, float most) {
    return value < 0.0f ? 0.0f : value > most ? most : value;
}

/* Keeps the best candidates sorted; of equal ones, those that came first. Returns the new number of them. */
static int keep(candidate *best, int count, candidate next) {
    int place = count;
    while (place > 0 && best[place - 1].score < next.score) {
        place--;
    }
    if (place >= MOST_CANDIDATES) {
        return count;
    }
    int last = count < MOST_CANDIDATES ? count : MOST_CANDIDATES - 1;
    memmove(best + place + 1, best + place, (size_t)(last - place) * sizeof *best);
    best[place] = next;
    return last + 1;
}

static model_detection box_of(const float *raw, candidate at) {
    int level = 0, cell = at.point;
    while (level < LEVELS - 1 && cell >= levels[level][1] * levels[level][2]) {
        cell -= levels[level][1] * levels[level][2];
        level++;
    }
    float stride = (float)levels[level][0];
    float x = ((float)(cell % levels[level][1]) + 0.5f) * stride;
    float y = ((float)(cell / levels[level][1]) + 0.5f) * stride;
    model_detection box = {
        bounded(x - raw[0 * MODEL_POINTS + at.point] * stride, (float)MODEL_WIDTH),
        bounded(y - raw[1 * MODEL_POINTS + at.point] * stride, (float)MODEL_HEIGHT),
        bounded(x + raw[2 * MODEL_POINTS + at.point] * stride, (float)MODEL_WIDTH),
        bounded(y + raw[3 * MODEL_POINTS + at.point] * stride, (float)MODEL_HEIGHT),
        at.score,
        at.label,
    };
    return box;
}

static float overlap(const model_detection *one, const model_detection *other) {
    float left = one->left > other->left ? one->left : other->left;
    float top = one->top > other->top ? one->top : other->top;
    float right = one->right < other->right ? one->right : other->right;
    float bottom = one->bottom < other->bottom ? one->bottom : other->bottom;
    float wide = right > left ? right - left : 0.0f, high = bottom > top ? bottom - top : 0.0f;
    float inner = wide * high;
    float all = (one->right - one->left) * (one->bottom - one->top)
        + (other->right - other->left) * (other->bottom - other->top) - inner;
    return inner / (all > 1e-9f ? all : 1e-9f);
}

int model_detections(const float *raw, float threshold, model_detection found[MODEL_MOST_DETECTIONS]) {
    candidate best[MOST_CANDIDATES + 1];
    model_detection boxes[MOST_CANDIDATES];
    unsigned char covered[MOST_CANDIDATES] = {0};
    int candidates = 0, whole = 0, count = 0;
    float least = threshold > MODEL_LEAST_SCORE ? threshold : MODEL_LEAST_SCORE;
    for (int number = 0; number < MODEL_VALUES * MODEL_POINTS; number++) {
        if (!isfinite(raw[number])) {
            return -1;
        }
    }
    for (int label = 0; label < MODEL_CLASSES; label++) {
        for (int point = 0; point < MODEL_POINTS; point++) {
            float score = chance(raw[(4 + label) * MODEL_POINTS + point]);
            score *= chance(raw[(MODEL_VALUES - 1) * MODEL_POINTS + point]);
            if (score >= least) {
                candidate next = {score, label, point};
                candidates = keep(best, candidates, next);
            }
        }
    }
    for (int place = 0; place < candidates; place++) {
        model_detection box = box_of(raw, best[place]);
        if (box.right > box.left && box.bottom > box.top) {
            boxes[whole++] = box;
        }
    }
    for (int place = 0; place < whole && count < MODEL_MOST_DETECTIONS; place++) {
        if (covered[place]) {
            continue;
        }
        found[count++] = boxes[place];
        for (int other = place + 1; other < whole; other++) {
            if (boxes[other].label == boxes[place].label && overlap(&boxes[place], &boxes[other]) > OVERLAP) {
                covered[other] = 1;
            }
        }
    }
    return count;
}
"""

_CHECK: Final = """
static int differs(float one, float other, float allowed) {
    return !(fabsf(one - other) <= allowed);
}

static int same(const model_detection *one, const model_detection *other) {
    return one->label == other->label && !differs(one->score, other->score, 1e-4f)
        && !differs(one->left, other->left, 0.01f) && !differs(one->top, other->top, 0.01f)
        && !differs(one->right, other->right, 0.01f) && !differs(one->bottom, other->bottom, 0.01f);
}

/* Counts the wanted detections that are not among the found ones, in any order: scores that tie may change places. */
static int missing(int number, const model_detection *found, int count) {
    int gone = 0;
    for (int place = 0; place < counts[number]; place++) {
        int at = 0;
        while (at < count && !same(&wanted[number][place], &found[at])) {
            at++;
        }
        gone += at >= count;
    }
    return gone;
}

static int check_image(int number, const float *mine, const float *theirs) {
    model_detection found[MODEL_MOST_DETECTIONS];
    int count = model_detections(theirs, THRESHOLD, found), gone = missing(number, found, count);
    int wrong = count < 0 || gone * 20 > counts[number] || count - (counts[number] - gone) > counts[number] / 20;
    count = model_detections(mine, THRESHOLD, found);
    printf("image %d: %d objects, ONNX Runtime %d", number, count, counts[number]);
    if (count > 0) {
        printf(", the most certain %s %.3f", model_labels[found[0].label], (double)found[0].score);
    }
    printf("\\n");
    return wrong;
}"""
