import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail.folder_name import directory_of, name_of


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("INBOX", ""),
        ("inbox", ""),
        ("Sent", ".Sent"),
        ("Sent/2026", ".Sent.2026"),
        ("Sent.2026", ".Sent.2026"),
        ("Entwürfe", ".Entw&APw-rfe"),
        ("R&D", ".R&-D"),
        # RFC 3501 5.1.3
        ("~peter/mail/台北/日本語", ".~peter.mail.&U,BTFw-.&ZeVnLIqe-"),
        ("a b", ".a b"),
    ],
)
def test_as_dovecot_and_courier_name_them(name: str, directory: str) -> None:
    assert directory_of(name) == directory
    assert name_of(directory) == ("INBOX" if not directory else name.replace(".", "/"))


@pytest.mark.parametrize(
    "name", ["", "/", "a//b", "a..b", "..", "/etc", "a/", " ", "a\nb", "a\0b", "x" * 300, "ü" * 100]
)
def test_what_is_no_folder(name: str) -> None:
    with pytest.raises(ValueError, match="folder"):
        directory_of(name)


@pytest.mark.parametrize("directory", [".a&b", ".&AOQ", ".&!-x", ".&2AA-", ".caf\udcc3"])
def test_what_is_not_modified_utf7_stays(directory: str) -> None:
    assert name_of(directory)[0] == directory[1]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="./"), min_size=1, max_size=20))
def test_any_name_comes_back_and_is_one_directory(name: str) -> None:
    try:
        directory = directory_of(name)
    except ValueError:
        return
    assert directory.isascii()
    assert "/" not in directory
    if directory:
        assert name_of(directory) == name
