"""A parent is for the base networks of this program."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scalesearch.chain.inheritance import is_kept
from scalesearch.errors import ConfigError
from scalesearch.networks import base_spec
from scalesearch.networks.build import build
from scalesearch.study import parent as module
from scalesearch.study.parent import look_ahead, prepare_parent
from scalesearch.tasks.registry import get_task
from scalesearch.values.session import Session
from scalesearch.values.settings import RunSettings


def test_a_module_of_the_users_own_takes_no_parent() -> None:
    own = replace(base_spec("resnet_small"), origin="mine.nets:make")

    with pytest.raises(ConfigError, match=r"came the module of mine\.nets:make, which has its own weights") as caught:
        look_ahead(RunSettings(parent="weights.pth"), own)

    assert len(str(caught.value).splitlines()) <= 3
    assert look_ahead(RunSettings(), own) is None


@pytest.mark.parametrize("begun_before", [False, True])
def test_weights_are_kept_for_a_new_study_and_not_for_one_that_was_begun_without_a_parent(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun_before: bool
) -> None:
    base = base_spec("resnet_small")
    weights = build(base, get_task("classification").make_module).module.state_dict()
    found = module._Found(
        spec=base, tensors=weights, sha256="a" * 64, mean=(0.5,) * 3, std=(0.5,) * 3, licence="free to use"
    )
    monkeypatch.setattr(module, "_find", lambda *_: found)
    images: Any = SimpleNamespace(class_names=("a", "b", "c"), fingerprint="f", normalised_by=lambda *_: None)

    parent = prepare_parent(
        replace(session.settings, parent="weights.pth"),
        session.space,
        base,
        images,
        tmp_path / "study",
        stored=session if begun_before else None,
    )

    assert parent is not None
    assert is_kept(parent, tmp_path / "study") != begun_before
    assert (tmp_path / "study").exists() != begun_before


def test_a_classifier_gives_another_task_its_backbone(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = replace(base_spec("resnet_small"), num_classes=3)
    weights = build(base, get_task("classification").make_module, seed=5).module.state_dict()
    found = module._Found(
        spec=base, tensors=weights, sha256="a" * 64, mean=(0.5,) * 3, std=(0.5,) * 3, licence="free to use"
    )
    monkeypatch.setattr(module, "_find", lambda *_: found)
    images: Any = SimpleNamespace(class_names=("a", "b", "c"), fingerprint="f", normalised_by=lambda *_: None)
    settings = replace(session.settings, parent="weights.pth", task="segmentation")

    parent = prepare_parent(settings, session.space, base, images, tmp_path / "study", stored=None)

    assert parent is not None and parent.steps == settings.parent_steps
    assert "trained for classification: its backbone is inherited" in parent.head
    network = module._network(found, parent.network, parent, images, "segmentation", alike=False)
    held = network.module.state_dict()
    backbone = {name for name in held if name.startswith(("stem.", "stages."))}
    assert backbone == {name for name in weights if name.startswith(("stem.", "stages."))}
    assert all(held[name].equal(weights[name]) for name in backbone)
    assert {name.split(".")[0] for name in held.keys() - backbone} == {"laterals", "smooth", "classifier"}
