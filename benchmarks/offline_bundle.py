"""Collect scalesearch and what it needs as wheels, for a machine that reaches no package index.

What is on that machine already is left out: give its `pip freeze` as `--have`. A line without a version (`pandas`) is
taken as fitting. Packages that their authors publish as source alone are built here, which works for pure Python.

    python benchmarks/offline_bundle.py --to bundle --python 3.12 --have benchmarks/gpu_machine.txt
    python benchmarks/offline_bundle.py --to bundle --python 3.12 --rtx        # also TensorRT for RTX, xz-compressed

`bundle/README.txt` says how to install it there.
"""

import argparse
import json
import lzma
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
OLDEST_GLIBC_MINOR: Final = 5
STUB: Final = "stub"
RTX_PARTS: Final = ("tensorrt-rtx-cu13", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs")
README: Final = """scalesearch for Python {python} on Linux {machine}, without a package index.

1. Copy this folder to the machine.
2. Install it into an environment that has the packages named in `have.txt` (none are named: into an empty one):

       python3 -m pip install --no-index --no-deps wheels/*.whl

   Without permission to write there, beside it:

       python3 -m pip install --no-index --no-deps --target site wheels/*.whl && export PYTHONPATH="$PWD/site"
{rtx}
3. python3 -m scalesearch doctor
"""
README_RTX: Final = """
   TensorRT for RTX, packed by itself because it is large:

       mkdir -p rtx && tar -xJf tensorrt_rtx.tar.xz -C rtx && export PYTHONPATH="$PWD/rtx:$PYTHONPATH"
"""


def main() -> None:
    """Write the bundle and print its size."""
    asked = read_arguments()
    folder: Path = asked.to
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"--to {folder}: expected a new or empty folder, came one with files. Take another, or empty it.")
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    tags = platform_tags(asked.machine, asked.glibc)
    have = read_have(asked.have) if asked.have else {}
    requirement = f"{ROOT}[{','.join(asked.extra)}]" if asked.extra else str(ROOT)
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) / "local"
        local.mkdir()
        for name, version in have.items():
            if version:
                write_stub(local, name, version)
        pip("wheel", "--no-deps", "--wheel-dir", str(local), str(ROOT))
        own = next(local.glob("scalesearch-*.whl"))
        constraints = Path(scratch) / "constraints.txt"
        constraints.write_text("".join(f"{name}=={v.split('+')[0]}+{STUB}\n" for name, v in have.items() if v))
        chosen = resolve(own, requirement, tags, asked.python, local=local, constraints=constraints)
        for name, version in chosen.items():
            if name not in have:
                fetch(name, version, tags, asked.python, local=local, to=wheels)
        if asked.rtx:
            pack_rtx(tags, asked.python, Path(scratch), folder / "tensorrt_rtx.tar.xz")
    (folder / "have.txt").write_text("".join(f"{n}=={v}\n" if v else f"{n}\n" for n, v in sorted(have.items())))
    text = README.format(python=asked.python, machine=asked.machine, rtx=README_RTX if asked.rtx else "")
    (folder / "README.txt").write_text(text)
    for what in sorted(wheels.iterdir()):
        print(f"{what.stat().st_size / 2**20:7.2f} MiB  {what.name}")
    total = sum(what.stat().st_size for what in wheels.iterdir())
    print(
        f"{total / 2**20:7.2f} MiB  in {len(list(wheels.iterdir()))} wheels; how to install them: {folder}/README.txt"
    )
    if asked.rtx:
        size = (folder / "tensorrt_rtx.tar.xz").stat().st_size
        print(f"{size / 2**20:7.2f} MiB  tensorrt_rtx.tar.xz")


def read_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("bundle"), help="a new folder")
    parser.add_argument("--python", default="{}.{}".format(*sys.version_info[:2]), help="of the other machine: 3.12")
    parser.add_argument("--machine", default=platform.machine(), help="its processor: x86_64 or aarch64")
    parser.add_argument("--glibc", default="2.28", help="its C library (`ldd --version`); older is always safe")
    parser.add_argument("--have", type=Path, help="`pip freeze` of the other machine")
    parser.add_argument("--extra", action="append", default=[], help="an extra of scalesearch, repeatable")
    parser.add_argument("--rtx", action="store_true", help="also pack TensorRT for RTX")
    return parser.parse_args()


def read_have(path: Path) -> dict[str, str]:
    """Read names and versions (empty: unknown) of a `pip freeze`, names as the index normalizes them."""
    have = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:==\s*([^\s;]+)|@.*)?\s*(?:#.*)?$", line)
        if found:
            have[normalized(found.group(1))] = found.group(2) or ""
    return have


def normalized(name: str) -> str:
    """Give a package's name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def platform_tags(machine: str, glibc: str) -> tuple[str, ...]:
    """List every wheel tag that a Linux of this C library takes; pip compares tags letter by letter."""
    major, minor = (int(part) for part in glibc.split(".")[:2])
    tags = [f"manylinux_{major}_{number}_{machine}" for number in range(minor, OLDEST_GLIBC_MINOR - 1, -1)]
    older = {"manylinux2014": 17, "manylinux2010": 12, "manylinux1": 5}
    return (*tags, *(f"{name}_{machine}" for name, needs in older.items() if needs <= minor), f"linux_{machine}")


def write_stub(folder: Path, name: str, version: str) -> None:
    """Write an empty wheel that stands for a package on the other machine, so that pip neither reads nor fetches it."""
    marked = f"{version.split('+')[0]}+{STUB}"
    base = f"{name.replace('-', '_')}-{marked}"
    with zipfile.ZipFile(folder / f"{base}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{base}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {marked}\n")
        wheel.writestr(f"{base}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{base}.dist-info/RECORD", "")


def resolve(
    own: Path, requirement: str, tags: Sequence[str], python: str, *, local: Path, constraints: Path
) -> dict[str, str]:
    """Let pip choose every package's version for the other machine; build what has no wheel, and ask again."""
    extras = re.search(r"(\[.*\])$", requirement)
    wanted = f"{own}{extras.group(1) if extras else ''}"
    built: set[str] = set()
    while True:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--report", "-",
             "--target", str(local / "nowhere"), "--find-links", str(local), "--constraint", str(constraints),
             *target_flags(tags, python), wanted],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            items = json.loads(done.stdout)["install"]
            return {normalized(item["metadata"]["name"]): item["metadata"]["version"] for item in items}
        missing = re.search(
            r"No matching distribution found for ([A-Za-z0-9._-]+?)(?:[<>=!~\[ (]|$)", done.stderr, re.M
        )
        if missing is None or missing.group(1) in built:
            sys.exit(done.stderr)
        built.add(missing.group(1))
        pip("wheel", "--no-deps", "--wheel-dir", str(local), missing.group(1))


def target_flags(tags: Sequence[str], python: str) -> list[str]:
    """Give pip's flags for wheels of another machine."""
    flags = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    return [*flags, *(flag for tag in tags for flag in ("--platform", tag))]


def fetch(name: str, version: str, tags: Sequence[str], python: str, *, local: Path, to: Path) -> None:
    """Put one wheel into the bundle, from here where it was built here."""
    pattern = re.compile(rf"{re.escape(name).replace('-', '[-_.]+')}-{re.escape(version)}-", re.IGNORECASE)
    for wheel in local.glob("*.whl"):
        if pattern.match(wheel.name.replace("\\", "")):
            shutil.copy(wheel, to)
            return
    pip("download", "--no-deps", "--dest", str(to), *target_flags(tags, python), f"{name}=={version}")


def pack_rtx(tags: Sequence[str], python: str, scratch: Path, to: Path) -> None:
    """Unpack TensorRT for RTX's wheels and pack them again by xz, which is a third smaller than the wheels' own zip.

    Takes some minutes: the strongest setting is needed to stay below 64 MiB.
    """
    wheels, folder = scratch / "rtx", scratch / "rtx_site"
    pip("download", "--no-deps", "--dest", str(wheels), *target_flags(tags, python), RTX_PARTS[-1])
    found = next(wheels.glob("*.whl"))
    version = found.name.split("-")[1]
    for name in RTX_PARTS[:-1]:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels),
             *target_flags(tags, python), f"{name}=={version}"], check=False, stderr=subprocess.PIPE,
        )  # fmt: skip
        if done.returncode:  # a meta package that is published as source alone
            pip("wheel", "--no-deps", "--wheel-dir", str(wheels), f"{name}=={version}")
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as content:
            content.extractall(folder)
    # The filter for x86 code makes the library's file a tenth smaller; tar and xz undo it by themselves.
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9}]
    with lzma.open(to, "wb", filters=filters) as compressed, tarfile.open(fileobj=compressed, mode="w|") as packed:
        for path in sorted(folder.iterdir()):
            packed.add(path, arcname=path.name)


def pip(*arguments: str) -> None:
    """Run pip quietly; on failure end with what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments, "--quiet"], check=False, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"pip {' '.join(arguments[:2])} failed:\n{done.stderr}")


if __name__ == "__main__":
    main()
