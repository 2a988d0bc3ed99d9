"""Foreign text made harmless: control characters visible, secrets left out, long texts cut, every text valid UTF-8.

Names of files, classes and studies, reasons, settings and what libraries say are written by others. They are stored as
they came and pass through here on their way to a terminal, or into a file that must be UTF-8.
"""

import re
import unicodedata
from typing import Any

from scalesearch.errors import ConfigError
from scalesearch.values.storage_url import check_storage_url

LONGEST = 1000
"""Characters that one error may print; a user finds nothing in more."""
MOST_LINES = 3

# Controls, marks that turn the reading direction or take no room (Cf), halves of surrogate pairs (bytes that are no
# UTF-8), and the two separators that some terminals take for a new line.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# Letters and marks that take no room although their category says otherwise.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
_DATABASE_URL = re.compile(r"(?i)\b(?:postgres\w*|mysql|mariadb|mssql|oracle|mongodb|rediss?)(?:\+\w+)?:(?=\S)")
_OTHER_URL = re.compile(r"(?<=://)[^\s/@]*:[^\s@]*(?=@)")
_NAMED_SECRET = re.compile(r"(?i)((?:password|passwd|secret)\w{0,40}\s{0,8}=).*")


def visible(text: str, *, newlines: bool = True) -> str:
    r"""Write what a terminal would obey, hide or turn round as its code: ESC as \x1b, right-to-left override as \u202e.

    Args:
        text: Whatever came.
        newlines: Keep line ends and tabs; False writes them as their codes, too, for one name on one line.
    """
    if text.isprintable() and not _BLANK.intersection(text):
        return text
    kept = "\n\t" if newlines else ""
    return "".join(sign if sign in kept or not _hides(sign) else _code(sign) for sign in text)


def utf8_text(text: str) -> str:
    r"""The text with the bytes of a file name that are no UTF-8 written as \xff, so that any file can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(_code(sign) if "\ud800" <= sign <= "\udfff" else sign for sign in text)
    return text


def utf8_values(value: Any) -> Any:
    """Nested dicts and lists with every text in them as `utf8_text` gives it."""
    if isinstance(value, str):
        return utf8_text(value)
    if isinstance(value, dict):
        return {utf8_text(str(key)): utf8_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [utf8_values(item) for item in value]
    return value


def error_text(text: str) -> str:
    """An error as it is printed: at most three lines and `LONGEST` characters, no secret, nothing a terminal obeys.

    Of a line that is too long, begin and end stay: they say where the fault is and what to do.
    """
    lines = visible(without_secrets(text)).splitlines() or [""]
    if len(lines) > MOST_LINES:
        lines = [lines[0], " ".join(line.strip() for line in lines[1:-1]), lines[-1]]
    if sum(map(len, lines)) <= LONGEST:
        return "\n".join(lines)
    return "\n".join(shortened(line, LONGEST // len(lines)) for line in lines)


def shortened(text: str, longest: int) -> str:
    """The text within `longest` characters: begin, how many were left out, and end."""
    if len(text) <= longest:
        return text
    mark = f" ... ({len(text)} characters in all) ... "
    tail = longest // 3
    return text[: longest - tail - len(mark)] + mark + text[-tail:]


def without_secrets(text: str) -> str:
    """The text with three dots in place of passwords, and of what else stands behind one on its line.

    Where a password ends nobody can tell: it may hold spaces, quotes and every sign that means something in a URL.
    """
    lines = (_without_database_secrets(line) for line in text.split("\n"))
    return _NAMED_SECRET.sub(r"\1...", _OTHER_URL.sub("...", "\n".join(lines)))


def _without_database_secrets(line: str) -> str:
    place = 0
    while found := _DATABASE_URL.search(line, place):
        token = re.match(r"[^\s'\"`,;)]*", line[found.start() :])
        url = (token[0] if token else "").rstrip(".")
        if not _is_harmless(url) or "@" in line[found.start() + len(url) :]:
            return f"{line[: found.end()]}..."
        place = found.start() + max(len(url), 1)
    return line


def _is_harmless(url: str) -> bool:
    try:
        check_storage_url(url)
    except ConfigError:
        return False
    return True


def _hides(sign: str) -> bool:
    return sign in _BLANK or unicodedata.category(sign) in _HIDDEN


def _code(sign: str) -> str:
    if "\udc80" <= sign <= "\udcff":  # how Python holds a byte of a file name that is no UTF-8
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode()
