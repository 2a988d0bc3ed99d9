"""The decoders join feature maps of several strides: on images of which sizes they can, and what is said of others."""

from dataclasses import replace

import pytest
import torch

from scalesearch.errors import ConfigError
from scalesearch.networks import base_spec
from scalesearch.tasks.segmentation.head import DECODERS, require_sides
from scalesearch.tasks.segmentation.task import TASK
from scalesearch.values.network_spec import Decoder, NetworkSpec


def spec_of(network: str, decoder: Decoder, height_px: int, width_px: int) -> NetworkSpec:
    return replace(base_spec(network), decoder=decoder, resolution_px=height_px, width_px=width_px, num_classes=3)


@pytest.mark.parametrize("decoder", ["topdown", "lraspp"])
@pytest.mark.parametrize("sides", [(720, 1280), (1280, 720), (16, 64), (48, 48), (100, 160)])
def test_sides_whose_maps_cannot_be_joined_are_refused(decoder: Decoder, sides: tuple[int, int]) -> None:
    spec = spec_of("resnet_scene", decoder, *sides)
    with pytest.raises(ConfigError) as caught:
        TASK.make_module(spec)
    assert str(caught.value) == (
        "network 'resnet_scene': expected sides that are multiples of 32 px, the stride of the coarsest feature map, "
        f"came {spec.input_size}.\nLeave resolution_multiple out, or set it to 32."
    )


@pytest.mark.parametrize("decoder", ["topdown", "lraspp"])
@pytest.mark.parametrize("network", ["resnet_scene", "resnet_small"])
def test_just_those_sizes_are_refused_that_no_decoder_can_take(network: str, decoder: Decoder) -> None:
    for height_px in (*range(9, 41), 57, 64, 90, 96, 736):
        spec = spec_of(network, decoder, height_px, 96)
        with torch.device("meta"):
            module = DECODERS[decoder](spec).eval()
        try:
            module(torch.zeros(1, 3, height_px, 96, device="meta"))
        except RuntimeError:
            with pytest.raises(ConfigError, match="expected sides that are multiples of 32 px"):
                require_sides(spec)
        else:
            require_sides(spec)
