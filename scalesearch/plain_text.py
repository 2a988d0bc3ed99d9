"""Makes foreign text harmless: control characters visible, secrets removed, long texts cut, all text valid UTF-8.

Names of files, classes and studies, reasons, settings and the messages of libraries are written by others. They are
stored as they came, and pass through here on their way to a terminal or into a file that must be UTF-8.
"""

import re
import unicodedata
from typing import Any

from scalesearch.errors import ConfigError
from scalesearch.values.storage_url import check_storage_url

LONGEST = 1000
"""Most characters that one error may print. A user finds no help in a longer one."""
MOST_LINES = 3

# Control characters, marks that turn the reading direction or take no room (Cf), halves of surrogate pairs (bytes that
# are not UTF-8), and the two separators that some terminals take for a new line.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# Letters and marks that take no room although their category says otherwise.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
_DATABASE_URL = re.compile(r"(?i)\b(?:postgres\w*|mysql|mariadb|mssql|oracle|mongodb|rediss?)(?:\+\w+)?:(?=\S)")
_OTHER_URL = re.compile(r"(?<=://)[^\s/@]*:[^\s@]*(?=@)")
_NAMED_SECRET = re.compile(r"(?i)((?:password|passwd|secret)\w{0,40}\s{0,8}=).*")


def visible(text: str, *, newlines: bool = True) -> str:
    r"""Replace characters that a terminal would obey, hide or reverse by their codes.

    For example, ESC becomes \x1b, and the right-to-left override becomes \u202e.

    Args:
        text: Any text.
        newlines: Keep line ends and tabs; False replaces them by their codes too, for one name on one line.
    """
    if text.isprintable() and not _BLANK.intersection(text):
        return text
    kept = "\n\t" if newlines else ""
    return "".join(sign if sign in kept or not _hides(sign) else _code(sign) for sign in text)


def utf8_text(text: str) -> str:
    r"""Write the bytes of a file name that are not UTF-8 as \xff, so that any file can hold the text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(_code(sign) if "\ud800" <= sign <= "\udfff" else sign for sign in text)
    return text


def utf8_values(value: Any) -> Any:
    """Apply `utf8_text` to every text in nested dicts and lists."""
    if isinstance(value, str):
        return utf8_text(value)
    if isinstance(value, dict):
        return {utf8_text(str(key)): utf8_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [utf8_values(item) for item in value]
    return value


def error_text(text: str) -> str:
    """Return an error as it is printed: at most three lines and `LONGEST` characters.

    Secrets are removed, and characters that a terminal would obey are made visible. Of a line that is too long, the
    beginning and the end are kept: they say where the fault is and what to do.
    """
    lines = visible(without_secrets(text)).splitlines() or [""]
    if len(lines) > MOST_LINES:
        lines = [lines[0], " ".join(line.strip() for line in lines[1:-1]), lines[-1]]
    if sum(map(len, lines)) <= LONGEST:
        return "\n".join(lines)
    return "\n".join(shortened(line, LONGEST // len(lines)) for line in lines)


def shortened(text: str, longest: int) -> str:
    """Cut the text to `longest` characters: its beginning, its full length, and its end."""
    if len(text) <= longest:
        return text
    mark = f" ... ({len(text)} characters in all) ... "
    tail = longest // 3
    return text[: longest - tail - len(mark)] + mark + text[-tail:]


def one_line(text: str, longest: int = 300) -> str:
    """Write a library's message on one line, and of a longer one the first `longest` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else f"{flat[:longest]} ..."


def without_secrets(text: str) -> str:
    """Replace each password, and the rest of its line, by three dots.

    The end of a password cannot be found: it may contain spaces, quotes and all characters with a meaning in a URL.
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
    if "\udc80" <= sign <= "\udcff":  # how Python stores a byte of a file name that is not UTF-8
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode()
