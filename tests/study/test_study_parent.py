"""A parent is for the base networks of this program, kept in the study, and found again for an export's training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from onnx import TensorProto, numpy_helper

from scalesearch.chain.inheritance import is_kept
from scalesearch.compression.fold import fold_batchnorm
from scalesearch.data import to_input
from scalesearch.deployment.float_weights import float_weights
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.errors import ConfigError
from scalesearch.export.metadata import write_config
from scalesearch.export.target import WEIGHTS
from scalesearch.networks import base_spec
from scalesearch.networks.build import build, settle_norms
from scalesearch.records.run_file import refuse_changes
from scalesearch.study import parent as module
from scalesearch.study.parent import ParentRequest, PriorParent, look_ahead, prepare_parent, requested_parent
from scalesearch.study.parent_sources import FoundParent, find_parent
from scalesearch.tasks.registry import get_task
from scalesearch.values.candidate import Candidate, Recipe
from scalesearch.values.network_spec import Decoder, NetworkSpec
from scalesearch.values.parent import Parent
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace


def test_a_module_of_the_users_own_takes_no_parent() -> None:
    own = replace(base_spec("resnet_small"), origin="mine.nets:make")

    with pytest.raises(ConfigError, match=r"came the module of mine\.nets:make, which has its own weights") as caught:
        look_ahead(ParentRequest(source="weights.pth", steps=1, task=get_task("classification")), own)

    assert len(str(caught.value).splitlines()) <= 3
    assert look_ahead(requested_parent(RunSettings()), own) is None


def of_resnet_small(**changes: Any) -> FoundParent:
    base = base_spec("resnet_small")
    weights = build(base, get_task("classification").make_module).module.state_dict()
    found = FoundParent(
        spec=base, tensors=weights, sha256="a" * 64, mean=(0.5,) * 3, std=(0.5,) * 3, licence="free to use"
    )
    return replace(found, **changes)


def images_of(fingerprint: str) -> Any:
    return SimpleNamespace(class_names=("a", "b", "c"), fingerprint=fingerprint, normalised_by=lambda *_: None)


def test_what_was_taken_for_granted_is_said_before_and_at_the_start_of_a_run(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of_resnet_small(untold="parent: taken as trained with symmetric padding")
    monkeypatch.setattr(module, "find_parent", lambda *_: found)
    request, said = requested_parent(replace(session.settings, parent="weights.pth")), list[str]()

    outlook = look_ahead(request, found.spec)
    prepare_parent(request, session.space, found.spec, images_of("f"), tmp_path, stored=None, say=said.append)

    assert outlook and [outlook.untold] == said == [found.untold]


@pytest.fixture
def first(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ParentRequest, PriorParent]:
    """A study in `study`, run in `was`, that inherits from `was/weights.pth`; and what its export tells of that."""
    monkeypatch.setattr(module, "find_parent", lambda *_: of_resnet_small())
    request = requested_parent(replace(session.settings, parent="weights.pth", parent_steps=4))
    base, study = base_spec("resnet_small"), tmp_path / "study"
    parent = prepare_parent(request, session.space, base, images_of("f"), study, stored=None)
    assert parent is not None
    prior = PriorParent(
        parent=parent, fingerprint="f", study=study, folders=(tmp_path / "was", tmp_path), config=Path("c/config.toml")
    )
    return request, prior


def found_at(places: dict[Path, str], monkeypatch: pytest.MonkeyPatch) -> list[NetworkSpec]:
    """Let there be parents at these paths, with these hashes, and none elsewhere.

    Return the networks whose shape a file of weights would have to have, as they are asked for.
    """
    shapes = list[NetworkSpec]()

    def find(source: str, shape: NetworkSpec) -> FoundParent:
        shapes.append(shape)
        if Path(source) not in places:
            message = f"--parent {source}: nothing of that name is here."
            raise ConfigError(message)
        return of_resnet_small(sha256=places[Path(source)])

    monkeypatch.setattr(module, "find_parent", find)
    return shapes


def exported(session: Session) -> tuple[NetworkSpec, SearchSpace]:
    """A network of half of the parent's width, at 16 px, and the space in which its export is trained."""
    base = replace(base_spec("resnet_small"), resolution_px=16)
    small = replace(base, stages=tuple(replace(stage, channels=stage.channels // 2) for stage in base.stages))
    return small, replace(session.space, resolution_px=16, axes=())


def test_a_training_from_an_export_takes_the_parent_that_the_study_keeps(
    session: Session, first: tuple[ParentRequest, PriorParent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (request, prior), said, to = first, list[str](), tmp_path / "trained"
    found_at({}, monkeypatch)
    small, space = exported(session)

    parent = prepare_parent(request, space, small, images_of("f"), to, stored=None, prior=prior, say=said.append)

    assert parent == prior.parent and is_kept(prior.parent, to)
    assert said == [f"parent: as the study keeps it in {prior.study}"]


def test_without_the_study_it_is_read_again_and_must_be_the_same_file(
    session: Session, first: tuple[ParentRequest, PriorParent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (request, prior), to = first, tmp_path / "trained"
    gone = replace(prior, study=tmp_path / "moved")
    small, space = exported(session)

    def prepared(given: PriorParent, fingerprint: str = "f") -> Parent | None:
        return prepare_parent(request, space, small, images_of(fingerprint), to, stored=None, prior=given)

    found_at({tmp_path / "was" / "weights.pth": "b" * 64}, monkeypatch)
    told = rf"of SHA-256 {'a' * 12}\.\.\.; .*was/weights\.pth has the SHA-256 b"
    with pytest.raises(ConfigError, match=told) as other:
        prepared(gone)
    found_at({}, monkeypatch)
    with pytest.raises(ConfigError, match=r"weights\.pth: nothing of that name is here\.\nPut that file back") as none:
        prepared(gone)
    assert all(len(str(error.value).splitlines()) <= 3 for error in (other, none))
    assert not to.exists()
    # The second folder's is the right one; it is made ready at the study's size, not at that of the network.
    shapes = found_at({tmp_path / "was" / "weights.pth": "b" * 64, tmp_path / "weights.pth": "a" * 64}, monkeypatch)
    assert prepared(gone) == prior.parent
    assert set(shapes) == {prior.parent.network}
    assert prior.parent.network.resolution_px == session.space.resolution_px != small.resolution_px
    # It is fine-tuned as the study did, whatever the loss of the exported candidate is.
    request = replace(request, recipe=Recipe(loss="focal", label_smoothing=0.0))
    assert prepared(gone) == prior.parent
    # For other images the copy of the study, fine-tuned on its own, will not do.
    parent = prepared(prior, fingerprint="g")
    assert parent and parent.sha256 == prior.parent.sha256 and parent.key != prior.parent.key


def test_other_steps_are_told_though_the_parents_file_is_gone(
    session: Session, first: tuple[ParentRequest, PriorParent], monkeypatch: pytest.MonkeyPatch
) -> None:
    (request, prior), base = first, base_spec("resnet_small")
    found_at({}, monkeypatch)
    stored = replace(session, folder=prior.study, parent=prior.parent)

    def again(steps: int) -> Parent | None:
        asked = replace(request, steps=steps)
        return prepare_parent(asked, session.space, base, images_of("f"), prior.study, stored=stored)

    assert again(4) is stored.parent
    with pytest.raises(ConfigError, match=r"other settings.*\nparent\.steps: was 4, is 5\.\n"):
        refuse_changes(stored, replace(stored, parent=again(5)))


@pytest.mark.parametrize("begun_before", [False, True])
def test_weights_are_kept_for_a_new_study_and_not_for_one_that_was_begun_without_a_parent(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun_before: bool
) -> None:
    found = of_resnet_small()
    monkeypatch.setattr(module, "find_parent", lambda *_: found)

    parent = prepare_parent(
        requested_parent(replace(session.settings, parent="weights.pth")),
        session.space,
        found.spec,
        images_of("f"),
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
    found = FoundParent(
        spec=base, tensors=weights, sha256="a" * 64, mean=(0.5,) * 3, std=(0.5,) * 3, licence="free to use"
    )
    monkeypatch.setattr(module, "find_parent", lambda *_: found)
    images: Any = SimpleNamespace(class_names=("a", "b", "c"), fingerprint="f", normalised_by=lambda *_: None)
    settings = replace(session.settings, parent="weights.pth", task="segmentation")

    request = requested_parent(settings)
    parent = prepare_parent(request, session.space, base, images, tmp_path / "study", stored=None)

    assert parent is not None and parent.steps == settings.parent_steps
    assert "trained for classification: its backbone is inherited" in parent.head
    network = module._network(found, parent, images, get_task("segmentation"), alike=False)
    held = network.module.state_dict()
    backbone = {name for name in held if name.startswith(("stem.", "stages."))}
    assert backbone == {name for name in weights if name.startswith(("stem.", "stages."))}
    assert all(held[name].equal(weights[name]) for name in backbone)
    assert {name.split(".")[0] for name in held.keys() - backbone} == {"laterals", "smooth", "classifier"}


OUTPUTS = ("distances", "classes", "objectness")


@pytest.mark.parametrize(
    ("task", "fresh"),
    [
        ("detection", {f"heads.{level}.{name}" for level in range(3) for name in OUTPUTS}),
        ("segmentation", {"classifier"}),
    ],
)
def test_a_parent_of_the_same_task_with_other_classes_gives_all_but_its_outputs(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, fresh: set[str]
) -> None:
    base = replace(base_spec("resnet_scene"), num_classes=2, resolution_px=64)
    weights = build(base, get_task(task).make_module, seed=5).module.state_dict()
    found = FoundParent(
        spec=base, tensors=weights, sha256="a" * 64, mean=(0.5,) * 3, std=(0.5,) * 3, licence="free to use",
        class_names=("x", "y"), task=task,
    )  # fmt: skip
    monkeypatch.setattr(module, "find_parent", lambda *_: found)
    settings = replace(session.settings, parent="best", task=task)

    parent = prepare_parent(
        requested_parent(settings), session.space, base, images_of("f"), tmp_path / "study", stored=None
    )

    assert parent is not None and parent.steps == settings.parent_steps
    assert parent.head == "its 2 classes are not the 3 of these images: it gets a new classifier"
    held = module._network(found, parent, images_of("f"), get_task(task), alike=False).module.state_dict()
    other = {name for name, own in held.items() if own.shape != weights[name].shape or not own.equal(weights[name])}
    assert {name.rpartition(".")[0] for name in other} == fresh


@pytest.mark.parametrize(
    ("task", "network", "stages", "decoder", "trained"),
    [
        ("classification", "mobilenet_v2", 2, "topdown", True),  # ReLU6 has bounds
        ("classification", "efficientnet_lite0", 2, "topdown", True),
        ("detection", "resnet_scene", None, "topdown", True),  # maps are enlarged by a factor
        ("detection", "resnet_scene", None, "topdown", False),  # biases of heads are equal, and written once
        ("segmentation", "resnet_scene", None, "topdown", True),
        ("segmentation", "resnet_scene", None, "lraspp", False),  # biases are zero, and not written
    ],
)
def test_an_export_is_a_parent_whatever_constants_its_graph_has(
    session: Session,
    make_record: Callable[..., MeasuredTrial],
    tmp_path: Path,
    task: str,
    network: str,
    stages: int | None,
    decoder: Decoder,
    trained: bool,
) -> None:
    base, asked = base_spec(network), get_task(task)
    classes = len(session.data.class_names)
    spec = replace(base, stages=base.stages[:stages], resolution_px=64, num_classes=classes, decoder=decoder)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    inputs = to_input(pixels, mean=session.data.mean, std=session.data.std)
    built = build(spec, asked.make_module, seed=1)
    for place, (name, each) in enumerate(built.module.named_parameters()):
        if trained and name.endswith(".bias"):
            torch.nn.init.normal_(each, std=0.1, generator=torch.Generator().manual_seed(place))
    original = settle_norms(built, inputs)
    folded = fold_batchnorm(original)
    model = to_onnx(folded, to=tmp_path / "model.onnx", check_images=inputs[:4], output_names=asked.output_names)
    floats = {
        tensor.name: numpy_helper.to_array(tensor).copy()
        for tensor in read_onnx(model.path).graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    weights = float_weights(read_onnx(model.path))
    names = folded.module.state_dict().keys()
    assert weights.keys() == names & floats.keys() < floats.keys()
    missing = names - weights.keys()
    assert bool(missing) is not trained and all(name.endswith(".bias") for name in missing)
    record = replace(make_record(4), spec=spec, candidate=Candidate())
    write_config(record, replace(session, settings=replace(session.settings, task=task)), tmp_path)
    calibration = SimpleNamespace(calibration=SimpleNamespace(images=pixels))
    data: Any = SimpleNamespace(mean=session.data.mean, std=session.data.std, at=lambda _: calibration)
    with torch.inference_mode():
        expected = original.module(torch.from_numpy(inputs))
    for held in (weights, floats):  # the second as exports held them before
        safetensors.numpy.save_file(held, tmp_path / WEIGHTS)
        parent: Any = SimpleNamespace(source=str(tmp_path), network=spec)
        found = find_parent(str(tmp_path), spec)
        inherited = module._network(found, parent, data, asked, alike=True).module.eval()
        with torch.inference_mode():
            answers = inherited(torch.from_numpy(inputs))
        assert torch.allclose(answers, expected, atol=1e-3 * float(expected.abs().max()))
