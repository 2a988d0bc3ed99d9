"""The sources of images with boxes, in the order in which a name or path is offered to them."""

from scalesearch.data import street_boxes, yolo
from scalesearch.data.source import Sources

BOX_SOURCES: Sources = (street_boxes.SOURCE, yolo.SOURCE)
