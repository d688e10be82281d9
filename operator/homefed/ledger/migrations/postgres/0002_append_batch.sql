-- All of a batch in one round trip, and so in one transaction of its own: the rows of each table as one array per
-- column, in the order in which they have to be there. With the caller's rights: nothing can be written by it that could
-- not be written without it, and every trigger sees it.

CREATE FUNCTION append_batch(
    bigint[], bigint[], text[],  -- checkpoints: size, time, note
    bigint[], bytea[], text[], bigint[], bytea[], bytea[],  -- leaves: leaf_index, id, kind, size, hash, envelope
    bigint[], text[],  -- accounts: id, name
    bigint[], bigint[], text[],  -- chains: id, account_id, pool
    bigint[], bigint[], bigint[], text[], bigint[],  -- entries: leaf_index, ordinal, account_id, unit, amount
    -- claims: leaf_index, chain_id, sequence, digest, previous_digest, window_start, window_end, phase, reverses,
    -- cumulative_paid, charged, paid, held, released, fee, dust
    bigint[], bigint[], bigint[], bytea[], bytea[], text[], text[], text[], bigint[],
    bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[],
    bigint[], bigint[], text[],  -- resolutions: leaf_index, claim, outcome
    bigint[], bigint[], bigint[], bigint[],  -- floors: leaf_index, account_id, sequence, floor
    bigint[], bigint[], bytea[],  -- nodes: level, number, hash
    bigint[],  -- seals: size
    bytea[], bigint[]  -- claims whose first so many parts wait no more
) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO checkpoints SELECT * FROM unnest($1, $2, $3);
    INSERT INTO leaves SELECT * FROM unnest($4, $5, $6, $7, $8, $9);
    IF cardinality($10) > 0 THEN
        INSERT INTO accounts SELECT * FROM unnest($10, $11);
    END IF;
    IF cardinality($12) > 0 THEN
        INSERT INTO chains SELECT * FROM unnest($12, $13, $14);
    END IF;
    IF cardinality($15) > 0 THEN
        INSERT INTO entries SELECT * FROM unnest($15, $16, $17, $18, $19);
    END IF;
    IF cardinality($20) > 0 THEN
        INSERT INTO claims SELECT * FROM unnest(
            $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35
        );
    END IF;
    IF cardinality($36) > 0 THEN
        INSERT INTO resolutions SELECT * FROM unnest($36, $37, $38);
    END IF;
    IF cardinality($39) > 0 THEN
        INSERT INTO floors SELECT * FROM unnest($39, $40, $41, $42);
    END IF;
    IF cardinality($43) > 0 THEN
        INSERT INTO nodes SELECT * FROM unnest($43, $44, $45);
    END IF;
    IF cardinality($47) > 0 THEN
        UPDATE parts SET pending = 0 FROM unnest($47, $48) AS adopted (claim, parts)
        WHERE claim_id = claim AND number <= adopted.parts;
    END IF;
    INSERT INTO seals SELECT * FROM unnest($46);
END $$;

-- A foreign key is looked up row by row, with a lock on the row that it refers to: for the seven entries of a claim that
-- took as long as everything else together. Leaves and accounts are never deleted, and their numbers never change, so it
-- is enough to look once, when entries are added.
ALTER TABLE entries DROP CONSTRAINT entries_leaf_index_fkey;
ALTER TABLE entries DROP CONSTRAINT entries_account_id_fkey;

CREATE FUNCTION entries_refer() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF (SELECT max(leaf_index) FROM added) > (SELECT coalesce(max(leaf_index), -1) FROM leaves) THEN
        PERFORM refuse('an entry is of a leaf that is not there');
    END IF;
    IF EXISTS (
        SELECT account_id FROM added
        EXCEPT
        SELECT id FROM accounts WHERE id = ANY (ARRAY(SELECT DISTINCT account_id FROM added))
    ) THEN
        PERFORM refuse('an entry is of an account that is not there');
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER entries_refer AFTER INSERT ON entries REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION entries_refer();
