"""``make run``: its commands work as printed, Ctrl-C ends it, and the next time everything is still there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.programs import ROOT, Program, find, wait_until

_NEEDED = ("mailsrv", "twisted", "tools")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a clone has, with an environment that leads to ours."""
    folder = tmp_path / "clone"
    for name in _NEEDED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    for name, arguments in (("python", ""), ("mailsrv", "-m mailsrv.cli.main")):
        (programs / name).write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    return folder


def start(checkout: Path, number: int, path: str | None = None) -> Program:
    env = {"PATH": path} if path is not None else {}
    demo = Program([sys.executable, "tools/demo.py"], checkout.parent / f"output{number}", env=env, cwd=checkout)
    wait_until(lambda: "Ctrl-C stops it." in demo.output() or demo.process.poll() is not None, 60, "the demonstration")
    assert demo.process.poll() is None, demo.output()
    return demo


def stop(demo: Program, number: int = signal.SIGINT) -> None:
    demo.signal(number)
    assert demo.wait(30) == 0, demo.output()
    assert "Traceback" not in demo.output()


def commands(demo: Program) -> list[str]:
    found = [line for line in demo.output().splitlines() if line.startswith(("printf ", "curl ", ".venv/bin/"))]
    assert len(found) == 4, demo.output()
    return found


def run(checkout: Path, command: str) -> str:
    done = subprocess.run(["sh", "-c", command], cwd=checkout, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def passwords(demo: Program) -> list[str]:
    return re.findall(r"password (\S+)", demo.output())


@pytest.mark.parametrize("with_curl", [True, False], ids=["curl", "python"])
def test_the_commands_work_as_printed(checkout: Path, with_curl: bool) -> None:
    if with_curl and find("curl") is None:
        pytest.skip("curl is not installed; the commands for Python are tried")
    first = start(checkout, 1, None if with_curl else "/nowhere")
    try:
        send_in, fetch, send_out, why = commands(first)
        assert ("curl" in send_in) is with_curl
        run(checkout, send_in)
        assert "Hello from outside" in run(checkout, fetch)
        run(checkout, send_out)
        wait_until(lambda: "caught: from alice@example.org to carol@example.net" in first.output(), 10, "the catcher")
        assert b"Hello from Alice" in (checkout / "demo/caught/0001.eml").read_bytes()
        assert "delivered" in run(checkout, why)
        tool = ".venv/bin/mailsrv queue list --json --config demo/mailsrv.toml"
        wait_until(lambda: run(checkout, tool).strip() == "[]", 10, "an empty queue")
        assert [path.name for path in (checkout / "demo").rglob("*.toml")] == ["mailsrv.toml"]
        assert os.stat(checkout / "demo/passwords").st_mode & 0o777 == 0o600
    finally:
        stop(first)

    second = start(checkout, 2, None if with_curl else "/nowhere")
    try:
        assert passwords(second) == passwords(first)
        assert commands(second) == commands(first)
        assert "Hello from outside" in run(checkout, commands(second)[1])
    finally:
        stop(second, signal.SIGTERM)


def test_a_port_that_somebody_took_is_replaced(checkout: Path) -> None:
    first = start(checkout, 1)
    port = re.findall(r"SMTP +127\.0\.0\.1:(\d+)", first.output())[0]
    stop(first)
    with socket.create_server(("127.0.0.1", int(port))):
        second = start(checkout, 2)
        try:
            assert re.findall(r"SMTP +127\.0\.0\.1:(\d+)", second.output())[0] != port
            run(checkout, commands(second)[0])
        finally:
            stop(second)


def test_a_second_one_leaves_the_first_alone(checkout: Path) -> None:
    first = start(checkout, 1)
    try:
        config = (checkout / "demo/mailsrv.toml").read_bytes()
        second = Program([sys.executable, "tools/demo.py"], checkout.parent / "output2", cwd=checkout)
        assert second.wait(30) == 1
        assert "a server is running in demo already; demo/mailsrv.toml has its ports" in second.output()
        assert (checkout / "demo/mailsrv.toml").read_bytes() == config
        run(checkout, commands(first)[0])
    finally:
        stop(first)


def test_a_server_that_does_not_start_is_reported(checkout: Path) -> None:
    stop(start(checkout, 1))
    config = checkout / "demo/mailsrv.toml"
    config.write_text(config.read_text().replace("[limits]", "[limits]\nmesage_size = 1"))
    demo = Program([sys.executable, "tools/demo.py"], checkout.parent / "output2", cwd=checkout)
    assert demo.wait(30) == 1
    assert "limits.mesage_size" in demo.output()
    assert "Traceback" not in demo.output()
