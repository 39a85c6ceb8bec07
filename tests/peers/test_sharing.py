"""Several programs in one Maildir at the same time: nothing is lost, doubled or renumbered, and the count stays exact.

mailsrv delivers and serves POP3; Dovecot serves IMAP from the same folders with the same accounts file; mutt and mbsync
open them as they are.
"""

from __future__ import annotations

import imaplib
import json
import math
import os
import poplib
import pty
import pwd
import re
import select
import shutil
import smtplib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.mailbox import maildir, maildirsize
from mailsrv.store.mailbox.quota import Quota, Usage
from tests.peers import dovecot_imap
from tests.peers.conftest import missing
from tests.peers.dovecot_imap import DovecotImap
from tests.peers.mailbox import pop3, send_in
from tests.peers.programs import wait_until
from tests.peers.server import ALICE, ALICE_PASSWORD, Mailsrv, Template

USER = "nobody"
KINDS = ("stays", "pop3-goes", "imap-flags", "imap-moves", "imap-goes", "mutt-moves", "mutt-goes", "mbsync-goes")
MESSAGES = 240
SENDERS = 4
QUOTA = ("--storage", "50 MiB", "--messages", "100000")
ALWAYS_THERE = 1000000  # the token of the first message

_TOKEN = re.compile(rb"^Subject: token ([0-9]+) ", re.MULTILINE)


@dataclass
class Shared:
    """The Maildir of alice, and who works in it."""

    server: Mailsrv
    dovecot: DovecotImap
    folder: Path
    errors: list[BaseException] = field(default_factory=list)
    all_there: threading.Event = field(default_factory=threading.Event)

    @property
    def box(self) -> Path:
        return self.server.maildir()

    # What is there.

    def places(self) -> dict[int, list[str]]:
        """Where each message is: folders by token, INBOX is ""."""
        found: dict[int, list[str]] = {}
        for path in [*self.box.glob("new/*"), *self.box.glob("cur/*"), *self.box.glob(".*/*/*")]:
            token = _TOKEN.search(path.read_bytes()) if path.parent.name in ("new", "cur") else None
            if token is not None:
                folder = path.parent.parent
                found.setdefault(int(token[1]), []).append("" if folder == self.box else folder.name)
        return found

    def counted(self) -> Usage:
        return maildirsize.count(Filesystem(), str(self.box))

    def told(self) -> Usage | None:
        found = maildirsize.read(Filesystem(), str(self.box))
        return None if found is None else found.usage

    def exact_within(self, seconds: float) -> None:
        wait_until(lambda: self.told() == self.counted(), seconds, f"{self.told()} to be {self.counted()}", 0.2)

    def as_dovecot_has_it(self) -> tuple[int, int]:
        quota = self.dovecot.quota(ALICE)
        assert quota["STORAGE"][1] == "51200"
        assert quota["MESSAGE"][1] == "100000"
        return quota["STORAGE"][0], quota["MESSAGE"][0]

    # Who works in it.

    def together(self, *work: Callable[[], None]) -> None:
        """All at the same time, to the end."""

        def run(one: Callable[[], None]) -> None:
            try:
                one()
            except BaseException as error:
                self.errors.append(error)

        threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in work]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self.errors:
            raise self.errors[0]
        assert not any(thread.is_alive() for thread in threads), "somebody works for too long"

    def again_and_again(self, once: Callable[[], None]) -> Callable[[], None]:
        """Until everything has been delivered, and once after that."""

        def work() -> None:
            last = False
            while not last:
                last = self.all_there.is_set()
                once()

        return work

    def deliver(self, tokens: range) -> None:
        with smtplib.SMTP("127.0.0.1", self.server.port["smtp"], "client.example.net", timeout=60) as client:
            for token in tokens:
                text = f"Subject: token {token} {kind(token)}\r\n\r\n" + "line\r\n" * (token % 50 + 1)
                client.sendmail("sender@example.net", [ALICE], text.encode())

    def deliver_all(self) -> None:
        """Over some connections at once; returns when all of it is in the mailbox, or was."""
        senders = [
            threading.Thread(target=self.deliver, args=(range(n, MESSAGES, SENDERS),), daemon=True)
            for n in range(SENDERS)
        ]
        try:
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join(60)
            wait_until(lambda: self.server.tool("queue", "list", "--json").stdout.strip() == "[]", 30, "the queue")
        finally:
            self.all_there.set()


def kind(token: int) -> str:
    """What becomes of a message: a word in its subject, for those who search by it."""
    return KINDS[token % len(KINDS)]


@pytest.fixture
def shared(template: Template, open_folder: Path) -> Iterator[Shared]:
    why = dovecot_imap.unavailable()
    if why:
        missing(why)
    user = pwd.getpwnam(USER)
    server = Mailsrv(template, open_folder / "mailsrv", twistd=(f"--uid={user.pw_uid}", f"--gid={user.pw_gid}"))
    assert server.tool("account", "quota", ALICE, *QUOTA).returncode == 0
    server.state.mkdir()
    for path in (server.directory, *server.directory.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    dovecot = DovecotImap(open_folder / "dovecot", server.state / "mail", server.directory / "accounts", USER)
    (open_folder / "work").mkdir()
    os.chown(open_folder / "work", user.pw_uid, user.pw_gid)
    try:
        server.start()
        dovecot.start()
        yield Shared(server, dovecot, open_folder / "work")
    finally:
        dovecot.stop()
        server.stop()
        assert "Traceback" not in server.running.output(), server.running.output()


class Pop3:
    """Keeps what every unique-id stands for, and deletes its own messages."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.tokens: dict[bytes, int] = {}

    def once(self) -> None:
        with pop3(self.shared.server) as client:
            for line in client.uidl()[1]:
                number, identifier = line.split()
                if identifier not in self.tokens:
                    self.tokens[identifier] = self._token(client, int(number))
                if kind(self.tokens[identifier]) == "pop3-goes":
                    client.dele(int(number))

    def _token(self, client: poplib.POP3, number: int) -> int:
        try:
            lines = client.top(number, 0)[1]
        except poplib.error_proto:
            return -1  # somebody has removed it meanwhile
        found = _TOKEN.search(b"\n".join(lines))
        assert found
        return int(found[1])

    def check(self) -> None:
        """No message had two unique-ids, and what is there has those that it had."""
        known = {identifier: token for identifier, token in self.tokens.items() if token >= 0}
        assert len(known) == len(set(known.values()))
        with pop3(self.shared.server) as client:
            present = [line.split() for line in client.uidl()[1]]
            assert len({identifier for _, identifier in present}) == len(present)
            for number, identifier in present:
                if identifier in known:
                    assert self._token(client, int(number)) == known[identifier]


class Imap:
    """Keeps what every UID stands for; flags, moves and deletes its own messages, and puts some into Sent."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.tokens: dict[int, int] = {}
        self.validity: set[bytes] = set()
        self.appended = 0

    def once(self) -> None:
        with self.shared.dovecot.session(ALICE, ALICE_PASSWORD) as client:
            self.learn(client)
            for word, command in (
                ("imap-flags", ("STORE", "+FLAGS.SILENT", r"(\Seen \Flagged)")),
                ("imap-moves", ("MOVE", "Archive")),
                ("imap-goes", ("STORE", "+FLAGS.SILENT", r"(\Deleted)")),
            ):
                uids = client.uid("SEARCH", "SUBJECT", word)[1][0]
                if uids:
                    name, *arguments = command
                    assert client.uid(name, uids.decode().replace(" ", ","), *arguments)[0] == "OK"
            client.expunge()
            text = f"Subject: sent {self.appended}\r\n\r\nhello\r\n".encode()
            assert client.append("Sent", "", "", text)[0] == "OK"
            self.appended += 1

    def learn(self, client: imaplib.IMAP4) -> None:
        assert client.select()[0] == "OK"
        self.validity.add(client.response("UIDVALIDITY")[1][0] or b"")
        fetched = client.uid("FETCH", "1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
        for item in fetched:
            if isinstance(item, tuple):
                uid, token = re.search(rb"UID ([0-9]+)", item[0]), _TOKEN.search(item[1])
                if uid and token:
                    assert self.tokens.setdefault(int(uid[1]), int(token[1])) == int(token[1])

    def check(self) -> None:
        """No message had two UIDs, and no UID two messages."""
        with self.shared.dovecot.session(ALICE, ALICE_PASSWORD) as client:
            self.learn(client)
        assert len(self.validity) == 1
        assert len(self.tokens) == len(set(self.tokens.values()))


class Mutt:
    """Deletes by pattern, and moves to ``cur`` whatever it has seen.

    It saves to another folder by copying, and deletes in a second step by the name that it remembers.  When another
    program flags the message in between it stays, and the next time is copied again: so that is for quieter hours.
    """

    def __init__(self, shared: Shared, path: str) -> None:
        self.shared = shared
        self.path = path
        self.settings = shared.folder / "muttrc"
        self.settings.write_text(f"""\
set folder={shared.box} spoolfile={shared.box} mbox_type=Maildir
set confirmappend=no confirmcreate=no delete=yes move=no quit=yes sleep_time=0 mark_old=yes wait_key=no
set header_cache="" record="" postponed="" timeout=1 read_inc=0 write_inc=0 maildir_trash=no
""")

    def once(self) -> None:
        self.press("")

    def move(self) -> None:
        self.press(
            f"<tag-pattern>~s mutt-moves|~s {ALWAYS_THERE}<enter><untag-pattern>~s {ALWAYS_THERE}<enter>"
            "<tag-prefix-cond><save-message>=.Lists<enter><end-cond>"
        )

    def press(self, first: str) -> None:
        # A pattern that nothing matches would end the script: one message always does, and is left out again.
        keys = (
            f"{first}<delete-pattern>~s mutt-goes|~s {ALWAYS_THERE}<enter><undelete-pattern>~s {ALWAYS_THERE}<enter>"
            # New mail in the middle of it makes mutt stay, with what it has marked still to be done.
            + "<quit>" * 200
        )
        command = [self.path, "-n", "-F", str(self.settings), "-e", f'push "{keys}"']
        master, terminal = pty.openpty()
        try:
            with subprocess.Popen(
                command,
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                user=USER,
                env={**os.environ, "HOME": str(self.shared.folder), "TERM": "xterm"},
                cwd=self.shared.folder,
                start_new_session=True,
            ) as process:
                os.close(terminal)
                shown = _shown(master, process)
        finally:
            os.close(master)
        assert process.returncode == 0, shown.decode(errors="replace")[-2000:]


def _shown(master: int, process: subprocess.Popen[bytes]) -> bytes:
    """What a program wrote to its terminal until its end; it is ended after a while."""
    shown = b""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                shown += os.read(master, 65536)
            except OSError:  # EIO: the other side is closed
                return shown
        elif process.poll() is not None:
            return shown
    process.kill()
    return shown


class Mbsync:
    """Keeps a copy of the inbox; in quieter hours it removes its own messages there, and so here.

    What another program renames while mbsync is about to remove it stays, and is forgotten by mbsync for good.
    """

    def __init__(self, shared: Shared, path: str) -> None:
        self.shared = shared
        self.path = path
        self.said = ""
        folder = shared.folder
        self.settings = folder / "mbsyncrc"
        self.settings.write_text(f"""\
MaildirStore far
Inbox {shared.box}
SubFolders Maildir++
AltMap yes

MaildirStore near
Path {folder}/near/
Inbox {folder}/near/INBOX
SubFolders Verbatim

Channel inbox
Far :far:
Near :near:
Patterns INBOX
Create Near
Expunge Both
SyncState {folder}/sync/
""")
        for name in ("near", "sync"):
            (folder / name).mkdir(exist_ok=True)
            shutil.chown(folder / name, USER)

    def once(self) -> None:
        self._sync()

    def remove(self) -> None:
        assert self._sync() == 0, self.said
        for path in self.shared.folder.glob("near/INBOX/*/*"):
            if path.parent.name in ("new", "cur") and b" mbsync-goes\n" in path.read_bytes():
                path.unlink()
        assert self._sync() == 0, self.said

    def _sync(self) -> int:
        done = subprocess.run(
            [self.path, "--config", str(self.settings), "inbox"],
            user=USER,
            env={**os.environ, "HOME": str(self.shared.folder)},
            cwd=self.shared.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        self.said = done.stdout + done.stderr
        return done.returncode


def test_mailsrv_dovecot_mutt_and_mbsync_in_one_maildir(shared: Shared, need: Callable[[str], str]) -> None:
    pop, imap = Pop3(shared), Imap(shared)
    mutt, mbsync = Mutt(shared, need("mutt")), Mbsync(shared, need("mbsync"))
    maildir_of_alice(shared)
    workers: list[Pop3 | Imap | Mutt | Mbsync] = [pop, imap, mutt, mbsync]
    shared.together(shared.deliver_all, *(shared.again_and_again(each.once) for each in workers))
    for each in workers:
        each.once()  # what one of them saw too late in the turmoil
    mutt.move()
    mbsync.remove()
    places = shared.places()
    expected = {"stays": [""], "imap-flags": [""], "imap-moves": [".Archive"], "mutt-moves": [".Lists"]}
    for token in range(MESSAGES):
        assert (token, kind(token), places.get(token, [])) == (token, kind(token), expected.get(kind(token), []))
    pop.check()
    imap.check()
    assert len(list(shared.box.glob(".Sent/*/*"))) == imap.appended
    assert list(shared.box.glob("tmp/*")) == []
    # mutt and mbsync tell nobody what they do; the next life of the server finds out.
    shared.server.stop()
    shared.server.start()
    send_in(shared.server, b"Subject: one more\r\n\r\n")
    shared.exact_within(20)
    counted = shared.counted()
    assert shared.as_dovecot_has_it() == (math.ceil(counted.octets / 1024), counted.messages)
    shared.dovecot.admin("quota", "recalc", "-u", ALICE)
    assert shared.told() == counted


def test_mailsrv_and_dovecot_keep_one_count(shared: Shared) -> None:
    """Both tell what they do: no audit has anything to put right that lasts."""
    pop, imap = Pop3(shared), Imap(shared)
    maildir_of_alice(shared)
    shared.together(shared.deliver_all, *(shared.again_and_again(each.once) for each in (pop, imap)))
    shared.exact_within(10)
    counted = shared.counted()
    assert shared.as_dovecot_has_it() == (math.ceil(counted.octets / 1024), counted.messages)
    listed = json.loads(shared.server.tool("account", "list", ALICE, "--json").stdout)
    assert (listed[0]["quota"]["octets"], listed[0]["quota"]["messages"]) == counted
    for path in [*shared.box.glob("new/*"), *shared.box.glob("cur/*")]:
        name = maildir.parse(path.name)
        octets = path.read_bytes()
        assert name.size == len(octets)
        assert name.virtual_size == len(octets) + octets.count(b"\n")
    pop.check()
    imap.check()


def test_a_server_that_was_killed_finds_out_what_it_could_not_tell(shared: Shared) -> None:
    maildir_of_alice(shared)
    sender = threading.Thread(target=_until_cut_off, args=(shared,), daemon=True)
    sender.start()
    wait_until(lambda: len(list(shared.box.glob("new/*"))) > 20, 20, "some messages")
    wait_until(lambda: shared.told() is not None, 20, "maildirsize")
    shared.server.kill()
    sender.join(30)
    told = maildirsize.read(Filesystem(), str(shared.box))
    assert told is not None
    # As if the lines of the last moments had been lost with the power.
    maildirsize.write(Filesystem(), str(shared.box), Quota(50 << 20, 100000), Usage(told.usage.octets - 500, 1), "test")
    shutil.chown(shared.box / maildirsize.FILE, USER)
    shared.server.start()
    send_in(shared.server, b"Subject: one more\r\n\r\n")
    shared.exact_within(20)


def _until_cut_off(shared: Shared) -> None:
    try:
        shared.deliver(range(10_000))
    except (OSError, smtplib.SMTPException):
        pass


def test_dovecot_and_mailsrv_refuse_by_the_same_rule(shared: Shared) -> None:
    assert shared.server.tool("account", "quota", ALICE, "--storage", "20k", "--messages", "0").returncode == 0
    text = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n"
    large = text + b"y" * 900 * 10 + b"\r\n"
    wait_until(lambda: _taken(shared.server, b"Subject: first\r\n\r\n"), 10, "mail to be taken")
    with shared.dovecot.session(ALICE, ALICE_PASSWORD) as client:
        assert client.append("INBOX", "", "", large)[0] == "OK"
        assert client.append("INBOX", "", "", large)[0] == "OK"
        assert client.append("INBOX", "", "", large)[0] == "NO"
    wait_until(lambda: not _has_room(shared.server, len(large)), 5, "mailsrv to see what Dovecot has put there")
    assert not _taken(shared.server, large)
    assert _taken(shared.server, text)
    with pop3(shared.server) as client:
        for number in range(client.stat()[0]):
            client.dele(number + 1)
    wait_until(lambda: _has_room(shared.server, len(large)), 5, "room")
    assert _taken(shared.server, large)


def _has_room(server: Mailsrv, octets: int) -> bool:
    with smtplib.SMTP("127.0.0.1", server.port["smtp"], "client.example.net", timeout=60) as client:
        client.ehlo()
        assert client.mail("sender@example.net", (f"SIZE={octets}",))[0] == 250
        code = client.rcpt(ALICE)[0]
        assert code in (250, 452)
        return code == 250


def _taken(server: Mailsrv, content: bytes) -> bool:
    try:
        send_in(server, content)
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError) as error:
        code = error.smtp_code if isinstance(error, smtplib.SMTPDataError) else error.recipients[ALICE][0]
        assert code == 452
        return False
    return True


def maildir_of_alice(shared: Shared) -> None:
    """It is there before the others open it."""
    send_in(shared.server, f"Subject: token {ALWAYS_THERE} stays\r\n\r\n".encode())
    wait_until(lambda: bool(list(shared.box.glob("new/*"))), 10, "the first message")
    with shared.dovecot.session(ALICE, ALICE_PASSWORD) as client:
        for name in ("Archive", "Sent", "Lists"):
            client.create(name)
