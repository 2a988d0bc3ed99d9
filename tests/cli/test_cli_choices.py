"""What a command takes for space and data where `--set` names them, or the task whose defaults hold."""

import pytest

from scalesearch.cli.choices import task_defaults
from scalesearch.errors import ConfigError


@pytest.mark.parametrize(
    ("space", "overrides", "found"),
    [
        (None, (), "resnet_small"),
        (None, ("space=efficientnet_b0",), "efficientnet_b0"),
        (None, ("task=detection", "space='resnet_small'"), "resnet_small"),
        ("mobilenet_v2", ("space=efficientnet_b0",), "mobilenet_v2"),  # an argument of its own goes before --set
    ],
)
def test_set_names_the_space(space: str | None, overrides: tuple[str, ...], found: str) -> None:
    assert task_defaults(space, None, None, overrides)[0] == found


@pytest.mark.parametrize("override", ["task=detection", "task = detection", "task='detection'"])
def test_the_defaults_are_those_of_the_task_that_set_names(override: str) -> None:
    space, data = task_defaults(None, None, None, (override,))
    assert (space, data) == task_defaults(None, None, "detection", ())
    assert data is not None


@pytest.mark.parametrize("override", ["data.source=here", "data.source = here"])
def test_data_that_set_names_are_not_replaced_by_the_tasks(override: str) -> None:
    assert task_defaults(None, None, "detection", (override,))[1] is None


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="--set wants key=value"):
        task_defaults(None, None, None, ("space",))
