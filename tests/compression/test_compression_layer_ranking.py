"""Which layer comes first, on graphs where it is known which one 8 bits must hurt."""

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from scalesearch.compression.calibration import Ranges, calibrate
from scalesearch.compression.cpu_qdq import insert_cpu_qdq
from scalesearch.compression.layer_ranking import Insert, LayerDamage
from scalesearch.compression.qdq import insert_qdq
from scalesearch.errors import StageFailed
from scalesearch.tasks.classification.pieces import rank_layers, run_as_written
from scalesearch.tasks.classification.quality import mean_divergence

_IMAGES = np.random.default_rng(0).normal(size=(40, 4, 6, 6)).astype(np.float32)
_IMAGES[:, 0] *= 1e-3
_GRAPH = """<ir_version: 10, opset_import: ["": 18]>
chain (float[batch, 4, 6, 6] image) => (float[batch, 4] logits) {
    a = Conv(image, w0)
    b = Conv(a, w1)
    c = Conv(b, w2)
    p = GlobalAveragePool(c)
    logits = Flatten(p)
}"""


def _model(outlier: int) -> onnx.ModelProto:
    """Three 1x1 convolutions; one weight of layer `outlier` is huge, but the input it weighs is nearly nothing.

    In the float network it hardly matters; one scale for all weights leaves the others of that layer a code or two.
    """
    proto = parser.parse_model(_GRAPH)
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    random = np.random.default_rng(1)
    for place in range(3):
        weight = np.zeros((4, 4, 1, 1))
        weight[1:, 1:, 0, 0] = np.linalg.qr(random.normal(size=(3, 3)))[0]
        weight[0, 0] = 60.0 if place == outlier else 1.0
        proto.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), f"w{place}"))
    return onnx.shape_inference.infer_shapes(proto)


def _per_tensor(proto: onnx.ModelProto, ranges: Ranges, skip: frozenset[str]) -> onnx.ModelProto:
    return insert_qdq(proto, ranges, "int8", weights="per_tensor", skip=skip)


def _per_tensor_cpu(proto: onnx.ModelProto, ranges: Ranges, skip: frozenset[str]) -> onnx.ModelProto:
    return insert_cpu_qdq(proto, ranges, weights="per_tensor", skip=skip)


def _ranges(proto: onnx.ModelProto) -> Ranges:
    return calibrate(proto, _IMAGES, method="minmax", clip_percentile=99.9, symmetric=True)


@pytest.mark.parametrize("insert", [_per_tensor, _per_tensor_cpu], ids=["qdq", "cpu"])
@pytest.mark.parametrize("outlier", [0, 1, 2])
def test_the_layer_that_eight_bits_cannot_hold_comes_first(outlier: int, insert: Insert) -> None:
    proto = _model(outlier)
    ranking = rank_layers(proto, _ranges(proto), _IMAGES, insert=insert)
    assert {damage.weight for damage in ranking} == {"w0", "w1", "w2"}
    assert ranking[0].weight == f"w{outlier}"
    assert ranking[0].node == f"Conv_{outlier}"
    assert ranking[0].divergence > 10 * ranking[1].divergence > 0
    assert ranking[0].mean_squared_change > 10 * ranking[1].mean_squared_change > 0
    assert [damage.divergence for damage in ranking] == sorted((each.divergence for each in ranking), reverse=True)


def test_only_one_layer_is_quantized_at_a_time() -> None:
    proto = _model(1)
    skipped: list[frozenset[str]] = []

    def insert(proto: onnx.ModelProto, ranges: Ranges, skip: frozenset[str]) -> onnx.ModelProto:
        skipped.append(skip)
        return _per_tensor(proto, ranges, skip)

    rank_layers(proto, _ranges(proto), _IMAGES, insert=insert)
    assert skipped == [{"Conv_1", "Conv_2"}, {"Conv_0", "Conv_2"}, {"Conv_0", "Conv_1"}]


def test_a_layer_left_alone_does_no_damage() -> None:
    proto = _model(0)

    def insert(proto: onnx.ModelProto, ranges: Ranges, skip: frozenset[str]) -> onnx.ModelProto:
        return _per_tensor(proto, ranges, skip | {"Conv_2"})

    last = rank_layers(proto, _ranges(proto), _IMAGES, insert=insert)[-1]
    assert last == LayerDamage(node="Conv_2", weight="w2", divergence=0.0, mean_squared_change=0.0)


def test_the_divergence_is_torchs() -> None:
    random = np.random.default_rng(2)
    expected, answers = (random.normal(size=(30, 7)).astype(np.float32) * 5 for _ in range(2))
    p, q = (torch.log_softmax(torch.from_numpy(logits).double(), dim=1) for logits in (expected, answers))
    oracle = float(torch.nn.functional.kl_div(q, p, reduction="batchmean", log_target=True))
    assert mean_divergence(expected, answers) == pytest.approx(oracle, rel=1e-5)
    assert mean_divergence(expected, expected + 100) == pytest.approx(0, abs=1e-5)


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = _model(0)
    whole: NDArray[np.float32] = run_as_written(proto, _IMAGES)
    assert whole.std(axis=0).max() > 0.05
    monkeypatch.setattr("scalesearch.compression.layer_ranking._BATCH", 7)
    np.testing.assert_allclose(run_as_written(proto, _IMAGES), whole, atol=1e-6)


def test_no_images_are_refused() -> None:
    proto = _model(0)
    with pytest.raises(StageFailed, match="quantize: ranking layers needs calibration images, got none"):
        rank_layers(proto, _ranges(proto), _IMAGES[:0], insert=_per_tensor)
