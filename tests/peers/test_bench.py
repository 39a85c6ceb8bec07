"""The benchmark runs: small numbers, mailsrv alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import latency
from tests.peers.programs import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("what", ["receive", "relay"])
def test_throughput(need: Callable[[str], str], tmp_path: Path, what: str) -> None:
    need("smtp-source")
    need("smtp-sink")
    command = [sys.executable, "-m", "bench", what, "--json", "--only", "mailsrv", "--messages", "100", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--no-loop", "--dir", str(tmp_path)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)[what]
    for mode in ("one", "many"):
        assert figures[mode]["mailsrv"]["finished"]["median"] > 0


@pytest.mark.slow
def test_latency(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "latency", "--json", "--only", "mailsrv", "--messages", "10"]
    done = subprocess.run(
        [*command, "--rounds", "1", "--no-loop", "--dir", str(tmp_path)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["latency"]
    hops = ("relay", "anew", "anew, BDAT")
    assert set(figures) == {*hops, *(f"{hop}, answered" for hop in hops), "local"}
    for by_name in figures.values():
        assert by_name["mailsrv"]["median"] <= by_name["mailsrv"]["p90"] <= by_name["mailsrv"]["worst"]
    # The same messages, and the next hop answers after it has read.
    for case in hops:
        assert figures[f"{case}, answered"]["mailsrv"]["median"] > figures[case]["mailsrv"]["median"]


def test_latency_of_many_rounds() -> None:
    figures = latency.summary([[float(n) for n in range(1, 51)], [float(n) for n in range(51, 101)]])
    assert (figures["median"], figures["p90"], figures["worst"]) == (50.5, 90.0, 100.0)
    assert figures["rounds"] == {"median": 50.5, "least": 25.5, "most": 75.5}


@pytest.mark.slow
def test_idle(need: Callable[[str], str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "idle", "--json", "--only", "mailsrv", "--connections", "50", "--no-loop"]
    done = subprocess.run(
        [*command, "--dir", str(tmp_path)], cwd=ROOT, check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["idle"]["mailsrv"]["connections"] == 50


@pytest.mark.slow
def test_queue(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "queue", "--json", "--queued", "200", "--no-loop", "--dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["queue"]
    assert set(figures) == {"one", "many", "later"}
    assert all(result["new_ms"] > 0 for result in figures.values())
