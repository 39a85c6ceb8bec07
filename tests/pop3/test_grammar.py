"""Command lines and their arguments."""

from __future__ import annotations

import unicodedata

import pytest

from mailsrv.pop3.grammar import SyntaxProblem, parse_command, parse_number


def _refused(character: str) -> bool:
    try:
        parse_command(f"PASS a{character}b".encode())
    except SyntaxProblem:
        return True
    return False


def test_control_characters_are_refused_and_nothing_else() -> None:
    """Not even what cannot be seen: a password may have it."""
    characters = [chr(code) for code in range(0x3100) if not 0xD800 <= code < 0xE000]
    refused = [character for character in characters if _refused(character)]
    assert {unicodedata.category(character) for character in refused} == {"Cc", "Zl", "Zp"}
    assert len(refused) == 65 + 2


@pytest.mark.parametrize("text", ["0", "7", "0000000012", "9999999999"])
def test_a_number_is_a_few_digits(text: str) -> None:
    assert parse_number(text) == int(text)


@pytest.mark.parametrize("text", ["", "00000000001", "+1", "-1", " 1", "1 ", "1_0", "1.0", "²", "\u0663", "\uff11"])
def test_no_other_number_is_taken(text: str) -> None:
    with pytest.raises(SyntaxProblem):
        parse_number(text)
