"""Masks as targets: packed and unpacked, at any size by nearest pixels, with bars where images were padded."""

import numpy as np
import pytest
import torch
from PIL import Image

from scalesearch.data import masks as masks_module
from scalesearch.data.masks import UNLABELLED, Masks, MaskStore, PackedMask
from scalesearch.values.network_spec import InputSize


def made(*sizes: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.choice([0, 1, 2, UNLABELLED], size).astype(np.uint8) for size in sizes]


def targets(found: list[np.ndarray], **more: object) -> Masks:
    return Masks(store=MaskStore.pack(found), places=np.arange(len(found)), **more)  # type: ignore[arg-type]


SIZES = ((30, 40), (12, 16), (7, 9))


def test_packed_masks_come_back_and_are_kept_in_arrays() -> None:
    found = made(*SIZES)
    store = MaskStore.pack(found)
    again = MaskStore.of_arrays(store.arrays())
    for held in (store, again, store.joined(store)):
        for place, mask in enumerate(found):
            assert np.array_equal(held.mask(place), mask)
    assert np.array_equal(store.joined(store).mask(4), found[1])
    assert [int(row.sum()) for row in store.counts] == [mask.size for mask in found]
    assert store.counts[1, 2] == (found[1] == 2).sum()
    with pytest.raises(ValueError, match="masks with wrong ends"):
        MaskStore.of_arrays({**store.arrays(), "mask_packed": store.packed[:-1]})
    with pytest.raises(ValueError, match="masks with wrong sizes"):
        MaskStore.of_arrays({**store.arrays(), "mask_sizes": store.sizes.astype(np.int64)})


def test_a_packed_mask_comes_back_and_tells_its_values() -> None:
    mask = made((30, 40))[0][:, ::2]  # not contiguous
    packed = PackedMask.of(mask)
    assert np.array_equal(packed.mask(), mask)
    assert packed.counts.tolist() == np.bincount(mask.ravel(), minlength=256).tolist()
    store, again = MaskStore.pack([mask]), MaskStore.of([packed])
    assert all(np.array_equal(held, again.arrays()[name]) for name, held in store.arrays().items())


def test_masks_are_resized_by_nearest_pixels_as_pillow_does() -> None:
    found = made((30, 40), (12, 16))
    small = targets(found, storage=InputSize(height_px=24, width_px=32)).at(InputSize(height_px=8, width_px=16))
    wanted = [np.asarray(Image.fromarray(mask).resize((16, 8), Image.Resampling.NEAREST)) for mask in found]
    assert small.tensor().dtype == torch.uint8
    assert np.array_equal(small.tensor().numpy(), np.stack(wanted))


def test_bars_of_padded_images_have_no_class() -> None:
    mask = np.ones((10, 20), np.uint8)  # a wide picture in a square: bars above and below
    padded = targets([mask], storage=InputSize.square(16), fit="pad")
    assert padded.part(0) == (0.25, 0.0, 0.75, 1.0)
    rows = padded.tensor()[0].numpy()
    assert (rows[4:12] == 1).all()
    assert (rows[:4] == UNLABELLED).all()
    assert (rows[12:] == UNLABELLED).all()
    assert (padded.at(InputSize.square(8)).tensor()[0, 2:6] == 1).all()


def test_parts_and_joined_masks_keep_their_order() -> None:
    found = made(*SIZES)
    whole = targets(found, storage=InputSize.square(4))
    assert np.array_equal(whole[np.asarray([2, 0])].own(0), found[2])
    assert np.array_equal(whole[1:].own(0), found[1])
    assert np.array_equal(whole[np.asarray([True, False, True])].own(1), found[2])
    both = whole[:1].joined(targets(found[1:], storage=InputSize.square(4)))
    assert [both.own(place).shape for place in range(3)] == [mask.shape for mask in found]
    assert len(whole[:2].joined(whole[2:])) == 3


def test_classes_are_counted_by_image_and_by_pixel() -> None:
    found = [np.asarray([[0, 0], [1, 255]], np.uint8), np.asarray([[0, 0], [0, 0]], np.uint8)]
    whole = targets(found, storage=InputSize.square(2))
    assert whole.class_counts(3).tolist() == [2, 1, 0]
    assert whole.pixel_counts(3).tolist() == [6, 1, 0]
    assert whole.strata() is None  # type: ignore[func-returns-value]


def test_other_masks_give_another_content() -> None:
    one, other = made((4, 4)), made((4, 4), seed=1)
    digests = [
        b"".join(bytes(part) for part in targets(each, storage=InputSize.square(4)).content()) for each in (one, other)
    ]
    assert digests[0] != digests[1]


def test_masks_that_do_not_fit_are_unpacked_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = targets(made(*SIZES), storage=InputSize.square(6))
    held = whole.tensor()
    monkeypatch.setattr(masks_module, "fits_beside", lambda size_bytes: False)
    rows = whole.at(InputSize.square(6)).tensor()
    assert not isinstance(rows, torch.Tensor)
    assert len(rows) == 3
    assert tuple(rows.shape) == (3, 6, 6)
    assert torch.equal(rows[torch.tensor([2, 0, 2])], held[[2, 0, 2]])
    assert torch.equal(rows[:2], held[:2])
