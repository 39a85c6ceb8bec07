"""Servers and programs for the tests of this folder.

A test that needs a program calls for it by ``need``: without the program it is skipped, or fails when
MAILSRV_REQUIRE_PEERS=1 says that all of them must be there (as ``.ci/run`` does).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers import postfix
from tests.peers.internet import Internet, unavailable
from tests.peers.mailbox import empty
from tests.peers.postfix import Postfix
from tests.peers.programs import find
from tests.peers.server import ALICE, ALICE_PASSWORD, BOB, BOB_PASSWORD, Mailsrv, Template
from tools.catcher import Catcher, Caught

StartMailsrv = Callable[..., Mailsrv]
StartPostfix = Callable[..., Postfix]


def missing(why: str) -> None:
    """Skip the running test, or fail it where nothing may be missing."""
    if os.environ.get("MAILSRV_REQUIRE_PEERS") == "1":
        pytest.fail(f"{why}, and MAILSRV_REQUIRE_PEERS is set", pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def need() -> Callable[[str], str]:
    """``need("swaks")`` is its path."""

    def path(program: str) -> str:
        found = find(program)
        if found is None:
            missing(f"{program} is not installed")
        assert found is not None
        return found

    return path


@pytest.fixture(scope="session")
def need_root() -> Callable[[str], None]:
    """``need_root("mount a small disk")`` skips when the tests do not run as root."""

    def check(what_for: str) -> None:
        if os.geteuid() != 0:
            missing(f"only root can {what_for}")

    return check


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template.make(tmp_path_factory.mktemp("template"))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="mailsrv-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _stop(server: Mailsrv) -> None:
    if server.program is None:
        return
    killed = server.program.process.poll() is not None
    server.stop()
    assert "Traceback" not in server.program.output(), server.program.output()
    assert killed or server.ended_in_order(), server.program.output()


@pytest.fixture
def start_mailsrv(template: Template, tmp_path: Path, open_folder: Path) -> Iterator[StartMailsrv]:
    """``start_mailsrv({"limits.message_size": 1000}, directory=...)``: a server for this test alone.

    ``directory`` may be in ``open_folder``, which is removed later.  Afterwards each must end in order and
    must not have written a traceback.
    """
    with contextlib.ExitStack() as stack:
        made = 0

        def start(settings: dict[str, Any] | None = None, directory: Path | None = None) -> Mailsrv:
            nonlocal made
            made += 1
            server = Mailsrv(template, directory or tmp_path / f"mailsrv{made}", settings or {})
            stack.callback(_stop, server)
            server.start()
            return server

        yield start


@pytest.fixture(scope="session")
def _shared_server(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailsrv]:
    server = Mailsrv(template, tmp_path_factory.mktemp("shared") / "mailsrv")
    server.start()
    yield server
    _stop(server)


@pytest.fixture
def server(_shared_server: Mailsrv) -> Mailsrv:
    """A running server with its default settings and empty mailboxes, shared by the tests that change none."""
    empty(_shared_server, ALICE, ALICE_PASSWORD)
    empty(_shared_server, BOB, BOB_PASSWORD)
    return _shared_server


@pytest.fixture
def start_postfix(open_folder: Path) -> Iterator[StartPostfix]:
    """``start_postfix(domain="example.net", routes={...}, settings={...})``: a private Postfix."""
    why = postfix.unavailable()
    if why:
        missing(why)
    with contextlib.ExitStack() as stack:
        made = 0

        def start(**settings: Any) -> Postfix:
            nonlocal made
            made += 1
            peer = Postfix(open_folder / f"postfix{made}", **settings)
            stack.callback(peer.stop)
            peer.start()
            return peer

        yield start


@pytest.fixture(scope="session")
def internet(template: Template) -> Iterator[Internet]:
    """mailsrv, a name server and receivers, each on a host of its own; shared by all tests."""
    why = unavailable()
    if why:
        missing(why)
    with tempfile.TemporaryDirectory(prefix="mailsrv-test-") as folder:
        Path(folder).chmod(0o755)
        made = Internet(Path(folder), template)
        try:
            made.start()
            yield made
            output = made.mailsrv.running.output()
        finally:
            made.end()
        assert "Traceback" not in output, output


class Outside(list[Caught]):
    """What the world outside was given, and where it listens."""

    port: int


@pytest.fixture
def outside() -> Iterator[Outside]:
    """A next hop that takes everything."""
    caught = Outside()
    catcher = Catcher(caught.append)
    catcher.start()
    caught.port = catcher.port
    yield caught
    catcher.stop()
