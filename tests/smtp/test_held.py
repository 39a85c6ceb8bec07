"""Unusual submissions are held and not refused: over a cap, or a burst of first-time recipients from a new network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mailsrv.checks.bursts import NEW_FOR_S, WINDOW_S, network_of
from mailsrv.store import ledger, queue, queue_id
from mailsrv.store.accounts import acquaintance
from mailsrv.store.database import StorageTrouble
from mailsrv.store.message import recipients_by_minute
from tests.smtp.world import CLIENT, DATABASE, Client, World

ALICE = "alice@example.org"
ELSEWHERE = "203.0.113.9"  # not where alice usually is
CONFIG = "limits.first_time_recipients = 3"
LETTER = "From: alice@example.org\r\nSubject: offer\r\n\r\nhello\r\n"


def send(world: World, *to: str, host: str = CLIENT, content: str = LETTER, parameters: str = "") -> int:
    """Alice sends one message; the answer to its end."""
    client = world.logged_in(ALICE, host)
    codes = client.codes(f"MAIL FROM:<{ALICE}>{parameters}", *(f"RCPT TO:<{address}>" for address in to), "DATA")
    assert codes[-1] == 354, codes
    answer = client.codes(f"{content}.")[0]
    client.say("QUIT")
    return answer


def strangers(*numbers: int) -> list[str]:
    return [f"stranger{number}@example.net" for number in numbers]


def states(world: World) -> list[str]:
    """Of the messages that users sent, in order, one state each."""
    rows = world.ask(
        "SELECT message, state FROM recipient JOIN message ON message.id = message WHERE account <> ''"
        " GROUP BY message, state ORDER BY message"
    )
    assert len({number for number, _ in rows}) == len(rows), "all recipients of a message are held, or none"
    return [state for _, state in rows]


def notices(world: World) -> list[tuple[str, str]]:
    """To whom, and the content."""
    return world.ask(
        "SELECT original, CAST(data AS TEXT) FROM recipient JOIN message ON message.id = recipient.message"
        " JOIN content ON content.message = message.id WHERE protocol = 'notice' ORDER BY message.id"
    )


@pytest.fixture
def world() -> Iterator[World]:
    """Alice has written to an old friend from home, two days ago."""
    world = World(CONFIG, aliases="postmaster: bob@example.org\n")
    assert send(world, "friend@example.net") == 250
    world.run(2 * NEW_FOR_S)
    yield world
    connection = world.machine.databases.look(DATABASE)
    gaps = ledger.verify(connection, None).gaps
    connection.close()
    world.end()
    assert gaps == []


def test_a_burst_from_a_new_network_is_taken_and_held(world: World) -> None:
    assert send(world, *strangers(1, 2), host=ELSEWHERE) == 250
    assert send(world, *strangers(3, 4), host=ELSEWHERE) == 250
    assert states(world) == ["queued", "queued", "held"]
    (reason, rule) = world.ask("SELECT reason, rule FROM event WHERE kind = 'held'")[0]
    assert rule == "limits.first_time_recipients"
    assert reason.startswith("alice@example.org has not sent from the network of 203.0.113.9 before")
    assert "stranger3@example.net, stranger4@example.net" in reason


def test_one_message_to_many_strangers_is_held_whole(world: World) -> None:
    assert send(world, *strangers(1, 2, 3, 4), host=ELSEWHERE) == 250
    assert states(world) == ["queued", "held"]


@pytest.mark.parametrize("host", [CLIENT, "198.51.100.200"])
def test_at_home_and_beside_it_nothing_is_unusual(world: World, host: str) -> None:
    assert network_of(host) == network_of(CLIENT)
    assert send(world, *strangers(*range(10)), host=host) == 250
    assert states(world) == ["queued", "queued"]


def test_mail_to_whom_one_knows_goes_on_from_anywhere(world: World) -> None:
    assert send(world, *strangers(1, 2, 3, 4), host=ELSEWHERE) == 250
    world.greeted().transaction(ALICE, sender="customer@example.net")
    for known in ("friend@example.net", "customer@example.net", "bob@example.org"):
        assert send(world, known, host=ELSEWHERE) == 250
    assert states(world) == ["queued", "held", "queued", "queued", "queued"]


def test_many_small_ones_from_many_networks_are_a_burst_too(world: World) -> None:
    for number in range(5):
        assert send(world, *strangers(number), host=f"203.0.{number}.9") == 250
    assert states(world) == ["queued", *["queued"] * 3, *["held"] * 2]


def test_the_burst_is_over_after_an_hour(world: World) -> None:
    send(world, *strangers(1, 2, 3), host=ELSEWHERE)
    world.run(WINDOW_S + 60)
    send(world, *strangers(4, 5, 6), host=ELSEWHERE)
    assert states(world) == ["queued"] * 3


def test_a_network_is_known_after_a_day_unless_all_that_came_from_it_was_held(world: World) -> None:
    send(world, *strangers(1, 2, 3, 4), host=ELSEWHERE)
    send(world, *strangers(1), host="192.0.2.200")
    world.run(NEW_FOR_S + 60)
    send(world, *strangers(10, 11, 12, 13), host=ELSEWHERE)
    send(world, *strangers(10, 11, 12, 13), host="192.0.2.200")
    assert states(world) == ["queued", "held", "queued", "held", "queued"]


def test_networks_are_known_after_a_restart(world: World) -> None:
    connection = world.machine.databases.look(DATABASE)
    assert list(acquaintance.clients(connection, ALICE, world.outside.wall() - NEW_FOR_S)) == [CLIENT]
    connection.close()


def test_of_a_new_account_no_network_is_new() -> None:
    world = World(CONFIG)
    assert send(world, *strangers(*range(10)), host=ELSEWHERE) == 250
    world.run(3600)
    assert send(world, *strangers(*range(10, 20))) == 250
    assert states(world) == ["queued", "queued"]
    world.end()


def test_it_may_be_turned_off(world: World) -> None:
    world.settings.configure("limits.first_time_recipients = 0")
    assert send(world, *strangers(*range(10)), host=ELSEWHERE) == 250
    assert states(world) == ["queued", "queued"]


def test_what_the_operator_releases_makes_the_network_known(world: World) -> None:
    send(world, *strangers(1, 2, 3, 4), host=ELSEWHERE)
    (held,) = world.ask("SELECT DISTINCT message FROM recipient WHERE state = 'held'")
    connection = world.machine.databases.look(DATABASE)
    connection.execute("BEGIN")
    assert queue.release(connection, world.outside.wall(), held) == 4
    connection.execute("COMMIT")
    connection.close()
    world.house.bursts.look_again()
    assert send(world, *strangers(5, 6, 7, 8), host=ELSEWHERE) == 250
    assert states(world) == ["queued"] * 3


@pytest.mark.parametrize("jump", [-10 * NEW_FOR_S, 10 * NEW_FOR_S])
def test_a_jump_of_the_clock_neither_lengthens_a_burst_nor_ends_it(world: World, jump: float) -> None:
    send(world, *strangers(1, 2), host=ELSEWHERE)
    world.machine.clock_offset_s += jump
    send(world, *strangers(3, 4), host=ELSEWHERE)
    world.run(WINDOW_S + 60)
    send(world, *strangers(5, 6, 7), host=ELSEWHERE)
    assert states(world) == ["queued", "queued", "held", "queued"]


@pytest.mark.parametrize("read_anew", [False, True])
def test_a_network_does_not_become_new_when_the_clock_is_set_back(world: World, read_anew: bool) -> None:
    """As after a restart: it was first used half a day from now."""
    send(world, *strangers(1), host=ELSEWHERE)
    world.run(2 * NEW_FOR_S)
    world.machine.clock_offset_s -= 2.5 * NEW_FOR_S
    if read_anew:
        world.house.bursts.look_again()
    send(world, *strangers(2, 3, 4, 5), host=ELSEWHERE)
    send(world, *strangers(6, 7, 8, 9), host="192.0.2.200")
    assert states(world) == ["queued", "queued", "queued", "held"]


def test_a_small_correction_of_the_clock_makes_no_network_known(world: World) -> None:
    send(world, *strangers(1), host=ELSEWHERE)
    world.machine.clock_offset_s -= 5
    world.house.bursts.look_again()
    send(world, *strangers(2, 3, 4, 5), host=ELSEWHERE)
    assert states(world) == ["queued", "queued", "held"]


def test_owner_and_postmaster_are_told_once_for_a_burst(world: World) -> None:
    for number in range(0, 12, 4):
        send(world, *strangers(*range(number, number + 4)), host=ELSEWHERE)
    (owner, told), (postmaster, asked) = notices(world)
    id = queue_id.text(world.ask("SELECT min(message) FROM recipient WHERE state = 'held'")[0])
    assert owner == ALICE
    assert "Subject: Mail sent as alice@example.org is held\r\n" in told
    for words in (f"Queue id: {id}", "Subject: offer", "stranger0@example.net", "Sent from: 203.0.113.9"):
        assert words in told
        assert words in asked
    assert "write to postmaster@example.org" in told.replace("\r\n", " ")
    assert postmaster == "postmaster@example.org"
    assert "`mailsrv queue release --account alice@example.org`" in asked.replace("\r\n", " ")
    world.run(2 * 3600)
    send(world, *strangers(*range(20, 24)), host=ELSEWHERE)
    assert len(notices(world)) == 4, "another burst"


def test_where_the_owner_is_the_postmaster_one_notice_will_do() -> None:
    world = World(CONFIG, aliases="")
    send(world, "friend@example.net")
    world.run(2 * NEW_FOR_S)
    send(world, *strangers(1, 2, 3, 4), host=ELSEWHERE)
    ((to, text),) = notices(world)
    assert to == ALICE
    assert "`mailsrv queue list --held`" in text, "what the postmaster can do"
    world.end()


def test_what_cannot_be_looked_up_is_put_off_and_not_let_through(world: World) -> None:
    async def unreadable(*arguments: object) -> object:
        raise StorageTrouble("for a moment")

    world.house.bursts.look_again()
    client = world.logged_in(ALICE, ELSEWHERE)
    read, world.database.read = world.database.read, unreadable  # type: ignore[method-assign,assignment]
    assert client.transaction("x@example.net", sender=ALICE, content=LETTER)[-1] == 451
    world.database.read = read  # type: ignore[method-assign]
    assert client.transaction("x@example.net", sender=ALICE, content=LETTER)[-1] == 250


def test_held_mail_and_its_notices_are_accepted_together_or_not_at_all(world: World) -> None:
    def broken(*arguments: object) -> object:
        raise StorageTrouble("for a moment")

    client = world.logged_in(ALICE, ELSEWHERE)
    write, world.database.write = world.database.write, broken  # type: ignore[method-assign,assignment]
    assert client.transaction(*strangers(1, 2, 3, 4), sender=ALICE, content=LETTER)[-1] == 451
    world.database.write = write  # type: ignore[method-assign]
    assert notices(world) == []
    assert states(world) == ["queued"]


# -- over a cap


def hold_over_cap() -> World:
    return World('limits.recipients_per_hour = 2\nlimits.over_cap = "hold"', aliases="postmaster: bob@example.org\n")


def begin(world: World, client: Client, *to: str) -> list[int]:
    return client.codes(f"MAIL FROM:<{ALICE}>", *(f"RCPT TO:<{address}>" for address in to))


def test_what_is_over_a_cap_is_held_if_so_configured() -> None:
    world = hold_over_cap()
    assert send(world, *strangers(1, 2)) == 250
    assert send(world, *strangers(3)) == 250
    assert states(world) == ["queued", "held"]
    (reason, rule) = world.ask("SELECT reason, rule FROM event WHERE kind = 'held'")[0]
    assert reason == "alice@example.org has written to more than 2 recipients in an hour"
    assert "limits.over_cap" in rule
    assert [to for to, _ in notices(world)] == [ALICE, "postmaster@example.org"]
    world.end()


def test_what_is_held_counts_and_beyond_twice_the_cap_all_is_refused() -> None:
    world = hold_over_cap()
    for number in range(4):
        assert send(world, *strangers(number)) == 250
    client = world.logged_in()
    assert begin(world, client, *strangers(5)) == [250, 452]
    assert states(world) == ["queued", "queued", "held", "held"]
    connection = world.machine.databases.look(DATABASE)
    assert sum(recipients_by_minute(connection, ALICE, world.outside.wall(), 3600.0).values()) == 4
    connection.close()
    world.end()


def test_a_message_that_goes_over_the_cap_is_held_whole() -> None:
    world = hold_over_cap()
    assert send(world, *strangers(1, 2, 3)) == 250
    assert states(world) == ["held"]
    world.end()


def test_a_transaction_that_comes_to_nothing_gives_its_place_back() -> None:
    world = hold_over_cap()
    client = world.logged_in()
    assert begin(world, client, *strangers(1, 2, 3, 4)) == [250] * 5
    client.say("RSET")
    assert send(world, *strangers(1, 2)) == 250
    assert states(world) == ["queued"]
    world.end()


def test_whoever_is_over_a_cap_can_still_write_to_the_postmaster() -> None:
    world = hold_over_cap()
    send(world, *strangers(1, 2, 3, 4))
    assert send(world, "postmaster@example.org") == 250
    assert states(world) == ["held", "queued"]
    world.end()


def test_held_mail_that_is_to_go_out_later_keeps_its_time() -> None:
    world = hold_over_cap()
    assert send(world, *strangers(1, 2, 3), parameters=" HOLDFOR=7200") == 250
    later = world.outside.wall() + 7200
    (number,) = world.ask("SELECT id FROM message WHERE account <> ''")
    connection = world.machine.databases.look(DATABASE)
    connection.execute("BEGIN")
    queue.release(connection, world.outside.wall() + 60, number)
    connection.execute("COMMIT")
    for next_attempt, since in connection.execute(
        "SELECT next_attempt, since FROM recipient WHERE message = ?", (number,)
    ):
        assert abs(next_attempt - later) < 2
        assert since == next_attempt
    connection.execute("BEGIN")
    queue.hold(connection, world.outside.wall(), number)
    queue.release(connection, later + 600, number)
    connection.execute("COMMIT")
    found = connection.execute("SELECT DISTINCT next_attempt FROM recipient WHERE message = ?", (number,)).fetchall()
    assert found == [(later + 600,)]
    connection.close()
    world.end()
