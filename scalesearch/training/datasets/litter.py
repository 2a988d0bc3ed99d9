"""Names that file managers, network disks and cameras leave beside images: neither classes nor images."""

import re
from typing import Final

_FOLDERS: Final = frozenset(
    (
        # Synology, QNAP and NetApp network disks
        "@eadir", "@recycle", "@recently-snapshot", "@tmp", "@sharebin", "#recycle", "#snapshot", "~snapshot",
        # Windows
        "$recycle.bin", "recycler", "recycled", "system volume information",
        # macOS (the others begin with a dot), Linux and Android
        "__macosx", "network trash folder", "temporary items", "lost+found", "lost.dir",
        # programs
        "__pycache__", "_vti_cnf", "_vti_pvt",
    )
)  # fmt: skip
_FOUND: Final = re.compile(r"found\.\d{3}")
"""What Windows calls a folder of rescued file fragments."""
_FILES: Final = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r", "zbthumbnail.info")
)


def is_litter(name: str) -> bool:
    """Tell whether a file or folder of this name is left by a system: hidden (a leading dot), or of a known name."""
    folded = name.casefold()
    return name.startswith(".") or folded in _FOLDERS or folded in _FILES or _FOUND.fullmatch(folded) is not None
