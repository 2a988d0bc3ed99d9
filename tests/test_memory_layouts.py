"""Images and weights lie channels-last in memory, but those of a module that cannot take it."""

import copy

import pytest
import torch
from own_modules import Viewing

from scalesearch.memory_layouts import laid_out, layout_of, mark_contiguous_only, moved


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_marked_module_and_its_copies_stay_contiguous(channels_last: bool) -> None:
    module, images = Viewing(), torch.zeros(2, 3, 32, 32)
    assert layout_of(module, channels_last=channels_last) == (
        torch.channels_last if channels_last else torch.contiguous_format
    )
    assert laid_out(images, module, channels_last=channels_last).is_contiguous() is not channels_last
    mark_contiguous_only(module)
    marked = copy.deepcopy(moved(module, layout_of(module)))
    assert layout_of(marked, channels_last=channels_last) == torch.contiguous_format
    given = images.contiguous(memory_format=torch.channels_last)
    assert laid_out(given, marked, channels_last=channels_last).is_contiguous()
    assert marked(laid_out(given, marked)).shape == (2, 10)


def test_weights_are_moved_in_place() -> None:
    module = Viewing()
    assert moved(module, torch.channels_last) is module
    assert module.body.weight.is_contiguous(memory_format=torch.channels_last)
    assert not module.body.weight.is_contiguous()
    assert moved(module, torch.contiguous_format).body.weight.is_contiguous()  # type: ignore[union-attr,operator]
