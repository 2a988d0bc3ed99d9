"""The report of the comparison, as Markdown."""

from collections.abc import Iterator, Sequence

from rivals.comparing import OURS, SHARES, WHICH, Member, Search, above, best_within, mean_and_spread, point, volume


def report(searches: Sequence[Search], latencies_ms: Sequence[float], *, minutes: float) -> str:
    """Return all tables: means over the seeds, each seed, the volumes' ratios, points above our front, all members.

    Args:
        searches: The searches of all seeds.
        latencies_ms: Latencies within which the best accuracy is told.
        minutes: Wall time of each search.
    """
    arms = tuple(dict.fromkeys(search.arm for search in searches))
    parts = [
        "## Means over the seeds (standard deviation)",
        *_table(arms, searches, latencies_ms),
        "",
        "## Seed by seed",
        *_each(searches, latencies_ms),
        "",
        "## Hypervolume on validation images by each search's own figures, by minutes since the start of its process",
        *_in_time(arms, searches, minutes),
        "",
        "## Hypervolume of scalesearch by that of each rival",
        *_ratios(arms, searches),
        "",
        "## Points above the front of scalesearch by more than the errors of both",
        *_above(arms, searches),
        "",
        "## Members of the fronts",
        *_members(searches),
    ]
    return "\n".join(parts)


def _head(first: str, latencies_ms: Sequence[float]) -> Iterator[str]:
    best = [f"best {which} %, {ms:g} ms" for which in WHICH for ms in latencies_ms]
    columns = [first, "seeds", "trainings", "minutes to the last result", "minutes in all", "members"]
    columns += [f"hypervolume, {which}" for which in WHICH] + best
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"


def _row(name: str, searches: Sequence[Search], latencies_ms: Sequence[float]) -> str:
    """Return a line of the table: the means over these searches."""
    cells = [
        ", ".join(str(search.seed) for search in searches),
        mean_and_spread([search.trainings for search in searches]),
        mean_and_spread([search.last_s / 60 for search in searches]),
        mean_and_spread([search.whole_s / 60 for search in searches]),
        mean_and_spread([len(search.members) for search in searches]),
    ]
    for which in WHICH.values():
        cells.append(mean_and_spread([volume(point(one, which) for one in search.members) for search in searches]))
    for which in WHICH.values():
        for ms in latencies_ms:
            best = [best_within((point(one, which) for one in search.members), ms) for search in searches]
            cells.append(mean_and_spread([100 * score for score in best]))
    return f"| {name} | {' | '.join(cells)} |"


def _table(arms: Sequence[str], searches: Sequence[Search], latencies_ms: Sequence[float]) -> Iterator[str]:
    yield from _head("search", latencies_ms)
    for arm in arms:
        yield _row(arm, [search for search in searches if search.arm == arm], latencies_ms)


def _each(searches: Sequence[Search], latencies_ms: Sequence[float]) -> Iterator[str]:
    yield from _head("search", latencies_ms)
    for search in sorted(searches, key=lambda each: each.seed):
        yield _row(search.arm, [search], latencies_ms)


def _in_time(arms: Sequence[str], searches: Sequence[Search], minutes: float) -> Iterator[str]:
    yield f"| search | {' | '.join(f'{share * minutes:g} min' for share in SHARES)} |"
    yield "|---" * (len(SHARES) + 1) + "|"
    for arm in arms:
        volumes = zip(*(search.volumes for search in searches if search.arm == arm), strict=True)
        yield f"| {arm} | {' | '.join(mean_and_spread(each) for each in volumes)} |"


def _pairs(arm: str, searches: Sequence[Search]) -> list[tuple[Search, Search]]:
    """Return (our search, the rival's search) of every seed that has both."""
    ours = {search.seed: search for search in searches if search.arm == OURS}
    return [(ours[search.seed], search) for search in searches if search.arm == arm and search.seed in ours]


def _ratios(arms: Sequence[str], searches: Sequence[Search]) -> Iterator[str]:
    yield "| rival | " + " | ".join(WHICH) + " |"
    yield "|---" * (len(WHICH) + 1) + "|"
    for arm in arms:
        if arm == OURS:
            continue
        cells = []
        for which in WHICH.values():
            volumes = [
                tuple(volume(point(one, which) for one in search.members) for search in pair)
                for pair in _pairs(arm, searches)
            ]
            known = [ours / theirs for ours, theirs in volumes if theirs]
            each = ", ".join(f"{ratio:.2f}" for ratio in known)
            cells.append(f"{mean_and_spread(known, 2)}: {each}" if known else "none")
        yield f"| {arm} | {' | '.join(cells)} |"


def _above(arms: Sequence[str], searches: Sequence[Search]) -> Iterator[str]:
    for arm in arms:
        if arm == OURS:
            continue
        for name, which in WHICH.items():
            pairs = _pairs(arm, searches)
            found = {theirs.seed: above(theirs.members, ours.members, which) for ours, theirs in pairs}
            seeds = sum(bool(points) for points in found.values())
            yield f"* {arm}, {name} accuracy: in {seeds} of {len(found)} seeds"
            for seed, points in found.items():
                for one in points:
                    than = f"ours of {_words(one.best, name)}" if one.best else "none of ours, all are slower"
                    yield f"  * seed {seed}: {_words(one.member, name)}, {one.points:+.1f} points above {than}"


def _words(member: Member, which: str) -> str:
    share = WHICH[which](member)
    return f"{100 * share.value:.1f} +-{100 * share.half:.1f} % at {member.ms:.4f} ms"


def _members(searches: Sequence[Search]) -> Iterator[str]:
    columns = ["seed", "search", "network", "validation %", "test %", "ms, together", "interval", "ms, by the search"]
    yield f"| {' | '.join((*columns, 'stable'))} |"
    yield "|---" * (len(columns) + 1) + "|"
    for search in sorted(searches, key=lambda each: each.seed):
        for one in sorted(search.members, key=lambda each: each.ms):
            cells = [str(one.seed), one.arm, one.name]
            cells += [
                f"{100 * share.value:.1f} ({100 * share.low:.1f}-{100 * share.high:.1f})"
                for share in (one.val, one.test)
            ]
            cells += [f"{one.ms:.4f}", f"{one.ms_low:.4f}-{one.ms_high:.4f}", f"{one.told_ms:.4f}"]
            yield f"| {' | '.join(cells)} | {'yes' if one.stable else 'no'} |"
