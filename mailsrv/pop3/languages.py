"""The languages in which a POP3 server's replies are for people to read (RFC 6856 3).

What a reply says is written in English where it is said, and found here by that text.  English is for everybody who has
not asked for anything: "i-default" (RFC 2277 4.5).  ``{}`` stands for what differs from one reply to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_GERMAN = {
    "{} POP3 server ready": "{} POP3-Server bereit",
    "capabilities follow": "es folgt, was angeboten wird",
    "languages follow": "es folgen die Sprachen",
    "the language is English": "die Sprache ist Deutsch",
    "UTF-8 is on": "UTF-8 ist eingeschaltet",
    "begin TLS": "TLS kann beginnen",
    "now the password": "nun das Passwort",
    "1 message ({} octets)": "1 Nachricht ({} Oktette)",
    "{} messages ({} octets)": "{} Nachrichten ({} Oktette)",
    "{} octets": "{} Oktette",
    "the top of the message follows": "es folgt der Anfang der Nachricht",
    "message {} deleted": "Nachricht {} gelöscht",
    "nothing done": "nichts getan",
    "goodbye": "auf Wiedersehen",
    "the user name or the password is wrong": "der Benutzername oder das Passwort ist falsch",
    "too many are logging in, try again in a minute": "zu viele melden sich an, bitte in einer Minute noch einmal",
    "the last login was too short a time ago": "die letzte Anmeldung ist zu kurz her",
    "another session has the mailbox open": "das Postfach ist in einer anderen Sitzung geöffnet",
    "the mailbox cannot be opened at present": "das Postfach lässt sich zurzeit nicht öffnen",
    "the mailbox cannot be opened, its operator has to look": "das Postfach lässt sich nicht öffnen, "
    "der Betreiber muss nachsehen",
    "there is no such message": "diese Nachricht gibt es nicht",
    "another program has removed the message": "ein anderes Programm hat die Nachricht entfernt",
    "the message cannot be read at present": "die Nachricht lässt sich zurzeit nicht lesen",
    "the message cannot be read, its operator has to look": "die Nachricht lässt sich nicht lesen, "
    "der Betreiber muss nachsehen",
    "some deleted messages not removed": "einige gelöschte Nachrichten sind nicht entfernt",
    "too many connections, try again in a minute": "zu viele Verbindungen, bitte in einer Minute noch einmal",
    "the server is going down, try again in a minute": "der Server wird beendet, bitte in einer Minute noch einmal",
    "too many errors": "zu viele Fehler",
    "a line ends in CR LF, not in LF alone": "eine Zeile endet mit CR LF, nicht mit LF allein",
    "the line is too long": "die Zeile ist zu lang",
    "the command is not UTF-8": "das Kommando ist nicht in UTF-8",
    "the command contains control characters": "das Kommando enthält Steuerzeichen",
    "there is no such command": "dieses Kommando gibt es nicht",
    "there is no such language here": "diese Sprache gibt es hier nicht",
    "this command has no argument": "dieses Kommando hat kein Argument",
    "a number is needed here": "hier wird eine Zahl gebraucht",
    "AUTH needs the name of a mechanism": "AUTH braucht den Namen eines Verfahrens",
    "this mechanism is not offered": "dieses Verfahren wird nicht angeboten",
    "the initial response is not base64": "die erste Antwort ist nicht in Base64",
    "the response is not base64": "die Antwort ist nicht in Base64",
    "authentication was cancelled": "die Anmeldung wurde abgebrochen",
    "a PLAIN response has exactly two NULs": "eine Antwort von PLAIN hat genau zwei NUL",
    "nobody may act for another user": "niemand darf für einen anderen Benutzer handeln",
    "an empty user name or password": "Benutzername oder Passwort ist leer",
    "the user name is too long": "der Benutzername ist zu lang",
    "the user name or the password is not UTF-8": "Benutzername oder Passwort ist nicht in UTF-8",
    "control characters in the user name": "der Benutzername enthält Steuerzeichen",
    "NUL or a line end in the password": "das Passwort enthält NUL oder ein Zeilenende",
    "a first SCRAM message that is not well formed": "die erste Nachricht von SCRAM ist nicht wohlgeformt",
    "a name that is not well formed": "der Name ist nicht wohlgeformt",
    "USER needs a name": "USER braucht einen Namen",
    "PASS needs a password": "PASS braucht ein Passwort",
    "TLS is on already": "TLS ist schon eingeschaltet",
    "STLS is not offered": "STLS wird nicht angeboten",
    "passwords are taken under TLS only, use STLS first": "Passwörter nur unter TLS, zuerst also STLS",
    "log in first, with USER and then PASS": "zuerst anmelden, mit USER und dann PASS",
    "log in first, PASS comes next": "zuerst anmelden, nun kommt PASS",
    "you are logged in already": "die Anmeldung ist schon geschehen",
}


@dataclass(frozen=True, slots=True)
class Language:
    """``tag`` as in RFC 5646, ``name`` in the language itself."""

    tag: str
    name: str
    texts: Mapping[str, str]

    def say(self, text: str, *values: object) -> str:
        """What ``text`` is in this language; English for what nobody has translated."""
        text = self.texts.get(text, text)
        return text.format(*values) if values else text


DEFAULT = Language("i-default", "English", {})
PREFERRED = Language("en", "English", {})
LANGUAGES = (DEFAULT, PREFERRED, Language("de", "Deutsch", _GERMAN))


def find(language_range: str) -> Language | None:
    """The language for a basic language range, "*" or such as "de-AT": by looking up (RFC 4647 3.4)."""
    if language_range == "*":
        return PREFERRED
    wanted = language_range.lower()
    while wanted:
        for language in LANGUAGES:
            if language.tag == wanted:
                return language
        wanted = wanted.rpartition("-")[0]
    return None
