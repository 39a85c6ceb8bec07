"""Where in a TOML file a key stands, so that a complaint can name the line.

``tomllib`` forgets positions.  This reads the same text again, but only for its shape: table headers, dotted keys,
arrays and inline tables (TOML 1.0).  It is to be called for text that ``tomllib`` has accepted; for other text the
answer is incomplete or wrong, but it always comes.
"""

from __future__ import annotations

import re
import tomllib

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})' r"|'''.*?'''(?:'{0,2})" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'", re.DOTALL
)
_PLAIN = re.compile(r"[^,\]}#\n]*")


class _NotToml(Exception):
    pass


def key_lines(source: str) -> dict[Path, int]:
    """The line, counted from 1, of every table, key and array element: ``("listen", "smtp", 1)`` is its second one."""
    scanner = _Scanner(source)
    try:
        scanner.document()
    except (_NotToml, RecursionError):
        pass
    return scanner.lines


class _Scanner:
    def __init__(self, source: str) -> None:
        self.lines: dict[Path, int] = {}
        self._source = source
        self._at = 0
        self._counted = 0  # up to here the line ends have been counted
        self._line = 1
        self._tables: dict[Path, int] = {}  # how many [[tables]] of a name there have been

    def document(self) -> None:
        table: Path = ()
        while True:
            self._skip()
            if self._at >= len(self._source):
                return
            if self._source[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        of_array = self._source.startswith("[[", self._at)
        self._at += 2 if of_array else 1
        line = self._now()
        path = self._within_arrays(self._dotted())
        self._at += 2 if of_array else 1
        for length in range(1, len(path)):
            self.lines.setdefault(path[:length], line)
        if of_array:
            number = self._tables.get(path, 0)
            self._tables[path] = number + 1
            self.lines.setdefault(path, line)
            path = (*path, number)
        self.lines[path] = line
        return path

    def _within_arrays(self, names: Path) -> Path:
        """``[a.b]`` after ``[[a]]`` belongs to the newest element of a."""
        path: Path = ()
        for name in names[:-1]:
            path = (*path, name)
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
        return (*path, names[-1])

    def _pair(self, table: Path) -> None:
        line = self._now()
        names = self._dotted()
        for length in range(1, len(names) + 1):
            self.lines.setdefault(table + names[:length], line)
        self._expect("=")
        self._skip()
        self._value(table + names)

    def _value(self, path: Path) -> None:
        first = self._source[self._at : self._at + 1]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            found = (_STRING if first in ('"', "'") else _PLAIN).match(self._source, self._at)
            if found is None or not found.group():
                raise _NotToml
            self._at = found.end()

    def _array(self, path: Path) -> None:
        self._expect("[")
        for number in range(len(self._source)):
            self._skip()
            if self._source.startswith("]", self._at):
                break
            self.lines[*path, number] = self._now()
            self._value((*path, number))
            self._comma()
        self._expect("]")

    def _inline_table(self, path: Path) -> None:
        self._expect("{")
        while True:
            self._skip()
            if self._source.startswith("}", self._at):
                break
            self._pair(path)
            self._comma()
        self._expect("}")

    def _comma(self) -> None:
        self._skip()
        if self._source.startswith(",", self._at):
            self._at += 1

    def _dotted(self) -> Path:
        names: list[str | int] = []
        while True:
            found = _KEY.match(self._source, self._at)
            if found is None:
                raise _NotToml
            self._at = found.end()
            names.append(_name(found.group(1)))
            if not self._source.startswith(".", self._at):
                return tuple(names)
            self._at += 1

    def _expect(self, character: str) -> None:
        if not self._source.startswith(character, self._at):
            raise _NotToml
        self._at += 1

    def _skip(self) -> None:
        found = _BLANK.match(self._source, self._at)
        if found is not None:
            self._at = found.end()

    def _now(self) -> int:
        self._line += self._source.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line


def _name(text: str) -> str:
    """A key without its quotes; escapes are left to ``tomllib``, which knows them."""
    if text[0] == '"' and "\\" in text:
        try:
            return next(iter(tomllib.loads(f"{text} = 0")))
        except tomllib.TOMLDecodeError:
            return text[1:-1]
    return text[1:-1] if text[0] in "\"'" else text
