"""The URL of a database server: no spelling of a password gets through, and none is repeated."""

import pytest

from scalesearch.errors import ConfigError
from scalesearch.values.storage_url import check_storage_url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://localhost/studies",
        "postgresql://ann@db.example:5433/studies",
        "postgresql+psycopg://ann%40team@[2001:db8::1]:5432/studies?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        "postgresql://ann@h1:5432,h2:5433/studies?target_session_attrs=read-write",
        "postgresql:///studies?host=/var/run/postgresql",
        "postgresql://ann@/studies?host=h1:5432&host=h2:5433",
    ],
)
def test_urls_without_a_password_pass(url: str) -> None:
    check_storage_url(url)


@pytest.mark.parametrize(
    "secret", ["xyzzy", "xy#zzy", "xy?zzy", "xy/zzy", "xy@zzy", "xy%zzy", "xy:zzy", "xy zzy", "xy%23zzy"]
)
@pytest.mark.parametrize(
    "shape",
    [
        "postgresql://ann:{}@db/studies",
        "postgresql+psycopg://ann:{}@db:5432/studies",
        "POSTGRESQL://ann:{}@db/studies",
        "postgres://ann:{}@db/studies",
        "postgresql://ann%3A{}@db/studies",
        "postgresql://:{}@db/studies",
        "postgresql://ann:{}@h1,h2/studies",
        "postgresql://db/studies?user=ann&password={}",
        "postgresql://db/studies?sslpassword={}",
        "postgresql://db/studies?scram_client_key={}",
        "postgresql://db/studies?options=-c%20a.b%3D{}",
        "postgresql://db/studies?service={}",
        "postgresql://db/studies?sslmode=require&p%61ssword={}",
        "host=db user=ann password={}",
        "ann:{}@db/studies",
    ],
)
def test_every_other_url_is_refused_and_nothing_of_it_said(shape: str, secret: str) -> None:
    with pytest.raises(ConfigError, match="PGPASSWORD") as caught:
        check_storage_url(shape.format(secret))
    text = str(caught.value)
    assert "zzy" not in text and "ann" not in text
    assert len(text.splitlines()) == 3


def test_a_driver_agrees_that_there_is_no_password() -> None:
    """SQLAlchemy's reading, which really connects, of URLs that pass."""
    sqlalchemy = pytest.importorskip("sqlalchemy")
    for url in (
        "postgresql://ann@db/x",
        "postgresql://a%40b@db:1/x?sslmode=require",
        "postgresql:///x?host=h:1&host=i:2",
    ):
        check_storage_url(url)
        assert sqlalchemy.make_url(url).password is None
