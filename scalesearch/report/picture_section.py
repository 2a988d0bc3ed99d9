"""The report's section of validation pictures: predictions of members of the front next to the ground truth."""

import base64
from typing import Final

from scalesearch.study.contents import StudyContents
from scalesearch.views.markup import paragraph, section, text

MOST_BYTES: Final = 1_200_000
"""Most bytes of all pictures in the file; the knee's come first."""
_WORDS_BYTES: Final = 1000
"""Room for the section without its pictures, in bytes."""
NAME: Final = "pictures"


def order(study: StudyContents) -> tuple[int, ...]:
    """Return the front's trials in the order in which they get room in the file: the knee first, then by latency."""
    first = [study.knee.trial] if study.knee else []
    return (*first, *(record.trial for record in study.front if record.trial not in first))


def pictures(study: StudyContents, room: int = MOST_BYTES) -> str:
    """Write the section, in about `room` bytes; empty if the study keeps no pictures, as in classification."""
    if not study.pictures:
        return ""
    kept, room = list[int](), min(MOST_BYTES, room - _WORDS_BYTES)
    for trial in order(study):
        size_bytes = len(_figure(study, trial)) if study.pictures.get(trial) else 0
        if 0 < size_bytes <= room:
            kept.append(trial)
            room -= size_bytes
    left_out = len(study.pictures) - len(kept)
    rest = f" {left_out} members are left out to keep the file small." if left_out else ""
    note = (
        "For each member the three validation images that it answers worst, judged by its score on that image alone, "
        f"then three at random: the image, what is right, and the answer.{rest}"
    )
    return section(NAME, "Validation pictures", paragraph(note, css="note"), *(_figure(study, trial) for trial in kept))


def _figure(study: StudyContents, trial: int) -> str:
    record = next(each for each in study.front if each.trial == trial)
    words = f"trial {trial}, {record.candidate.quantization.label}, {record.spec.input_size}"
    held = base64.b64encode(study.pictures[trial]).decode()
    return (
        f"<h3>{text(words)}</h3>"
        f'<p class="scroll"><img alt="Validation images with masks or boxes, right ones and those of {text(words)}" '
        f'src="data:image/jpeg;base64,{held}"></p>'
    )
