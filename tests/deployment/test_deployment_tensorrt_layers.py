"""The compiled layers, read from what the libraries write about them, and counted on real builds."""

import json
from pathlib import Path

import onnx
import pytest
from small_graphs import WEIGHTED, small_model

from scalesearch.deployment.acceptance import Gate
from scalesearch.deployment.backends.tensorrt.layers import Layer, count_precisions, inspected, parse_layers
from scalesearch.deployment.backends.tensorrt.library import is_installed
from scalesearch.values.candidate import Precision
from scalesearch.values.record import KernelCount

# Lines of the VERBOSE message of TensorRT for RTX 1.7.1, one record a layer; strides are shortened, nothing else.
_CAST_AND_PAD = """
Name: __myl_CastMulMinMaxRounCastConc_myl0_0, LayerType: kgen, Inputs: [ { Name: image, Dimensions: [1,3,8,8],
Strides: [1], StrideOrder: [3,2,1,0], Datatype: Float, Format: (Linear) Row major linear format }], Constants: [ {
Name: __mye1497_myl0, Dimensions: [1,1,8,8], Strides: [1], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC)
Channel major format }, { Name: __mye1620_const-lit-in_myl0, Dimensions: [1], Strides: [1], StrideOrder: [0],
Datatype: Half, Format: (Linear) Row major linear format }], Outputs: [ { Name: __mye974first_before_bias.1_2_myl0,
Dimensions: [1,4,8,8], Strides: [1], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }],
TacticName: __myl_CastMulMinMaxRounCastConc_0x3e13d2f11c99aa19f654c3ca6d4c0ecd, StreamId: 0, Metadata: [ONNX Layer:
Cast_in_0][ONNX Layer: image_half_quantized_QuantizeLinear][ONNX Layer: Conv_0]
"""
_INT8_CONVOLUTION = """
Name: Conv_0_myl0_1, LayerType: correlation, Inputs: [ { Name: __mye974first_before_bias.1_2_myl0, Dimensions:
[1,4,8,8], Strides: [1], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], Constants: [ {
Name: __mye1511_dconst_myl0, Dimensions: [16,4,3,3], Strides: [1], StrideOrder: [3,0,2,1], Datatype: Int8, Format:
(NHWC) Channel major format }, { Name: __mye1417dconst_myl0, Dimensions: [1,16,1,1], Strides: [1], StrideOrder:
[3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }], Outputs: [ { Name: __myln_k_arg__bb1_3_myl0,
Dimensions: [1,16,8,8], Strides: [1], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }],
TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: Conv_0][ONNX Layer:
image_half_dequantized_DequantizeLinear]
"""
_ARBITRARY_FORMAT = """
Name: __myl_MulCastAddReluMulCastReshConcResh_myl0_2, LayerType: kgen, Inputs: [ { Name: __myln_k_arg__bb1_3_myl0,
Dimensions: [1,16,8,8], Strides: [1], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }],
Constants: [ { Name: __mye1522_myl0, Dimensions: [1,16,3,8,8], Strides: [1], StrideOrder: [4,1,0,3,2], Datatype: FP8,
Format: (Arbitrary) Format with stride order = [4,1,0,3,2] }, { Name: __mye1479_dconst_myl0, Dimensions: [1,16,1,1],
Strides: [1], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], Outputs: [ { Name:
__mye1020wide_before_bias.1_5_myl0, Dimensions: [1,64,8,8], Strides: [1], StrideOrder: [3,0,2,1], Datatype: FP8,
Format: (NHWC) Channel major format }, { Name: __myln_k_arg__bb1_4_myl0, Dimensions: [1,16,8,8], Strides: [1],
StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], TacticName:
__myl_MulCastAddReluMulCastReshConcResh_0xd0413ffd, StreamId: 0, Metadata: [ONNX Layer: Relu_1][ONNX Layer: Conv_0]
"""
_FUSED_RESIDUAL = """
Name: Conv_4_myl0_3, LayerType: correlation, Inputs: [ { Name: c.1_4_myl0, Dimensions: [1,16,8,8], Strides: [1],
StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }, { Name: b.1_3_myl0, Dimensions:
[1,16,8,8], Strides: [1], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], Constants: [
{ Name: __mye700dconst_myl0, Dimensions: [16,16,1,1], Strides: [1], StrideOrder: [3,0,2,1], Datatype: Half, Format:
(NHWC) Channel major format }, { Name: __mye764_const_myl0, Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype:
Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: __myln_k_arg__bb1_5_myl0, Dimensions:
[1,16,8,8], Strides: [1], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], TacticName:
__myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: Conv_4][ONNX Layer: Relu_6][ONNX Layer: Add_5]
"""
_LINEAR_AS_GENERATED_KERNEL = """
Name: __myl_ReshMulSum_myl0_5, LayerType: kgen, Inputs: [ { Name: __myln_k_arg__bb1_6_myl0, Dimensions: [1,16,1,1],
Strides: [1], StrideOrder: [3,2,1,0], Datatype: BFloat16, Format: (Linear) Row major linear format }], Constants: [ {
Name: classifier_constantBf16_myl0, Dimensions: [16,4], Strides: [1,16], StrideOrder: [0,1], Datatype: BFloat16,
Format: (Transposed) Transposed format }], Outputs: [ { Name: __myln_k_arg__bb1_7_myl0, Dimensions: [1,4], Strides:
[1,1], StrideOrder: [0,1], Datatype: BFloat16, Format: (Transposed) Transposed format }], TacticName:
__myl_ReshMulSum_0x00cdfa8a, StreamId: 0, Metadata: [ONNX Layer: Gemm_9]
"""
_NO_CONSTANTS = """
Name: __myl_TranMean_myl0_4, LayerType: kgen, Inputs: [ { Name: __myln_k_arg__bb1_5_myl0, Dimensions: [1,16,8,8],
Strides: [1], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], Constants: [], Outputs: [
{ Name: __myln_k_arg__bb1_6_myl0, Dimensions: [1,16,1,1], Strides: [16,1,1,1], StrideOrder: [3,2,1,0], Datatype: Float,
Format: (Linear) Row major linear format }], TacticName: __myl_TranMean_0x2a85926e, StreamId: 0, Metadata: [ONNX Layer:
GlobalAveragePool_7]
"""
_REST = "I/O Tensors:\n Name: image, IOMode: Input, DataType: Float, Dimensions: [1,3,8,8], Location: Device"


def _message(*layers: str) -> str:
    return "\n".join(["Layers:", *(" ".join(layer.split()) for layer in layers), "", _REST])


def _one(layer: str) -> Layer:
    (parsed,) = parse_layers([_message(layer)])
    return parsed


def test_an_int8_convolution_is_read_whole() -> None:
    assert _one(_INT8_CONVOLUTION) == Layer(
        name="Conv_0_myl0_1",
        kind="correlation",
        precision="int8",
        output_precision="fp32",
        sources=("Conv_0", "image_half_dequantized_DequantizeLinear"),
        tactic="__myelin_CASK_STUB",
    )


@pytest.mark.parametrize(
    ("layer", "precision", "output_precision"),
    [
        (_CAST_AND_PAD, "int8", "int8"),
        (_ARBITRARY_FORMAT, "fp8", "fp8"),  # brackets inside the brackets
        (_FUSED_RESIDUAL, "fp16", "fp16"),  # a float scale of one number is no operand
        (_LINEAR_AS_GENERATED_KERNEL, "bf16", "bf16"),
        (_NO_CONSTANTS, "fp16", "fp32"),
    ],
    ids=["cast", "arbitrary format", "residual", "bf16", "no constants"],
)
def test_a_layers_precision_is_the_narrowest_of_what_it_multiplies(
    layer: str, precision: str, output_precision: str
) -> None:
    parsed = _one(layer)
    assert (parsed.precision, parsed.output_precision) == (precision, output_precision)
    assert parsed.sources
    assert parsed.tactic


def test_scales_and_biases_in_eight_bits_do_not_make_a_convolution_an_int8_one() -> None:
    """Only what has several dimensions is a weight."""
    halves = _INT8_CONVOLUTION.replace("Int8", "Half").replace("Datatype: Float, Format", "Datatype: Int8, Format", 1)
    assert _one(halves).precision == "fp16"


def test_layers_come_in_the_order_of_the_message_and_nothing_else_is_one() -> None:
    parsed = parse_layers([_message(_CAST_AND_PAD, _INT8_CONVOLUTION, _NO_CONSTANTS), "Layers:\n"])
    assert [layer.kind for layer in parsed] == ["kgen", "correlation", "kgen"]
    assert parse_layers([]) == parse_layers(["nothing of the kind", _REST]) == ()


def test_of_several_kernels_with_a_nodes_name_the_one_that_multiplies_counts() -> None:
    layers = parse_layers(
        [_message(_ARBITRARY_FORMAT, _INT8_CONVOLUTION, _FUSED_RESIDUAL, _LINEAR_AS_GENERATED_KERNEL)]
    )
    counts = count_precisions(layers, ["Conv_0", "Conv_4", "Gemm_9", "Conv_99"])
    assert set(counts) == {
        KernelCount(precision="int8", kernels=1),
        KernelCount(precision="fp16", kernels=1),
        KernelCount(precision="bf16", kernels=1),
    }
    assert count_precisions(layers, []) == ()
    assert count_precisions(layers, ["Conv_4", "Conv_0", "Conv_4"])[0] == KernelCount(precision="fp16", kernels=2)


# As NVIDIA's developer guide shows the inspector's answer ("Engine Inspector"), cut to the keys that are read here.
_INSPECTED = {
    "Layers": [
        {
            "Name": "node_of_gpu_0/res4_0_branch2a_1 + node_of_gpu_0/res4_0_branch2a_bn_2",
            "LayerType": "CaskConvolution",
            "Inputs": [
                {
                    "Name": "gpu_0/res3_3_branch2c_bn_3",
                    "Dimensions": [16, 512, 28, 28],
                    "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format.",
                }
            ],
            "Weights": {"Type": "Int8", "Count": 131072},
            "Bias": {"Type": "Float", "Count": 256},
        },
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to res4",
            "LayerType": "Reformat",
            "Inputs": [{"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 4 == 0"}],
        },
        {
            "Name": "__myl_Fc_myl0_1",
            "LayerType": "gemm",
            "Inputs": [{"Name": "y", "Datatype": "Half", "Format": "Row major linear format"}],
            "Weights": {"Type": "FP8", "Count": 10},
        },
        {"Name": "shape", "LayerType": "Constant", "Inputs": []},
        "a name alone",
    ],
    "Bindings": ["x"],
}


def test_the_inspectors_answer_gives_kind_and_precision_by_name() -> None:
    assert inspected(json.dumps(_INSPECTED)) == {
        "node_of_gpu_0/res4_0_branch2a_1 + node_of_gpu_0/res4_0_branch2a_bn_2": ("CaskConvolution", "int8"),
        "Reformatting CopyNode for Input Tensor 0 to res4": ("Reformat", "fp16"),
        "__myl_Fc_myl0_1": ("gemm", "fp8"),
        "shape": ("Constant", ""),
        "a name alone": ("", ""),
    }
    assert inspected("{}") == {}


@pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="the extra `rtx` is not installed")
@pytest.mark.parametrize("precision", ["fp16", "int8", "fp8"])
def test_a_real_build_names_for_every_weighted_node_the_kernel_that_multiplies(
    tmp_path: Path, precision: Precision
) -> None:
    """resnet_small (dense) and mobilenet_small (depthwise) are counted in test_deployment_acceptance.py."""
    model = small_model(tmp_path, precision)
    heavy = [node.name for node in onnx.load(model.path).graph.node if node.op_type in ("Conv", "Gemm")]
    build = Gate("8.9").build(model.path)
    assert len(heavy) == WEIGHTED
    assert build.convolutions == (KernelCount(precision=precision, kernels=WEIGHTED),)
    convolutions = {layer.name: layer for layer in build.layers if layer.kind == "correlation"}
    assert {layer.precision for layer in convolutions.values()} == {precision}
    multiplied = {source for layer in convolutions.values() for source in layer.sources}
    assert {name for name in heavy if name.startswith("Conv")} <= multiplied
    assert all(layer.kind and layer.precision and layer.output_precision for layer in build.layers)
