"""Foreign text on its way to a terminal or a file: harmless, short, without secrets, valid UTF-8."""

import os

import pytest

from scalesearch.plain_text import (
    LONGEST,
    error_text,
    one_line,
    shortened,
    utf8_text,
    utf8_values,
    visible,
    without_secrets,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, naïve, 標識, \U0001f6d1", "plain, naïve, 標識, \U0001f6d1"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("stop\u202egnp.exe", r"stop\u202egnp.exe"),
        ("\u2066a\u2069", r"\u2066a\u2069"),
        ("zero\u200bwidth\ufeff\u2060", r"zero\u200bwidth\ufeff\u2060"),
        ("\x9b31m\x00\x7f", r"\x9b31m\x00\x7f"),
        ("line\u2028end", r"line\u2028end"),
        ("\u3164", r"\u3164"),
        ("two\nlines\tand a tab\rback", "two\nlines\tand a tab\\rback"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_a_name_on_one_line_stays_on_it() -> None:
    assert visible("a\nb\tc", newlines=False) == r"a\nb\tc"


def test_a_librarys_message_is_one_line_of_limited_length() -> None:
    assert one_line("first\n  second\t third ") == "first second third"
    assert one_line("abcdef", 3) == "abc ..."
    assert one_line("abc", 3) == "abc"


def test_texts_become_utf8_and_others_stay() -> None:
    name = os.fsdecode(b"study\xff\xe4")
    assert utf8_text(name) == r"study\xff\xe4"
    assert utf8_text("häuser") == "häuser"
    assert utf8_values({"a": [name, 1, {"b": (name,)}]}) == {"a": [r"study\xff\xe4", 1, {"b": [r"study\xff\xe4"]}]}


def test_an_error_has_three_lines_and_a_thousand_characters_with_begin_and_end() -> None:
    text = error_text("file.toml: name = " + "a" * 155_000 + " is wrong: use b.\nsecond\nthird\nfourth\nlast")
    lines = text.splitlines()
    assert len(lines) == 3 and len(text) <= LONGEST + 2
    assert lines[0].startswith("file.toml: name = aaa") and lines[0].endswith("a is wrong: use b.")
    assert "155035 characters in all" in lines[0]
    assert lines[1:] == ["second third fourth", "last"]
    assert error_text("short\nand good") == "short\nand good"
    assert len(shortened("x" * 500, 100)) == 100


@pytest.mark.parametrize(
    "text",
    [
        "cannot open 'postgresql://ann:hun#ter2@db/studies', mend it",
        "cannot open postgresql+psycopg://ann:hun ter2@db/studies",
        "POSTGRES://db/x?user=ann&password=hunter2",
        'conninfo "host=db password=hunter2 user=ann"',
        "conninfo sslpassword = 'hun ter2'",
        "https://ann:hunter2@example.org/file",
    ],
)
def test_a_password_in_any_text_is_left_out(text: str) -> None:
    told = without_secrets(text)
    assert "ter2" not in told and "..." in told


@pytest.mark.parametrize(
    "text",
    [
        "expected postgresql://USER@HOST/DATABASE without a password, for settings are written to files.",
        "give the password by PGPASSWORD or ~/.pgpass",
        "see https://www.postgresql.org/docs/current/libpq-pgpass.html",
        "storage: PostgreSQL's driver is not installed: pip install 'scalesearch[postgresql]'",
    ],
)
def test_advice_is_left_as_it_is(text: str) -> None:
    assert without_secrets(text) == text


def test_long_texts_are_searched_in_no_time() -> None:
    """A pattern that tries every start with every end took minutes for 100,000 letters."""
    assert without_secrets("a" * 1_000_000) == "a" * 1_000_000
