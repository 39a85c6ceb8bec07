"""The text of an SQL dump, taken apart as far as rows of tables are concerned.

Understands what mysqldump, phpMyAdmin, pg_dump (INSERT and COPY) and sqlite3's .dump write: CREATE TABLE for the order
of the columns, INSERT and REPLACE with one or many rows, COPY from stdin.  Everything else is passed over.  Nothing is
ever executed.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

_SPACE = r"(?:\s+|--[^\n]*|/\*.*?\*/)+"
_TOKEN = r"""(?P<escaped>[eE]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*')|(?P<octets>[xX]'[0-9A-Fa-f]*'|0x[0-9A-Fa-f]+\b)
|(?P<string>STRING)|`(?P<backquoted>[^`]*(?:``[^`]*)*)`|"(?P<quoted>[^"]*(?:""[^"]*)*)"
|(?P<number>[+-]?[0-9][0-9.eE]*)|(?P<word>[^\W\d][\w$]*)|(?P<mark>::|.)""".replace("\n", "")
_BACKSLASHED = r"'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'"
_STANDARD = r"'[^']*(?:''[^']*)*'"
# Only MySQL and its kin have backslashes in their strings, and # before comments.
_MYSQL = re.compile(r"MySQL|MariaDB|phpMyAdmin|(?:INTO|TABLE|EXISTS)\s+`", re.IGNORECASE)
_BEGINNING: Final = 100_000
_ESCAPE = re.compile(r"\\(.)|''", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "Z": "\x1a", "f": "\f", "v": "\v"}
# What begins a line of CREATE TABLE that is no column.
_NO_COLUMN: Final = frozenset({"primary", "key", "unique", "constraint", "foreign", "index", "fulltext", "spatial"}) | {
    *("check", "exclude", "like", "period"),
}


class _Token(NamedTuple):
    kind: str  # "name" (quoted), "word", "string", "number" or "mark"
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row of ``table`` (in lower case, without its schema) in ``line`` of the text.

    ``values`` are by column in lower case; None is NULL, or an expression.  None instead of all of them when their
    number is not that of the columns, or when nobody has said what the columns are.
    """

    table: str
    line: int
    values: Mapping[str, str | None] | None


def rows(text: str) -> Iterator[Row]:
    """All rows that the dump puts into tables, in their order."""
    return _Dump(text).rows()


class _Dump:
    def __init__(self, text: str) -> None:
        self._text = text
        mysql = _MYSQL.search(text, 0, _BEGINNING) is not None
        string = _BACKSLASHED if mysql else _STANDARD
        space = _SPACE.replace("--", r"(?:--|\#)") if mysql else _SPACE
        self._space = re.compile(space, re.DOTALL)
        self._token = re.compile(_TOKEN.replace("STRING", string), re.DOTALL)
        self._backslashes = mysql
        self._at = 0
        self._line = 1
        self._line_at = 0
        self._columns: dict[str, list[str]] = {}

    def rows(self) -> Iterator[Row]:
        while (first := self._next()) is not None:
            verb = first.text.lower() if first.kind == "word" else ""
            if verb in ("insert", "replace"):
                yield from self._insert()
            elif verb == "create":
                self._create()
            elif verb == "copy":
                yield from self._copy()
            elif first.text != ";":
                self._skip()

    def _next(self) -> _Token | None:
        """The next token; None at the end."""
        space = self._space.match(self._text, self._at)
        at = space.end() if space else self._at
        found = self._token.match(self._text, at)
        if found is None:
            return None
        self._at = found.end()
        kind = found.lastgroup or ""
        text = found[kind]
        if kind == "string":
            return _Token("string", self._unquoted(text[1:-1], self._backslashes), at)
        if kind == "escaped":
            return _Token("string", self._unquoted(text[2:-1], True), at)
        if kind == "octets":
            digits = text[2:].rstrip("'")
            octets = binascii.unhexlify(digits) if len(digits) % 2 == 0 else b""
            return _Token("string", octets.decode("utf-8", "surrogateescape"), at)
        if kind in ("backquoted", "quoted"):
            mark = "`" if kind == "backquoted" else '"'
            return _Token("name", text.replace(mark * 2, mark), at)
        return _Token(kind, text, at)

    @staticmethod
    def _unquoted(text: str, backslashes: bool) -> str:
        if not backslashes:
            return text.replace("''", "'")
        return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]) if found[1] else "'", text)

    def _line_of(self, at: int) -> int:
        self._line += self._text.count("\n", self._line_at, at)
        self._line_at = at
        return self._line

    def _skip(self) -> None:
        """To the end of the statement."""
        while (token := self._next()) is not None and (token.kind != "mark" or token.text != ";"):
            pass

    def _table(self) -> tuple[str, _Token | None]:
        """The name of a table without its schema, and the token behind it."""
        name = self._next()
        token = self._next()
        while token is not None and token.kind == "mark" and token.text == ".":
            name = self._next()
            token = self._next()
        return (name.text.lower() if name else ""), token

    def _names(self) -> list[str]:
        """Names in brackets, of which the first one is read."""
        names = []
        while (token := self._next()) is not None and token.text != ")":
            if token.kind in ("name", "word"):
                names.append(token.text.lower())
        return names

    def _create(self) -> None:
        """Remember the columns of a table."""
        word = self._next()
        while word is not None and word.text.lower() in ("temporary", "temp", "unlogged", "global", "local"):
            word = self._next()
        if word is None or word.text.lower() != "table":
            if word is not None and word.text != ";":
                self._skip()
            return
        before = self._at
        if (word := self._next()) is not None and word.text.lower() == "if":
            self._next()
            self._next()
        else:
            self._at = before
        table, token = self._table()
        columns: list[str] = []
        depth = 0
        wanted = False
        while token is not None and (token.kind != "mark" or token.text != ";"):
            if token.kind == "mark" and token.text == "(":
                depth += 1
                wanted = depth == 1
            elif token.kind == "mark" and token.text == ")":
                depth -= 1
            elif token.kind == "mark" and token.text == ",":
                wanted = depth == 1
            elif wanted:
                wanted = False
                if token.kind == "name" or token.text.lower() not in _NO_COLUMN:
                    columns.append(token.text.lower())
            token = self._next()
        self._columns[table] = columns

    def _insert(self) -> Iterator[Row]:
        token = self._next()
        while token is not None and token.kind == "word" and token.text.lower() != "into":
            token = self._next()
        if token is None or token.text.lower() != "into":
            return self._skip()
        table, token = self._table()
        columns = self._columns.get(table, [])
        if token is not None and token.text == "(":
            columns = self._names()
            token = self._next()
        if token is None or token.text.lower() not in ("values", "value"):
            return self._skip() if token is None or token.text != ";" else None
        while (token := self._next()) is not None and not (token.kind == "mark" and token.text == ";"):
            if token.kind == "mark" and token.text == "(":
                line = self._line_of(token.at)
                values = self._values()
                fits = len(values) == len(columns)
                yield Row(table, line, dict(zip(columns, values, strict=True)) if fits else None)
            elif not (token.kind == "mark" and token.text == ","):
                return self._skip()  # ON DUPLICATE KEY, ON CONFLICT, RETURNING
        return None

    def _values(self) -> list[str | None]:
        """The values in brackets, of which the first one is read."""
        values: list[str | None] = []
        value: list[_Token] = []
        depth = 0
        while (token := self._next()) is not None:
            if token.kind == "mark" and depth == 0 and token.text in ",)":
                values.append(_value(value))
                value = []
                if token.text == ")":
                    break
                continue
            if token.kind == "mark" and token.text in "()":
                depth += 1 if token.text == "(" else -1
            value.append(token)
        return values

    def _copy(self) -> Iterator[Row]:
        """COPY table (columns) FROM stdin; and then lines with tabs between the values."""
        table, token = self._table()
        columns = self._columns.get(table, [])
        if token is not None and token.text == "(":
            columns = self._names()
        words = []
        while (token := self._next()) is not None and not (token.kind == "mark" and token.text == ";"):
            words.append(token.text.lower())
        if "stdin" not in words:
            return
        self._at = self._text.find("\n", self._at) + 1 or len(self._text)
        while self._at < len(self._text):
            end = self._text.find("\n", self._at)
            end = len(self._text) if end < 0 else end
            line = self._text[self._at : end].rstrip("\r")
            number = self._line_of(self._at)
            self._at = end + 1
            if line == "\\.":
                break
            values = [None if value == "\\N" else self._unquoted(value, True) for value in line.split("\t")]
            fits = len(values) == len(columns)
            yield Row(table, number, dict(zip(columns, values, strict=True)) if fits else None)


def _value(tokens: list[_Token]) -> str | None:
    """A value; None for NULL and for what has to be computed."""
    if len(tokens) > 1 and tokens[0].kind == "word" and tokens[0].text.startswith("_"):
        tokens = tokens[1:]  # MySQL's _binary and the like
    if len(tokens) > 1 and tokens[1].text == "::":
        tokens = tokens[:1]  # PostgreSQL's types
    if len(tokens) != 1:
        return None
    token = tokens[0]
    if token.kind == "word":
        return {"true": "1", "false": "0"}.get(token.text.lower())
    return token.text if token.kind in ("string", "number", "name") else None
