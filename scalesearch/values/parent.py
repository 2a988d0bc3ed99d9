"""The trained network whose weights every candidate of a study inherits."""

from dataclasses import dataclass
from pathlib import Path

from scalesearch.values.candidate import Recipe
from scalesearch.values.identity import content_hash
from scalesearch.values.network_spec import NetworkSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Where a study's parent came from, what it looks like, and how it is made ready for the study's data."""

    source: str
    """As it was given: a path, `pretrained`, `torchvision:WEIGHTS`, or `timm:NAME`."""
    sha256: str
    """SHA-256 of the file that holds the weights."""
    licence: str
    """One line on the owner and the license of the weights, as far as they are known."""
    network: NetworkSpec
    """Its shape, with the study's classes, at the resolution at which it is fine-tuned."""
    mean: tuple[float, ...]
    """Mean of each channel, for pixels in 0..1, by which its images were normalised; the whole study uses it."""
    std: tuple[float, ...]
    """Standard deviation of each channel, as `mean`."""
    head: str
    """One line on what is done with its classifier."""
    steps: int
    """Updates by which it is fine-tuned on the study's images before anything inherits from it; 0 if it knows the
    classes."""
    key: str
    """Identity (64 hex digits) of the fine-tuned weights: all that changes them, and the data."""
    recipe: Recipe | None = None
    """How it is fine-tuned, if the study trains by another loss than the default one, or by other weights of its terms;
    None: by the default loss, as all parents of earlier versions."""

    @property
    def words(self) -> tuple[str, ...]:
        """The parent in lines for people."""
        tuned = f"fine-tuned on these images first, once, by {self.steps} updates" if self.steps else "used as it is"
        return (
            f"parent: {self.network.name} from {self.source} (SHA-256 {self.sha256[:12]}...), {tuned}",
            f"parent: {self.head}",
            f"parent: {self.licence}",
        )


def parent_key(network: NetworkSpec, sha256: str, *held: object) -> str:
    """Return the identity of a fine-tuned parent, 64 hex digits.

    Args:
        network: Its shape.
        sha256: Hash of the file that holds its weights.
        held: Everything else that its fine-tuning depends on.
    """
    return content_hash("parent", content_hash(network), sha256, *held)


def parent_folder(study: Path) -> Path:
    """Return the folder in a study's folder that holds the parent's weights, as found and fine-tuned."""
    return study / "parent"
