"""How images are read, in metadata, documents and words; and what files from before it was asked mean."""

import dataclasses
import tomllib
from collections.abc import Callable

import pytest

from scalesearch.errors import ConfigError
from scalesearch.export.metadata import onnx_metadata, read_config, write_config, write_preprocessing
from scalesearch.export.model_card import write_model_card
from scalesearch.export.reading import reading_words
from scalesearch.records.run_file import NAME, read_run_file, refuse_changes, write_run_file
from scalesearch.tasks.classification.views import ClassificationViews
from scalesearch.tasks.infer_parts import preprocessing as infer_preprocessing
from scalesearch.values.network_spec import InputSize
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import Fit, WindowSetting

RecordFactory = Callable[..., MeasuredTrial]


def reading(session: Session, *, window: WindowSetting = "auto", fit: Fit = "crop") -> Session:
    data = dataclasses.replace(session.settings.data, window=window, fit=fit)
    return dataclasses.replace(session, settings=dataclasses.replace(session.settings, data=data))


def grey(session: Session, record: MeasuredTrial) -> tuple[Session, MeasuredTrial]:
    assert record.spec
    data = dataclasses.replace(session.data, mean=(0.4,), std=(0.2,))
    base = dataclasses.replace(session.base, image_channels=1)
    spec = dataclasses.replace(record.spec, image_channels=1)
    return dataclasses.replace(session, data=data, base=base), dataclasses.replace(record, spec=spec)


@pytest.mark.parametrize("window", ["auto", "full"])
def test_as_usual_the_metadata_are_those_of_ever(
    window: WindowSetting, session: Session, make_record: RecordFactory
) -> None:
    texts = onnx_metadata(make_record(1), reading(session, window=window))
    assert texts["scalesearch.preprocessing"] == "1"  # older copies of infer.py go on reading it
    assert not {"scalesearch.window", "scalesearch.fit", "scalesearch.channels"} & set(texts)
    assert reading_words(session.base, reading(session, window=window).settings.data, session.storage) == ""


def test_what_is_not_as_usual_reaches_script_document_and_card(session: Session, make_record: RecordFactory) -> None:
    asked, record = grey(reading(session, window=(-100.0, 4095.5), fit="pad"), make_record(1))
    told = infer_preprocessing.read_preprocessing(onnx_metadata(record, asked))
    assert (told.window, told.fit, told.channels, told.mean) == ((-100.0, 4095.5), "pad", 1, (0.4,))
    document = tomllib.loads(write_preprocessing(record, asked, asked.folder).read_text())
    assert (document["version"], document["channel_order"], document["channels"]) == ("2", "grey", 1)
    assert (document["window"], document["fit"]) == ([-100.0, 4095.5], "pad")
    steps = " ".join(document["steps"])
    assert "-100 and less to 0, 4095.5 and more to 255" in steps and "grey 114" in steps and "19595 R" in steps
    card = write_model_card(record, asked, asked.folder, card=ClassificationViews().card(record, None)).read_text()
    assert "32 px grey images" in card and "float32 images (batch, 1, 32, 32)" in card
    assert "4095.5 and more to 255" in card and "grey 114" in card


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_fit_alone_asks_for_the_second_version(fit: Fit, session: Session, make_record: RecordFactory) -> None:
    texts = onnx_metadata(make_record(1), reading(session, fit=fit))
    assert texts["scalesearch.preprocessing"] == "2"
    assert infer_preprocessing.read_preprocessing(texts).fit == fit


def wide(session: Session, record: MeasuredTrial) -> tuple[Session, MeasuredTrial]:
    """The same, of images stored at 48 x 80 for a network of 24 x 40."""
    spec = dataclasses.replace(record.spec, resolution_px=24, width_px=40)
    return dataclasses.replace(session, storage_px=48, storage_width_px=80), dataclasses.replace(record, spec=spec)


def test_rectangles_ask_for_the_third_version(session: Session, make_record: RecordFactory) -> None:
    asked, record = wide(reading(session), make_record(1))
    texts = onnx_metadata(record, asked)
    assert texts["scalesearch.preprocessing"] == "3"
    told = infer_preprocessing.read_preprocessing(texts)
    assert (told.storage_px, told.resolution_px, told.fit, told.channels) == ((48, 80), (24, 40), "crop", 3)
    document = tomllib.loads(write_preprocessing(record, asked, asked.folder).read_text())
    assert (document["version"], document["storage_px"], document["resolution_px"]) == ("3", [48, 80], [24, 40])
    assert "to 48x80 px by Pillow" in document["steps"][1] and document["steps"][2].startswith("to 24x40 px:")
    card = write_model_card(record, asked, asked.folder, card=ClassificationViews().card(record, None)).read_text()
    assert "It takes 24x40 px RGB images" in card and "float32 images (batch, 3, 24, 40)" in card
    assert "An image of another shape is cut to its largest centred part of the shape height x width 48x80." in card


def test_a_square_network_of_stored_rectangles_asks_for_it_too(session: Session, make_record: RecordFactory) -> None:
    asked, record = wide(reading(session, fit="pad"), make_record(1))
    spec = dataclasses.replace(record.spec, resolution_px=32, width_px=32)
    told = onnx_metadata(dataclasses.replace(record, spec=spec), asked)
    assert (told["scalesearch.preprocessing"], told["scalesearch.resolution_px"]) == ("3", "32")
    assert (told["scalesearch.storage_px"], told["scalesearch.fit"]) == ("[48, 80]", '"pad"')


def test_a_stored_rectangle_is_found_again_in_run_file_and_config(session: Session, make_record: RecordFactory) -> None:
    asked, record = wide(session, make_record(1))
    write_run_file(asked)
    stored = read_run_file(asked.folder)
    assert stored is not None and stored.storage == InputSize(height_px=48, width_px=80)
    config = read_config(write_config(record, asked, asked.folder))
    assert (config.storage, config.network.input_size.sides) == (stored.storage, (24, 40))


def test_files_from_before_there_were_rectangles_are_of_squares(session: Session, make_record: RecordFactory) -> None:
    write_run_file(session)
    config = write_config(make_record(1), session, session.folder)
    for path in (session.folder / NAME, config):
        lines = path.read_text().splitlines()
        path.write_text("\n".join(line for line in lines if not line.startswith("storage_width_px")))
    stored = read_run_file(session.folder)
    assert stored is not None and stored.storage == read_config(config).storage == session.storage
    assert session.storage == InputSize.square(session.storage_px)
    refuse_changes(stored, session)


def test_the_config_of_an_export_carries_them_into_its_retraining(session: Session, make_record: RecordFactory) -> None:
    asked = reading(session, window=(0.0, 1023.0), fit="stretch")
    write_config(make_record(1), asked, session.folder)
    assert read_config(session.folder).settings == asked.settings


def test_files_from_before_mean_the_whole_scale_and_the_crop(session: Session, make_record: RecordFactory) -> None:
    write_run_file(session)
    config = write_config(make_record(1), session, session.folder)
    for path in (session.folder / NAME, config):
        lines = path.read_text().splitlines()
        path.write_text("\n".join(line for line in lines if not line.startswith(("window = ", "fit = "))))
    stored = read_run_file(session.folder)
    assert stored is not None
    for data in (stored.settings.data, read_config(config).settings.data):
        assert (data.window, data.fit) == ("full", "crop")
    refuse_changes(stored, session)  # and are no reason to refuse


def test_a_refused_run_says_that_the_images_are_read_otherwise(session: Session) -> None:
    other = reading(session, window=(0.0, 4095.0), fit="pad")
    changed = dataclasses.replace(other, data=dataclasses.replace(session.data, fingerprint="0" * 64))
    with pytest.raises(ConfigError, match=r"data\.window: was 'auto', is \(0\.0, 4095\.0\); data\.fit: was 'crop', is"):
        refuse_changes(session, changed)
