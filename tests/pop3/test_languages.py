"""Every reply can be had in every language."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsrv.pop3 import languages, server
from mailsrv.pop3.languages import LANGUAGES, Language

PACKAGE = Path(languages.__file__).parent.parent
SAYING = ("ok", "_ok", "say", "Refusal", "SyntaxProblem", "_refuse_command", "Refused")
TRANSLATIONS = [language for language in LANGUAGES if language.texts]


def said() -> Iterator[str]:
    """The texts of all replies, as they stand in the source."""
    for path in [*PACKAGE.glob("pop3/*.py"), *PACKAGE.glob("sasl/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in SAYING and isinstance(node.args[0].value, str):
                    yield node.args[0].value
    yield from server._OUT_OF_PLACE.values()


def test_there_are_replies() -> None:
    assert len(set(said())) > 40


@pytest.mark.parametrize("language", TRANSLATIONS, ids=lambda language: language.tag)
def test_every_text_is_translated_and_no_other(language: Language) -> None:
    assert set(said()) == set(language.texts)


@pytest.mark.parametrize("language", TRANSLATIONS, ids=lambda language: language.tag)
def test_a_translation_is_one_line_with_the_same_places(language: Language) -> None:
    for text, translation in language.texts.items():
        assert translation.isprintable()
        assert translation.count("{}") == text.count("{}")
        assert len(translation.encode()) < 200
        assert not translation.startswith("[")


def test_tags_can_be_chosen() -> None:
    assert {language.tag for language in LANGUAGES} >= {"i-default", "en", "de"}  # RFC 6856 3 wants the first
    for language in LANGUAGES:
        assert re.fullmatch(r"[a-z]{1,8}(-[a-z]{1,8})?", language.tag)
        assert languages.find(language.tag.upper()) is language
    assert languages.find("de-CH-1996") is languages.find("de")
    assert languages.find("d") is languages.find("") is languages.find("-") is None
