"""Rounding: the papers' numbers, the borders, and what holds for every multiplier."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesearch.errors import ConfigError
from scalesearch.networks import base_spec
from scalesearch.networks.scaling import round_channels, round_depth, round_kernel, round_resolution, scale
from scalesearch.values.candidate import Scaling, StageScaling
from scalesearch.values.network_spec import NetworkSpec

multipliers = st.floats(min_value=0.01, max_value=8.0)
reproducible = settings(derandomize=True, deadline=None, max_examples=200)


@pytest.mark.parametrize(
    ("depth", "multiplier", "blocks"),
    [(1, 1.0, 1), (2, 1.1, 3), (3, 1.0, 3), (4, 1.8, 8), (10, 1.1, 11), (5, 1.4, 7), (1, 0.1, 1), (3, 0.5, 2)],
)
def test_depth_is_the_ceiling_without_binary_noise(depth: int, multiplier: float, blocks: int) -> None:
    # 10 * 1.1 is 11.000000000000002 in binary: eleven blocks were asked for, not twelve.
    assert round_depth(depth, multiplier) == blocks


@pytest.mark.parametrize(
    ("channels", "multiplier", "multiple", "rounded"),
    [
        (32, 1.0, 8, 32),
        (32, 1.1, 8, 32),  # 35.2: EfficientNet-B2's stem
        (1280, 1.1, 8, 1408),  # EfficientNet-B2's head
        (24, 1.4, 8, 32),  # 33.6: EfficientNet-B4
        (20, 0.9, 8, 24),  # 18: the nearest, 16, would lose more than a tenth
        (20, 1.0, 8, 24),  # a tie goes up
        (24, 1.0, 16, 32),  # a chip's multiple holds at multiplier 1 too
        (3, 0.1, 8, 8),  # at least one multiple
    ],
)
def test_channels_follow_make_divisible(channels: int, multiplier: float, multiple: int, rounded: int) -> None:
    assert round_channels(channels, multiplier, multiple=multiple) == rounded


@pytest.mark.parametrize(
    ("kernel", "multiplier", "rounded"),
    [(3, 1.0, 3), (3, 1.33, 3), (3, 4 / 3, 5), (3, 1.67, 5), (3, 2.0, 7), (3, 2.33, 7), (5, 0.6, 3), (3, 0.1, 3)],
)
def test_kernel_goes_to_the_nearest_odd(kernel: int, multiplier: float, rounded: int) -> None:
    assert round_kernel(kernel, multiplier) == rounded


@pytest.mark.parametrize("multiplier", [0.5, 1.0, 3.0])
def test_pointwise_kernel_stays(multiplier: float) -> None:
    assert round_kernel(1, multiplier) == 1


@pytest.mark.parametrize(
    ("resolution_px", "multiplier", "multiple", "rounded"),
    [
        (64, 0.375, 8, 24),
        (64, 0.3, 8, 16),
        (64, 0.3125, 8, 24),
        (224, 1.0, 32, 224),
        (64, 0.01, 8, 8),
        (260, 1, 1, 260),
    ],
)
def test_resolution_goes_to_the_nearest_multiple(
    resolution_px: int, multiplier: float, multiple: int, rounded: int
) -> None:
    assert round_resolution(resolution_px, multiplier, multiple=multiple) == rounded


@reproducible
@given(channels=st.integers(1, 4096), multiplier=multipliers, multiple=st.sampled_from([1, 4, 8, 16, 32]))
def test_channels_are_multiples_and_lose_at_most_a_tenth(channels: int, multiplier: float, multiple: int) -> None:
    rounded = round_channels(channels, multiplier, multiple=multiple)
    assert rounded % multiple == 0
    assert rounded >= 0.9 * channels * multiplier - 1e-6
    assert rounded <= max(multiple, channels * multiplier + multiple)


@reproducible
@given(size=st.integers(1, 64), pair=st.tuples(multipliers, multipliers))
def test_a_larger_multiplier_never_gives_less(size: int, pair: tuple[float, float]) -> None:
    low, high = sorted(pair)
    assert round_depth(size, low) <= round_depth(size, high)
    assert round_channels(size, low) <= round_channels(size, high)
    assert round_kernel(2 * size + 1, low) <= round_kernel(2 * size + 1, high)
    assert round_resolution(size, low, multiple=8) <= round_resolution(size, high, multiple=8)


@reproducible
@given(half=st.integers(1, 6), multiplier=multipliers)
def test_kernel_is_odd_near_and_at_least_three(half: int, multiplier: float) -> None:
    kernel = round_kernel(2 * half + 1, multiplier)
    assert kernel % 2 == 1
    assert kernel == 3 or abs(kernel - (2 * half + 1) * multiplier) <= 1 + 1e-6


@reproducible
@given(depth=st.integers(1, 40), multiplier=multipliers)
def test_depth_is_never_less_than_asked(depth: int, multiplier: float) -> None:
    assert depth * multiplier - 1e-6 <= round_depth(depth, multiplier) < depth * multiplier + 1


@reproducible
@given(
    name=st.sampled_from(["resnet_small", "resnet50", "mobilenet_v2", "efficientnet_b0"]),
    width=multipliers,
    own=multipliers,
    multiple=st.sampled_from([8, 16, 32]),
)
def test_every_width_of_a_scaled_network_is_a_multiple(name: str, width: float, own: float, multiple: int) -> None:
    base = base_spec(name)
    scaling = Scaling(width=width, stages=(StageScaling(width=own),) * len(base.stages))
    spec = scale(base, scaling, resolution_px=64, num_classes=10, channel_multiple=multiple)
    assert spec.stem.channels % multiple == 0
    assert spec.head.channels % multiple == 0
    for stage, original in zip(spec.stages, base.stages, strict=True):
        hidden = stage.channels // stage.expansion if stage.block == "bottleneck" else stage.channels
        assert hidden % multiple == 0
        assert stage.channels >= 0.9 * original.channels * width * own - 1e-6


def test_multiplier_one_changes_only_resolution_and_classes() -> None:
    base = base_spec("efficientnet_b0")
    scaled = scale(base, Scaling(), resolution_px=96, num_classes=10)
    assert scaled == replace(base, resolution_px=96, num_classes=10)


def test_resolution_multiple_zero_takes_the_total_stride() -> None:
    base = base_spec("mobilenet_v2")
    assert base.total_stride == 32
    assert scale(base, Scaling(resolution=0.45), resolution_px=224, num_classes=10).resolution_px == 96
    by_four = scale(base, Scaling(resolution=0.45), resolution_px=224, num_classes=10, resolution_multiple=4)
    assert by_four.resolution_px == 100


def test_kernel_multiplier_leaves_the_stem_alone() -> None:
    base = base_spec("resnet18")
    scaled = scale(base, Scaling(kernel=1.67), resolution_px=224, num_classes=10)
    assert scaled.stem.kernel == 7
    assert {stage.kernel for stage in scaled.stages} == {5}


@pytest.mark.parametrize(("width", "head"), [(0.5, 1280), (1.0, 1280), (1.4, 1792)])
def test_mobilenet_head_is_never_narrower_than_the_base(width: float, head: int) -> None:
    # 1792 is the last layer of MobileNetV2 1.4 (arXiv 1801.04381, section 6.1).
    scaled = scale(base_spec("mobilenet_v2"), Scaling(width=width), resolution_px=224, num_classes=10)
    assert scaled.head.channels == head


def test_a_stage_multiplier_works_on_top_of_the_global_one_before_rounding() -> None:
    base = base_spec("resnet18")
    own = StageScaling(depth=0.5, width=0.5, kernel=1.67)
    stages = (StageScaling(), StageScaling(), StageScaling(), own)
    scaled = scale(base, Scaling(depth=3.0, width=0.75, stages=stages), resolution_px=224, num_classes=10)
    assert [stage.depth for stage in scaled.stages] == [6, 6, 6, 3]
    assert [stage.channels for stage in scaled.stages] == [48, 96, 192, 192]
    assert [stage.kernel for stage in scaled.stages] == [3, 3, 3, 5]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_stages_behind_the_last_one_named_keep_what_they_have(number: int) -> None:
    base = base_spec("resnet_small")
    named = (*(StageScaling(),) * (number - 1), StageScaling(width=2.0, depth=3.0))
    every = (*named, *(StageScaling(),) * (3 - number))

    def scaled(stages: tuple[StageScaling, ...]) -> NetworkSpec:
        return scale(base, Scaling(stages=stages), resolution_px=64, num_classes=10)

    assert scaled(named) == scaled(every)
    widths = [stage.channels for stage in base.stages]
    widths[number - 1] *= 2
    assert [stage.channels for stage in scaled(named).stages] == widths


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRequest:
    """What is asked of resnet_small, and a piece of the message."""

    id: str
    message: str
    scaling: Scaling = field(default_factory=Scaling)
    resolution_px: int = 64
    num_classes: int = 10
    channel_multiple: int = 8
    resolution_multiple: int = 0


BAD_REQUESTS = (
    BadRequest(id="zero width", scaling=Scaling(width=0.0), message="scaling.width must be a positive, finite"),
    BadRequest(id="negative", scaling=Scaling(depth=-1.0), message="scaling.depth must be a positive, finite"),
    BadRequest(id="nan", scaling=Scaling(kernel=float("nan")), message="scaling.kernel must be a positive, finite"),
    BadRequest(id="inf", scaling=Scaling(resolution=float("inf")), message="scaling.resolution must be a positive"),
    BadRequest(
        id="stage multiplier",
        scaling=Scaling(stages=(StageScaling(), StageScaling(width=0.0), StageScaling())),
        message=r"scaling.stages.2.width must be a positive",
    ),
    BadRequest(
        id="stage count",
        scaling=Scaling(stages=(StageScaling(),) * 4),
        message=r"scaling.stages has 4 entries, but resnet_small has 3 stages: give at most one for each of 1..3",
    ),
    BadRequest(id="resolution", resolution_px=0, message="resolution_px must be at least 1, not 0"),
    BadRequest(id="classes", num_classes=-1, message="num_classes must be at least 0, not -1"),
    BadRequest(id="multiple", channel_multiple=0, message="channel_multiple must be at least 1, not 0"),
    BadRequest(id="resolution multiple", resolution_multiple=-8, message="resolution_multiple must be 0 .* not -8"),
)


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.id)
def test_nonsense_is_refused_by_name(bad: BadRequest) -> None:
    with pytest.raises(ConfigError, match=bad.message):
        scale(
            base_spec("resnet_small"),
            bad.scaling,
            resolution_px=bad.resolution_px,
            num_classes=bad.num_classes,
            channel_multiple=bad.channel_multiple,
            resolution_multiple=bad.resolution_multiple,
        )
