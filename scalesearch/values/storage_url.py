"""The URL of a study on a PostgreSQL server: what it may contain, and that it must not contain a password."""

import re
from urllib.parse import unquote

from scalesearch.errors import ConfigError

# libpq's parameters that hold no secret and run no command
# (https://www.postgresql.org/docs/current/libpq-connect.html).
PARAMETERS = (
    "host", "hostaddr", "port", "user", "dbname", "application_name", "client_encoding", "connect_timeout",
    "channel_binding", "gssencmode", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval",
    "load_balance_hosts", "require_auth", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation", "sslrootcert",
    "sslsni", "target_session_attrs", "tcp_user_timeout",
)  # fmt: skip

_CODED = "%[0-9A-Fa-f]{2}"
_HOST = r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
# This pattern accepts less than any driver does. SQLAlchemy, libpq and urllib differ on `#`, `?`, `/` and a second `@`,
# and nothing that one of them takes for a password may pass. So these signs are allowed only where all of them agree.
_URL = re.compile(
    r"postgresql(?:\+psycopg)?://"
    rf"(?:(?P<user>(?:[A-Za-z0-9_.~!$*+-]|{_CODED})+)@)?"
    rf"(?:{_HOST}(?:,{_HOST})*)?"
    rf"(?:/(?P<database>(?:[A-Za-z0-9_.~!$*+-]|{_CODED})*))?"
    rf"(?:\?(?P<query>(?:[A-Za-z0-9_.~/,:=&*+-]|{_CODED})*))?"
)


def check_storage_url(url: str) -> None:
    """Raise ConfigError if the URL is not valid or could hold a password.

    The message does not repeat any part of the URL.
    """
    found = _URL.fullmatch(url)
    if (
        found
        and url.rpartition("//")[2]
        and all(map(_is_name, (found["user"] or "", found["database"] or "")))
        and _is_open(found["query"] or "")
    ):
        return
    message = (
        "storage: expected postgresql://USER@HOST/DATABASE without a password, for settings are written to files.\n"
        "Give the password by the variable PGPASSWORD or in the file ~/.pgpass"
        " (https://www.postgresql.org/docs/current/libpq-pgpass.html).\n"
        "Behind a ? may stand sslmode, sslrootcert and the like; service, options and secrets go into libpq's"
        " variables."
    )
    raise ConfigError(message)


def _is_name(coded: str) -> bool:
    return not any(sign in ":=?#/" or not sign.isprintable() for sign in unquote(coded))


def _is_open(query: str) -> bool:
    """Tell whether every parameter is one that holds no secret."""
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        decoded = unquote(value)
        if name not in PARAMETERS or not equals or not decoded.isprintable() or re.search(r"[\s=@?#&'\"]", decoded):
            return False
    return True
