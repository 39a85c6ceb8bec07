"""One thing that ``mailsrv check`` looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """``verdict`` is "ok", "warning" or "wrong"; ``remedy`` says what to do, "" when nothing is to be done."""

    verdict: str
    subject: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.verdict:7}  {self.subject}: {self.text}{remedy}"


def ok(subject: str, text: str) -> Finding:
    return Finding("ok", subject, text)


def warning(subject: str, text: str, remedy: str) -> Finding:
    return Finding("warning", subject, text, remedy)


def wrong(subject: str, text: str, remedy: str) -> Finding:
    return Finding("wrong", subject, text, remedy)
