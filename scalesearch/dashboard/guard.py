"""Stands between a browser and Optuna Dashboard: decides which requests pass, and what every answer carries."""

import io
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[..., Iterable[bytes]]
Headers = list[tuple[str, str]]

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_SAFE: Headers = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
_log = logging.getLogger(__name__)


def guard(application: Application, *, notes: bool = True) -> Application:
    """Wrap the dashboard so that it lets reading and notes through and refuses everything harmful.

    Requests that would harm a running study are refused, and so are requests from other web pages. Such a page could
    point its own host name at 127.0.0.1 (DNS rebinding) and read or change the study, could send a form to it, or could
    show the dashboard in a frame under its own buttons.

    Args:
        application: The dashboard's WSGI application.
        notes: Whether notes may be changed. If not, nothing at all can be changed: the study's folder cannot be
            written.
    """

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        refused = _refusal(environ, notes=notes)
        if refused:
            return _say(start_response, "403 Forbidden", path, refused)
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")  # Optuna Dashboard fails without it
        environ["wsgi.errors"] = io.StringIO()  # the framework's tracebacks, which no user can read
        told: list[tuple[str, Headers]] = []

        def hear(status: str, headers: Headers, _: object = None) -> Callable[[bytes], object]:
            told[:] = [(status, headers)]
            return lambda _: None

        try:
            body = application(environ, hear)
        except Exception as error:
            told, body = [(f"500 {type(error).__name__}", [])], ()
        if not told or told[0][0].startswith("5"):
            _log.warning("the dashboard could not answer %s %s", environ["REQUEST_METHOD"], path)
            _close(body)
            return _say(start_response, "500 Internal Server Error", path, _BROKEN)
        status, headers = told[0]
        start_response(status, _safe_headers(path, headers))
        return body

    return guarded


_BROKEN = (
    "This page cannot be shown: the study may be damaged, or of another version of Optuna. "
    "The numbers are in the study's records, and in the terminal by: scalesearch front, scalesearch show."
)


def _refusal(environ: dict[str, Any], *, notes: bool) -> str:
    """Return why a request does not pass; empty where it does."""
    address = environ.get("HTTP_HOST", "")
    method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
    if address.rsplit(":", 1)[0] not in _NAMES:
        return "This study is shown on this machine only: open it by the address that the terminal names."
    if method not in ("GET", "HEAD") and not (method == "PUT" and path.endswith("/note")):
        return "This study is shown, not edited: notes alone can be changed here."
    if method == "PUT" and not notes:
        return "This study is shown, not edited: its folder cannot be written."
    origin, site = environ.get("HTTP_ORIGIN", ""), environ.get("HTTP_SEC_FETCH_SITE", "same-origin")
    if method == "PUT" and (origin not in ("", f"http://{address}") or site not in ("same-origin", "none")):
        return "Notes are changed from the dashboard's own page only."
    return ""


def _safe_headers(path: str, own: Headers) -> Headers:
    """Return the headers of an answer.

    They are the application's own, without those that open the study to other pages, plus those that every answer
    carries.
    """
    # A study's files are shown, but nothing in them may run with the dashboard's rights.
    policy = ["frame-ancestors 'none'", *(["sandbox"] if path.startswith("/artifacts/") else [])]
    kept = []
    for name, value in own:
        if name.lower() == "content-security-policy":
            policy.insert(0, value.strip("; "))
        # Optuna Dashboard lets every page of the web read a study's files.
        elif name.lower() != "access-control-allow-origin":
            kept.append((name, value))
    return [*kept, *_SAFE, ("Content-Security-Policy", "; ".join(policy))]


def _say(start_response: Callable[..., Any], status: str, path: str, reason: str) -> Iterable[bytes]:
    """Answer a request in words: the page's own code reads JSON, a person reads text."""
    as_json = path.startswith("/api/") or status.startswith("403")
    body = (json.dumps({"reason": reason}) if as_json else reason).encode()
    kind = "application/json" if as_json else "text/plain; charset=utf-8"
    length = ("Content-Length", str(len(body)))
    start_response(status, _safe_headers(path, [("Content-Type", kind), length]))
    return [body]


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close:
        close()
