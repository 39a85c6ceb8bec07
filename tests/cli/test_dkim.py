"""``mailsrv dkim``: a change of keys as an operator sees it, and what dns and check say on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mailsrv.cli import check, check_dns, dkim
from mailsrv.cli import dns as published
from mailsrv.cli.check_dns import LookupFailed
from mailsrv.config import Config, load
from mailsrv.store import key_states, keys

NOW = 1_795_975_200.0  # 2026-11-29T18:00:00Z
DAY_S = 86400.0
FIRST = ["ed25519-20261129", "rsa-20261129"]
SECOND = ["ed25519-20261209", "rsa-20261209"]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (dkim, published, check):
        monkeypatch.setattr(module, "now", clock)
    return clock


@pytest.fixture
def config(folder: Path) -> Config:
    (folder / "state").mkdir()
    return load(str(folder / "mailsrv.toml"))


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """The TXT records that DNS has."""
    records: dict[str, list[str]] = {}

    def ask(name: str, kind: str) -> list[str]:
        if "down" in records:
            raise LookupFailed("no answer")
        return records.get(name, []) if kind == "TXT" else []

    monkeypatch.setattr(dkim, "lookup", lambda servers: ask)
    yield records


def listed(tool: Any, *domains: str) -> dict[str, Mapping[str, Any]]:
    ran = tool("dkim", "list", *domains, "--json")
    assert ran.status == 0
    return {f"{key['selector']}@{key['domain']}": key for key in json.loads(ran.out)}


def states(tool: Any) -> dict[str, str]:
    """Of the keys of example.org."""
    return {key["selector"]: key["state"] for key in listed(tool, "example.org").values()}


def in_dns(tool: Any) -> list[str]:
    """The selectors that ``mailsrv dns`` would have published for example.org."""
    records = json.loads(tool("dns", "--json").out)
    end = "._domainkey.example.org"
    return [record["name"].removesuffix(end) for record in records if record["name"].endswith(end)]


def publish(config: Config, zone: dict[str, list[str]], *selectors: str) -> None:
    for selector in selectors:
        public = keys.public(config.state, "example.org", selector)
        zone[public.name] = ["something else", public.record.replace("; ", ";")]


def keys_in_check(config: Config) -> list[str]:
    return [f"{one.verdict}: {one.text}" for one in check.signing_keys(config)]


def test_a_change_of_keys_from_beginning_to_end(
    tool: Any, config: Config, clock: Clock, zone: dict[str, list[str]]
) -> None:
    assert "There are no keys" in tool("dkim", "list").out
    assert keys_in_check(config)[0] == "warning: example.org has none, so its mail is not signed"

    # The first keys.
    ran = tool("dkim", "rotate", "example.org")
    assert ran.status == 0
    assert "Made ed25519-20261129 and rsa-20261129 for example.org, its first keys; they sign from now on." in ran.out
    assert '"v=DKIM1; k=ed25519; p=' in ran.out
    assert states(tool) == dict.fromkeys(FIRST, "signing")
    assert keys_in_check(config)[0] == "ok: example.org signs with rsa-20261129 and ed25519-20261129"

    # The next keys: published, not used.
    clock.now += 10 * DAY_S
    ran = tool("dkim", "rotate", "example.org")
    assert "Made ed25519-20261209 and rsa-20261209 for example.org; a running server lets them sign when" in ran.out
    assert "rsa-20261129" not in ran.out
    assert states(tool) == {**dict.fromkeys(FIRST, "signing"), **dict.fromkeys(SECOND, "next")}
    assert in_dns(tool) == [FIRST[0], SECOND[0], FIRST[1], SECOND[1]]
    assert "  ; signs when it has been seen here for a while" in tool("dns").out
    assert "signs when DNS has shown it for a while" in tool("dkim", "list").out
    assert any("rsa-20261209._domainkey.example.org signs when" in line for line in keys_in_check(config))
    ran = tool("dkim", "rotate", "example.org")
    assert "ed25519-20261209 and rsa-20261209 of example.org wait already; a running server" in ran.out
    assert len(states(tool)) == 4

    # Not before DNS has them.
    publish(config, zone, SECOND[1])
    ran = tool("dkim", "activate")
    assert ran.status == 1
    assert ran.err.startswith("mailsrv: DNS does not show ed25519-20261209._domainkey.example.org; publish it first")
    assert states(tool)["rsa-20261209"] == "next"
    publish(config, zone, *SECOND)
    ran = tool("dkim", "activate")
    assert (ran.status, ran.out) == (0, "example.org signs with ed25519-20261209 and rsa-20261209.\n")
    assert states(tool) == {**dict.fromkeys(FIRST, "retired"), **dict.fromkeys(SECOND, "signing")}

    # The old ones stay published for 42 days.
    key = listed(tool)["rsa-20261129@example.org"]
    assert (key["since"], key["until"]) == (clock.now, clock.now + 42 * DAY_S)
    assert "stays published until 2027-01-" in tool("dkim", "list").out
    assert "  ; signs no more; may go after 2027-01-" in tool("dns").out
    clock.now += 42 * DAY_S
    assert in_dns(tool) == [FIRST[0], SECOND[0], FIRST[1], SECOND[1]]
    assert "No key is over" in tool("dkim", "remove").out
    clock.now += 1
    assert in_dns(tool) == SECOND
    assert "may go: mailsrv dkim remove" in tool("dkim", "list").out
    assert "warning: rsa-20261129._domainkey.example.org signs no more and may go" in keys_in_check(config)
    ran = tool("dkim", "remove")
    assert ran.out.splitlines()[1] == (
        "Removed rsa-20261129 of example.org; take rsa-20261129._domainkey.example.org out of DNS."
    )
    assert states(tool) == dict.fromkeys(SECOND, "signing")


def test_all_domains_at_once(tool: Any, config: Config, clock: Clock) -> None:
    assert tool("dkim", "rotate").status == 0
    assert set(listed(tool)) == {f"{selector}@{domain}" for selector in FIRST for domain in config.domains}


def test_the_next_rotation_removes_what_is_over(tool: Any, config: Config, clock: Clock) -> None:
    tool("dkim", "rotate")
    tool("dkim", "rotate")
    assert tool("dkim", "activate", "--unseen").status == 0
    clock.now += 365 * DAY_S
    ran = tool("dkim", "rotate", "--json", "example.org")
    told = [(key["selector"], key["state"]) for key in json.loads(ran.out)]
    assert told == [
        ("ed25519-20261129-2", "signing"),
        ("ed25519-20271129", "next"),
        ("rsa-20261129-2", "signing"),
        ("rsa-20271129", "next"),
    ]


def test_who_publishes_elsewhere_may_insist(
    tool: Any, config: Config, clock: Clock, zone: dict[str, list[str]]
) -> None:
    tool("dkim", "rotate", "example.org")
    tool("dkim", "rotate", "example.org")
    zone["down"] = []
    ran = tool("dkim", "activate")
    assert ran.status == 1
    assert "DNS cannot be asked for ed25519-20261129-2._domainkey.example.org (no answer);" in ran.err
    assert tool("dkim", "activate", "--unseen").status == 0
    assert states(tool)["rsa-20261129"] == "retired"
    ran = tool("dkim", "activate")
    assert (ran.status, ran.err) == (1, "mailsrv: no next keys wait; 'mailsrv dkim rotate' makes some.\n")


@pytest.mark.parametrize(
    ("domain", "problem"),
    [
        ("example.com", "example.com is not one of the domains in the configuration."),
        ("a b", '"a b" is not a domain: '),
    ],
)
@pytest.mark.parametrize("action", ["list", "rotate", "activate", "remove"])
def test_domains_of_others(tool: Any, config: Config, action: str, domain: str, problem: str) -> None:
    ran = tool("dkim", action, domain)
    assert ran.status == 1
    assert ran.err.startswith(f"mailsrv: {problem}")


@pytest.mark.parametrize("verb", [("dkim", "list"), ("dkim", "rotate"), ("dkim", "remove"), ("dns",)])
def test_broken_keys_are_one_sentence(tool: Any, config: Config, verb: tuple[str, ...]) -> None:
    key_states.begin(config.state, "example.org", NOW)
    place = key_states.path(config.state)
    Path(place).write_text("nonsense\n")
    ran = tool(*verb)
    assert ran.status == 1
    assert ran.err.startswith(f"mailsrv: {place}:1: expected the name of a key")
    ran = tool("check", "--no-dns")
    assert f"wrong    keys: {place}:1: expected" in ran.out


def test_a_broken_key_that_has_retired_is_told_of(config: Config) -> None:
    for _ in range(2):
        key_states.begin(config.state, "example.org", NOW)
    key_states.activate(config.state, "example.org", NOW)
    place = keys.path(config.state, "example.org", FIRST[0])
    Path(place).write_bytes(b"")
    assert keys_in_check(config) == [f"wrong: {place}: not a private key in PEM without a password"]


def test_rsa_is_missed(config: Config) -> None:
    key_states.begin(config.state, "example.org", NOW)
    Path(keys.path(config.state, "example.org", FIRST[1])).unlink()
    assert keys_in_check(config)[0] == (
        "warning: example.org signs with ed25519-20261129 alone, and many servers understand RSA only"
    )


def test_key_files_are_nobody_elses(config: Config) -> None:
    key_states.begin(config.state, "example.org", NOW)
    place = keys.path(config.state, "example.org", FIRST[0])
    Path(place).chmod(0o644)
    (found,) = [one for one in check.files(config) if one.verdict == "wrong"]
    assert found.text == f"{place} is open to every user of this machine"


def test_check_compares_keys_and_not_their_spelling(config: Config) -> None:
    key_states.begin(config.state, "example.org", NOW)
    first, second = (keys.public(config.state, "example.org", selector) for selector in FIRST)
    there = {first.name: [first.record.replace("; ", ";") + ";"], second.name: [first.record]}

    def ask(name: str, kind: str) -> list[str]:
        return there.get(name, []) if kind == "TXT" else []

    found = {one.text: one.verdict for one in check_dns.records(config, ask)}
    assert found[f"{first.name} has v=DKIM1"] == "ok"
    assert found[f"{second.name} has another key"] == "wrong"


def test_a_broken_key_does_not_keep_check_from_the_rest_of_dns(config: Config) -> None:
    key_states.begin(config.state, "example.org", NOW)
    Path(keys.path(config.state, "example.org", FIRST[0])).write_text("nonsense")
    subjects = {one.subject for one in check_dns.records(config, lambda name, kind: [])}
    assert subjects == {"DNS", "MX"}
