"""Password hashes of the system's own kind (crypt(5)), computed by the C library.

Python's ``crypt`` module ends with 3.12, and its successors know only some of the methods.  What ``/etc/shadow`` and
other servers wrote is exactly what this machine's libcrypt can read, yescrypt and bcrypt included, so its re-entrant
function is asked.  That is for checking passwords that others hashed; new ones never come from here.

Calls block, for as long as the method says, and let other threads run.  What libcrypt does not know is no match.
"""

from __future__ import annotations

import ctypes
import hmac
from typing import Final

# libxcrypt of Debian and Fedora; where the C library has its own (musl), it is loaded already.
_NAMES: Final = ("libcrypt.so.1", "libcrypt.so.2", None)
# struct crypt_data: 32,768 octets in libxcrypt, 131,232 in the libcrypt of glibc before it.  It must be zeros at first.
_DATA_OCTETS: Final = 256 * 1024
_SALT_OK: Final = 0
_SALT_LEGACY: Final = 3  # weak by today's measure, but known


def known(stored: bytes) -> bool:
    """Whether libcrypt knows the method and the parameters of a hash; True as well when it cannot say."""
    if _LIBRARY is None:
        return False
    checksalt = getattr(_LIBRARY, "crypt_checksalt", None)
    return checksalt is None or checksalt(stored) in (_SALT_OK, _SALT_LEGACY)


def verify(stored: bytes, password: bytes) -> bool:
    """Whether ``stored`` is a hash of ``password``."""
    # To C a NUL is the end: two passwords that differ behind it would be the same.
    if _LIBRARY is None or b"\0" in password or b"\0" in stored:
        return False
    data = ctypes.create_string_buffer(_DATA_OCTETS)
    found = _LIBRARY.crypt_r(password, stored, data)
    # A failure is None, or else a text that begins with "*", as no hash does.
    return found is not None and not found.startswith(b"*") and hmac.compare_digest(found, stored)


def _load() -> ctypes.CDLL | None:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
            library.crypt_r.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p)
            library.crypt_r.restype = ctypes.c_char_p
        except (OSError, AttributeError):
            continue
        return library
    return None


_LIBRARY: Final = _load()
