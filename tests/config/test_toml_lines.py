import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.toml_lines import Path, key_lines

SOURCE = '''\
# [not.a.table]
title = "a # b [c]"
"quoted \\u0041" = 1
a.b."c.d" = 2

[listen]   # comment
smtp = [
  "tcp:25",  # ] in a comment
  'tcp6:25',
  ["x",
   "y"],
]
text = """
smtp = 5
"quoted""""
other = { one = 1, two = { three = 3 } }
[outbound.routes]
"example.net" = "smtp://x"
'*' = "smtp://y"

[[rule]]
name = 1
[rule.sub]
x = 1
[[rule]]
name = 2
'''


def test_lines_of_all_kinds_of_keys() -> None:
    lines = key_lines(SOURCE)
    expected: dict[Path, int] = {
        ("title",): 2,
        ("quoted A",): 3,
        ("a", "b", "c.d"): 4,
        ("listen",): 6,
        ("listen", "smtp"): 7,
        ("listen", "smtp", 0): 8,
        ("listen", "smtp", 1): 9,
        ("listen", "smtp", 2, 1): 11,
        ("listen", "text"): 13,
        ("listen", "other"): 16,
        ("listen", "other", "two", "three"): 16,
        ("outbound", "routes", "example.net"): 18,
        ("outbound", "routes", "*"): 19,
        ("rule", 0, "name"): 22,
        ("rule", 0, "sub", "x"): 24,
        ("rule", 1, "name"): 26,
    }
    assert {path: lines.get(path) for path in expected} == expected
    assert ("not", "a", "table") not in lines


def paths(value: Any, path: Path = ()) -> set[Path]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= paths(inner, (*path, key))
    if isinstance(value, list):
        for number, inner in enumerate(value):
            found |= paths(inner, (*path, number))
    return found


def test_every_key_of_a_file_has_a_line() -> None:
    assert paths(tomllib.loads(SOURCE)) <= set(key_lines(SOURCE))


@settings(max_examples=200, deadline=1000)
@given(st.text(alphabet="[]{}\"'=.,#\n\\ ab1", max_size=60))
def test_any_text_ends_and_valid_text_is_understood(source: str) -> None:
    lines = key_lines(source)
    try:
        document = tomllib.loads(source)
    except tomllib.TOMLDecodeError:
        return
    assert paths(document) <= set(lines)
