"""Answers batch by batch: batches of large images are small, and the caller works in its own mode between them."""

import pytest
import torch
from tiny_training import SPEC

from scalesearch.tasks.classification.pieces import build
from scalesearch.training.answers import answers, together
from scalesearch.values.settings import Machine

MACHINE = Machine(device="cpu", threads=1, bf16=False, channels_last=True)
GREY = (0.5, 0.5, 0.5)


def test_smaller_batches_give_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    network, random = build(SPEC), torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (10, 3, 16, 16), dtype=torch.uint8, generator=random)
    (whole,) = answers(network, images, MACHINE, mean=GREY, std=GREY)
    monkeypatch.setattr("scalesearch.host._MOST_PIXELS", 4 * 16 * 16)
    parts, threads = list[torch.Tensor](), torch.get_num_threads() + 1
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for part in answers(network, images, MACHINE, mean=GREY, std=GREY):
            assert not torch.is_inference_mode_enabled()
            assert torch.get_num_threads() == threads
            parts.append(part)
    finally:
        torch.set_num_threads(before)
    assert [len(part) for part in parts] == [4, 4, 2]
    torch.testing.assert_close(together(parts), whole)


def test_several_outputs_are_joined_each() -> None:
    one, two = (torch.zeros(2, 3), torch.ones(2)), (torch.ones(1, 3), torch.zeros(1))
    rows, numbers = together([one, two])
    assert rows.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]
    assert numbers.tolist() == [1, 1, 0]
    assert together([one]) is one
