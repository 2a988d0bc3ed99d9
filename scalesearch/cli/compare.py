"""`compare`: studies side by side: their fronts, which of them may share one, and whether two chips agree."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalesearch.cli.studies import find_study, front_under, read_records
from scalesearch.cli.terminal import echo
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.values.quality import score_noun
from scalesearch.views.words import device_text, milliseconds, percent, score_noun_of

if TYPE_CHECKING:
    from scalesearch.analysis.comparison import ComparedStudy, Pair
    from scalesearch.analysis.front import Point


def register(app: typer.Typer) -> None:
    """Add `compare` to the app."""
    app.command()(compare)


def compare(
    studies: Annotated[list[Path], typer.Argument(metavar="STUDY STUDY...", help="Folders of two or more studies.")],
    as_json: Annotated[bool, typer.Option("--json", help="A list of one object for each study on stdout.")] = False,
    to: Annotated[Path, typer.Option("--to", help="The picture of the fronts over each other.")] = Path("compare.png"),
) -> int:
    """Lay the fronts of studies over each other: two data sets, two chips, two spaces.

    Latencies of unlike devices or batches, and scores by unlike metrics or on other images, never share a front: side
    by side only.
    """
    from scalesearch.analysis.comparison import common_front, common_reference

    compared = _read(studies)
    if as_json:
        typer.echo(json.dumps(_rows(compared), indent=1, allow_nan=False))
        return 0
    reference = common_reference(compared)
    for study in compared:
        for line in _about(study, reference):
            echo(line)
    echo()
    for pair in _pairs(compared):
        for line in _agreement(pair):
            echo(line)
    together = common_front(compared)
    if together:
        echo(f"\none front of all: {len(together)} points, from fast to slow")
        for name, record in together:
            figures = f"{percent(record.quality.score)}, {milliseconds(record.latency.p50_ms)}"
            echo(f"  {name}, trial {record.trial}: {figures}, {record.candidate.quantization.precision}")
    _draw(compared, to)
    return 0


def _read(paths: Sequence[Path]) -> "list[ComparedStudy]":
    from scalesearch.analysis.comparison import ComparedStudy
    from scalesearch.records.run_file import stored_session

    folders = [find_study(path) for path in paths]
    if len({folder.resolve() for folder in folders}) < 2 or len(set(folders)) < len(folders):
        message = f"compare wants two or more different studies; got {', '.join(map(str, folders))}."
        raise ConfigError(message)
    unlike = len({folder.name for folder in folders}) == len(folders)
    found = []
    for folder in folders:
        records, session = read_records(folder), stored_session(folder)
        try:
            front_under(records)
        except NoFeasibleTrialError as error:
            message = f"{folder}: {error}"
            raise NoFeasibleTrialError(message) from None
        name = folder.name if unlike else str(folder)
        found.append(ComparedStudy(name=name, records=records, session=session))
    return found


def _pairs(studies: "Sequence[ComparedStudy]") -> "list[Pair]":
    from scalesearch.analysis.comparison import compare as compare_two

    return [compare_two(one, other) for place, one in enumerate(studies) for other in studies[place + 1 :]]


def _about(study: "ComparedStudy", reference: "Point") -> Iterator[str]:
    from scalesearch.analysis.front import point

    front = study.front
    device = device_text(study.device) if study.device else "unknown device"
    yield f"{study.name}: {study.session.space.name} on {study.session.data_words}, {device}"
    yield (
        f"  front of {len(front)} among {len(study.records)} trials, {percent(point(front[0])[0])} at "
        f"{milliseconds(point(front[0])[1])} to {percent(point(front[-1])[0])} at {milliseconds(point(front[-1])[1])}; "
        f"hypervolume {study.hypervolume(reference):.3f}"
    )


def _agreement(pair: "Pair") -> Iterator[str]:
    yield f"{pair.first} and {pair.second}: {_what_compares(pair)}"
    if pair.trained_unlike:
        yield f"  TRAINED UNLIKE ({pair.trained_unlike}): each front is what its study hands over, not equal trainings"
    for by, beaten, share in (
        (pair.first, pair.second, pair.second_beaten),
        (pair.second, pair.first, pair.first_beaten),
    ):
        if share is not None:
            yield f"  {by} beats {100 * share:.0f} % of the front of {beaten}"
    if not pair.shared:
        yield "  no network was measured in both, so nothing says whether they would agree"
        return
    yield f"  {pair.shared} networks measured in both, told apart by scaling, pruning and precision:"
    if pair.latency_ratio is not None:
        yield f"    latency: median {pair.latency_ratio:.2f} times {pair.first}'s, same order: {_order(pair.latency)}"
    yield f"    {score_noun(pair.metric)}: same order: {_order(pair.score)}"


def _order(agreement: object | None) -> str:
    return "too few, or all equal" if agreement is None else f"Spearman {agreement}"


def _what_compares(pair: "Pair") -> str:
    timed = ["UNLIKE DEVICES"] * (not pair.same_device)
    timed += [f"TIMED UNLIKE ({'; '.join(pair.timed_unlike)})"] * bool(pair.timed_unlike)
    scored = [f"SCORED UNLIKE ({pair.scored_unlike})"] * bool(pair.scored_unlike)
    scored += ["OTHER IMAGES"] * (not pair.same_images)
    unlike, images = " and ".join([*timed, *scored]), "same images, " * pair.same_images
    if not unlike:
        return "same device, same images: their points share a front"
    if not scored:
        return f"{images}but {unlike}: latencies do not compare, so there is no common front"
    if not timed:
        scores = "scores" if pair.scored_unlike else score_noun(pair.metric, plural=True)
        return f"same device, {images}but {unlike}: {scores} (and hypervolumes) do not compare, so no common front"
    return f"{unlike}: side by side only"


def _rows(studies: "Sequence[ComparedStudy]") -> list[dict[str, Any]]:
    from scalesearch.analysis.comparison import common_front, common_reference
    from scalesearch.analysis.front import point

    together, pairs, reference = common_front(studies), _pairs(studies), common_reference(studies)
    rows = []
    for study in studies:
        front = study.front
        rows.append(
            {
                "study": study.name,
                "space": study.session.space.name,
                "data": study.session.data.name,
                "device": device_text(study.device) if study.device else None,
                "trials": len(study.records),
                "hypervolume": study.hypervolume(reference),
                "front": [
                    {"trial": r.trial, r.quality.metric: point(r)[0], r.latency.name: point(r)[1]} for r in front
                ],
                "on_common_front": [r.trial for name, r in together if name == study.name] if together else None,
                "with": [_plain(pair) for pair in pairs if pair.first == study.name],
            }
        )
    return rows


def _plain(pair: "Pair") -> dict[str, Any]:
    agreements = {
        f"{name}_spearman": found.spearman if found else None
        for name, found in (("latency", pair.latency), ("accuracy", pair.score))
    }
    return {
        "study": pair.second,
        "same_device": pair.same_device,
        "timed_unlike": list(pair.timed_unlike),
        "trained_unlike": pair.trained_unlike,
        "scored_unlike": pair.scored_unlike,
        "same_images": pair.same_images,
        "its_front_beaten": pair.second_beaten,
        "own_front_beaten": pair.first_beaten,
        "shared_networks": pair.shared,
        "latency_ratio": pair.latency_ratio,
        **agreements,
    }


def _draw(studies: "Sequence[ComparedStudy]", to: Path) -> None:
    from scalesearch.views.comparison_picture import draw_fronts

    devices = {device_text(study.device) for study in studies if study.device}
    pairs = _pairs(studies)
    warning = [] if all(pair.same_device for pair in pairs) else ["unlike devices: latencies do not compare"]
    warning += sorted({f"timed unlike: {words}" for pair in pairs for words in pair.timed_unlike})
    warning += sorted({f"scored unlike: {pair.scored_unlike}" for pair in pairs if pair.scored_unlike})
    scores = score_noun_of((record for study in studies for record in study.front), plural=True)
    warning += [] if all(pair.same_images for pair in pairs) else [f"other images: {scores} do not compare"]
    caption = "  |  ".join([*sorted(devices), *warning])
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        draw_fronts({study.name: study.front for study in studies}, to=to, title="Fronts side by side", caption=caption)
    except OSError as error:
        message = f"Cannot write {to}: {error.strerror}. Give another file with --to."
        raise ConfigError(message) from None
    echo(f"\nWritten: {to}")
