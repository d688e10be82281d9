-- Leaves of the log, the double entry that follows from them, and the tree above them. Nothing here is ever updated or
-- deleted except lines parts (deletable after their retention, without touching the tree) and the derived tables
-- `balances` and `chain_sums`, which entries, claims and resolutions rebuild. Ids, digests and hashes are 32 bytes.
--
-- A batch is written in this order: its checkpoint, its leaves and what follows from them, its seal. The seal checks
-- that every transaction of the batch sums to zero in every unit; a checkpoint without a seal cannot be committed, a
-- leaf needs a checkpoint, and nothing can be added to what is sealed.

CREATE TABLE identity (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
    size INTEGER PRIMARY KEY CHECK (size >= 1) REFERENCES seals (size) DEFERRABLE INITIALLY DEFERRED,
    time INTEGER NOT NULL,
    note TEXT NOT NULL
) STRICT;

CREATE TABLE seals (
    size INTEGER PRIMARY KEY REFERENCES checkpoints (size)
) STRICT;

-- Each leaf is one transaction, numbered leaf_index + 1; that of a floor has no entries.
CREATE TABLE leaves (
    leaf_index INTEGER PRIMARY KEY CHECK (leaf_index >= 0),
    id         BLOB NOT NULL UNIQUE CHECK (length(id) = 32),
    kind       TEXT NOT NULL CHECK (kind IN ('claim', 'resolution', 'floor')),
    size       INTEGER NOT NULL REFERENCES checkpoints (size) CHECK (size > leaf_index),
    hash       BLOB NOT NULL CHECK (length(hash) = 32),
    envelope   BLOB NOT NULL CHECK (length(envelope) BETWEEN 1 AND 65535)
) STRICT;

CREATE TABLE accounts (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200)
) STRICT;

CREATE TABLE entries (
    leaf_index INTEGER NOT NULL REFERENCES leaves (leaf_index),
    ordinal    INTEGER NOT NULL CHECK (ordinal >= 0),
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    unit       TEXT NOT NULL CHECK (length(unit) BETWEEN 1 AND 100),
    amount     INTEGER NOT NULL
        CHECK (amount <> 0 AND amount BETWEEN -1152921504606846976 AND 1152921504606846976),
    PRIMARY KEY (leaf_index, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_by_account ON entries (account_id, leaf_index);

CREATE TABLE chains (
    id         INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    pool       TEXT NOT NULL CHECK (length(pool) BETWEEN 1 AND 63),
    UNIQUE (account_id, pool)
) STRICT;

CREATE TABLE claims (
    leaf_index      INTEGER PRIMARY KEY REFERENCES leaves (leaf_index),
    chain_id        INTEGER NOT NULL REFERENCES chains (id),
    sequence        INTEGER NOT NULL CHECK (sequence >= 1),
    digest          BLOB NOT NULL CHECK (length(digest) = 32),
    previous_digest BLOB NOT NULL CHECK (length(previous_digest) = 32 OR sequence = 1 AND length(previous_digest) = 0),
    window_start    TEXT NOT NULL,
    window_end      TEXT NOT NULL,
    phase           TEXT NOT NULL CHECK (phase IN ('posted', 'pending')),
    reverses        INTEGER REFERENCES claims (leaf_index) CHECK (reverses < leaf_index),
    cumulative_paid INTEGER NOT NULL CHECK (cumulative_paid >= 0),
    charged         INTEGER NOT NULL CHECK (charged BETWEEN 0 AND 1152921504606846976),
    paid            INTEGER NOT NULL CHECK (paid >= 0),
    held            INTEGER NOT NULL CHECK (held >= 0),
    released        INTEGER NOT NULL CHECK (released >= 0),
    fee             INTEGER NOT NULL CHECK (fee >= 0),
    dust            INTEGER NOT NULL CHECK (dust >= 0),
    CHECK (charged = paid + held + fee + dust)
) STRICT;
CREATE UNIQUE INDEX claims_of_a_chain ON claims (chain_id, sequence);
CREATE UNIQUE INDEX claims_reversed_once ON claims (reverses) WHERE reverses IS NOT NULL;

CREATE TABLE resolutions (
    leaf_index INTEGER PRIMARY KEY REFERENCES leaves (leaf_index),
    claim      INTEGER NOT NULL UNIQUE REFERENCES claims (leaf_index) CHECK (claim < leaf_index),
    outcome    TEXT NOT NULL CHECK (outcome IN ('post', 'void'))
) STRICT;

-- floor NULL: no floor any more.
CREATE TABLE floors (
    leaf_index INTEGER PRIMARY KEY REFERENCES leaves (leaf_index),
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    sequence   INTEGER NOT NULL CHECK (sequence >= 1),
    floor      INTEGER CHECK (floor BETWEEN -4611686018427387904 AND 0),
    UNIQUE (account_id, sequence)
) STRICT;

CREATE TABLE parts (
    claim_id BLOB NOT NULL CHECK (length(claim_id) = 32),
    number   INTEGER NOT NULL CHECK (number BETWEEN 1 AND 1000),
    digest   BLOB NOT NULL CHECK (length(digest) = 32),
    summary  TEXT NOT NULL,
    body     BLOB NOT NULL,
    size     INTEGER NOT NULL,
    received INTEGER NOT NULL,
    pending  INTEGER NOT NULL CHECK (pending IN (0, 1)),
    PRIMARY KEY (claim_id, number)
) STRICT;
CREATE INDEX pending_parts ON parts (received, size) WHERE pending = 1;
CREATE INDEX kept_parts ON parts (received) WHERE pending = 0;

-- The tree: `hash` is the root of the 256^level leaves from number × 256^level on. Level 0 is leaves.hash.
CREATE TABLE nodes (
    level  INTEGER NOT NULL CHECK (level BETWEEN 1 AND 7),
    number INTEGER NOT NULL CHECK (number >= 0),
    hash     BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE cosignatures (
    size INTEGER NOT NULL REFERENCES checkpoints (size),
    name TEXT NOT NULL,
    line TEXT NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (size, name)
) STRICT, WITHOUT ROWID;

-- Derived.
CREATE TABLE balances (
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    unit       TEXT NOT NULL,
    balance    INTEGER NOT NULL CHECK (balance BETWEEN -4611686018427387904 AND 4611686018427387904),
    PRIMARY KEY (account_id, unit)
) STRICT, WITHOUT ROWID;

-- Derived: sums over what is posted and not reversed.
CREATE TABLE chain_sums (
    chain_id INTEGER PRIMARY KEY REFERENCES chains (id),
    charged  INTEGER NOT NULL,
    paid     INTEGER NOT NULL,
    held     INTEGER NOT NULL,
    released INTEGER NOT NULL,
    fee      INTEGER NOT NULL,
    dust     INTEGER NOT NULL
) STRICT;

CREATE TRIGGER seals_only_what_balances BEFORE INSERT ON seals BEGIN
    SELECT RAISE(ABORT, 'the batch is sealed already')
    WHERE NEW.size <= (SELECT coalesce(max(size), 0) FROM seals);
    SELECT RAISE(ABORT, 'the checkpoint is not of the newest leaf')
    WHERE NEW.size <> (SELECT coalesce(max(leaf_index), -1) + 1 FROM leaves);
    SELECT RAISE(ABORT, 'a transaction does not sum to zero')
    WHERE EXISTS (
        SELECT 1 FROM entries WHERE leaf_index >= (SELECT coalesce(max(size), 0) FROM seals)
        GROUP BY leaf_index, unit HAVING sum(amount) <> 0
    );
    -- sum() of 64-bit integers fails when it overflows on its way, so it is taken in two halves.
    INSERT INTO balances (account_id, unit, balance)
    SELECT account_id, unit, (sum(amount >> 32) << 32) + sum(amount & 4294967295)
    FROM entries NOT INDEXED WHERE leaf_index >= (SELECT coalesce(max(size), 0) FROM seals)
    GROUP BY +account_id, unit
    ON CONFLICT (account_id, unit) DO UPDATE SET balance = balance + excluded.balance;
    -- A posted claim adds its amounts to its chain, a reversal takes them away, a pending claim adds them once it is posted.
    INSERT INTO chain_sums (chain_id, charged, paid, held, released, fee, dust)
    SELECT chain_id, sum(iif(reverses IS NULL, charged, -charged)), sum(iif(reverses IS NULL, paid, -paid)),
           sum(iif(reverses IS NULL, held, -held)), sum(iif(reverses IS NULL, released, -released)),
           sum(iif(reverses IS NULL, fee, -fee)), sum(iif(reverses IS NULL, dust, -dust))
    FROM claims NOT INDEXED WHERE phase = 'posted' AND leaf_index >= (SELECT coalesce(max(size), 0) FROM seals)
    GROUP BY +chain_id
    ON CONFLICT (chain_id) DO UPDATE SET
        charged = charged + excluded.charged, paid = paid + excluded.paid, held = held + excluded.held,
        released = released + excluded.released, fee = fee + excluded.fee, dust = dust + excluded.dust;
    INSERT INTO chain_sums (chain_id, charged, paid, held, released, fee, dust)
    SELECT chain_id, sum(charged), sum(paid), sum(held), sum(released), sum(fee), sum(dust)
    FROM resolutions NOT INDEXED CROSS JOIN claims ON claims.leaf_index = claim
    WHERE outcome = 'post' AND resolutions.leaf_index >= (SELECT coalesce(max(size), 0) FROM seals)
    GROUP BY +chain_id
    ON CONFLICT (chain_id) DO UPDATE SET
        charged = charged + excluded.charged, paid = paid + excluded.paid, held = held + excluded.held,
        released = released + excluded.released, fee = fee + excluded.fee, dust = dust + excluded.dust;
END;

-- INSERT OR REPLACE deletes without firing delete triggers (unless recursive_triggers is on): so inserts look first.
CREATE TRIGGER leaves_are_dense BEFORE INSERT ON leaves BEGIN
    SELECT RAISE(ABORT, 'leaf indices are dense')
    WHERE NEW.leaf_index <> 1 + (SELECT coalesce(max(leaf_index), -1) FROM leaves);
    SELECT RAISE(ABORT, 'the leaf exists') WHERE EXISTS (SELECT 1 FROM leaves WHERE id = NEW.id);
END;

CREATE TRIGGER checkpoints_grow BEFORE INSERT ON checkpoints BEGIN
    SELECT RAISE(ABORT, 'signed sizes only grow')
    WHERE NEW.size <= (SELECT coalesce(max(size), 0) FROM checkpoints);
END;

CREATE TRIGGER entries_before_the_seal BEFORE INSERT ON entries BEGIN
    SELECT RAISE(ABORT, 'the transaction is sealed')
    WHERE NEW.leaf_index < (SELECT coalesce(max(size), 0) FROM seals);
END;

CREATE TRIGGER claims_are_chained BEFORE INSERT ON claims BEGIN
    SELECT RAISE(ABORT, 'the claim is sealed')
    WHERE NEW.leaf_index < (SELECT coalesce(max(size), 0) FROM seals);
    SELECT RAISE(ABORT, 'the chain has a hole')
    WHERE NEW.sequence <> 1 + (SELECT coalesce(max(sequence), 0) FROM claims WHERE chain_id = NEW.chain_id);
    SELECT RAISE(ABORT, 'the chain is broken')
    WHERE NEW.previous_digest <> coalesce(
        (SELECT digest FROM claims WHERE chain_id = NEW.chain_id AND sequence = NEW.sequence - 1), x''
    );
    SELECT RAISE(ABORT, 'the claim is reversed already')
    WHERE EXISTS (SELECT 1 FROM claims WHERE reverses = NEW.reverses);
END;

CREATE TRIGGER resolutions_once BEFORE INSERT ON resolutions BEGIN
    SELECT RAISE(ABORT, 'the resolution is sealed')
    WHERE NEW.leaf_index < (SELECT coalesce(max(size), 0) FROM seals);
    SELECT RAISE(ABORT, 'the claim is resolved already')
    WHERE EXISTS (SELECT 1 FROM resolutions WHERE claim = NEW.claim);
    SELECT RAISE(ABORT, 'the claim is not pending')
    WHERE NOT EXISTS (SELECT 1 FROM claims WHERE leaf_index = NEW.claim AND phase = 'pending');
END;

CREATE TRIGGER floors_are_dense BEFORE INSERT ON floors BEGIN
    SELECT RAISE(ABORT, 'the floor is sealed') WHERE NEW.leaf_index < (SELECT coalesce(max(size), 0) FROM seals);
    SELECT RAISE(ABORT, 'the floors of an account are dense')
    WHERE NEW.sequence <> 1 + (SELECT coalesce(max(sequence), 0) FROM floors WHERE account_id = NEW.account_id);
END;

CREATE TRIGGER accounts_are_new BEFORE INSERT ON accounts BEGIN
    SELECT RAISE(ABORT, 'the account exists')
    WHERE EXISTS (SELECT 1 FROM accounts WHERE name = NEW.name OR id = NEW.id);
END;

CREATE TRIGGER chains_are_new BEFORE INSERT ON chains BEGIN
    SELECT RAISE(ABORT, 'the chain exists')
    WHERE EXISTS (SELECT 1 FROM chains WHERE account_id = NEW.account_id AND pool = NEW.pool OR id = NEW.id);
END;

CREATE TRIGGER nodes_are_new BEFORE INSERT ON nodes BEGIN
    SELECT RAISE(ABORT, 'the node exists')
    WHERE EXISTS (SELECT 1 FROM nodes WHERE level = NEW.level AND number = NEW.number);
END;

CREATE TRIGGER cosignatures_are_new BEFORE INSERT ON cosignatures BEGIN
    SELECT RAISE(ABORT, 'the cosignature exists')
    WHERE EXISTS (SELECT 1 FROM cosignatures WHERE size = NEW.size AND name = NEW.name);
END;

CREATE TRIGGER leaves_no_update BEFORE UPDATE ON leaves BEGIN
    SELECT RAISE(ABORT, 'leaves are append-only');
END;
CREATE TRIGGER leaves_no_delete BEFORE DELETE ON leaves BEGIN
    SELECT RAISE(ABORT, 'leaves are append-only');
END;
CREATE TRIGGER checkpoints_no_update BEFORE UPDATE ON checkpoints BEGIN
    SELECT RAISE(ABORT, 'checkpoints are append-only');
END;
CREATE TRIGGER checkpoints_no_delete BEFORE DELETE ON checkpoints BEGIN
    SELECT RAISE(ABORT, 'checkpoints are append-only');
END;
CREATE TRIGGER seals_no_update BEFORE UPDATE ON seals BEGIN
    SELECT RAISE(ABORT, 'seals are append-only');
END;
CREATE TRIGGER seals_no_delete BEFORE DELETE ON seals BEGIN
    SELECT RAISE(ABORT, 'seals are append-only');
END;
CREATE TRIGGER accounts_no_update BEFORE UPDATE ON accounts BEGIN
    SELECT RAISE(ABORT, 'accounts are append-only');
END;
CREATE TRIGGER accounts_no_delete BEFORE DELETE ON accounts BEGIN
    SELECT RAISE(ABORT, 'accounts are append-only');
END;
CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries BEGIN
    SELECT RAISE(ABORT, 'entries are append-only');
END;
CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries BEGIN
    SELECT RAISE(ABORT, 'entries are append-only');
END;
CREATE TRIGGER chains_no_update BEFORE UPDATE ON chains BEGIN
    SELECT RAISE(ABORT, 'chains are append-only');
END;
CREATE TRIGGER chains_no_delete BEFORE DELETE ON chains BEGIN
    SELECT RAISE(ABORT, 'chains are append-only');
END;
CREATE TRIGGER claims_no_update BEFORE UPDATE ON claims BEGIN
    SELECT RAISE(ABORT, 'claims are append-only');
END;
CREATE TRIGGER claims_no_delete BEFORE DELETE ON claims BEGIN
    SELECT RAISE(ABORT, 'claims are append-only');
END;
CREATE TRIGGER resolutions_no_update BEFORE UPDATE ON resolutions BEGIN
    SELECT RAISE(ABORT, 'resolutions are append-only');
END;
CREATE TRIGGER resolutions_no_delete BEFORE DELETE ON resolutions BEGIN
    SELECT RAISE(ABORT, 'resolutions are append-only');
END;
CREATE TRIGGER floors_no_update BEFORE UPDATE ON floors BEGIN
    SELECT RAISE(ABORT, 'floors are append-only');
END;
CREATE TRIGGER floors_no_delete BEFORE DELETE ON floors BEGIN
    SELECT RAISE(ABORT, 'floors are append-only');
END;
CREATE TRIGGER nodes_no_update BEFORE UPDATE ON nodes BEGIN
    SELECT RAISE(ABORT, 'nodes are append-only');
END;
CREATE TRIGGER nodes_no_delete BEFORE DELETE ON nodes BEGIN
    SELECT RAISE(ABORT, 'nodes are append-only');
END;
CREATE TRIGGER cosignatures_no_update BEFORE UPDATE ON cosignatures BEGIN
    SELECT RAISE(ABORT, 'cosignatures are append-only');
END;
CREATE TRIGGER cosignatures_no_delete BEFORE DELETE ON cosignatures BEGIN
    SELECT RAISE(ABORT, 'cosignatures are append-only');
END;
