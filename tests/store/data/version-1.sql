PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE content (
    message     INTEGER PRIMARY KEY,
    prefix      BLOB NOT NULL,                  -- trace and verdict headers that go in front
    data        BLOB
);
INSERT INTO "content" VALUES(1764000000000000,X'52656365697665643A2066726F6D20636C69656E742E6578616D706C652E6E65740D0A',X'5375626A6563743A2068656C6C6F0D0A0D0A626F64790D0A');
INSERT INTO "content" VALUES(1764000020000000,X'52656365697665643A2066726F6D20636C69656E742E6578616D706C652E6E65740D0A',X'5375626A6563743A2068656C6C6F0D0A0D0A626F64790D0A');
INSERT INTO "content" VALUES(1764000030000000,X'52656365697665643A2066726F6D20636C69656E742E6578616D706C652E6E65740D0A',X'5375626A6563743A2068656C6C6F0D0A0D0A626F64790D0A');
CREATE TABLE event (
    id          INTEGER PRIMARY KEY,
    at          REAL NOT NULL,
    kind        TEXT NOT NULL,                  -- see mailsrv.store.ledger
    message     INTEGER,                        -- NULL when there is no message (yet)
    n           INTEGER,                        -- the recipient, NULL when it concerns the whole message
    address     TEXT NOT NULL,                  -- whom it concerns: recipient, account or ""
    sender      TEXT NOT NULL,
    client      TEXT NOT NULL,
    status      TEXT NOT NULL,                  -- enhanced status code or ""
    reason      TEXT NOT NULL,                  -- in plain words
    rule        TEXT NOT NULL,                  -- setting, record or RFC that decided
    answer      TEXT NOT NULL,                  -- what the other side said
    remote      TEXT NOT NULL,                  -- which other side: name [address]:port, and how it was encrypted
    detail      TEXT NOT NULL                   -- a file name, a command, an identifier: what a kind says it holds
);
INSERT INTO "event" VALUES(1,1764000000.0,'accepted',1764000000000000,NULL,'','alice@example.org','192.0.2.7','','the message is stored','','','','');
INSERT INTO "event" VALUES(2,1764000005.0,'delivered',1764000000000000,0,'bob@example.net','','','2.0.0','mx.example.net took the message.','','','','');
INSERT INTO "event" VALUES(3,1764000005.0,'deferred',1764000000000000,1,'carol@example.net','','','4.7.1','','','451 4.7.1 later','','');
INSERT INTO "event" VALUES(4,1764000010.0,'accepted',1764000010000000,NULL,'','bob@example.net','192.0.2.7','','the message is stored','','','','');
INSERT INTO "event" VALUES(5,1764000011.0,'delivered',1764000010000000,0,'alice@example.org','','','2.0.0','stored in the mailbox','','','','');
INSERT INTO "event" VALUES(6,1764000020.0,'accepted',1764000020000000,NULL,'','dave@example.com','192.0.2.7','','the message is stored','','','','');
INSERT INTO "event" VALUES(7,1764000025.0,'held',1764000020000000,NULL,'','','','','the operator stopped the attempts','','','','');
INSERT INTO "event" VALUES(8,1764000030.0,'accepted',1764000030000000,NULL,'','','','','the message is stored','','','','');
CREATE TABLE login (
    account     TEXT NOT NULL,                  -- its key
    password    TEXT NOT NULL,                  -- name of an app password, "" for the main one
    at          REAL NOT NULL,
    client      TEXT NOT NULL,
    service     TEXT NOT NULL,                  -- smtp or pop3
    PRIMARY KEY (account, password)
) WITHOUT ROWID;
INSERT INTO "login" VALUES('alice@example.org','',1764000000.0,'192.0.2.7','smtp');
CREATE TABLE message (
    id          INTEGER PRIMARY KEY,            -- the queue id as a number
    accepted    REAL NOT NULL,
    sender      TEXT NOT NULL,                  -- "" is the null reverse-path
    message_id  TEXT NOT NULL,                  -- the header's Message-ID without <>, "" when missing
    size        INTEGER NOT NULL,               -- octets of the content
    lines       INTEGER NOT NULL,               -- line ends in the content
    body        TEXT NOT NULL,                  -- 7BIT or 8BITMIME
    smtputf8    INTEGER NOT NULL,
    ret         TEXT NOT NULL,                  -- DSN: FULL, HDRS or ""
    envid       TEXT NOT NULL,
    account     TEXT NOT NULL,                  -- who had logged in, "" for mail from outside
    client      TEXT NOT NULL,                  -- address of the client, "" for our own reports
    helo        TEXT NOT NULL,
    protocol    TEXT NOT NULL                   -- SMTP, ESMTPS, ESMTPSA ... (RFC 3848), "report" for our own
);
INSERT INTO "message" VALUES(1764000000000000,1764000000.0,'alice@example.org','1J4B50P4G00@example.org',24,3,'7BIT',0,'','','alice@example.org','192.0.2.7','client.example.net','ESMTPSA');
INSERT INTO "message" VALUES(1764000010000000,1764000010.0,'bob@example.net','1J4B50ZNNM0@example.org',24,3,'7BIT',0,'','','','192.0.2.7','client.example.net','ESMTP');
INSERT INTO "message" VALUES(1764000020000000,1764000020.0,'dave@example.com','1J4B5196V80@example.org',24,3,'7BIT',0,'','','','192.0.2.7','client.example.net','ESMTP');
INSERT INTO "message" VALUES(1764000030000000,1764000030.0,'','1J4B51JR0W0@example.org',24,3,'7BIT',0,'','','','','client.example.net','report');
CREATE TABLE recipient (
    message     INTEGER NOT NULL,
    n           INTEGER NOT NULL,               -- 0, 1, 2 ... within the message
    address     TEXT NOT NULL,                  -- the final target
    original    TEXT NOT NULL,                  -- what the client said in RCPT TO
    sender      TEXT NOT NULL,                  -- forwarded: what the next server is told instead of message.sender
    mailbox     TEXT NOT NULL,
    name        TEXT NOT NULL,
    destination TEXT NOT NULL,                  -- the domain that is looked up or routed, "" for own mailboxes
    notify      TEXT NOT NULL,                  -- DSN: NOTIFY joined by commas, "" when not given
    orcpt       TEXT NOT NULL,                  -- DSN: ORCPT decoded, "type;address" or ""
    state       TEXT NOT NULL,
    attempts    INTEGER NOT NULL,
    since       REAL NOT NULL,                  -- from when expiry and the delay warning count
    next_attempt REAL NOT NULL,
    warned      INTEGER NOT NULL,               -- 1 when the sender was told of the delay
    status      TEXT NOT NULL,                  -- of the last attempt: an enhanced status code, "" before the first
    answer      TEXT NOT NULL,                  -- of the last attempt: what was said
    PRIMARY KEY (message, n)
) WITHOUT ROWID;
INSERT INTO "recipient" VALUES(1764000000000000,0,'bob@example.net','bob@example.net','','','','example.net','','','delivered',1,1764000000.0,0.0,0,'2.0.0','mx.example.net took the message.');
INSERT INTO "recipient" VALUES(1764000000000000,1,'carol@example.net','carol@example.net','','','','example.net','','','queued',1,1764000000.0,1764000300.0,0,'4.7.1','451 4.7.1 later');
INSERT INTO "recipient" VALUES(1764000010000000,0,'alice@example.org','alice@example.org','','alice@example.org','1764000010.1J4B50ZNNM0_0.mx,S=40,W=44','','','','delivered',1,1764000010.0,0.0,0,'2.0.0','stored in the mailbox');
INSERT INTO "recipient" VALUES(1764000020000000,0,'bob@example.net','bob@example.net','','','','example.net','','','held',0,1764000020.0,1764000020.0,0,'','');
INSERT INTO "recipient" VALUES(1764000030000000,0,'bob@example.net','bob@example.net','','','','example.net','','','queued',0,1764000030.0,1764000030.0,0,'','');
CREATE TABLE secret (
    name        TEXT PRIMARY KEY,
    octets      BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO "secret" VALUES('scram',X'00112233');
CREATE INDEX message_sender ON message (sender);
CREATE INDEX message_message_id ON message (message_id);
CREATE INDEX message_account ON message (account) WHERE account <> '';
CREATE INDEX recipient_address ON recipient (address);
CREATE INDEX recipient_original ON recipient (original) WHERE original <> address;
CREATE INDEX recipient_open ON recipient (state, destination, next_attempt) WHERE state = 'queued' OR state = 'held';
CREATE INDEX event_message ON event (message) WHERE message IS NOT NULL;
CREATE INDEX event_address ON event (address) WHERE message IS NULL;
CREATE INDEX event_sender ON event (sender) WHERE message IS NULL AND sender <> '';
CREATE INDEX event_at ON event (at) WHERE message IS NULL;
COMMIT;
