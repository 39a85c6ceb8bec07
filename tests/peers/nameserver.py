"""A real name server, nsd, that has the zones of a test and nothing else: authoritative, on port 53 of its host."""

from __future__ import annotations

import signal
import socket
import struct
from pathlib import Path

from tests.peers.namespaces import Host
from tests.peers.programs import Program, ProgramError, find, wait_until

# TTL 0: nobody keeps an answer, so a test may change the zone.
_HEAD = """$ORIGIN {zone}.
$TTL 0
@ IN SOA ns.{zone}. hostmaster.{zone}. {serial} 3600 600 86400 0
@ IN NS ns.{zone}.
ns IN A {address}
"""


def unavailable() -> str:
    return "" if find("nsd") else "nsd is not installed"


class NameServer:
    """``zones`` has for each zone its records as in a zone file, or None: then every answer is SERVFAIL."""

    def __init__(self, directory: Path, host: Host, zones: dict[str, str | None]) -> None:
        self._directory = directory
        self.host = host
        self._zones = dict(zones)
        self._serial = 1
        self._program: Program | None = None
        directory.mkdir()

    @property
    def address(self) -> str:
        return self.host.addresses[0]

    def start(self) -> None:
        for zone in self._zones:
            self._write(zone)
        config = self._directory / "nsd.conf"
        config.write_text(self._config())
        with self.host.inside():
            self._program = Program([find("nsd") or "nsd", "-d", "-c", str(config)], self._directory / "output")
        wait_until(self._answers, 20, f"nsd: {self._program.output()}")

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()

    def change(self, zone: str, records: str | None) -> None:
        """From now on these are the records of ``zone``."""
        if self._program is None:
            raise ProgramError("nsd was never started")
        self._zones[zone] = records
        self._serial += 1
        self._write(zone)
        self._program.signal(signal.SIGHUP)
        served = self._serial if records is not None else None
        wait_until(lambda: self.serial(zone) == served, 20, f"nsd to take up {zone}: {self._program.output()}")

    def serial(self, zone: str) -> int | None:
        """Of the zone as it is served; None when the answer is a failure or does not come."""
        names = b"".join(bytes([len(label)]) + label.encode() for label in zone.split("."))
        question = struct.pack(">HHHHHH", 4242, 0, 1, 0, 0, 0) + names + b"\0" + struct.pack(">HH", 6, 1)
        with self.host.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            try:
                client.sendto(question, (self.address, 53))
                answer = client.recv(4096)
            except OSError:
                return None
        _, flags, _, answers, _, _ = struct.unpack(">HHHHHH", answer[:12])
        if flags & 0xF or not answers:
            return None
        # The SOA ends the first record: two names, then the serial and four more numbers.
        found = answer.find(struct.pack(">IIII", 3600, 600, 86400, 0))
        serial: int = struct.unpack(">I", answer[found - 4 : found])[0]
        return serial

    def _answers(self) -> bool:
        return any(self.serial(zone) is not None for zone, records in self._zones.items() if records is not None)

    def _write(self, zone: str) -> None:
        path = self._directory / f"{zone}.zone"
        records = self._zones[zone]
        # A zone with an error in it is a zone that the server has not: it says SERVFAIL.
        head = _HEAD.format(zone=zone, serial=self._serial, address=self.address)
        path.write_text("this is no zone\n" if records is None else head + records)

    def _config(self) -> str:
        server = {
            "ip-address": self.address,
            "username": '""',
            "chroot": '""',
            "zonesdir": f'"{self._directory}"',
            "database": '""',
            "pidfile": f'"{self._directory}/nsd.pid"',
            "xfrdfile": f'"{self._directory}/xfrd.state"',
            "zonelistfile": f'"{self._directory}/zone.list"',
            "xfrdir": f'"{self._directory}"',
            "server-count": "1",
            "zonefiles-check": "yes",
        }
        text = "server:\n" + "".join(f"    {name}: {value}\n" for name, value in server.items())
        text += "remote-control:\n    control-enable: no\n"
        return text + "".join(f'zone:\n    name: "{zone}"\n    zonefile: "{zone}.zone"\n' for zone in self._zones)
