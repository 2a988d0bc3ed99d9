"""The names of the files that may be in every export."""

from scalesearch.export.environment import LOCK
from scalesearch.export.metadata import CALIBRATION, NAME, PREPROCESSING
from scalesearch.export.model_card import CARD

MODEL = "model.onnx"
WEIGHTS = "weights.safetensors"
SCRIPT = "infer.py"
FIXED = (MODEL, WEIGHTS, SCRIPT, NAME, PREPROCESSING, CALIBRATION, LOCK, CARD)
"""Files that may be in every export, whatever its formats."""
