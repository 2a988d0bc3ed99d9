"""Prints parameters and MACs of our networks beside torchvision's, and whether fvcore and the formula agree.

    python benchmarks/torchvision_parity.py [--quick]

EfficientNet B1 to B7 are B0 at the paper's multipliers (arXiv 1905.11946), at the resolutions of its reference code.
`--quick` leaves out B5 to B7, whose one forward pass takes some seconds each.
"""

import argparse
from dataclasses import dataclass

import torchvision.models

from scalesearch.measurement.cost import count_cost, formula_cost
from scalesearch.networks import base_spec, scale
from scalesearch.tasks.classification.pieces import build
from scalesearch.values.candidate import Scaling
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A torchvision model and what makes ours equal to it."""

    oracle: str
    base: str
    width: float = 1.0
    depth: float = 1.0
    resolution_px: int = 224

    def spec(self) -> NetworkSpec:
        """Our spec; the resolution is taken to the pixel, as torchvision does."""
        scaling = Scaling(width=self.width, depth=self.depth)
        return scale(
            base_spec(self.base), scaling, resolution_px=self.resolution_px, num_classes=1000, resolution_multiple=1
        )


CASES = (
    Case(oracle="resnet18", base="resnet18"),
    Case(oracle="resnet50", base="resnet50"),
    Case(oracle="mobilenet_v2", base="mobilenet_v2"),
    Case(oracle="efficientnet_b0", base="efficientnet_b0"),
    Case(oracle="efficientnet_b1", base="efficientnet_b0", width=1.0, depth=1.1, resolution_px=240),
    Case(oracle="efficientnet_b2", base="efficientnet_b0", width=1.1, depth=1.2, resolution_px=260),
    Case(oracle="efficientnet_b3", base="efficientnet_b0", width=1.2, depth=1.4, resolution_px=300),
    Case(oracle="efficientnet_b4", base="efficientnet_b0", width=1.4, depth=1.8, resolution_px=380),
    Case(oracle="efficientnet_b5", base="efficientnet_b0", width=1.6, depth=2.2, resolution_px=456),
    Case(oracle="efficientnet_b6", base="efficientnet_b0", width=1.8, depth=2.6, resolution_px=528),
    Case(oracle="efficientnet_b7", base="efficientnet_b0", width=2.0, depth=3.1, resolution_px=600),
)


def main() -> None:
    """One line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out EfficientNet B5 to B7")
    cases = CASES[:-3] if parser.parse_args().quick else CASES
    print(f"{'network':<16} {'px':>4} {'params':>12} {'torchvision':>12} {'MACs':>15} {'torchvision':>15} verdict")
    for case in cases:
        spec = case.spec()
        network = build(spec)
        oracle = Network(spec=spec, module=torchvision.models.get_model(case.oracle, weights=None))
        ours, theirs, formula = count_cost(network), count_cost(oracle), formula_cost(network)
        verdict = f"{'equal' if ours == theirs else 'DIFFERENT'}; fvcore {'=' if ours == formula else '!='} formula"
        print(
            f"{case.oracle:<16} {spec.resolution_px:>4} {ours.params:>12,} {theirs.params:>12,} "
            f"{ours.macs:>15,} {theirs.macs:>15,} {verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()
