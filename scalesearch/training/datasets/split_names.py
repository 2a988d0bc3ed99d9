"""Which folder names stand for a split, in the spellings that are in use."""

import re
import unicodedata
from typing import Final, Literal

SplitName = Literal["train", "val", "test"]
SPLITS: Final[tuple[SplitName, ...]] = ("train", "val", "test")

_NAMES: Final[dict[str, SplitName]] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "devel", "development"), "val"),
    **dict.fromkeys(("eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
}
_FILLERS: Final = frozenset(
    (
        "set", "sets", "data", "dataset", "split", "splits", "subset", "part", "folder", "dir",
        "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "pics", "sample", "samples",
        "jpg", "jpeg", "png",
    )
)  # fmt: skip
"""Words beside the split's own that change nothing: train_set, Test Images, data-val."""
_YEAR: Final = re.compile(r"(?:19|20)\d\d$")
_JOINED: Final = re.compile(r"(set|data|dataset|images|imgs|split|folder)$")


def split_of(name: str) -> SplitName | None:
    """Give the split that a folder of this name is usually meant as; None where it is another word.

    Case, white space, hyphens, underscores, a year at the end (`train2017`) and words like `set` are folded.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    words = [word for word in re.split(r"[\s_.\-]+", folded) if word]
    words = [_YEAR.sub("", word) for word in words]
    words = [word for word in words if word and word not in _FILLERS and not word.isdecimal()]
    joined = "".join(words)
    if joined in _NAMES:
        return _NAMES[joined]
    bare = _JOINED.sub("", joined)
    return _NAMES.get(bare)


def folded_name(name: str) -> str:
    """Give a class or folder name as it is compared: in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", name)
