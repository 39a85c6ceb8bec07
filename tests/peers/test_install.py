"""twistd finds mailsrv from any folder after both ways of installing it, and root can start it as another user."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers.conftest import missing
from tests.peers.mailbox import messages, send_in, submission
from tests.peers.programs import ROOT
from tests.peers.samples import small, written_by
from tests.peers.server import ALICE, BOB, BOB_PASSWORD, Mailsrv, Template

_NOT_OF_THE_SOURCE = (
    ".git",
    ".venv",
    ".peers",
    ".*_cache",
    "__pycache__",
    "demo",
    "work",
    "build",
    "dist",
    "*.egg-info",
)


def _install(source: Path, folder: Path, *how: str) -> Path:
    """A new environment with mailsrv in it; its ``bin``."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
    done = subprocess.run(
        [str(folder / "bin/pip"), "install", "--quiet", *how, str(source)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        if "No matching distribution" in done.stderr or "Could not find a version" in done.stderr:
            missing(f"no package index within reach: {done.stderr.strip()[-200:]}")
        pytest.fail(done.stderr)
    return folder / "bin"


def _run(command: list[str], folder: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=clean, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--editable",)], ids=["install", "install -e"])
def test_twistd_lists_the_plugin_from_any_folder(tmp_path: Path, how: tuple[str, ...]) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*_NOT_OF_THE_SOURCE))
    bin_folder = _install(source, tmp_path / "environment", *how)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    listed = _run([str(bin_folder / "twistd"), "--help"], elsewhere)
    assert "mailsrv" in listed
    assert "--config" in _run([str(bin_folder / "twistd"), "mailsrv", "--help"], elsewhere)
    assert "account" in _run([str(bin_folder / "mailsrv"), "--help"], elsewhere)


def test_standard_ports_as_root_then_another_user(
    need_root: Callable[[str], None], template: Template, open_folder: Path
) -> None:
    need_root("listen on port 25")
    ports = {"smtp": 25, "submission": 587, "submissions": 465, "pop3": 110, "pop3s": 995}
    for port in ports.values():
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            missing(f"port {port} is taken on this machine: {error}")
    user = pwd.getpwnam("nobody")
    server = Mailsrv(
        template, open_folder / "mailsrv", twistd=(f"--uid={user.pw_uid}", f"--gid={user.pw_gid}"), port=ports
    )
    for path in [server.directory, *server.directory.iterdir()]:
        os.chown(path, user.pw_uid, user.pw_gid)
    try:
        server.start()
        status = Path(f"/proc/{server.running.pid}/status").read_text()
        (uids,) = [line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")]
        assert set(uids) == {str(user.pw_uid)}
        send_in(server, small("in"))
        messages(server, 1)
        with submission(server) as client:
            client.sendmail(ALICE, [BOB], written_by(ALICE, small("across")))
        messages(server, 1, BOB, BOB_PASSWORD)
        for folder, _, files in os.walk(server.state):
            for name in files:
                assert os.stat(os.path.join(folder, name)).st_uid == user.pw_uid
        # The tool, run by root, leaves nothing behind that the server cannot use.
        done = server.tool("account", "add", "dave@example.org", "--password-stdin", stdin="secret\n")
        assert done.returncode == 0, done.stderr
        assert (server.directory / "accounts").stat().st_uid == user.pw_uid
    finally:
        server.stop()
    assert server.ended_in_order(), server.running.output()
