"""Users out of passwd-files, shadow files and SQL dumps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.store.migration import passwd_file, sql_text, sql_users
from mailsrv.store.migration.letter import Trouble
from mailsrv.store.migration.sql_users import WhichTable
from mailsrv.store.migration.users import LOCKED, User, in_clear, stored_of

SHA512 = "$6$eGrRND0kyjpvDVaS$akdOeVAZ3y76mAVQiT/O.AFH6b.nJ/ok0B0mMJyFSbvqD4XUL4fNZAi6cBEQ/AsJK.mlapu7Sm6Hkn1eZVRJ5."


def passwd(text: str, scheme: str = "") -> list[tuple[str, str]]:
    """Name and what is stored, or place and trouble."""
    return [
        (found.origin, found.reason) if isinstance(found, Trouble) else (found.name, found.stored)
        for found in passwd_file.users(text, "f", scheme)
    ]


@pytest.mark.parametrize(
    ("field", "stored"),
    [
        ("{SSHA}abc=", "{SSHA}abc="),
        ("{plain}a:b", "{plain}a"),
        (SHA512, "{SHA512-CRYPT}" + SHA512),
        ("$y$j9T$x$y", "{CRYPT}$y$j9T$x$y"),
        ("$2y$05$x", "{BLF-CRYPT}$2y$05$x"),
        ("$1$x$y", "{MD5-CRYPT}$1$x$y"),
        ("$argon2id$v=19$x", "{ARGON2ID}$argon2id$v=19$x"),
        ("$argon2i$v=19$x", "{ARGON2I}$argon2i$v=19$x"),
        ("Y5W2V.7jaJq5Q", "{CRYPT}Y5W2V.7jaJq5Q"),
        ("", LOCKED),
        ("*", LOCKED),
        ("!!", LOCKED),
        ("!" + SHA512, LOCKED),
        ("x", LOCKED),
    ],
)
def test_password_fields(field: str, stored: str) -> None:
    assert passwd(f"alice@example.org:{field}:1000:1000::/home/alice:/bin/sh:\n") == [("alice@example.org", stored)]


def test_a_scheme_that_the_caller_knows() -> None:
    assert passwd("alice@example.org:7f1e6d7ee0a0d31881ab5cff8c297068", "PLAIN-MD5") == [
        ("alice@example.org", "{PLAIN-MD5}7f1e6d7ee0a0d31881ab5cff8c297068")
    ]
    assert stored_of("{SHA}x", "PLAIN-MD5") == "{SHA}x"


def test_lines_of_a_passwd_file() -> None:
    text = (
        "# comment\n\nalice@example.org:{SHA}a\r\nbob\nno@example.org:{SHA}a::::::nologin=y userdb_mail=x:y\n"
        "near@example.org:{SHA}a::::::allow_nets=192.0.2.0/24\nfar@example.org:{SHA}a::::::userdb_quota_rule=*:storage=1G\n"
    )
    assert passwd(text) == [
        ("alice@example.org", "{SHA}a"),
        ("f:4:", "is not of the form name:password"),
        ("no@example.org", LOCKED),
        ("f:6:", "near@example.org is not taken: mailsrv does not know allow_nets"),
        ("far@example.org", "{SHA}a"),
    ]


def test_lines_of_shadow() -> None:
    text = f"root:*:19000:0:99999:7:::\nalice:{SHA512}:19000:0:99999:7:::\nbob:{SHA512}:19000:0:99999:7::20000:\n"
    assert passwd(text) == [
        ("root", LOCKED),
        ("alice", "{SHA512-CRYPT}" + SHA512),
        ("f:3:", "bob is not taken: it expires at a date, which mailsrv does not know"),
    ]


def test_passwords_in_clear() -> None:
    assert in_clear("{PLAIN}a:b") == "a:b"
    assert in_clear("{cleartext.hex}6162") == "ab"
    assert in_clear("{PLAIN.b64}0L8=") == "п"
    assert in_clear("{SHA}Bbx7i+X72fOBYscEqBOradXeyIY=") is None
    with pytest.raises(ValueError, match="UTF-8"):
        in_clear("{PLAIN.hex}ff")


def sql(text: str, table: str = "") -> list[tuple[str, str]]:
    return [
        (found.origin, found.reason) if isinstance(found, Trouble) else (found.name, found.stored)
        for found in sql_users.users(text, "f", "", table)
    ]


POSTFIXADMIN = r"""-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB, for debian-linux-gnu (x86_64)
/*!40101 SET NAMES utf8mb4 */;
DROP TABLE IF EXISTS `admin`;
CREATE TABLE `admin` (
  `username` varchar(255) NOT NULL,
  `password` varchar(255) NOT NULL,
  PRIMARY KEY (`username`)
) ENGINE=InnoDB COMMENT='Postfix Admin; - Virtual Admins';
INSERT INTO `admin` VALUES
('root@example.org','{SHA}x');
CREATE TABLE `mailbox` (
  `username` varchar(255) NOT NULL COMMENT 'the name, whole',
  `password` varchar(255) NOT NULL,
  `name` varchar(255) NOT NULL DEFAULT '',
  `quota` bigint(20) NOT NULL DEFAULT 0,
  `created` datetime NOT NULL DEFAULT current_timestamp(),
  `active` tinyint(1) NOT NULL DEFAULT 1,
  PRIMARY KEY (`username`),
  KEY `domain` (`name`)
) ENGINE=InnoDB;
LOCK TABLES `mailbox` WRITE;
INSERT INTO `mailbox` VALUES
('alice@example.org','{SSHA}abc=','Al \'A\'; -- (x)',0,'2024-01-01',1),('bob@example.org','$1$x$y','B''s \\',-1,NULL,0),
('carol@example.org',_binary '{SHA}x',"C",1.5e3,'',1),
('dave@example.org',0x7B5348417D78,'',0,'');
UNLOCK TABLES;
INSERT INTO `log` VALUES ('a','b');
"""


def test_a_dump_of_mysql_without_names_of_columns() -> None:
    assert sorted(sql(POSTFIXADMIN)) == [
        ("alice@example.org", "{SSHA}abc="),
        ("bob@example.org", LOCKED),
        ("carol@example.org", "{SHA}x"),
        ("f:25:", "the row has not as many values as the table has columns"),
    ]


def test_an_sql_file_with_names_of_columns() -> None:
    text = (
        "INSERT INTO vmail.accounts (id, username, domain, password, enabled) VALUES\n"
        "(1, 'alice', 'example.org', '{SHA512-CRYPT}x', TRUE),\n(2, 'bob', 'example.net', 'x\\', false);\n"
        "insert into accounts (username, domain, password) values ('carol', 'example.org', ENCRYPT('a,b', '('));\n"
        "INSERT INTO accounts (username, domain, password) VALUES (NULL, 'a.org', '{SHA}') ON CONFLICT DO NOTHING;\n"
        "INSERT INTO accounts SELECT * FROM x; INSERT INTO accounts (username, password) VALUES ('e@example.org', '')"
    )
    assert sql(text) == [
        ("alice@example.org", "{SHA512-CRYPT}x"),
        ("bob@example.net", LOCKED),
        ("f:4:", "carol@example.org is not taken: its password is NULL or has to be computed"),
        ("f:5:", "the row has no name"),
        ("e@example.org", LOCKED),
    ]


def test_dumps_of_postgresql_and_sqlite() -> None:
    text = (
        "SET standard_conforming_strings = on;\n"
        "CREATE TABLE public.virtual_users (\n    id integer NOT NULL,\n    email character varying(100) NOT NULL,\n"
        "    password character varying(150) NOT NULL,\n    CONSTRAINT x CHECK ((id > 0))\n);\n"
        "COPY public.virtual_users (id, email, password) FROM stdin;\n"
        "1\talice@example.org\t{PLAIN}a\\tb\\\\c\n2\tbob@example.org\t\\N\n\\.\n\n"
        "INSERT INTO public.virtual_users VALUES (3, 'carol@example.org'::character varying, E'it\\'s \\\\ \"x\"');\n"
    )
    assert sql(text) == [
        ("alice@example.org", "{PLAIN}a\tb\\c"),
        ("f:10:", "bob@example.org is not taken: its password is NULL or has to be computed"),
        ("carol@example.org", '{CRYPT}it\'s \\ "x"'),
    ]
    text = (
        'PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE IF NOT EXISTS "users" (email TEXT, '
        "\"password\" TEXT, extra);\nINSERT INTO users VALUES('alice@example.org','a''b\\',X'00');\nCOMMIT;\n"
    )
    assert sql(text) == [("alice@example.org", "{CRYPT}a'b\\")]


def test_which_table() -> None:
    two = "INSERT INTO a (email, password) VALUES ('a@example.org', '{SHA}x');" * 2 + (
        "INSERT INTO B (email, password) VALUES ('b@example.org', '{SHA}y');"
    )
    with pytest.raises(WhichTable, match="a, b; --table"):
        sql(two)
    assert sql(two, "b") == [("b@example.org", "{SHA}y")]
    admins = "INSERT INTO admin (username, password) VALUES ('a@example.org', '{SHA}x');"
    with pytest.raises(WhichTable, match="no table with names and passwords"):
        sql(admins)
    assert sql(admins, "admin") == [("a@example.org", "{SHA}x")]
    with pytest.raises(WhichTable, match="no rows in a table x"):
        sql(two, "x")


@given(st.text(alphabet="INSERTO VALUES(),;'\"`\\a1-#/*\n:x.", max_size=80))
def test_no_text_makes_reading_fail(text: str) -> None:
    for start in ("", "INSERT INTO a (b) VALUES ", "CREATE TABLE `a` (", "COPY a (b) FROM stdin;\n"):
        list(sql_text.rows(start + text))
    list(passwd_file.users(text, "f"))


@given(st.text(max_size=20))
def test_any_string_comes_through(value: str) -> None:
    standard = value.replace("'", "''")
    mysql = value.replace("\\", "\\\\").replace("'", "\\'")
    for text, row in (
        (f"INSERT INTO a (b) VALUES ('{standard}')", {"b": value}),
        (f"INSERT INTO `a` (b) VALUES ('{mysql}')", {"b": value}),
        (f"INSERT INTO a (b) VALUES (x'{value.encode().hex()}')", {"b": value}),
    ):
        assert [found.values for found in sql_text.rows(text)] == [row]


def test_users_are_not_shown_with_their_passwords() -> None:
    assert "secret" not in repr(User("alice", "{PLAIN}secret", "f:1:"))
