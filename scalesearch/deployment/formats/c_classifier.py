"""The part of the C files that is a classifier's own: the likeliest class in the self-test."""

from typing import Final

from scalesearch.deployment.formats.c_answer import CAnswer


def classifier_answer(classes: int) -> CAnswer:
    """Return what the C files of a classifier with this number of classes need."""
    return CAnswer(noun="An image classifier", parameter="logits", sizes={"MODEL_CLASSES": classes}, check=_CHECK)


# The class is compared only if ONNX Runtime's own margin is larger than twice the tolerance.
_CHECK: Final = """static int likeliest(const float *logits) {
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

static int check_image(int number, const float *mine, const float *theirs) {
    int my_class = likeliest(mine), their_class = likeliest(theirs);
    printf("image %d: %s, ONNX Runtime %s\\n", number, model_labels[my_class], model_labels[their_class]);
    return my_class != their_class && margin(theirs, their_class) > 2.0f * tolerance;
}"""
