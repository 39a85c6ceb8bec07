"""What a person names as a source of mail: an mbox file, a Maildir, a tree of Maildirs."""

from __future__ import annotations

import os

from mailsrv.mail.mbox import NotMbox
from mailsrv.outside.interfaces import IFilesystem
from mailsrv.store.migration.dovecot import UidlFormat
from mailsrv.store.migration.letter import Source, why
from mailsrv.store.migration.maildir_source import MaildirSource, is_maildir
from mailsrv.store.migration.mbox_source import MboxSource


class NoSource(ValueError):
    """The path is nothing that mail can be taken from; the text is the end of a sentence about it."""


def source_at(filesystem: IFilesystem, path: str, directory: str = "", form: UidlFormat | None = None) -> Source:
    """The source at ``path``, for the folder in ``directory`` ("" the inbox).  NoSource."""
    try:
        if os.path.isdir(path):
            if not is_maildir(filesystem, path):
                raise NoSource("is no Maildir: there is no cur in it")
            return MaildirSource(filesystem, path, directory, form or UidlFormat())
        if not os.path.isfile(path) and os.path.lexists(path):
            raise NoSource("is neither a file nor a folder")
        return MboxSource(path, directory)
    except FileNotFoundError:
        raise NoSource("does not exist") from None
    except OSError as error:
        raise NoSource(why(error)) from None
    except NotMbox:
        raise NoSource("is no mbox file: it does not begin with a From_ line") from None
