"""The sources of images with boxes, in the order in which a name or path is offered to them."""

from scalesearch.data import coco, street_boxes, voc, yolo
from scalesearch.data.source import Sources

BOX_SOURCES: Sources = (street_boxes.SOURCE, yolo.SOURCE, coco.SOURCE, voc.SOURCE)
