-- Double entry, append-only: the rows of one entry add up to zero. Balances are sums, never a row that everybody updates.
-- Accounts: buyer (what came in, negative), held, released (to the merchant), refunded, charged_back,
-- recovered (what came back from merchant or carrier, negative).
CREATE TABLE IF NOT EXISTS ledger (
    order_id    text NOT NULL,
    entry       integer NOT NULL,
    account     text NOT NULL,
    currency    text NOT NULL,
    amount      bigint NOT NULL,      -- minor units
    payment_id  text NOT NULL,
    parcel_id   text NOT NULL,
    kind        text NOT NULL,
    booked_at   timestamptz NOT NULL, -- trade time
    PRIMARY KEY (order_id, entry, account)
);
CREATE OR REPLACE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the ledger is append-only: book a correcting entry instead'; END $$;
CREATE OR REPLACE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
