"""Recognise which folder names stand for a split, in the usual spellings."""

import re
import unicodedata
from collections.abc import Iterable
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
"""Words that may stand beside the name of the split without changing its meaning: train_set, Test Images, data-val."""
_YEAR: Final = re.compile(r"(?:19|20)\d\d$")
_JOINED: Final = re.compile(r"(set|data|dataset|images|imgs|split|folder)$")


def split_of(name: str) -> SplitName | None:
    """Return the split that a folder of this name usually means, or None if it is another word.

    Case, white space, hyphens, underscores, a year at the end (`train2017`) and words like `set` make no difference.
    """
    words = [_YEAR.sub("", word) for word in _words(name)]
    words = [word for word in words if word and word not in _FILLERS and not word.isdecimal()]
    joined = "".join(words)
    if joined in _NAMES:
        return _NAMES[joined]
    bare = _JOINED.sub("", joined)
    return _NAMES.get(bare)


def splits_of(names: Iterable[str]) -> dict[str, SplitName]:
    """Return the split of each of these folder names, which lie side by side; names that mean no split are left out.

    A word before or after the name of the split makes no difference if several folders share it: `seg_train` and
    `seg_test`.
    """
    siblings = tuple(names)
    found = {name: split for name in siblings if (split := split_of(name))}
    for at in (-1, 0):
        alike: dict[tuple[str, ...], dict[str, SplitName]] = {}
        for name in siblings:
            words = _words(name)
            if len(words) > 1 and (split := _NAMES.get(words.pop(at))):
                alike.setdefault(tuple(words), {})[name] = split
        for group in alike.values():
            if len(set(group.values())) > 1:
                found = group | found
    return found


def _words(name: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", name).casefold()
    return [word for word in re.split(r"[\s_.\-]+", folded) if word]


def misread_names(names: Iterable[object]) -> list[object]:
    """Return those names of classes that YAML takes for something else: it reads `no` as False and `1.0` as a number.

    Whole numbers are no misreading, since their text is the one that was written.
    """
    return [name for name in names if isinstance(name, bool) or not isinstance(name, str | int)]


def folded_name(name: str) -> str:
    """Return a class or folder name in the form used for comparisons: Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", name)
