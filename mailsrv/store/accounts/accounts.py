"""Whom the server serves: the accounts file, the aliases file, and what an address of ours means.

``accounts`` is Dovecot's passwd-file: ``address:{SCHEME}hash:uid:gid:gecos:home:shell:key=value key=value``; all after
the hash may be missing.  An empty hash or ``!`` locks the account: it receives, but nobody can log in.  Extra fields
that mean something here are those of ``app_passwords``, ``scram_keys`` and ``quota``.  ``aliases`` has lines ``address:
target, target``; the address may be ``@domain``, for whatever nobody else has.  Blank lines and lines that begin with
``#`` mean nothing in both.

A ``Directory`` is made whole or not at all: an address twice, outside of the own domains or unfit for a file name, an
alias that is also an account, a loop of aliases, an unknown password scheme are each ``AccountsError``, one sentence
with file and line.  It never changes afterwards; a new reading makes a new one.  Looking an address up is one or two
dict lookups, for it happens at every RCPT.

The path of a mailbox comes from the accounts file alone, never from an address that a client sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mailsrv.config import Config
from mailsrv.mail.address import POSTMASTER, Address, AddressError, domain_a_label
from mailsrv.sasl.scram import StoredKeys
from mailsrv.store.accounts import app_passwords, scram_keys
from mailsrv.store.accounts.app_passwords import AppPassword
from mailsrv.store.accounts.passwords import check_stored
from mailsrv.store.mailbox import quota
from mailsrv.store.mailbox.quota import Quota

# A local part that is a file name as it stands: no quotes, no separators of ours, not hidden, not ".".
_SAFE_LOCAL = re.compile(r"(?!\.)[^\x00-\x20\x7f-\xa0/:\\\"(),;<>@\[\]]+")
_LOCKED = frozenset({"", "!", "*"})
_BETWEEN_COMMAS = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"|")+')
_DEEPEST = 50  # aliases of aliases of aliases


class AccountsError(Exception):
    """The accounts or aliases cannot be used; the message is one sentence ``FILE:LINE: ...``."""


class AliasChainError(AccountsError):
    """Following ``alias`` never ends, or not soon enough."""

    def __init__(self, alias: str, message: str) -> None:
        super().__init__(message)
        self.alias = alias


@dataclass(frozen=True, slots=True)
class Account:
    """One line of the accounts file.  ``hash`` is ``{SCHEME}hash``, or "" or "!" for a locked account.

    ``apps`` are further passwords; ``scram`` are the keys for the first one, None when it has none yet; ``quota`` is
    None when the account may keep as much as it likes.
    """

    address: Address
    hash: str = field(default="", repr=False)
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)
    apps: tuple[AppPassword, ...] = ()
    scram: StoredKeys | None = None
    quota: Quota | None = None

    @property
    def key(self) -> str:
        return self.address.key

    @property
    def locked(self) -> bool:
        return self.hash in _LOCKED


@dataclass(frozen=True, slots=True)
class Target:
    """Where mail for an address ends: ``mailbox`` is the key of the account, or "" for an address elsewhere."""

    address: Address
    mailbox: str


Resolution = tuple[Target, ...]


def mailbox_path(mailbox: str) -> str:
    """The folder of a mailbox, named by its account's key, below ``state/mail``: such as ``example.org/alice``."""
    local, _, domain = mailbox.rpartition("@")
    return f"{domain}/{local}"


class Directory:
    """Accounts and aliases as one answer to: where does mail for this address go?

    ``domains`` are A-labels in lower case, at least one; the first is that of a bare ``postmaster``.  ``aliases`` maps
    keys of addresses (``Address.key``, or ``postmaster@`` for all own domains) to their targets.  AliasChainError names
    a loop.
    """

    def __init__(
        self,
        domains: Iterable[str],
        accounts: Iterable[Account],
        aliases: Mapping[str, tuple[Address, ...]],
    ) -> None:
        self.domains = tuple(domains)
        self.accounts = tuple(accounts)
        self.aliases = dict(aliases)
        self._own = frozenset(self.domains)
        self._by_key = {account.key: account for account in self.accounts}
        self._quotas = {account.key: account.quota for account in self.accounts if account.quota is not None}
        self._postmasters = {f"postmaster@{domain}" for domain in self.domains}
        self._resolved: dict[str, Resolution] = {
            account.key: (Target(account.address, account.key),) for account in self.accounts
        }
        for key in (*self.aliases, *self._postmasters):
            self._resolve_alias(key, ())
        self._resolved[POSTMASTER.key] = self._resolved.get(f"postmaster@{self.domains[0]}", ())

    def is_own(self, domain: str) -> bool:
        """Whether we are the final destination of a domain (A-label, lower case)."""
        return domain in self._own

    def account(self, address: Address) -> Account | None:
        """The account of exactly this name: no aliases, no subaddresses."""
        return self._by_key.get(address.key)

    def quota(self, mailbox: str) -> Quota | None:
        """What the mailbox (the key of its account) may hold; None: as much as comes."""
        return self._quotas.get(mailbox)

    def limited(self) -> tuple[str, ...]:
        """The mailboxes that have a quota."""
        return tuple(self._quotas)

    def resolve(self, address: Address) -> Resolution:
        """Where mail for an address of ours ends, each place once; () for an unknown one, or one that is not ours.

        ``alice+tag`` is alice unless somebody has that very name; the tag stays in the address of the target.  What
        nobody has goes where the alias ``@domain`` says, if there is one.
        ``postmaster`` is always somebody (RFC 5321 4.5.1): an alias, an account, or else the first account in the file.
        """
        key = address.key
        found = self._resolved.get(key)
        if found is not None:
            return found
        base, plus, _ = key.partition("+")
        found = self._resolved.get(f"{base}@{address.domain}") if plus else None
        if found is None:
            return self._resolved.get(f"@{address.domain}", ())  # the catch-all
        if len(found) == 1 and found[0].mailbox == f"{base}@{address.domain}":
            return (Target(address, found[0].mailbox),)
        return found

    def owns(self, account: Account, address: Address) -> bool:
        """Whether mail to ``address`` ends in the mailbox of ``account``, so that it may send under it."""
        return any(target.mailbox == account.key for target in self.resolve(address))

    def dangling(self) -> list[tuple[str, Address]]:
        """Aliases with a target of ours that nobody has (yet): nothing is delivered there.  For people to look at."""
        return [
            (alias, target)
            for alias, targets in self.aliases.items()
            for target in targets
            if self.is_own(target.domain) and not self.resolve(target)
        ]

    def _resolve_alias(self, key: str, chain: tuple[str, ...]) -> Resolution:
        """Resolve what the key stands for and remember it; ``chain`` is how we came here."""
        if key in chain:
            loop = " -> ".join((*chain[chain.index(key) :], key))
            raise AliasChainError(chain[chain.index(key)], f"the aliases go round in a circle: {loop}")
        if len(chain) > _DEEPEST:
            raise AliasChainError(chain[0], f"more than {_DEEPEST} aliases of aliases, from {chain[0]} on")
        if key in self._resolved:
            return self._resolved[key]
        targets = self.aliases.get(key)
        if targets is None:
            return self._resolve_other(key, chain)
        found: dict[str, Target] = {}
        for target in targets:
            if target.domain and not self.is_own(target.domain):
                ends: Resolution = (Target(target, ""),)
            else:
                target_key = f"postmaster@{self.domains[0]}" if target == POSTMASTER else target.key
                ends = self._resolve_alias(target_key, (*chain, key))
                if len(ends) == 1 and ends[0].mailbox and "+" in target.local and target_key not in self._by_key:
                    ends = (Target(target, ends[0].mailbox),)
            for end in ends:
                found.setdefault(end.mailbox or str(end.address), end)
        self._resolved[key] = tuple(found.values())
        return self._resolved[key]

    def _resolve_other(self, key: str, chain: tuple[str, ...]) -> Resolution:
        """A key that is neither account nor alias: a postmaster, a subaddress or nobody."""
        if key in self._postmasters:
            if POSTMASTER.key in self.aliases:
                self._resolved[key] = self._resolve_alias(POSTMASTER.key, (*chain, key))
                return self._resolved[key]
            if self.accounts:
                self._resolved[key] = self._resolved[self.accounts[0].key]
                return self._resolved[key]
            return ()
        base, plus, rest = key.partition("+")
        return self._resolve_alias(f"{base}@{rest.rpartition('@')[2]}", (*chain, key)) if plus else ()


def load_directory(config: Config) -> Directory:
    """Read both files (AccountsError).  A missing aliases file is an empty one.

    A missing accounts file is an error: taken for an empty one it would turn every sender away for good.
    """
    accounts = read_text(config.accounts)
    if accounts is None:
        raise AccountsError(f"{config.accounts}: does not exist; 'mailsrv account add ADDRESS' writes it.")
    return parse_directory(config, accounts, read_text(config.aliases) or "")


def read_text(path: str) -> str | None:
    """The text of a file, None when there is none (AccountsError)."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AccountsError(f"{path}: cannot be read: {error.strerror}.") from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AccountsError(f"{path}:{line}: not UTF-8 text.") from None


def parse_directory(config: Config, accounts: str, aliases: str) -> Directory:
    """Make a Directory of the text of both files; the configuration says how they are called (AccountsError)."""
    account_lines = dict(parse_accounts(accounts, config.accounts, config.domains))
    alias_lines = parse_aliases(aliases, config.aliases, config.domains)
    by_key = {account.key: line for line, account in account_lines.items()}
    for key, (line, _) in alias_lines.items():
        if key in by_key:
            raise AccountsError(
                f"{config.aliases}:{line}: {key} is also an account ({config.accounts}:{by_key[key]}); "
                "an address is one or the other."
            )
    try:
        return Directory(
            config.domains, account_lines.values(), {key: targets for key, (_, targets) in alias_lines.items()}
        )
    except AliasChainError as error:
        line, _ = alias_lines.get(error.alias, (1, ()))
        raise AccountsError(f"{config.aliases}:{line}: {error}.") from None


def lines_of(source: str) -> Iterable[tuple[int, str]]:
    """Number and text of each line that means something."""
    for number, line in enumerate(source.split("\n"), 1):
        text = line.strip(" \t\r")
        if text and not text.startswith("#"):
            yield number, text


def parse_accounts(source: str, path: str, domains: Iterable[str]) -> list[tuple[int, Account]]:
    """Each account with its line (AccountsError)."""
    own = frozenset(domains)
    found: list[tuple[int, Account]] = []
    lines: dict[str, int] = {}
    for number, text in lines_of(source):
        try:
            account = _account(text, own)
        except ValueError as error:
            raise AccountsError(f"{path}:{number}: {error}.") from None
        if account.key in lines:
            raise AccountsError(f"{path}:{number}: {account.key} is already in line {lines[account.key]}.")
        lines[account.key] = number
        found.append((number, account))
    return found


def _account(text: str, own: frozenset[str]) -> Account:
    name, *fields = text.split(":", 7)
    address = account_address(name, own)
    stored = fields[0] if fields else ""
    words = fields[6].split() if len(fields) > 6 else []
    extra = {key: value for key, _, value in (word.partition("=") for word in words)}
    try:
        if stored not in _LOCKED:
            check_stored(stored)
        apps = tuple(filter(None, (app_passwords.read(key, value) for key, value in extra.items())))
        for app in apps:
            check_stored(app.hash)
        scram = scram_keys.read(extra[scram_keys.FIELD], stored) if scram_keys.FIELD in extra else None
        limit = quota.read(extra)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return Account(address, stored, extra, apps, scram, limit)


def account_address(text: str, own: Iterable[str]) -> Address:
    """An address that may name an account: of an own domain, its local part fit for a folder (ValueError)."""
    address = own_address(text, own)
    if not _SAFE_LOCAL.fullmatch(address.local):
        raise ValueError(f"{address} cannot be an account: its local part is not fit for the name of a folder")
    return address


def own_address(text: str, own: Iterable[str]) -> Address:
    """An address of an own domain (ValueError)."""
    try:
        address = Address.parse(text)
    except AddressError as error:
        raise ValueError(f'"{text}" is not an address: {error}') from None
    if not address.domain:
        raise ValueError(f'"{text}" is not an address: it has no domain')
    if address.domain not in own:
        raise ValueError(f"{address}: the domain is not one of those in the configuration")
    return address


def parse_aliases(source: str, path: str, domains: Iterable[str]) -> dict[str, tuple[int, tuple[Address, ...]]]:
    """The line and the targets of each alias by key (AccountsError)."""
    own = frozenset(domains)
    found: dict[str, tuple[int, tuple[Address, ...]]] = {}
    for number, text in lines_of(source):
        name, colon, rest = text.partition(":")
        try:
            if not colon:
                raise ValueError(f'"{text}" is not of the form "address: target, target"')
            key = alias_key(name.strip(), own)
            targets = tuple(target_address(target) for target in split_targets(rest))
            if not targets:
                raise ValueError(f"{name.strip()} has no target")
        except ValueError as error:
            raise AccountsError(f"{path}:{number}: {error}.") from None
        if key in found:
            raise AccountsError(f"{path}:{number}: {name.strip()} is already in line {found[key][0]}.")
        found[key] = number, targets
    return found


def alias_key(text: str, own: Iterable[str]) -> str:
    """The key of an alias (ValueError).

    It is an address of ours, ``@domain`` for whatever nobody else has there, or ``postmaster@`` for a bare postmaster.
    """
    if text.startswith("@"):
        try:
            domain = domain_a_label(text[1:])
        except AddressError as error:
            raise ValueError(f'"{text}" is not a domain of ours: {error}') from None
        if domain not in own:
            raise ValueError(f"{domain} is not a domain of ours")
        return f"@{domain}"
    return POSTMASTER.key if text.lower() == POSTMASTER.local else own_address(text, own).key


def target_address(text: str) -> Address:
    """The target of an alias: any address, here or elsewhere, or a bare postmaster (ValueError)."""
    try:
        return Address.parse(text)
    except AddressError as error:
        raise ValueError(f'"{text}" is not an address: {error}') from None


def split_targets(text: str) -> list[str]:
    """``a, b`` at the commas that are not within quotes; empty ones go."""
    return [part.strip() for part in _BETWEEN_COMMAS.findall(text) if part.strip()]
