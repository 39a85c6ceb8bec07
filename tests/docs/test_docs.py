"""The documentation says what is: files, links, verbs, options, keys, offers and sentences that it names exist."""

from __future__ import annotations

import argparse
import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from twisted.scripts._twistd_unix import ServerOptions

from mailsrv.cli.main import parser
from mailsrv.config import Config
from mailsrv.pop3.server import ServerConnection as Pop3Connection
from mailsrv.pop3.server import Service as Pop3Service
from mailsrv.smtp import protocol
from mailsrv.store import spool
from tools import draw_states, write_refusals

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.rst"), *DOCS.rglob("*.rst")])
OPERATOR = sorted((DOCS / "operator").glob("*.rst"))
FOLDERS = ("mailsrv", "tests", "docs", "tools", "bench", "etc", "changelog.d", ".ci")
PROSE = {"is"}  # "mailsrv is times" heads a column of the benchmark
# Words in the sentences of the troubleshooting page that stand for what differs.
PLACEHOLDERS = (
    "FILE|LINE|KEY|REASON|NEAREST|FORM|PROBLEM|ADDRESS(?:ES)?|NUMBER|SCHEMES?|CERTIFICATE|SERVICE|ENDPOINT|NAME"
)

_LINK = re.compile(r"`[^`<]*<([^>`]+)>`__?")
_LITERAL = re.compile(r"``(.+?)``", re.DOTALL)


def of(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", PAGES, ids=of)


def literals(page: Path) -> list[str]:
    return [" ".join(found.split()) for found in _LITERAL.findall(page.read_text())]


def blocks(page: Path) -> Iterator[str]:
    """The lines of literal blocks, those that a backslash continues joined."""
    inside, indent = False, 0
    for line in page.read_text().replace("\\\n", " ").splitlines():
        if inside and line.strip() and len(line) - len(line.lstrip()) <= indent:
            inside = False
        if inside and line.strip():
            yield line.strip()
        if not inside and line.rstrip().endswith("::"):
            inside, indent = True, len(line) - len(line.lstrip())


# -- links and files


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{of(page)} links to {target}"


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    for literal in literals(page):
        if literal.split("/")[0] in FOLDERS and "/" in literal and " " not in literal and "+name" not in literal:
            assert (ROOT / literal).exists(), f"{of(page)} names {literal}"


def test_every_page_can_be_reached() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.rst"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            targets = [target for target in _LINK.findall(page.read_text()) if target.endswith(".rst")]
            waiting += [(page.parent / target).resolve() for target in targets if "://" not in target]
    assert reached == set(PAGES)


def test_pages_that_the_code_names_exist() -> None:
    for module in (ROOT / "mailsrv").rglob("*.py"):
        for name in re.findall(r"docs/[\w/.-]+\.rst", module.read_text()):
            assert (ROOT / name).exists(), f"{of(module)} names {name}"


# -- the README


def test_readme_is_short() -> None:
    assert len((ROOT / "README.rst").read_text().splitlines()) < 120


@each_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    for text in [*literals(page), *blocks(page)]:
        found = re.match(r"make ([a-z]+)\b", text)
        if found:
            assert found[1] in targets, f"{of(page)} says {text}"


# -- verbs and options


def subparsers(of_what: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in of_what._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def options(of_what: argparse.ArgumentParser) -> set[str]:
    return {option for action in of_what._actions for option in action.option_strings}


def commands() -> Iterator[tuple[Path, list[str]]]:
    """Every command line of ours in the documentation, as words."""
    for page in PAGES:
        for text in [*literals(page), *blocks(page)]:
            for part in re.split(r"&&|[;|`\"()]| and ", text.partition("  #")[0].partition("   ")[0]):
                words = part.removeprefix("$ ").split()
                if words[:1] in (["mailsrv"], ["twistd"]) and len(words) > 1 and words[1] not in PROSE:
                    yield page, words


def test_verbs_and_options_exist() -> None:
    seen = set()
    for page, words in commands():
        if words[0] == "twistd":
            continue
        verb, allowed = parser(), set()
        for word in words[1:]:
            allowed |= options(verb)
            below = subparsers(verb)
            if word.startswith("--"):
                assert word.partition("=")[0] in allowed, f"{of(page)}: {' '.join(words)}"
            elif below:
                if word in ("VERB", "..."):
                    break
                assert word in below, f"{of(page)}: {' '.join(words)}"
                verb = below[word]
                seen.add(word)
    assert set(subparsers(parser())) <= seen


def test_options_of_twistd_exist() -> None:
    known = {word.rstrip("=") for word in ServerOptions().longOpt} | {"config"}
    found = [(page, words) for page, words in commands() if words[0] == "twistd"]
    assert found
    unit = (ROOT / "etc/mailsrv.service").read_text()
    for page, words in [*found, (ROOT / "etc/mailsrv.service", re.findall(r"ExecStart=(.*)", unit)[0].split())]:
        for word in words:
            if word.startswith("--"):
                assert word[2:].partition("=")[0] in known, f"{of(page)}: {' '.join(words)}"


# -- keys of the configuration


def defaults(kind: Any = Config, within: str = "") -> dict[str, Any]:
    """The default of each key as it would stand in the file; None: there is none."""
    found: dict[str, Any] = {}
    for key, hint in get_type_hints(kind, include_extras=True).items():
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            found |= defaults(hint, f"{key}.")
        else:
            found[within + key] = get_args(hint)[1].default
    return found


@cache
def keys() -> dict[str, set[str]]:
    """The keys of each table; "" is the top."""
    found: dict[str, set[str]] = {}
    for name in defaults():
        table, _, key = name.rpartition(".")
        found.setdefault(table, set()).add(key)
    return found


def test_every_key_is_documented_and_no_other() -> None:
    terms = re.findall(r"(?m)^``([a-z0-9_.]+)``$", (DOCS / "operator/configuration.rst").read_text())
    assert sorted(terms) == sorted(defaults())


def test_defaults_are_those_of_the_code() -> None:
    page = (DOCS / "operator/configuration.rst").read_text()
    entries = dict(re.findall(r"(?ms)^``([a-z0-9_.]+)``\n(    .*?)(?=^\S)", page + "\nend"))
    for key, default in defaults().items():
        told = re.search(r"Default\s+``(.+?)``", entries[key], re.DOTALL)
        assert (tomllib.loads(f"default = {told[1]}")["default"] if told else None) == default, key


@each_page
def test_keys_that_are_named_exist(page: Path) -> None:
    for literal in literals(page):
        table, dot, key = literal.partition(".")
        if dot and table in keys() and table and re.fullmatch("[a-z0-9_]+", key):
            # config.py and store.py are files, and dns.rst is a page.
            assert key in keys()[table] or key in ("py", "rst"), f"{of(page)} names {literal}"


# -- protocols


def test_standards_name_modules_and_tests_that_exist() -> None:
    for line in (DOCS / "developer/standards.rst").read_text().splitlines():
        for name in re.findall(r"``([\w/.-]+)``", line):
            if name.endswith("/") or name == "tests":
                continue
            assert (ROOT / "mailsrv" / name).exists() or (ROOT / "tests" / name).exists(), f"{name}: {line}"


def test_rows_of_standards_have_what_they_say() -> None:
    """What is done has a module and tests."""
    rows = [
        line
        for line in (DOCS / "developer/standards.rst").read_text().splitlines()
        if re.match(r"[0-9]{4}.* (yes|partial|no)( |$)", line)
    ]
    assert len(rows) > 50
    for row in rows:
        if not re.search(r"  no( |$)", row):
            assert row.count("``") >= 4, row


def offered(of_what: str) -> set[str]:
    text = (DOCS / "developer/standards.rst").read_text()
    found = re.search(rf"What {of_what} offers[^:]*: (.*?)\.(?:\s|$)", text, re.DOTALL)
    assert found
    return set(re.findall(r"\b[A-Z0-9][A-Z0-9-]{2,}\b", found[1])) - {"TLS"}


def test_what_ehlo_offers() -> None:
    class Submission(protocol.SmtpFactory):
        def __init__(self) -> None:
            self.house = _House()  # type: ignore[assignment]
            self.kind = "submission"
            self.implicit_tls = False
            self._services = {}
            self._services_of = None

    service = Submission().service("192.0.2.1")
    lines = [*service.hello_in_clear.lines[1:], *service.hello_under_tls.lines[1:]]
    words = {word for line in lines for word in line.split()[:1]} | set(service.mechanisms)
    assert offered("EHLO") == words


class _House:
    """As much as an SMTP factory asks of it to know what it offers."""

    def __init__(self) -> None:
        from mailsrv.config import parse

        self.settings = self
        self.outside = self
        self.config = parse('hostname = "mx.example.org"\ndomains = ["example.org"]', "/etc/mailsrv/mailsrv.toml")

    def wall(self) -> float:
        return 0.0


def test_what_capa_offers() -> None:
    words: set[str] = set()
    for secure in (False, True):
        connection = Pop3Connection(Pop3Service("mx.example.org", stls=True), secure)
        connection.next_event()
        connection.greet()
        connection.take_output()
        connection.receive(b"CAPA\r\n")
        connection.next_event()
        lines = connection.take_output().decode().split("\r\n")[1:-2]
        words |= {word for line in lines for word in line.split() if word.isupper()}
    assert offered("CAPA") == words


def test_states_are_drawn_from_the_code() -> None:
    assert draw_states.out_of_date() == [], "run: python -m tools.draw_states"


def test_refusals_are_written_from_the_tables() -> None:
    assert write_refusals.PAGE.read_text() == write_refusals.page(), "run: python -m tools.write_refusals"


def test_the_table_of_the_spool_is_the_one_of_its_module() -> None:
    rule = re.escape("=====================  ===")
    found = re.search(rf"(?s)^{rule}.*^{rule}[ =]*$", spool.__doc__ or "", re.MULTILINE)
    assert found
    assert found[0] in (DOCS / "developer/storage.rst").read_text()


# -- sentences


@cache
def sentences() -> str:
    """Every string of the program, one to a line, the variable parts cut out."""
    found = []
    for module in (ROOT / "mailsrv").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\{\w+(?::[^}]*)?\}", "\n", node.value))
    return "\n".join(found)


def test_what_keeps_it_from_starting_is_said_so_by_the_code() -> None:
    """Each fragment between the words in capitals stands in a string of the program."""
    page = (DOCS / "operator/troubleshooting.rst").read_text()
    terms = re.findall(r"(?m)^(``.+``)$", page[page.index("What keeps it from starting") :])
    assert len(terms) > 20
    # What the system says, not we.
    system = {"Address already in use", "Permission denied", "Cannot assign requested address", "ARGON2ID"}
    said = [sentence for term in terms for sentence in _LITERAL.findall(term)]
    for sentence in said:
        for fragment in re.split(rf"\b(?:{PLACEHOLDERS})\b|\.\.\.|[(){{}}\":]", sentence):
            words = fragment.strip(" :;,.\"'()[]")
            if len(words) > 5 and words not in system:
                assert any(words in known for known in (sentences(), sentences().replace("\n", ""))), words


# -- the changelog


def test_fragments_have_names_that_towncrier_takes() -> None:
    for path in (ROOT / "changelog.d").iterdir():
        if path.name != ".gitkeep":
            assert re.fullmatch(r"\+[a-z0-9-]+\.(feature|fix|change)\.rst", path.name), path.name
            assert path.read_text().endswith(".\n"), path.name
