"""Settings and spaces: what a file and `--set` become, and what a mistake is answered with."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from scalesearch.config import check_stages, find_space, load_run, parse_override, parse_space, space_paths
from scalesearch.errors import ConfigError
from scalesearch.values.space import Choice, Range

SPACE = """
network = "resnet_small"
resolution_px = 64
[scaling]
resolution = [0.5, 1]
width = { low = 0.5, high = 1.5, step = 0.25 }
[scaling.stages.1]
width = [0.5, 1.0]
[quantization]
precision = ["fp32", "int8"]
[training]
steps = 100
[limits]
max_macs = 10_000_000
"""


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SPACE)
    return path


def test_a_wrong_value_that_was_set_is_not_blamed_on_the_file_alone(space_file: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"mine\.toml with --set training\.branch_fraction: training\.branch_fraction = 0"
    ):
        load_run(space=str(space_file), overrides=["training.branch_fraction=0"])


def test_a_file_becomes_axes_with_dotted_names(space_file: Path) -> None:
    settings, space = load_run(space=str(space_file))
    axes = {named.name: named.axis for named in space.axes}
    assert axes["scaling.resolution"] == Choice(values=(0.5, 1.0))
    assert axes["scaling.width"] == Range(low=0.5, high=1.5, step=0.25)
    assert axes["scaling.stages.1.width"] == Choice(values=(0.5, 1.0))
    assert axes["training.steps"] == Choice(values=(100,))
    assert space.limits.max_macs == 10_000_000
    assert (space.name, settings.budget) == ("mine", 20)


def test_overrides_reach_settings_and_space_and_flags_win(space_file: Path) -> None:
    settings, space = load_run(
        space=str(space_file),
        overrides=["data.val_fraction=0.3", "training.steps=7", "scaling.stages.2.kernel=[1.0, 1.67]", "budget=3"],
        flags={"budget": 5, "target": None},
    )
    axes = {named.name: named.axis for named in space.axes}
    assert settings.data.val_fraction == 0.3
    assert settings.budget == 5
    assert settings.target == "auto"
    assert axes["training.steps"] == Choice(values=(7,))
    assert axes["scaling.stages.2.kernel"] == Choice(values=(1.0, 1.67))


def test_a_bare_word_is_text_and_toml_is_toml() -> None:
    assert parse_override("sampler=random") == ("sampler", "random")
    assert parse_override("scaling.width=[0.5, 1]") == ("scaling.width", [0.5, 1])
    assert parse_override("data.source=/pictures/a=b") == ("data.source", "/pictures/a=b")


@dataclass(frozen=True)
class Mistake:
    override: str
    says: tuple[str, ...]


MISTAKES = (
    Mistake("train.steps=3", ("unknown key 'train.steps'", "'training.steps'")),
    Mistake("steps=3", ("'training.steps'",)),
    Mistake("budget=0", ("budget = 0", "1 to 1e+06")),
    Mistake("budget=many", ("budget = 'many'", "integer")),
    Mistake("budgt=3", ("Did you mean 'budget'?",)),
    Mistake("scaling.widht=[1.0]", ("'scaling.width'",)),
    Mistake("scaling.width=-1", ("scaling.width", "above 0")),
    Mistake("scaling.width=[]", ("scaling.width has no choices",)),
    Mistake("scaling.width=[1.0, 1]", ("lists a value twice",)),
    Mistake("scaling.width={low = 2, high = 1}", ("low < high",)),
    Mistake("scaling.width={low = 1, hihg = 2}", ("'hihg'", "'high'")),
    Mistake("scaling.stages.0.width=1", ("numbered from 1",)),
    Mistake("scaling.stages.2.widht=1", ("'scaling.stages.2.width'",)),
    Mistake("quantization.precision=int9", ("'int9'", "'int8'", "fp16")),
    Mistake("pruning.channel_fraction=2", ("pruning.channel_fraction = 2", "0 to 0.9")),
    Mistake("training.steps=2.5", ("a whole number", "2.5")),
    Mistake("training.flip=1", ("true or false",)),
    Mistake("limits.max_macs=0", ("limits.max_macs", "above 0")),
    Mistake("limits.max_mac=1", ("'limits.max_macs'",)),
    Mistake("limits.max_macs=0.5", ("limits.max_macs", "at least 1", "multiply-accumulate", "0.5")),
    Mistake("limits.max_size_bytes=0.5", ("limits.max_size_bytes", "at least 1", "bytes", "0.5")),
    Mistake("scaling.width_by=cutting", ("scaling.width_by = 'cutting'", "Did you mean 'cut'?", "scratch, cut")),
    Mistake("scaling.width_by=true", ("scaling.width_by = True", "scratch, cut")),
    Mistake("scaling.depth_by={low = 1, high = 2}", ("scaling.depth_by takes a list of choices, not a range",)),
    Mistake("scaling.widthby=cut", ("'scaling.width_by'",)),
    Mistake("scaling.stages.1.width_by=cut", ("unknown key 'scaling.stages.1.width_by'",)),
    Mistake("nonsense", ("key=value",)),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.override)
def test_a_mistake_names_the_place_and_the_remedy_in_three_lines(space_file: Path, mistake: Mistake) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(space=str(space_file), overrides=[mistake.override])
    text = str(caught.value)
    for part in mistake.says:
        assert part in text
    assert len(text.splitlines()) <= 3


def test_a_cut_without_any_trunk_is_refused_and_with_some_it_is_not(space_file: Path) -> None:
    asked = ["scaling.width_by=['scratch', 'cut']", "training.schedule=cosine"]
    with pytest.raises(
        ConfigError, match=r'(?s)scaling\.width_by asks for "cut".*\'cosine\' has no trunk.*"wsd"'
    ) as caught:
        load_run(space=str(space_file), overrides=asked)
    assert len(str(caught.value).splitlines()) == 2
    load_run(space=str(space_file), overrides=["scaling.width_by=scratch", "training.schedule=cosine"])
    load_run(space=str(space_file), overrides=["scaling.width_by=cut"])
    load_run(space=str(space_file), overrides=[asked[0], "training.schedule=['wsd', 'cosine']"])


def test_a_neck_that_follows_a_cut_is_refused(space_file: Path) -> None:
    asked = ["scaling.neck_follows=['width', 'all']", "scaling.depth_by=['scratch', 'cut']"]
    with pytest.raises(ConfigError, match=r'(?s)neck_follows = "all" and scaling\.depth_by = "cut"') as caught:
        load_run(space=str(space_file), overrides=asked)
    assert len(str(caught.value).splitlines()) == 2
    load_run(space=str(space_file), overrides=["scaling.neck_follows=width_kernel", asked[1]])
    load_run(space=str(space_file), overrides=["scaling.neck_follows=all", "scaling.width_by=cut"])


def test_a_misspelt_space_is_answered_with_the_near_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'resnet_small'"):
        find_space("resnet_smal")


def test_broken_toml_says_where(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("network = \n")
    with pytest.raises(ConfigError, match=r"broken\.toml is not valid TOML.*line 1"):
        load_run(space=str(path))


def test_a_stage_that_the_network_lacks_is_named() -> None:
    document = {"network": "n", "resolution_px": 8, "scaling": {"stages": {"4": {"width": [1.0]}}}}
    space = parse_space(document, name="s", origin="s.toml")
    check_stages(space, 4)
    with pytest.raises(ConfigError, match="numbered 1 to 3"):
        check_stages(space, 3)


@pytest.mark.parametrize("name", sorted(space_paths()))
def test_every_shipped_space_loads(name: str) -> None:
    _, space = load_run(space=name)
    assert space.axes
    assert space.summary


@pytest.mark.parametrize(
    ("text", "window"),
    [("auto", "auto"), ("full", "full"), ("[0, 4095]", (0, 4095)), ("[-1e3, 3000.5]", (-1000, 3000.5))],
)
def test_a_window_is_a_word_or_two_numbers(text: str, window: object) -> None:
    assert load_run(overrides=[f"data.window={text}"])[0].data.window == window


@pytest.mark.parametrize(
    "text", ["wide", "[5]", "[1, 2, 3]", "[10, 2]", "[3, 3]", "[0, nan]", "[0, inf]", '[0, "a"]', "5"]
)
def test_another_window_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.window = .* two numbers, the lower one first\.\nExample: --set 'data"
    ):
        load_run(overrides=[f"data.window={text}"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.steps=inf", "training.steps must be a whole number"),
        ("training.learning_rate=nan", "training.learning_rate must be a number"),
        ("pruning.rounds=inf", "pruning.rounds must be a whole number"),
        ("pruning.rounds=-inf", "pruning.rounds must be a whole number"),
        ("scaling.width={ low = 0.5, high = inf }", "low, high and step must be finite"),
        ("scaling.width={ low = 0.5, high = 1, step = nan }", "low, high and step must be finite"),
        ("scaling.depth=[1, nan]", "scaling.depth must be a number"),
        (f"training.steps={'9' * 400}", "training.steps must be a whole number"),
        ("scaling.stages.².width=0.5", r"\[scaling.stages.²\] must be a table numbered from 1"),
        ("scaling.stages.٣.width=0.5", r"\[scaling.stages.٣\] must be a table numbered from 1"),
        ("scaling.stages.00.width=0.5", "numbered from 1"),
        (f"scaling.stages.{'9' * 5000}.width=0.5", "numbered from 1"),
        ("resolution_px=1000000", "resolution_px must be a whole number of pixels .* 1 to 8192"),
        ("scaling.resolution=[1, 16]", "gives images of 1024 px|allowed is up to"),
        ("resolution_multiple=1000000000", "resolution_multiple = 1000000000 is out of range"),
        ("limits.max_macs=nan", "limits.max_macs must be a number above 0"),
        (f"limits.max_macs={'9' * 400}", "limits.max_macs must be a number above 0"),
        ("latency.max_s=inf", "latency.max_s = inf is out of range"),
        ("latency.half_width=nan", "latency.half_width = nan is out of range"),
        (f"scaling.width={list(range(1, 2000))}", "1999 choices, more than 1000"),
        ("budget=" + "[" * 5000, "budget"),
        ("budget=1\nseed = 2", "budget"),
        ('storage=["postgresql://ann:xyzzy@db/x"]', "storage is wrong"),
        (f"space={'x' * 5000}", "No search space is called"),
    ],
)
def test_numbers_and_names_that_cannot_be_are_refused_in_words(override: str, words: str) -> None:
    overrides = [override, "resolution_px=1024"] if override.startswith("scaling.resolution") else [override]
    with pytest.raises(ConfigError, match=words) as caught:
        load_run(overrides=overrides)
    assert len(str(caught.value).splitlines()) <= 3
    assert "xyzzy" not in str(caught.value)


def test_two_spellings_of_one_stage_are_refused(space_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[scaling.stages.01\] and \[scaling.stages.1\] are one stage: keep one"):
        load_run(space=str(space_file), overrides=["scaling.stages.01.kernel=1"])


def test_a_space_file_that_nests_too_deep_or_is_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    for content in (b"a = " + b"[" * 100_000, b"\xff\xfe", b"a = " + b"9" * 10_000, b"a = 1\na = 2"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="is not valid TOML"):
            load_run(space=str(path))
