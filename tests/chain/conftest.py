"""What several tests of the chain begin with."""

import pytest
from parent_studies import colours, opened

from scalesearch.values.session import Session


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A study without a parent, on three classes."""
    folder = tmp_path_factory.mktemp("plain")
    colours(folder / "three.npz", 3, seed=0)
    return opened(folder / "study", folder / "three.npz")
