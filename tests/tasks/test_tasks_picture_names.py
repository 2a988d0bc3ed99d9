"""Names of the pictures of answers: all different, and none is that of an image."""

import os
from pathlib import Path

import pytest
from PIL import Image

from scalesearch.tasks.infer_parts.picture_names import PictureNameError, picture_names, pictures_of, save_picture


def named(*images: str) -> list[str]:
    return [path.as_posix() for path in picture_names([Path(each) for each in images], Path("out"))]


def test_pictures_are_named_like_their_images() -> None:
    assert named("a/x.jpg", "b/y.v2.png") == ["out/x", "out/y.v2"]
    assert named("a/x.jpg", "./a/../a/x.jpg") == ["out/x", "out/x"]  # one file, twice
    assert named() == []
    assert pictures_of(Path("out/y.v2")) == [Path("out/y.v2.png"), Path("out/y.v2.overlay.png")]


@pytest.mark.parametrize("other", ["x.jpg", "X.jpg", "x.overlay.jpg"])
def test_images_whose_pictures_would_be_one_keep_their_folders(other: str) -> None:
    given = ("/data/one/a/x.jpg", f"/data/two/{other}", "/data/one/y.jpg")
    assert named(*given) == ["out/one/a/x", f"out/two/{Path(other).stem}", "out/one/y"]


def test_images_of_one_folder_keep_their_whole_names() -> None:
    assert named("a/x.jpg", "a/x.png", "b/y.jpg") == ["out/a/x.jpg", "out/a/x.png", "out/b/y.jpg"]


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_a_picture_that_would_replace_an_image_is_refused(link: object, tmp_path: Path) -> None:
    image = tmp_path / "x.png"
    image.write_bytes(b"pixels")
    out = tmp_path
    if link is not None:
        out = tmp_path / "out"
        out.mkdir()
        link(image, out / "x.overlay.png")  # type: ignore[operator]
    with pytest.raises(PictureNameError, match=r"came .*x\..*png, which is one of them"):
        picture_names([image], out)
    assert picture_names([image], tmp_path / "drawn") == [tmp_path / "drawn" / "x"]


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_only_pictures_of_an_earlier_run_are_replaced(mode: str, tmp_path: Path) -> None:
    jpeg = tmp_path / "y.jpg"
    jpeg.write_bytes(b"pixels")
    save_picture(Image.new(mode, (4, 4)), tmp_path / "y.png")
    assert picture_names([jpeg], tmp_path) == [tmp_path / "y"]
    for theirs in (tmp_path / "y.png", tmp_path / "y.overlay.png"):
        Image.new(mode, (4, 4)).save(theirs)
        with pytest.raises(PictureNameError, match=rf"came .*{theirs.name}, which no --to wrote"):
            picture_names([jpeg], tmp_path)
        theirs.write_bytes(b"no picture at all")
        with pytest.raises(PictureNameError, match="which no --to wrote"):
            picture_names([jpeg], tmp_path)
        theirs.unlink()
    assert picture_names([jpeg], tmp_path) == [tmp_path / "y"]
