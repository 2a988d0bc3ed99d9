import json

import pytest

from scalesearch.views.markup import chart, prose, script_json, table, text

PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\" onmouseover='x'",
    "a\u2028b\u2029c",
)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_users_text_is_inert_html(payload: str) -> None:
    for made in (text(payload), prose(payload), chart(payload, payload), table((payload,), [], caption=payload)):
        bare = made
        for allowed in ("<div", "<table", "<caption", "<thead", "<tbody", "<tr", "<th", "<figure", "<p", "</"):
            bare = bare.replace(allowed, "")
        assert "<" not in bare
        assert "\u2028" not in made
        assert "\u2029" not in made
    assert '"' not in text(payload)
    assert "'" not in text(payload)


def test_prose_sets_backticks_as_code_after_escaping() -> None:
    assert prose("run `a <b>`") == "run <code>a &lt;b&gt;</code>"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_json_cannot_leave_its_script_and_reads_as_it_was(payload: str) -> None:
    made = script_json({payload: [payload]})
    assert not any(mark in made for mark in "<>&\u2028\u2029")
    assert json.loads(made) == {payload: [payload]}


def test_numbers_that_json_lacks_become_null() -> None:
    assert script_json([float("nan"), float("inf"), {"a": (-float("inf"), 1.5)}]) == '[null,null,{"a":[null,1.5]}]'
