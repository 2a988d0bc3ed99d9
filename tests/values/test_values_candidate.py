"""What a candidate's settings come to in its precision."""

import pytest

from scalesearch.values.candidate import Precision, Quantization


@pytest.mark.parametrize(
    ("precision", "aware_steps", "float_layers", "label"),
    [
        ("fp32", 0, 0, "fp32"),
        ("fp16", 0, 0, "fp16"),
        ("bf16", 0, 0, "bf16"),
        ("int8", 60, 1, "int8 QAT but 1 layer"),
        ("fp8", 0, 1, "fp8 but 1 layer"),
    ],
)
def test_a_setting_counts_in_the_precisions_that_use_it(
    precision: Precision, aware_steps: int, float_layers: int, label: str
) -> None:
    quantization = Quantization(precision=precision, qat_steps=60, keep_float=1)
    assert (quantization.aware_steps, quantization.float_layers) == (aware_steps, float_layers)
    assert quantization.label == label
