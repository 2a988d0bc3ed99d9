"""README and docs stay true: every command and flag that they show exists, every file that they link to is there."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from scalesearch.cli import app
from scalesearch.config import parse_override, parse_space
from scalesearch.config.settings import check_known

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def flags() -> dict[str, set[str]]:
    """Each command's flags, as the program itself has them."""
    group = typer.main.get_command(app)
    return {
        name: {flag for parameter in command.params for flag in parameter.opts}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every `scalesearch ...` that the page shows, in blocks and between backquotes."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    for line in (line for block in blocks for line in block.splitlines()):
        command = line.partition("#")[0].strip()
        if command.startswith("scalesearch "):
            yield shlex.split(command)[1:]
    for command in re.findall(r"`scalesearch ([^`]+)`", text):
        yield shlex.split(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_flag_exists(page: Path) -> None:
    for words in commands(page):
        assert words[0] in flags(), words
        for word in words[1:]:
            if word.startswith("--"):
                assert word in flags()[words[0]], words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_set_key_is_known(page: Path) -> None:
    for override in re.findall(r"--set\s+([\w.]+=[^\s`]+)", page.read_text(encoding="utf-8")):
        if override != "key=value":
            check_known(parse_override(override)[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_every_benchmark_named_is_there() -> None:
    for page in PAGES:
        for path in re.findall(r"`(benchmarks/\w+\.py)", page.read_text(encoding="utf-8")):
            assert (ROOT / path).is_file(), path


def test_the_example_space_of_the_docs_is_sound() -> None:
    import tomllib

    text = (ROOT / "docs" / "search-spaces.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    space = parse_space(tomllib.loads(example), name="example", origin="docs/search-spaces.md")
    assert {named.name for named in space.axes} >= {"scaling.stages.3.width", "training.learning_rate"}


def test_the_networks_of_the_docs_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scalesearch.networks import find_spec, scale
    from scalesearch.tasks.classification.pieces import build
    from scalesearch.values.candidate import Scaling

    pytest.importorskip("torchvision")

    text = (ROOT / "docs" / "search-spaces.md").read_text(encoding="utf-8")
    spec_example, module_example = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(spec_example, names)
    spec = names["spec"]
    assert callable(spec)
    assert build(spec()).spec.name == "mynet"
    (tmp_path / "mine_of_the_docs.py").write_text(module_example)
    monkeypatch.syspath_prepend(tmp_path)
    base = find_spec("mine_of_the_docs:network")
    assert base.mean == (0.485, 0.456, 0.406)
    at_96_px = scale(base, Scaling(), resolution_px=96, num_classes=7)
    assert build(at_96_px).module.get_submodule("classifier.1").out_features == 7


def test_the_task_of_the_docs_is_the_one_that_the_tests_take_the_whole_way() -> None:
    section = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8").partition("## A task of your own")[2]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    files = [(ROOT / "tests" / "toy_task" / name).read_text(encoding="utf-8") for name in ("levels.py", "task.py")]
    assert len(blocks) == 4
    for block in blocks:
        shown = [line.strip() for line in block.splitlines() if line.strip()]
        assert any(_holds(file, shown) for file in files), block
    offered = tomllib.loads(re.findall(r"```toml\n(.*?)```", section, re.DOTALL)[0])
    assert offered["project"]["entry-points"]["scalesearch.tasks"] == {"brightness": "toy_task.task:TASK"}


def _holds(file: str, shown: list[str]) -> bool:
    lines = [line.strip() for line in file.splitlines() if line.strip()]
    return any(lines[place : place + len(shown)] == shown for place in range(len(lines)))
