-- The tables of migrations/sqlite/0001_ledger.sql, whose comments hold here too. What SQLite checks row by row, the seal
-- checks for the whole batch. The role that runs this owns everything; the service's role may read, insert, and delete
-- or adopt lines parts. Derived tables are written by the seal only, with the owner's rights.

CREATE TABLE identity (
    name  text PRIMARY KEY,
    value text NOT NULL
);

CREATE TABLE checkpoints (
    size bigint PRIMARY KEY CHECK (size >= 1),
    time bigint NOT NULL,
    note text NOT NULL
);

CREATE TABLE seals (
    size bigint PRIMARY KEY REFERENCES checkpoints (size)
);
ALTER TABLE checkpoints ADD CONSTRAINT checkpoints_are_sealed
    FOREIGN KEY (size) REFERENCES seals (size) DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE leaves (
    leaf_index bigint PRIMARY KEY CHECK (leaf_index >= 0),
    id         bytea NOT NULL UNIQUE CHECK (length(id) = 32),
    kind       text NOT NULL CHECK (kind IN ('claim', 'resolution', 'floor')),
    size       bigint NOT NULL REFERENCES checkpoints (size) CHECK (size > leaf_index),
    hash       bytea NOT NULL CHECK (length(hash) = 32),
    envelope   bytea NOT NULL CHECK (length(envelope) BETWEEN 1 AND 65535)
);
-- Envelopes are signatures and digests for a good part: compressing them costs more than it saves.
ALTER TABLE leaves ALTER COLUMN envelope SET STORAGE EXTERNAL;

CREATE TABLE accounts (
    id   bigint PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200)
);

CREATE TABLE entries (
    leaf_index bigint NOT NULL REFERENCES leaves (leaf_index),
    ordinal    bigint NOT NULL CHECK (ordinal >= 0),
    account_id bigint NOT NULL REFERENCES accounts (id),
    unit       text COLLATE "C" NOT NULL CHECK (length(unit) BETWEEN 1 AND 100),
    amount     bigint NOT NULL
        CHECK (amount <> 0 AND amount BETWEEN -1152921504606846976 AND 1152921504606846976),
    PRIMARY KEY (leaf_index, ordinal)
);
CREATE INDEX entries_by_account ON entries (account_id, leaf_index);

CREATE TABLE chains (
    id         bigint PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES accounts (id),
    pool       text NOT NULL CHECK (length(pool) BETWEEN 1 AND 63),
    UNIQUE (account_id, pool)
);

CREATE TABLE claims (
    leaf_index      bigint PRIMARY KEY REFERENCES leaves (leaf_index),
    chain_id        bigint NOT NULL REFERENCES chains (id),
    sequence        bigint NOT NULL CHECK (sequence >= 1),
    digest          bytea NOT NULL CHECK (length(digest) = 32),
    previous_digest bytea NOT NULL CHECK (length(previous_digest) = 32 OR sequence = 1 AND length(previous_digest) = 0),
    window_start    text NOT NULL,
    window_end      text NOT NULL,
    phase           text NOT NULL CHECK (phase IN ('posted', 'pending')),
    reverses        bigint REFERENCES claims (leaf_index) CHECK (reverses < leaf_index),
    cumulative_paid bigint NOT NULL CHECK (cumulative_paid >= 0),
    charged         bigint NOT NULL CHECK (charged BETWEEN 0 AND 1152921504606846976),
    paid            bigint NOT NULL CHECK (paid >= 0),
    held            bigint NOT NULL CHECK (held >= 0),
    released        bigint NOT NULL CHECK (released >= 0),
    fee             bigint NOT NULL CHECK (fee >= 0),
    dust            bigint NOT NULL CHECK (dust >= 0),
    CHECK (charged = paid + held + fee + dust)
);
CREATE UNIQUE INDEX claims_of_a_chain ON claims (chain_id, sequence);
CREATE UNIQUE INDEX claims_reversed_once ON claims (reverses) WHERE reverses IS NOT NULL;

CREATE TABLE resolutions (
    leaf_index bigint PRIMARY KEY REFERENCES leaves (leaf_index),
    claim      bigint NOT NULL UNIQUE REFERENCES claims (leaf_index) CHECK (claim < leaf_index),
    outcome    text NOT NULL CHECK (outcome IN ('post', 'void'))
);

CREATE TABLE floors (
    leaf_index bigint PRIMARY KEY REFERENCES leaves (leaf_index),
    account_id bigint NOT NULL REFERENCES accounts (id),
    sequence   bigint NOT NULL CHECK (sequence >= 1),
    floor      bigint CHECK (floor BETWEEN -4611686018427387904 AND 0),
    UNIQUE (account_id, sequence)
);

CREATE TABLE parts (
    claim_id bytea NOT NULL CHECK (length(claim_id) = 32),
    number   bigint NOT NULL CHECK (number BETWEEN 1 AND 1000),
    digest   bytea NOT NULL CHECK (length(digest) = 32),
    summary  text NOT NULL,
    body     bytea NOT NULL,
    size     bigint NOT NULL,
    received bigint NOT NULL,
    pending  bigint NOT NULL CHECK (pending IN (0, 1)),
    PRIMARY KEY (claim_id, number)
);
CREATE INDEX pending_parts ON parts (received, size) WHERE pending = 1;
CREATE INDEX kept_parts ON parts (received) WHERE pending = 0;

CREATE TABLE nodes (
    level  bigint NOT NULL CHECK (level BETWEEN 1 AND 7),
    number bigint NOT NULL CHECK (number >= 0),
    hash   bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, number)
);

CREATE TABLE cosignatures (
    size bigint NOT NULL REFERENCES checkpoints (size),
    name text COLLATE "C" NOT NULL,
    line text NOT NULL,
    time bigint NOT NULL,
    PRIMARY KEY (size, name)
);

-- Derived.
CREATE TABLE balances (
    account_id bigint NOT NULL REFERENCES accounts (id),
    unit       text COLLATE "C" NOT NULL,
    balance    bigint NOT NULL CHECK (balance BETWEEN -4611686018427387904 AND 4611686018427387904),
    PRIMARY KEY (account_id, unit)
) WITH (fillfactor = 50);

-- Derived.
CREATE TABLE chain_sums (
    chain_id bigint PRIMARY KEY REFERENCES chains (id),
    charged  bigint NOT NULL,
    paid     bigint NOT NULL,
    held     bigint NOT NULL,
    released bigint NOT NULL,
    fee      bigint NOT NULL,
    dust     bigint NOT NULL
) WITH (fillfactor = 50);

CREATE FUNCTION refuse(message text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', message USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM refuse(TG_TABLE_NAME || ' are append-only');
    RETURN NULL;
END $$;

CREATE FUNCTION before_the_seal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM added WHERE leaf_index < (SELECT coalesce(max(size), 0) FROM seals)) THEN
        PERFORM refuse('the transaction is sealed');
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION seal_the_batch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    start bigint := (SELECT coalesce(max(size), 0) FROM seals);
BEGIN
    IF NEW.size <= start THEN
        PERFORM refuse('the batch is sealed already');
    END IF;
    IF (SELECT (count(*), min(leaf_index), max(leaf_index)) FROM leaves WHERE leaf_index >= start)
        IS DISTINCT FROM (NEW.size - start, start, NEW.size - 1) THEN
        PERFORM refuse('leaf indices are dense, and end at the checkpoint');
    END IF;
    IF EXISTS (SELECT 1 FROM entries WHERE leaf_index >= start GROUP BY leaf_index, unit HAVING sum(amount) <> 0) THEN
        PERFORM refuse('a transaction does not sum to zero');
    END IF;
    IF EXISTS (
        SELECT 1 FROM claims LEFT JOIN claims AS previous
            ON previous.chain_id = claims.chain_id AND previous.sequence = claims.sequence - 1
        WHERE claims.leaf_index >= start AND (
            (claims.sequence = 1) <> (previous.leaf_index IS NULL) OR previous.leaf_index > claims.leaf_index
            OR claims.previous_digest <> coalesce(previous.digest, ''::bytea)
        )
    ) THEN
        PERFORM refuse('a chain has a hole, or is broken');
    END IF;
    IF EXISTS (
        SELECT 1 FROM resolutions JOIN claims ON claims.leaf_index = resolutions.claim
        WHERE resolutions.leaf_index >= start AND claims.phase <> 'pending'
    ) THEN
        PERFORM refuse('the claim is not pending');
    END IF;
    IF EXISTS (
        SELECT 1 FROM floors LEFT JOIN floors AS previous
            ON previous.account_id = floors.account_id AND previous.sequence = floors.sequence - 1
        WHERE floors.leaf_index >= start AND (floors.sequence = 1) <> (previous.leaf_index IS NULL)
    ) THEN
        PERFORM refuse('the floors of an account are dense');
    END IF;
    INSERT INTO balances (account_id, unit, balance)
    SELECT account_id, unit, sum(amount)::bigint FROM entries WHERE leaf_index >= start GROUP BY account_id, unit
    ON CONFLICT (account_id, unit) DO UPDATE SET balance = balances.balance + excluded.balance;
    INSERT INTO chain_sums (chain_id, charged, paid, held, released, fee, dust)
    SELECT chain_id, sum(sign * charged)::bigint, sum(sign * paid)::bigint, sum(sign * held)::bigint,
           sum(sign * released)::bigint, sum(sign * fee)::bigint, sum(sign * dust)::bigint
    FROM (
        SELECT claims.*, CASE WHEN reverses IS NULL THEN 1 ELSE -1 END AS sign
        FROM claims WHERE phase = 'posted' AND leaf_index >= start
        UNION ALL
        SELECT claims.*, 1 FROM resolutions JOIN claims ON claims.leaf_index = resolutions.claim
        WHERE outcome = 'post' AND resolutions.leaf_index >= start
    ) AS effects GROUP BY chain_id
    ON CONFLICT (chain_id) DO UPDATE SET
        charged = chain_sums.charged + excluded.charged, paid = chain_sums.paid + excluded.paid,
        held = chain_sums.held + excluded.held, released = chain_sums.released + excluded.released,
        fee = chain_sums.fee + excluded.fee, dust = chain_sums.dust + excluded.dust;
    RETURN NEW;
END $$;

CREATE TRIGGER seals_only_what_balances BEFORE INSERT ON seals FOR EACH ROW EXECUTE FUNCTION seal_the_batch();

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['leaves', 'entries', 'claims', 'resolutions', 'floors'] LOOP
        EXECUTE format('CREATE TRIGGER %1$s_before_the_seal AFTER INSERT ON %1$s REFERENCING NEW TABLE AS added'
            ' FOR EACH STATEMENT EXECUTE FUNCTION before_the_seal()', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['leaves', 'checkpoints', 'seals', 'accounts', 'entries', 'chains', 'claims',
        'resolutions', 'floors', 'nodes', 'cosignatures'] LOOP
        EXECUTE format('CREATE TRIGGER %1$s_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %1$s'
            ' FOR EACH STATEMENT EXECUTE FUNCTION append_only()', name);
    END LOOP;
END $$;
