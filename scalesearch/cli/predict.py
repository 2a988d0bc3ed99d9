"""`predict`: prints the results of an export's model.onnx for pictures, in the terms of the network's task."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalesearch.cli.terminal import echo
from scalesearch.errors import ConfigError
from scalesearch.plain_text import shortened, utf8_text, visible

if TYPE_CHECKING:
    from scalesearch.tasks.answers import Answer, Predictor

_SHOWN_LITTER = 3


def register(app: typer.Typer) -> None:
    """Add `predict` to the app."""
    app.command()(predict)


def predict(
    export: Annotated[Path, typer.Argument(help="Folder that `scalesearch export` wrote, or its model.onnx.")],
    images: Annotated[list[Path], typer.Argument(help="Image files; folders stand for the images in them.")],
    top: Annotated[int, typer.Option("--top", min=1, help="So many answers for each image, if there are several.")] = 2,
    threads: Annotated[int, typer.Option("--threads", min=0, help="Of the CPU; 0: as many as cores.")] = 1,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder for pictures of the answers, of tasks that draw them (masks).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of one object per image.")] = False,
) -> int:
    """Print what an exported network answers for images, by ONNX Runtime.

    Exit code 1 where an image got no answer, 2 where pictures cannot be written.
    """
    from scalesearch.tasks.answers import Answer, NoAnswerError, UnreadableImageError
    from scalesearch.tasks.infer_parts.picture_names import PictureNameError, picture_names

    predictor = open_export(export, threads=threads)
    if to is not None and not predictor.draws:
        message = f"--to {to}: expected a network whose answers are drawn, such as masks; one {predictor.noun} is not."
        raise ConfigError(message)
    for line in replaced_model(export):
        echo(f"warning: {line}", err=True)
    files = list(image_files(images, apart=to))
    try:
        places: Sequence[Path | None] = [None] * len(files) if to is None else picture_names(files, to)
    except PictureNameError as error:
        message = f"--to {error}.\nGive another folder."
        raise ConfigError(message) from None
    rows, failed, unanswered = list[tuple[str, Answer]](), list[tuple[str, str]](), list[tuple[str, str]]()
    for path, place in zip(files, places, strict=True):
        try:
            rows.append((_path_text(path), predictor.answer(path, top=top, **_drawn(path, place))))
        except NoAnswerError as error:
            unanswered.append((_path_text(path), str(error)))
        except UnreadableImageError as error:
            failed.append((_path_text(path), str(error)))
        except OSError as error:
            if to is None:
                raise
            message = f"--to {to}: cannot write pictures of {path}: {error.strerror or error}.\nGive another folder."
            raise ConfigError(message) from None
    if as_json:
        typer.echo(json.dumps(_objects(rows, failed + unanswered), indent=1))
    else:
        _print_table(rows, predictor)
    for name, reason in failed:
        echo(f"cannot read {name}: {reason}", err=True)
    if failed:
        echo(f"{len(failed)} of {len(files)} images could not be read.", err=True)
    for name, reason in unanswered:
        echo(f"no {predictor.noun} for {name}: {reason}", err=True)
    return 1 if failed or unanswered else 0


def _drawn(image: Path, place: Path | None) -> dict[str, Any]:
    """Return where the pictures of an image go, as arguments of `Predictor.answer`."""
    if place is None:
        return {}
    return {"to": place.parent} | ({} if place.name == image.stem else {"name": place.name})


def open_export(export: Path, *, threads: int = 1) -> "Predictor":
    """Open the network of an export's folder, or an ONNX file, as a predictor of the network's task.

    Raises:
        ConfigError: The file is not there, is not an ONNX file or not one that `export` wrote, or its task is not known
            here.
    """
    from scalesearch.export.metadata import task_of
    from scalesearch.tasks.registry import get_task, task_names

    path = export / "model.onnx" if export.is_dir() else export
    if not path.is_file():
        message = f"{path} is not there: expected a folder that `scalesearch export` wrote, or its model.onnx."
        raise ConfigError(message)
    name = task_of(path)
    try:
        task = get_task(name)
    except ConfigError as error:
        way_out = "" if name in task_names() else "\nInstall the package that offers the task of this network."
        message = f"{path} cannot be used: {error}{way_out}"
        raise ConfigError(message) from None
    try:
        return task.open_export(path, threads=threads)
    except Exception as error:  # ONNX Runtime's errors share no base class
        message = (
            f"{path} cannot be used: {_first_line(error)}.\nExpected a model.onnx that `scalesearch export` wrote."
        )
        raise ConfigError(message) from None


def replaced_model(export: Path) -> Iterator[str]:
    """Yield a line where the model.onnx of an export's folder is not the file that `export` wrote there."""
    from scalesearch.export.metadata import NAME, read_config
    from scalesearch.records.stored_files import file_sha256

    if not (export / NAME).is_file():
        return
    try:
        expected = read_config(export).model_sha256
    except ConfigError:  # there is no config to compare with
        return
    if expected and file_sha256(export / "model.onnx") != expected:
        yield (
            f"{export / 'model.onnx'} is not the file that was exported with {export / NAME}: its answers are its own, "
            "the numbers of MODEL_CARD.md are not. Export again to have the two agree."
        )


def image_files(given: Iterable[Path], *, apart: Path | None = None) -> Iterator[Path]:
    """Yield the given files, and for each folder all files with an image's suffix, at any depth, sorted by name.

    Args:
        given: Files and folders.
        apart: A folder that is not searched where it lies below a given one: that of the pictures of an earlier run.

    Raises:
        ConfigError: A folder holds no image.
    """
    from scalesearch.data.litter import SUFFIXES

    for path in given:
        if not path.is_dir():
            yield path
            continue
        found, litter = _below(path)
        if apart is not None and apart.resolve() != path.resolve():
            found = [each for each in found if apart.resolve() not in each.resolve().parents]
        if litter:
            names = ", ".join(_path_text(each.relative_to(path)) for each in litter[:_SHOWN_LITTER])
            more = ", ..." if len(litter) > _SHOWN_LITTER else ""
            echo(f"passed over {len(litter)} files or folders that a system left or hides: {names}{more}", err=True)
        if not found:
            message = f"{path} holds no image: expected files ending in {', '.join(sorted(SUFFIXES))}."
            raise ConfigError(message)
        yield from found


def _below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images at any depth, sorted by name, and the images and folders that an operating system left there.

    Folders that a system left are not searched.
    """
    from scalesearch.data.litter import SUFFIXES, is_litter

    found, litter = list[Path](), list[Path]()
    for place, folders, names in os.walk(folder):
        here = Path(place)
        left = {name for name in (*folders, *names) if is_litter(here / name)}
        images = [here / name for name in names if Path(name).suffix.lower() in SUFFIXES]
        litter += [here / name for name in folders if name in left] + [each for each in images if each.name in left]
        folders[:] = [name for name in folders if name not in left]
        found += [each for each in images if each.name not in left and each.is_file()]
    return sorted(found), sorted(litter)


def _path_text(path: Path) -> str:
    return visible(utf8_text(str(path)), newlines=False)


def _first_line(error: Exception) -> str:
    return visible(shortened((str(error).splitlines() or [""])[0], 200)) or type(error).__name__


def _objects(rows: "list[tuple[str, Answer]]", failed: list[tuple[str, str]]) -> list[dict[str, object]]:
    answered: list[dict[str, object]] = [{"file": name, **answer.fields} for name, answer in rows]
    return answered + [{"file": name, "error": reason} for name, reason in failed]


def _print_table(rows: "list[tuple[str, Answer]]", predictor: "Predictor") -> None:
    from scalesearch.cli.screen import Column, print_table, wide_console

    if not rows:
        return
    heads = predictor.heads(max(len(answer.cells) for _, answer in rows))
    columns = [Column(head="file", keep=len(heads) + 2, folds=True)]
    for place, head in enumerate(heads):
        columns.append(Column(head=head.text, keep=len(heads) + 1 - place, right=head.number, folds=not head.number))
    cells = [[name, *answer.cells] for name, answer in rows]
    print_table(wide_console(), columns, [[*row, *[""] * (len(columns) - len(row))] for row in cells])
