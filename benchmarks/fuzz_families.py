"""What `fuzz.py` feeds in: for each kind of file or text, whole ones, spoiled ones, and how each is read."""

import contextlib
import copy
import importlib
import io
import json
import random
import tomllib
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from PIL import Image
from pydantic import TypeAdapter

from scalesearch.analysis.front import knee, pareto_front
from scalesearch.config import check_stages, check_stored, load_run, space_paths
from scalesearch.config.settings import known_keys
from scalesearch.data import LABEL_SOURCES, load_dataset
from scalesearch.data.decode import UNREADABLE, decode_square
from scalesearch.errors import ScalesearchError
from scalesearch.export.expected import Expected
from scalesearch.export.metadata import ExportedConfig, read_config
from scalesearch.networks import base_spec, find_spec
from scalesearch.networks.scaling import scale
from scalesearch.networks.validity import check_spec
from scalesearch.plain_text import error_text
from scalesearch.records import confirmed as confirmed
from scalesearch.records import front_scores
from scalesearch.records.run_file import read_run_file, recorded_command
from scalesearch.records.store import RecordStore
from scalesearch.records.tables import csv_text, trial_rows
from scalesearch.spaces.suggest import random_candidates
from scalesearch.values.candidate import Candidate
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.latency import Latency
from scalesearch.values.quality import ClassDetail, ClassQuality, Quality
from scalesearch.values.record import Cost, FrontScore, LimitUse, StageTime, StepScore, TrainingResult, TrialRecord
from scalesearch.values.settings import DataSettings
from scalesearch.views.description import describe

EXAMPLE = Path(__file__).parents[1] / "results" / "example"

HOSTILE: tuple[Any, ...] = (
    0, -1, 1, 2, 3.5, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 10**9, 2**31, 2**63, 2**64,
    -(2**63) - 1, 10**30, 10**400, True, False, "", " ", "²", "٣", "[/b]", "[bold]x", "[red]", ":smile:", "\x1b[31m",
    "\u202eabc", "\u200b", "\x00", "nan", "inf", "a" * 100_000, "../../etc/passwd", "/dev/zero", "{}", "%s%n",
    "a\nb\nc\nd\ne",
    [], [[]], [1, 1], [0.5, float("nan")], ["fp32", 8], list(range(5000)), {}, {"low": 1}, {"low": 0,
    "high": float("inf")},
    {"low": 1, "high": 2, "step": float("nan")}, {"low": -1e308, "high": 1e308}, {"low": 2, "high": 1},
    {"a": {"b": {"c": 1}}}, None,
)  # fmt: skip
"""Values that were once wrong somewhere, and their like."""
BYTES = (
    b"\x00",
    b"\xff",
    b"\xfe\xff",
    b"[" * 3000,
    b"{" * 3000,
    b'"""',
    b"#",
    b"\n",
    b"1e999",
    b"-",
    b"NaN",
    b"\xe2\x80\xae",
)
Case = Callable[[], bool]
"""Runs one input: True where it was accepted; raises where it was not."""


class Fault(Exception):  # noqa: N818  (a finding, not an error of the program's)
    """An input was neither refused in words nor treated rightly."""


Family = Callable[[random.Random, Path], Iterator[Case]]


# --- how inputs are spoiled


def spoiled_bytes(content: bytes, rng: random.Random) -> bytes:
    """A file with one to three accidents: bytes changed, cut, doubled, put in."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(damaged) + 1)
        kind = rng.randrange(6)
        if kind == 0 and damaged:
            damaged[min(place, len(damaged) - 1)] = rng.randrange(256)
        elif kind == 1 and damaged:
            damaged[min(place, len(damaged) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del damaged[place:]
        elif kind == 3:
            del damaged[place : place + rng.randint(1, 64)]
        elif kind == 4:
            damaged[place:place] = rng.choice(BYTES)
        else:
            damaged[place:place] = damaged[place : place + rng.randint(1, 200)]
    return bytes(damaged)


def spoiled_values(document: Any, rng: random.Random) -> Any:
    """A nested document with one to three values (or keys) replaced, taken away or put in."""
    copied = json.loads(json.dumps(document, default=str))
    for _ in range(rng.randint(1, 3)):
        places = list(_places(copied))
        table, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind == 0:
            del table[key]
        elif kind == 1 and isinstance(table, dict):
            table[rng.choice(("x", "²", "[/b]", "trial", "\x1b", "a.b", "1", ""))] = copy.deepcopy(rng.choice(HOSTILE))
        else:
            table[key] = copy.deepcopy(rng.choice(HOSTILE))
        if not copied:
            break
    return copied


def _places(part: Any) -> Iterator[tuple[Any, Any]]:
    for key in part if isinstance(part, dict) else range(len(part)):
        yield part, key
        if isinstance(part[key], dict | list) and part[key]:
            yield from _places(part[key])


def toml_bytes(document: Mapping[str, Any]) -> bytes:
    """The document as TOML; None, which TOML has no word for, is left out."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if item is not None}
        return [plain(item) for item in value if item is not None] if isinstance(value, list) else value

    return tomli_w.dumps(plain(document)).encode("utf-8", "surrogatepass")


def _maybe_bytes(content: bytes, rng: random.Random, *, share: float = 0.3) -> bytes:
    return spoiled_bytes(content, rng) if rng.random() < share else content


# --- the families


def spaces(rng: random.Random, folder: Path) -> Iterator[Case]:
    """Space files: read, checked against their network, sampled and scaled."""
    files = [path.read_bytes() for path in space_paths().values()]
    path = folder / "space.toml"
    while True:
        content = rng.choice(files)
        if rng.random() < 0.6:
            content = toml_bytes(spoiled_values(tomllib.loads(content.decode()), rng))
        content = _maybe_bytes(content, rng, share=0.5)

        def case(content: bytes = content) -> bool:
            path.write_bytes(content)
            _, space = load_run(space=str(path))
            base = find_spec(space.network) if ":" not in space.network else base_spec("resnet_small")
            check_stages(space, len(base.stages))
            for candidate in random_candidates(space, 2, 0):
                if candidate.scaling.stages and len(candidate.scaling.stages) != len(base.stages):
                    continue
                scale(
                    base,
                    candidate.scaling,
                    resolution_px=space.input_size,
                    num_classes=10,
                    resolution_multiple=space.resolution_multiple,
                )
            return True

        yield case


def overrides(rng: random.Random, _: Path) -> Iterator[Case]:
    """`--set` texts, one to three at a time."""
    keys = (*known_keys(), "scaling.stages.1.width", "scaling.stages.².width", "scaling.stages.0.depth",
    "scaling.stages.x",
            "scaling.stages.1.width.x", "scaling", "data", "budgett", "", "=", "a=b", "storage.x",
            "scaling.stages.99999999999.width")  # fmt: skip
    while True:
        texts = []
        for __ in range(rng.randint(1, 3)):
            value = rng.choice(HOSTILE)
            raw = (
                str(value)
                if rng.random() < 0.4
                else toml_bytes({"v": [value]}).decode("utf-8", "replace")[5:-2].strip()
            )
            if rng.random() < 0.2:
                raw = rng.choice(
                    ("[" * 5000, "{" * 100, "'", '"""', "1\nbudget = 2", "9" * 6000, "1979-05-27", "0x" + "f" * 500)
                )
            texts.append(f"{rng.choice(keys)}={raw}")

        def case(texts: list[str] = texts) -> bool:
            load_run(overrides=texts)
            return True

        yield case


def archives(rng: random.Random, folder: Path) -> Iterator[Case]:
    """.npz data sets: spoiled bytes, compressed or not, wrong arrays, headers that promise what is not there."""
    importlib.import_module("torch")  # not on the first case's clock
    path = folder / "set.npz"
    images = np.arange(60 * 6 * 6 * 3, dtype=np.int64).astype(np.uint8).reshape(60, 6, 6, 3)
    labels = np.arange(60) % 3
    odd: tuple[Any, ...] = (
        np.uint8(3), np.asarray("text"), np.asarray([None] * 60, object), np.zeros(60, "M8[s]"), np.zeros(60, [("a",
        "i4")]),
        np.zeros((0, 6, 6, 3), np.uint8), np.zeros(60), np.full(60, np.nan), np.full(60, 2**62), labels - 1,
        images[:, :, :, 0],
        np.asarray(["a", "b", "c"]), np.asarray([b"\xff", b"b", b"c"]), np.zeros((60, 1, 1, 3), np.uint8),
        images.astype(">u2"),
        np.full(60, 2**64 - 1, np.uint64), labels.astype(bool), np.zeros(60, np.complex64), labels[:, None],
        images[:59],
        np.asarray(["\x1b[31m", "\u202e", ""]), np.zeros((60, 0), np.int64), np.void(b"x"),
    )  # fmt: skip
    names = (
        "images",
        "labels",
        "class_names",
        "train_images",
        "train_labels",
        "val_images",
        "val_labels",
        "test_images",
        "x",
    )
    headers = (
        "{'descr': '|u1', 'fortran_order': False, 'shape': (10**12, 9), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 6, 6, 3), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 6), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (60,), }",
        "{'descr': '<i8', 'fortran_order': True, 'shape': (60,), }",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (60,), }",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (99999999999,), }",
        "{" * 300,
        "__import__('os')",
    )
    while True:
        arrays = {"images": images, "labels": labels, "class_names": np.asarray(["a", "b", "c"])}
        for _ in range(rng.choice((0, 0, 1, 2))):
            arrays[rng.choice(names)] = rng.choice(odd)
        saved = io.BytesIO()
        (np.savez_compressed if rng.random() < 0.5 else np.savez)(saved, **arrays)  # type: ignore[arg-type]
        content = saved.getvalue()
        if rng.random() < 0.3:
            header = rng.choice(headers).encode().ljust(117) + b"\n"
            with zipfile.ZipFile(saved, "a") as archive, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                magic = b"\x93NUMPY" + bytes((rng.choice((1, 1, 2, 9)), 0)) + len(header).to_bytes(2, "little")
                archive.writestr(f"{rng.choice(names)}.npy", magic + header + b"\0" * rng.choice((0, 60, 480)))
            content = saved.getvalue()
        content = _maybe_bytes(content, rng, share=0.6)

        def case(content: bytes = content) -> bool:
            path.write_bytes(content)
            settings = DataSettings(source=str(path), calibration_images=3)
            load_dataset(settings, LABEL_SOURCES, storage_px=6, cache_folder=folder / "cache")
            return True

        yield case


def caches(rng: random.Random, folder: Path) -> Iterator[Case]:
    """The cache of decoded images: whatever becomes of it, the data set is the one that the images give."""
    for number in range(24):
        place = folder / "images" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 9 * number, np.uint8)).save(place / f"{number}.png")
    settings, cache = DataSettings(source=str(folder / "images"), calibration_images=2), folder / "cache"
    whole = load_dataset(settings, LABEL_SOURCES, storage_px=6, cache_folder=cache)
    files = {}
    for kept in sorted(cache.glob("*.npz")):
        with np.load(kept) as stored:
            files[kept] = kept.read_bytes(), {name: stored[name] for name in stored.files}
    while True:
        path = rng.choice(sorted(files))
        damaged, arrays = files[path]
        if rng.random() < 0.5:
            changed = dict(arrays)
            name = rng.choice(sorted(changed))
            changed[name] = rng.choice(
                (changed[name][:-1], np.uint8(1), np.zeros(3), changed[name][None], np.zeros(0, np.uint8))
            )
            if rng.random() < 0.2:
                del changed[name]
            saved = io.BytesIO()
            np.savez(saved, **changed)
            damaged = saved.getvalue()
        damaged = _maybe_bytes(damaged, rng, share=0.6)

        def case(path: Path = path, damaged: bytes = damaged) -> bool:
            path.write_bytes(damaged)
            found = load_dataset(settings, LABEL_SOURCES, storage_px=6, cache_folder=cache)
            if found.fingerprint != whole.fingerprint:
                message = "other images than those in the folder"
                raise Fault(message)
            return True

        yield case


def records(rng: random.Random, folder: Path) -> Iterator[Case]:
    """Records of trials: read, put on a front, told as a table, in full and as CSV."""
    store = RecordStore(folder)
    whole = json.loads(store.save(example_record()).read_text())
    path = store.path(0)
    while True:
        document = spoiled_values(whole, rng)
        text = json.dumps(document).replace("1e+308", rng.choice(("1e308", "1e400"))).encode()
        content = _maybe_bytes(text, rng)

        def case(content: bytes = content) -> bool:
            path.write_bytes(content)
            found = store.all()
            front = pareto_front(found)
            knee(front)
            csv_text(trial_rows(found, front={record.trial for record in front}))
            for record in found:
                describe(record, None)
            return True

        yield case


def other_results(rng: random.Random, folder: Path) -> Iterator[Case]:
    """front_scores.json and the files in confirmed/."""
    record = example_record()
    assert record.quality and record.latency
    score = FrontScore(trial=0, test=record.quality, latency=record.latency)
    run = ConfirmedRun(
        trial=0,
        seed=1,
        steps=10,
        train_s=1.0,
        float_score=0.8,
        validation=record.quality,
        test=record.quality,
        latency=record.latency,
        size_bytes=100,
        onnx_sha256="ab",
        network_sha256="cd",
    )
    front_scores.write_front_scores(folder, [score])
    kept = confirmed.write_confirmed(folder, run)
    files = {path: json.loads(path.read_text()) for path in (folder / front_scores.NAME, kept)}
    while True:
        path = rng.choice(sorted(files))
        content = _maybe_bytes(json.dumps(spoiled_values(files[path], rng)).encode(), rng)

        def case(path: Path = path, content: bytes = content) -> bool:
            for whole, document in files.items():
                whole.write_text(json.dumps(document))
            path.write_bytes(content)
            front_scores.read_front_scores(folder)
            confirmed.first_runs(folder)
            return True

        yield case


def exports(rng: random.Random, folder: Path) -> Iterator[Case]:
    """config.toml of an export, as `train` reads it."""
    session, record = read_run_file(EXAMPLE), example_record()
    assert session and record.quality and record.latency
    config = ExportedConfig(
        written_by="scalesearch",
        study="example",
        trial=0,
        expected=Expected(
            network_sha256="ab", macs=1, params=1, size_bytes=1, float_score=0.8, score=0.8, p50_ms=1.0, device="cpu"
        ),
        candidate=Candidate(),
        network=replace(base_spec("resnet_small"), num_classes=10),
        data=session.data,
        settings=session.settings,
        storage_px=64,
    )
    whole = TypeAdapter(ExportedConfig).dump_python(config, mode="json", exclude_none=True)
    path = folder / "config.toml"
    while True:
        content = _maybe_bytes(toml_bytes(spoiled_values(whole, rng)), rng)

        def case(content: bytes = content) -> bool:
            path.write_bytes(content)
            found = read_config(path)
            check_stored(found.settings, found.candidate, origin=str(path))
            check_spec(found.network)
            return True

        yield case


def run_files(rng: random.Random, folder: Path) -> Iterator[Case]:
    """run.toml of a study."""
    whole = tomllib.loads((EXAMPLE / "run.toml").read_text())
    while True:
        content = _maybe_bytes(toml_bytes(spoiled_values(whole, rng)), rng)

        def case(content: bytes = content) -> bool:
            (folder / "run.toml").write_bytes(content)
            read_run_file(folder)
            return True

        yield case


def database_urls(rng: random.Random, _: Path) -> Iterator[Case]:
    """Storage URLs: a password in any place and spelling is refused, and neither printed nor recorded."""
    secret = "Zq7hunter"
    signs = (
        "",
        "#",
        "?",
        "/",
        "@",
        "%",
        ":",
        " ",
        "%40",
        "%3A",
        "&",
        "=",
        ";",
        "'",
        '"',
        "\\",
        "\n",
        "[",
        "]",
        ",",
        "ü",
    )
    shapes = (
        "{scheme}://ann:{p}@db/studies", "{scheme}://:{p}@db/studies", "{scheme}://ann:{p}@h1:5432,h2:5433/studies",
        "{scheme}://db/studies?user=ann&password={p}", "{scheme}://db/studies?sslpassword={p}",
        "{scheme}://ann@db:{p}@x/studies",
        "{scheme}://db/studies?options=-c%20x={p}", "{scheme}://db/studies?PASSWORD={p}",
        "{scheme}://db/studies?p%61ssword={p}",
        "{scheme}://db/studies#{p}", "{scheme}:ann:{p}@db/studies", "host=db user=ann password={p}",
        "password='{p}' host=db",
        "{scheme}://ann%3A{p}@db/studies", "{scheme}:///studies?host=db&passfile={p}", "{scheme}://ann:{p}",
        "{scheme}://db/a:{p}@b",
        "{scheme}://[::1]/studies?oauth_client_secret={p}",
        "{scheme}://ann@db/studies?sslmode=require&password={p}#x",
    )  # fmt: skip
    schemes = (
        "postgresql",
        "postgresql+psycopg",
        "postgres",
        "POSTGRESQL",
        "PostgreSQL",
        "postgresql+asyncpg",
        "mysql",
    )
    good = (
        "postgresql://ann@db/studies",
        "postgresql://ann@db:5433/studies?sslmode=require",
        "postgresql://[::1]/studies",
    )
    while True:
        inside = rng.choice(signs) + secret + rng.choice(signs)
        url = rng.choice(shapes).format(scheme=rng.choice(schemes), p=inside)
        held = rng.random() < 0.1
        url = rng.choice(good) if held else url

        def case(url: str = url, held: bool = held) -> bool:
            texts = [recorded_command(["scalesearch", "run", "--set", f"storage={url}", f"--set=storage={url}"])]
            try:
                load_run(overrides=[f"storage={url}"])
            except ScalesearchError as error:
                texts.append(str(error))
                refused: ScalesearchError | None = error
            else:
                refused = None
            texts.append(error_text(f"something else went wrong with {url!r}"))
            if any(secret in text for text in texts):
                message = f"the password of {url!r} is repeated"
                raise Fault(message)
            if held != (refused is None):
                message = f"{url!r} was {'refused' if held else 'accepted'}"
                raise Fault(message)
            if refused is not None:
                raise refused
            return True

        yield case


def images(rng: random.Random, folder: Path) -> Iterator[Case]:
    """Image files of every kind, spoiled, and files of other kinds under an image's name."""
    pixels = np.arange(20 * 24 * 3, dtype=np.int64).astype(np.uint8).reshape(20, 24, 3)
    kinds = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "EPS", "PDF", "ICNS", "ICO", "TGA", "PCX", "MPO")
    files = []
    for kind in kinds:
        saved = io.BytesIO()
        with contextlib.suppress(OSError, KeyError):  # this Pillow writes no such files
            Image.fromarray(pixels).save(saved, kind)
            files.append(saved.getvalue())
    wide = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(wide, "PNG")
    files.append(wide.getvalue())
    path = folder / "photo.jpg"
    while True:
        content = _maybe_bytes(rng.choice(files), rng, share=0.9)

        def case(content: bytes = content) -> bool:
            path.write_bytes(content)
            try:
                return decode_square(path, 8).shape == (8, 8, 3)
            except UNREADABLE as error:
                raise ScalesearchError((str(error).splitlines() or [""])[0]) from error

        yield case


def masks(rng: random.Random, folder: Path) -> Iterator[Case]:
    """A folder of images and masks of which a mask, the data.yaml or a table of colours is spoiled."""
    import torch  # noqa: F401  (seconds, which are no case's fault)

    from scalesearch.data.mask_folder import SOURCE
    from scalesearch.values.network_spec import InputSize

    root, mask = folder / "masked", np.arange(20 * 24, dtype=np.int64).reshape(20, 24) % 3
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for place in range(8):
        Image.fromarray(np.full((20, 24, 3), 30 * place, np.uint8)).save(root / "images" / f"{place}.png")
        Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / f"{place}.png")
    pictures = []
    for picture in (
        Image.fromarray(mask.astype(np.uint8)),
        Image.fromarray(mask.astype(np.uint16) * 300),
        Image.fromarray(np.stack([mask] * 3, axis=2).astype(np.uint8)),
        Image.fromarray(np.stack([mask, 2 * mask, mask], axis=2).astype(np.uint8)),
        Image.fromarray(mask.astype(np.uint8)).convert("LA"),
        Image.fromarray(mask.astype(np.uint8)).convert("1"),
        Image.fromarray((mask * 200).astype(np.uint8)).convert("RGBA"),
    ):
        saved = io.BytesIO()
        picture.save(saved, "PNG")
        pictures.append(saved.getvalue())
    yaml = b"path: .\nnames: [sky, road, car]\ncolors: [[0, 0, 0], [1, 2, 1], [2, 4, 2]]\nmasks_dir: masks\n"
    table = b"name,r,g,b\nsky,0,0,0\nroad,1,2,1\ncar,2,4,2\n"
    names = {"data.yaml": yaml, "class_dict.csv": table, "classes.txt": b"sky\nroad\ncar\n"}
    while True:
        chosen = rng.choice(["", *names])
        text = _maybe_bytes(names[chosen], rng, share=0.7) if chosen else b""
        picture_bytes = _maybe_bytes(rng.choice(pictures), rng, share=0.6)

        def case(chosen: str = chosen, text: bytes = text, picture_bytes: bytes = picture_bytes) -> bool:
            for name in names:
                (root / name).unlink(missing_ok=True)
            if chosen:
                (root / chosen).write_bytes(text)
            (root / "masks" / "3.png").write_bytes(picture_bytes)
            settings = DataSettings(source=str(root), max_skipped_fraction=0.5)
            found = SOURCE.load(settings, storage=InputSize.square(8), cache_folder=folder / "cache")
            return 7 <= len(found.train) <= 8 and len(found.train.targets.tensor()) == len(found.train)

        yield case


def boxes(rng: random.Random, folder: Path) -> Iterator[Case]:
    """Labels of boxes in each of three formats, of which one file is spoiled: by bytes, or a value of its document."""
    import torch  # noqa: F401  (seconds, which are no case's fault)

    from scalesearch.data import coco, voc, yolo
    from scalesearch.values.network_spec import InputSize

    root = folder / "boxes"
    for name in ("images", "labels", "annotations"):
        (root / name).mkdir(parents=True)
    for place in range(4):
        Image.fromarray(np.full((20, 24, 3), 30 * place, np.uint8)).save(root / "images" / f"{place}.png")
        (root / "labels" / f"{place}.txt").write_text("0 .5 .5 .5 .5\n1 .2 .2 .1 .3\n")
    document = {
        "categories": [{"id": 1, "name": "cat"}, {"id": 4, "name": "dog"}],
        "images": [{"id": place, "file_name": f"{place}.png", "width": 24, "height": 20} for place in range(4)],
        "annotations": [{"id": 0, "image_id": 3, "category_id": 4, "bbox": [2, 3, 10, 9.5], "iscrowd": 0}],
    }
    lists = {"train": "images.txt", "names": ["cat", "dog"], "nc": 2}
    lines = (b"0 .5 .5 .4 .4\n", b"1 .2 .2 .4 .2 .3 .5\n", b"0 .5 .5 .4 .4 .5 .5 1 .6 .6 0\n", b"0 .5 .5 .4 .4 .9 7\n")
    xml = (
        b'<?xml version="1.0" encoding="gb2312"?><annotation><size><width>24</width><height>20</height></size><object>'
        b"<name>cat</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>12</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )
    names = b"".join(b"images/%d.png\n" % place for place in range(4))
    usual = {"labels/3.txt": lines[0], "annotations/3.xml": xml, "images.txt": b"\xef\xbb\xbf" + names}
    while True:
        source, spoiled = rng.choice((yolo, coco, voc)).SOURCE, dict(usual)
        shape = {"kpt_shape": [2, rng.choice((2, 3))]} if rng.random() < 0.3 else {}
        tables = {"data.yaml": {**lists, **shape}, "annotations/train.json": document}
        texts = {name: json.dumps(table).encode() for name, table in tables.items()}
        spoiled["labels/3.txt"] = rng.choice(lines)
        chosen = {"YOLO": ["labels/3.txt", "images.txt", "data.yaml"], "COCO": ["annotations/train.json"]}
        name = rng.choice(chosen.get(source.kind, ["annotations/3.xml"]))
        if name in tables and rng.random() < 0.7:
            texts[name] = json.dumps(spoiled_values(tables[name], rng)).encode()
        else:
            texts[name] = _maybe_bytes({**spoiled, **texts}[name], rng, share=0.9)

        def case(source: Any = source, files: Mapping[str, bytes] = {**spoiled, **texts}) -> bool:
            for name, content in files.items():
                (root / name).write_bytes(content)
            settings = DataSettings(source=str(root), max_skipped_fraction=0.5, fit="stretch")
            found = source.load(settings, storage=InputSize.square(8), cache_folder=folder / "cache")
            return 1 <= len(found.train) <= 4 and len(found.train.targets.tensor()) == len(found.train)

        yield case


def networks(rng: random.Random, _: Path) -> Iterator[Case]:
    """Specs that a function of the user's gives, with parts of the wrong kind or size."""
    whole = base_spec("mobilenet_small")
    places = (
        "name",
        "resolution_px",
        "num_classes",
        "stem",
        "stages",
        "head",
        "activation",
        "image_channels",
        "norm_eps",
    )
    while True:
        spec = whole
        for __ in range(rng.randint(1, 2)):
            value: Any = rng.choice(HOSTILE)
            kind = rng.randrange(4)
            if kind == 0:
                spec = replace(spec, **{rng.choice(places): value})
            elif kind == 1 and isinstance(spec.stages, tuple) and spec.stages and hasattr(spec.stages[0], "depth"):
                name = rng.choice(("block", "depth", "channels", "kernel", "stride", "expansion"))
                spec = replace(spec, stages=(replace(spec.stages[0], **{name: value}), *spec.stages[1:]))
            elif kind == 2 and hasattr(spec.stem, "pool"):
                spec = replace(spec, stem=replace(spec.stem, **{rng.choice(("channels", "kernel", "stride")): value}))
            elif hasattr(spec.head, "width_rule"):
                spec = replace(spec, head=replace(spec.head, **{rng.choice(("channels", "width_rule")): value}))

        def case(spec: Any = spec) -> bool:
            check_spec(spec)
            return True

        yield case


FAMILIES: Mapping[str, Family] = {
    "space TOML": spaces,
    "--set": overrides,
    "npz": archives,
    "image cache": caches,
    "records": records,
    "scores, confirmed": other_results,
    "config.toml": exports,
    "run.toml": run_files,
    "postgres URLs": database_urls,
    "image files": images,
    "masks": masks,
    "boxes": boxes,
    "network specs": networks,
}


def example_record() -> TrialRecord:
    """A complete record, as a study holds it."""
    classes = tuple(
        ClassQuality(
            name=name, support=50, precision=0.8, recall=0.8, average_precision=0.8, curve=((0.0, 1.0), (1.0, 0.5))
        )
        for name in ("stop", "yield")
    )
    quality = Quality(
        score=0.8,
        score_low=0.75,
        score_high=0.85,
        images=100,
        detail=ClassDetail(macro_precision=0.8, macro_recall=0.8, classes=classes),
    )
    latency = Latency(
        p50_ms=1.0,
        p50_low_ms=0.99,
        p50_high_ms=1.01,
        raw_p50_ms=1.1,
        raw_p90_ms=1.2,
        raw_p99_ms=1.5,
        raw_min_ms=0.9,
        reference_p50_ms=2.0,
        ratio=0.5,
        runs=400,
        batch=1,
        stable=True,
    )
    return TrialRecord(
        trial=0,
        key="ab",
        state="complete",
        candidate=Candidate(),
        charged=True,
        spec=base_spec("resnet_small"),
        cost=Cost(macs=10**7, params=10**5),
        dense_macs=10**7,
        training=TrainingResult(
            float_score=0.8,
            train_s=1.0,
            retrain_s=0.0,
            steps=10,
            safe_recipe_used=False,
            weights_reused=False,
            final_loss=0.5,
        ),
        latency=latency,
        quality=quality,
        accuracy_path=(StepScore(step="float", score=0.8), StepScore(step="engine", score=0.8)),
        size_bytes=1000,
        onnx_sha256="ab",
        network_sha256="cd",
        limits=(LimitUse(limit="max_macs", excess=-0.5),),
        stages=(StageTime(stage="train", seconds=1.0),),
    )
