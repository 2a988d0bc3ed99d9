"""What `doctor` says of a machine: every extra that a user can install is among it."""

import json
import re
import tomllib
from pathlib import Path

from typer.testing import CliRunner

from scalesearch.cli import app

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
NOT_FOR_USERS = {"dev", "modelopt"}


def test_doctor_lists_every_extra_by_a_package_of_its_own() -> None:
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    found = CliRunner().invoke(app, ["doctor", "--json"], catch_exceptions=False)
    rows = {row["check"]: row for row in json.loads(found.stdout)}
    listed = {check.removeprefix("extra "): row for check, row in rows.items() if check.startswith("extra ")}
    assert set(listed) == set(extras) - NOT_FOR_USERS
    for extra, row in listed.items():
        packages = {re.split(r"[^\w-]", wanted)[0] for wanted in extras[extra]}
        installed = row["result"].split()[0] in packages
        assert installed or (row["result"], row["note"]) == ("not installed", f"pip install 'scalesearch[{extra}]'")
