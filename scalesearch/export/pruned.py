"""What an exported network really lost of what its candidate asked to be pruned."""

from dataclasses import replace
from pathlib import Path

from scalesearch.compression.pattern_2_4 import as_in_file
from scalesearch.values.candidate import Pruning
from scalesearch.values.record import MeasuredTrial


def made_pruning(record: MeasuredTrial, file: Path) -> Pruning:
    """Return the candidate's pruning without what had no effect on its network.

    Shares of channels and blocks may round to none, which shows in the number of multiply-accumulates; 2:4 zeros are
    made in wide layers only.

    Args:
        record: The trial.
        file: Its ONNX file.

    Raises:
        StageFailed: The file is missing or is not ONNX.
    """
    made = as_in_file(record.candidate.pruning, file)
    if record.dense_macs == record.cost.macs:
        made = replace(made, channel_fraction=0.0, block_fraction=0.0)
    return made
