"""Receivers that go away and come back, and a server of ours that is killed with a full queue."""

from __future__ import annotations

import collections

from tests.peers.internet import Internet
from tests.peers.mailbox import submission
from tests.peers.programs import wait_until
from tests.peers.samples import small, written_by
from tests.peers.server import ALICE

MANY = 60
KILLS = 3
UNDER_WAY = 20  # attempts to one destination at a time, at the most


def _fill(internet: Internet, name: str, domain: str) -> list[str]:
    """Submit many messages over one connection; their names."""
    names = [f"{name}.{number}" for number in range(MANY)]
    with internet.host.inside(), submission(internet.mailsrv) as client:
        for each in names:
            client.sendmail(ALICE, [f"carol@{domain}"], written_by(ALICE, small(each)))
    return names


def _counted(internet: Internet, names: list[str]) -> collections.Counter[str]:
    return collections.Counter({name: internet.copies(name) for name in names})


def test_a_receiver_that_is_restarted_gets_everything(internet: Internet) -> None:
    names = _fill(internet, "restarted", "restarted.example.net")
    wait_until(lambda: any(internet.has(name) for name in names), 30, "the first messages")
    internet.in_postfix(internet.postfix.stop)
    internet.in_postfix(internet.postfix.start)
    wait_until(lambda: all(internet.has(name) for name in names), 60, "all messages", every_s=0.1)
    wait_until(internet.settled, 30, "an empty queue", every_s=0.2)
    # Twice only what was under way: Postfix had taken it, and ended before its answer was out.
    counted = _counted(internet, names)
    assert set(counted.values()) <= {1, 2}
    assert sum(counted.values()) - len(names) <= UNDER_WAY


def test_killed_with_a_full_queue_it_delivers_everything(internet: Internet) -> None:
    """Twice only what was under way: its answer came, and the kill was before the commit."""
    receivers = (internet.postfix_host, internet.exim_host)
    for host in receivers:
        host.unplug()
    names = _fill(internet, "killed", "many.example.net")
    internet.kill()
    for host in receivers:
        host.plug_in()
    internet.restart()
    kills = 1
    while kills < KILLS and not all(internet.has(name) for name in names):
        done = sum(internet.has(name) for name in names)
        wait_until(lambda: sum(internet.has(name) for name in names) > done, 30, "one more message")  # noqa: B023
        internet.kill()
        internet.restart()
        kills += 1
    wait_until(lambda: all(internet.has(name) for name in names), 60, "all messages", every_s=0.1)
    wait_until(internet.settled, 30, "an empty queue", every_s=0.2)
    counted = _counted(internet, names)
    assert min(counted.values()) == 1
    assert max(counted.values()) <= kills + 1
    assert sum(counted.values()) - len(names) <= UNDER_WAY * kills
    verified = internet.mailsrv.tool("ledger", "--verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_no_way_out_at_all_is_waited_for(internet: Internet) -> None:
    """The cable is out: no DNS, no hosts.  When it is in again, everything goes out by itself."""
    internet.host.unplug()
    try:
        internet.send("unplugged", ["carol@example.net", "dave@example.com"])
        wait_until(lambda: "deferred" in internet.why("unplugged"), 30, "a first attempt", every_s=0.2)
    finally:
        internet.host.plug_in()
    internet.arrived(internet.postfix, "unplugged")
    internet.arrived(internet.exim, "unplugged")


def test_a_stop_in_order_doubles_nothing(internet: Internet) -> None:
    names = _fill(internet, "stopped", "restarted.example.net")
    internet.stop()
    internet.restart()
    wait_until(lambda: all(internet.has(name) for name in names), 60, "all messages", every_s=0.2)
    assert set(_counted(internet, names).values()) == {1}
