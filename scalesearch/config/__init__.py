"""Turn TOML files and `--set key=value` into checked settings and a checked space, before anything runs."""

from scalesearch.config.settings import check_stored, load_run, parse_override, parse_settings
from scalesearch.config.space_checks import check_axes, check_stages
from scalesearch.config.spaces import find_space, parse_space, read_document, space_paths

__all__ = [
    "check_axes",
    "check_stages",
    "check_stored",
    "find_space",
    "load_run",
    "parse_override",
    "parse_settings",
    "parse_space",
    "read_document",
    "space_paths",
]
