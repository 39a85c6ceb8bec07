"""``make run``: mailsrv for example.org on loopback, with two users and a world outside that keeps what it is sent.

Everything is in ``demo/``: the configuration (made by ``mailsrv init`` and yours to edit while it runs), the passwords,
the mail, the server's log, and in ``caught/`` the mail to other domains.  Ports are free ones above 1024, the same ones
again next time unless somebody took them.  Ctrl-C ends it in order, with exit status 0; a server that does not start or
ends by itself is reported with what it said last, and exit status 1.
"""

from __future__ import annotations

import email
import email.policy
import itertools
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mailsrv.store import state_lock  # noqa: E402
from tools.catcher import Catcher, Caught  # noqa: E402

DEMO = ROOT / "demo"
CONFIG = DEMO / "mailsrv.toml"
PASSWORDS = DEMO / "passwords"
CAUGHT = DEMO / "caught"
LOG = DEMO / "server.log"
BIN = Path(sys.executable).parent

ALICE, BOB, CAROL = "alice@example.org", "bob@example.org", "carol@example.net"
OUTSIDE = "outside"  # where mail to other domains goes
PREFERRED = {"smtp": 2525, "submission": 2587, "submissions": 2465, "pop3": 2110, "pop3s": 2995, OUTSIDE: 2526}
_START_S = 30.0
_STOP_S = 25.0


class DemoError(Exception):
    """The demonstration cannot go on; the message is for the person who started it."""


class _Stopping:
    """Set by signals.  Not an Event: its lock could be held by what the signal has interrupted."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, seconds: float) -> bool:
        if not self._set:
            time.sleep(seconds)
        return self._set


def main() -> int:
    stopping = _Stopping()
    # Ctrl-Z would stop this program but not make: the terminal would be nobody's.
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    try:
        with _foreground():
            _demonstrate(stopping)
    except DemoError as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    return 0


def _demonstrate(stopping: _Stopping) -> None:
    _be_the_only_one()
    ports = _set_up()
    passwords = _accounts()
    if stopping.is_set():
        return
    catcher = Catcher(_Keeper(CAUGHT), ports[OUTSIDE])
    catcher.start()
    with _server() as server:
        try:
            _wait_for_start(server, ports, stopping)
            if not stopping.is_set():
                print(_instructions(ports, passwords), flush=True)
            while not stopping.wait(0.2):
                if server.poll() is not None:
                    raise DemoError(f"the server ended by itself: {_last_words()}")
            print("\nStopping ...", flush=True)
        finally:
            catcher.stop()
    print("Stopped. The mail stays in ./demo for the next make run; rm -r demo forgets it.")


@contextmanager
def _foreground() -> Iterator[None]:
    """Have Ctrl-C come to this program alone.

    Otherwise make gets it too, complains of an interrupt and exits with an error, however well everything ended.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        yield  # no terminal: whoever sends signals knows to whom
        return
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # to give the terminal back from the background
    before = os.tcgetpgrp(terminal)
    try:
        if before == os.getpgrp():
            os.setpgid(0, 0)
            os.tcsetpgrp(terminal, os.getpgrp())
        yield
    finally:
        if os.tcgetpgrp(terminal) == os.getpgrp():
            os.tcsetpgrp(terminal, before)
        os.close(terminal)


def _tool(*arguments: str, stdin: str = "") -> None:
    """Run the operator's tool; DemoError with what it said when it fails."""
    command = [sys.executable, "-m", "mailsrv.cli.main", *arguments, "--config", str(CONFIG)]
    # In a process group of its own: Ctrl-C lets it finish, and is heeded afterwards.
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, cwd=ROOT, process_group=0)
    if done.returncode:
        raise DemoError(f"mailsrv {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")


def _be_the_only_one() -> None:
    """DemoError when one is running here, before anything of it is changed; held until this program ends."""
    CAUGHT.mkdir(parents=True, exist_ok=True)  # not DEMO itself: who changes accounts locks their folder
    state = DEMO / "state"
    if state_lock.take(str(CAUGHT)) is None or (state.exists() and state_lock.is_taken(str(state))):
        raise DemoError(f"a server is running in {DEMO.name} already; {DEMO.name}/{CONFIG.name} has its ports")


def _set_up() -> dict[str, int]:
    """Make the configuration when there is none, and see to it that its ports are free; the ports by service."""
    DEMO.mkdir(exist_ok=True)
    CAUGHT.mkdir(exist_ok=True)
    if not CONFIG.exists():
        _tool("init", "example.org", "--hostname", "mx.example.org", "--state", str(DEMO / "state"))
        text = CONFIG.read_text()
        text = _set(text, "state", '"state"')
        text = _set(text, "dns", "false")  # nothing leaves this machine
        for service, port in PREFERRED.items():
            text = _with_port(text, service, port)
        CONFIG.write_text(text)
    text = CONFIG.read_text()
    ports = _ports_of(text)
    for service, port in ports.items():
        if not _is_free(port):
            ports[service] = _free_port()
            text = _with_port(text, service, ports[service])
    if text != CONFIG.read_text():
        CONFIG.write_text(text)
    return ports


def _set(text: str, key: str, value: str) -> str:
    """The configuration with the line of ``key`` changed, its comment kept."""
    changed, count = re.subn(rf"(?m)^(#?)({key}\s*=\s*)[^#\n]*?(\s*#.*)?$", rf"\g<2>{value}\g<3>", text)
    if count != 1:
        raise DemoError(f"{CONFIG}: the key {key} stands {count} times; rm -r demo begins anew")
    return changed


def _with_port(text: str, service: str, port: int) -> str:
    if service == OUTSIDE:
        return _set(text, "routes", f'{{ "*" = "smtp://127.0.0.1:{port}" }}')
    return _set(text, service, f'["tcp:{port}:interface=127.0.0.1"]')


def _ports_of(text: str) -> dict[str, int]:
    """The ports that a configuration written here names."""
    try:
        config = tomllib.loads(text)
        found = {service: config["listen"][service][0] for service in PREFERRED if service != OUTSIDE}
        found[OUTSIDE] = config["outbound"]["routes"]["*"]
        return {service: int(re.findall(r":(\d+)", place)[0]) for service, place in found.items()}
    except (tomllib.TOMLDecodeError, LookupError, TypeError) as error:
        raise DemoError(
            f"{CONFIG} no longer names the demonstration's ports ({error}); rm -r demo begins anew"
        ) from error


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _accounts() -> dict[str, str]:
    """The two users' passwords by address, made when there are none."""
    if PASSWORDS.exists():
        lines = [line.split() for line in PASSWORDS.read_text().splitlines()]
        return {line[0]: line[1] for line in lines if len(line) == 2}
    made = {}
    for address in (ALICE, BOB):
        password = "".join(secrets.choice("abcdefghjkmnpqrstuvwxyz23456789") for _ in range(12))
        verb = "passwd" if _has_account(address) else "add"
        _tool("account", verb, address, "--password-stdin", stdin=password + "\n")
        made[address] = password
    PASSWORDS.touch(mode=0o600)
    PASSWORDS.write_text("".join(f"{address} {password}\n" for address, password in made.items()))
    return made


def _has_account(address: str) -> bool:
    accounts = DEMO / "accounts"
    return accounts.exists() and f"\n{address}:" in "\n" + accounts.read_text()


@contextmanager
def _server() -> Iterator[subprocess.Popen[bytes]]:
    """The server as a child in a process group of its own, so that only we end it; ended at the end."""
    command = [str(BIN / "twistd"), "--nodaemon", "--pidfile=", "mailsrv", "--config", str(CONFIG)]
    with LOG.open("wb") as log:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=DEMO,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            process_group=0,
        )
    try:
        yield server
    finally:
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for_start(server: subprocess.Popen[bytes], ports: dict[str, int], stopping: _Stopping) -> None:
    """Return when all ports take connections, or somebody wants to stop."""
    deadline = time.monotonic() + _START_S
    waiting = {service for service in ports if service != OUTSIDE}
    while waiting and not stopping.wait(0.05):
        if server.poll() is not None:
            raise DemoError(f"the server did not start: {_last_words()}")
        if time.monotonic() > deadline:
            raise DemoError(f"the server does not listen after {_START_S:g} s: {_last_words()}")
        for service in list(waiting):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", ports[service])) == 0:
                    waiting.discard(service)


def _last_words() -> str:
    lines = [line for line in LOG.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"it said nothing (see {LOG})"


class _Keeper:
    """Writes what the world outside was sent to a file each, and says so."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        last = max((int(path.stem) for path in folder.glob("*.eml") if path.stem.isdigit()), default=0)
        self._numbers = itertools.count(last + 1)

    def __call__(self, caught: Caught) -> None:
        path = self._folder / f"{next(self._numbers):04}.eml"
        path.write_bytes(caught.content)
        subject = email.message_from_bytes(caught.content, policy=email.policy.default).get("Subject", "")
        shown = "".join(character for character in f"{subject}" if character.isprintable())[:80]
        recipients = ", ".join(caught.recipients)
        print(
            f"caught: from {caught.sender or '<>'} to {recipients}: {shown!r}, in {path.relative_to(ROOT)}", flush=True
        )


def _instructions(ports: dict[str, int], passwords: dict[str, str]) -> str:
    users = "\n".join(f"  {address}  password {password}" for address, password in passwords.items())
    one, two, three = (_curl_commands if _has_curl() else _python_commands)(ports, passwords[ALICE])
    return f"""\
mailsrv is running for example.org, for this machine only. Everything is kept in ./demo.

{users}

  SMTP         127.0.0.1:{ports["smtp"]}  mail from other servers
  submission   127.0.0.1:{ports["submission"]}  with STARTTLS; {ports["submissions"]} with TLS from the start
  POP3         127.0.0.1:{ports["pop3"]}  with STLS; {ports["pop3s"]} with TLS from the start
  the outside  127.0.0.1:{ports[OUTSIDE]}  catches all mail to other domains, in demo/caught

To try in another terminal, in {ROOT}:

1. Somebody outside writes to alice:

{one}

2. Alice fetches her first message (with a certificate that only we vouch for):

{two}

3. Alice writes to bob, and to carol who is outside; watch this terminal:

{three}

What became of it all:

.venv/bin/mailsrv why {ALICE} --config demo/mailsrv.toml

Ctrl-C stops it.
"""


def _has_curl() -> bool:
    """Whether there is a curl that speaks what we need."""
    curl = shutil.which("curl")
    if curl is None:
        return False
    done = subprocess.run([curl, "--version"], capture_output=True, text=True, check=False)
    return {"smtp", "smtps", "pop3s"} <= set(done.stdout.split())


def _curl_commands(ports: dict[str, int], password: str) -> tuple[str, str, str]:
    def letter(sender: str, recipients: str, subject: str) -> str:
        text = f"From: {sender}\\r\\nTo: {recipients}\\r\\nSubject: {subject}\\r\\n\\r\\nHow are you?\\r\\n"
        return f"printf '{text}' | curl --silent --show-error --upload-file -"

    return (
        f"{letter(CAROL, ALICE, 'Hello from outside')} "
        f"--mail-from {CAROL} --mail-rcpt {ALICE} smtp://127.0.0.1:{ports['smtp']}",
        # Pasted right behind the first command, it may come before the message is in the mailbox.
        "curl --silent --show-error --retry 3 --retry-all-errors --insecure "
        f"--user {ALICE}:{password} pop3s://127.0.0.1:{ports['pop3s']}/1",
        f"{letter(ALICE, f'{BOB}, {CAROL}', 'Hello from Alice')} --insecure "
        f"--user {ALICE}:{password} --mail-from {ALICE} --mail-rcpt {BOB} --mail-rcpt {CAROL} "
        f"smtps://127.0.0.1:{ports['submissions']}",
    )


def _python_commands(ports: dict[str, int], password: str) -> tuple[str, str, str]:
    program = ".venv/bin/python tools/letter.py"
    login = f"--user {ALICE} --password {password}"
    return (
        f"{program} send --port {ports['smtp']} --from {CAROL} --to {ALICE} --subject 'Hello from outside'",
        f"{program} fetch --port {ports['pop3s']} {login} --number 1",
        f"{program} send --port {ports['submissions']} {login} --from {ALICE} --to {BOB} --to {CAROL} "
        "--subject 'Hello from Alice'",
    )


if __name__ == "__main__":
    sys.exit(main())
