"""OpenDKIM as a verifier: what it would write into Authentication-Results of a message, one verdict per signature."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

_VERDICT = re.compile(r"dkim=(\w+)[^;]*? header\.d=(\S+)[^;]*? header\.a=(\S+) header\.s=(\S+)")


def verdicts(program: str, folder: Path, message: bytes, records: Mapping[str, str]) -> list[str]:
    """``"pass example.org rsa-sha256 rsa-20261129"`` for each signature of ``message``, from the top.

    ``records`` are all TXT records that there are.
    """
    keys, configuration, file = folder / "opendkim.keys", folder / "opendkim.conf", folder / "opendkim.eml"
    keys.write_text("".join(f"{name} {record}\n" for name, record in records.items()))
    configuration.write_text(f"Mode v\nTestPublicKeys {keys}\nSyslog no\nAlwaysAddARHeader yes\n")
    file.write_bytes(message)
    ran = subprocess.run(
        [program, "-vv", "-x", str(configuration), "-t", str(file)],
        capture_output=True,
        check=False,
        timeout=60,
    )
    output = ran.stdout.decode("utf-8", "replace")
    assert ran.returncode == 0, (ran.returncode, output[:2000], ran.stderr[:2000])
    return [" ".join(found) for found in _VERDICT.findall(output)]
