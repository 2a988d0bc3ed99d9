"""Street scenes: what is known of a scene agrees with what is drawn."""

import numpy as np
import pytest

from scalesearch.data.sign_faces import CLASS_NAMES
from scalesearch.data.street_backdrop import SURFACES
from scalesearch.data.street_scenes import MOST_SIGNS, SIGN_CLASSES, SIGN_FAMILIES, Scene, draw_scene
from scalesearch.values.network_spec import InputSize

SIZE = InputSize(height_px=90, width_px=160)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(rng=np.random.default_rng((3, index)), size=SIZE) for index in range(40)]


def test_every_face_belongs_to_one_class() -> None:
    assert sorted(face for faces in SIGN_FAMILIES.values() for face in faces) == sorted(CLASS_NAMES)


def test_shapes_and_ranges(scenes: list[Scene]) -> None:
    for scene in scenes:
        number = len(scene.boxes)
        assert scene.image.shape == (90, 160, 3)
        assert scene.image.dtype == np.uint8
        assert scene.mask.shape == (90, 160)
        assert scene.mask.max() < len(SURFACES)
        assert scene.classes.shape == scene.ignored.shape == (number,)
        assert number <= MOST_SIGNS
        left, top, right, bottom = scene.boxes.T
        assert (left < right).all()
        assert (top < bottom).all()
        assert (scene.boxes >= 0).all()
        assert (right <= 160).all()
        assert (bottom <= 90).all()


def test_scenes_differ_in_number_class_and_size(scenes: list[Scene]) -> None:
    assert {len(scene.boxes) for scene in scenes} == set(range(MOST_SIGNS + 1))
    assert set(np.concatenate([scene.classes for scene in scenes])) == set(range(len(SIGN_CLASSES)))
    heights = np.concatenate([scene.boxes[:, 3] - scene.boxes[:, 1] for scene in scenes])
    assert heights.min() < 8  # small ones are included
    assert heights.max() > 25


def test_the_mask_shows_signs_inside_boxes_and_nowhere_else(scenes: list[Scene]) -> None:
    sign = SURFACES.index("sign")
    for scene in scenes:
        inside = np.zeros((90, 160), np.bool_)
        for (left, top, right, bottom), ignored in zip(scene.boxes, scene.ignored, strict=True):
            rows, columns = slice(int(top), int(np.ceil(bottom))), slice(int(left), int(np.ceil(right)))
            inside[rows, columns] = True
            assert ignored or (scene.mask[rows, columns] == sign).mean() > 0.2  # a triangle fills half of its box
        assert not (scene.mask[~inside] == sign).any()


def test_all_surfaces_occur(scenes: list[Scene]) -> None:
    assert set(np.unique(np.stack([scene.mask for scene in scenes]))) == set(range(len(SURFACES)))


def test_the_same_seed_gives_the_same_scene(scenes: list[Scene]) -> None:
    again = draw_scene(rng=np.random.default_rng((3, 7)), size=SIZE)
    np.testing.assert_array_equal(again.image, scenes[7].image)
    np.testing.assert_array_equal(again.mask, scenes[7].mask)
    np.testing.assert_array_equal(again.boxes, scenes[7].boxes)
