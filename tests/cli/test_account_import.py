"""``mailsrv account import``: users of another server with their passwords."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mailsrv.config import load
from mailsrv.store.accounts.accounts import load_directory
from mailsrv.store.accounts.passwords import is_old, verify_stored

PASSWORD = "tulip and thyme"
SHA512 = "$6$eGrRND0kyjpvDVaS$akdOeVAZ3y76mAVQiT/O.AFH6b.nJ/ok0B0mMJyFSbvqD4XUL4fNZAi6cBEQ/AsJK.mlapu7Sm6Hkn1eZVRJ5."
BLOWFISH = "$2y$05$HDKDsyvI.LwcmqYWTc0cRu/GjCrHUUZSJWe2NONjjzW2ZBP27nuYG"
SSHA = "F6CbDX+mf7rPNqHFnemIKOiBPoy8uJyN"


def stored(folder: Path) -> dict[str, str]:
    return {account.key: account.hash for account in load_directory(load(str(folder / "mailsrv.toml"))).accounts}


def write(folder: Path, text: str) -> str:
    (folder / "users").write_text(text)
    return str(folder / "users")


def test_a_passwd_file_of_dovecot(tool: Any, folder: Path) -> None:
    (folder / "accounts").write_text("# ours\nalice@example.org:!::::::")
    (folder / "aliases").write_text("sales@example.org: alice@example.org\n")
    file = write(
        folder,
        f"Bob@Example.ORG:{{SSHA}}{SSHA}:1000:1000::/home/bob\ncarol@example.net:{SHA512}::::::\n"
        "dave@example.org:{PLAIN}a b\neve@example.org:!\nalice@example.org:{PLAIN}x\n"
        "bob@example.org:{PLAIN}other\nsales@example.org:{PLAIN}x\nfrank@example.com:{PLAIN}x\n"
        "grace@example.org:{OTP}x\nheidi@example.org:nonsense\nivan:{PLAIN}x\na/b@example.org:{PLAIN}x\ndaemon:*\n",
    )
    ran = tool("account", "import", file)
    assert ran.status == 1
    assert ran.out == (
        "Took 4 accounts, 1 of them locked; 1 account existed already, untouched; 1 user without a password "
        "and a domain left out; 7 lines not taken, named above.\n"
    )
    told = [line.removeprefix(f"mailsrv: {file}:").partition("; known are")[0] for line in ran.err.splitlines()]
    assert sorted(told) == sorted(
        [
            "6: bob@example.org is in the file twice; the first one is taken.",
            "7: sales@example.org is an alias here.",
            "8: frank@example.com: the domain is not one of those in the configuration.",
            "9: grace@example.org: the password scheme OTP is not known",
            "10: heidi@example.org: the hash is not a well-formed CRYPT hash, or one that this machine cannot check.",
            "11: ivan has no domain; --domain says which.",
            "12: a/b@example.org cannot be an account: its local part is not fit for the name of a folder.",
        ]
    )
    assert (folder / "accounts").read_text().startswith("# ours\nalice@example.org:!::::::\nbob@example.org:{SSHA}")
    found = stored(folder)
    assert list(found) == [
        "alice@example.org",
        "bob@example.org",
        "carol@example.net",
        "dave@example.org",
        "eve@example.org",
    ]
    assert found["bob@example.org"] == f"{{SSHA}}{SSHA}"
    assert verify_stored(found["bob@example.org"], PASSWORD)
    assert verify_stored(found["carol@example.net"], PASSWORD)
    assert verify_stored(found["dave@example.org"], "a b")
    # What was in clear is so no longer.
    assert not is_old(found["dave@example.org"])
    assert found["eve@example.org"] == found["alice@example.org"] == "!"


def test_lines_of_shadow_for_a_domain(tool: Any, folder: Path) -> None:
    file = write(folder, f"root:*:19000:0:99999:7:::\nalice:{SHA512}:19000:0:99999:7:::\nbob:{BLOWFISH}:1::::::\n")
    ran = tool("account", "import", file, "--domain", "Example.NET")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "Took 2 accounts; 1 user without a password and a domain left out.\n"
    found = stored(folder)
    assert list(found) == ["alice@example.net", "bob@example.net"]
    assert all(verify_stored(each, PASSWORD) for each in found.values())
    # Again: nothing changes.
    ran = tool("account", "import", file, "--domain", "example.net")
    assert ran.status == 0
    assert "Took 0 accounts; 2 accounts existed already" in ran.out
    assert stored(folder) == found


def test_an_sql_dump(tool: Any, folder: Path) -> None:
    file = write(
        folder,
        "CREATE TABLE `mailbox` (`username` varchar(255), `password` varchar(255), `active` int, KEY `x` (`x`));\n"
        f"INSERT INTO `mailbox` VALUES ('alice@example.org','{{SSHA}}{SSHA}',1),('bob@example.org','{BLOWFISH}',1),\n"
        f"('carol@example.org','{SHA512}',0),('dave@example.com','{SHA512}',1),('eve@example.org','nonsense',1);\n",
    )
    ran = tool("account", "import", file)
    assert ran.status == 1
    assert f"{file}:3: dave@example.com: the domain is not" in ran.err
    assert f"{file}:3: eve@example.org: the hash is not" in ran.err
    found = stored(folder)
    assert found["carol@example.org"] == "!"
    assert verify_stored(found["alice@example.org"], PASSWORD)
    assert verify_stored(found["bob@example.org"], PASSWORD)


def test_hashes_that_do_not_name_their_scheme(tool: Any, folder: Path) -> None:
    ran = tool(
        "account",
        *("import", "-", "--scheme", "plain-md5"),
        stdin=b"INSERT INTO users (email, password) VALUES ('alice@example.org', '7f1e6d7ee0a0d31881ab5cff8c297068');",
    )
    assert (ran.status, ran.err) == (0, "")
    assert verify_stored(stored(folder)["alice@example.org"], PASSWORD)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--domain", "example.com"), "--domain: example.com is not one of the domains"),
        (("--domain", "a b"), "--domain: "),
        (("--scheme", "rot13"), "--scheme: rot13 is not known"),
    ],
)
def test_wrong_use(tool: Any, folder: Path, arguments: tuple[str, ...], words: str) -> None:
    ran = tool("account", "import", write(folder, "alice:x\n"), *arguments)
    assert ran.status == 1
    assert words in ran.err
    assert not (folder / "accounts").exists()


def test_files_that_cannot_be_used(tool: Any, folder: Path) -> None:
    ran = tool("account", "import", str(folder / "missing"))
    assert ran.status == 1
    assert "No such file" in ran.err
    ran = tool("account", "import", write(folder, "INSERT INTO x (y) VALUES (1);\n"))
    assert ran.status == 1
    assert "no table with names and passwords" in ran.err


def test_no_password_is_shown(tool: Any, folder: Path) -> None:
    ran = tool("account", "import", write(folder, "alice@example.org:{PLAIN.hex}zz-secret\nbob:{PLAIN}secret\n"))
    assert ran.status == 1
    assert "secret" not in ran.out + ran.err


def test_many_at_once(tool: Any, folder: Path) -> None:
    ran = tool("account", "import", write(folder, "".join(f"u{n}@example.org:{{SSHA}}{SSHA}\n" for n in range(3000))))
    assert ran.out == "Took 3,000 accounts.\n"
    assert len(stored(folder)) == 3000
