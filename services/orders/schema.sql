-- The persons of each order, sealed. Nothing else of Tradewind knows a name, an address or an identity number.
CREATE TABLE IF NOT EXISTS vault (
    order_id  text NOT NULL,
    role      text NOT NULL,          -- buyer, consignee, or both in one
    token     text NOT NULL,
    hash      text NOT NULL,
    sealed    text NOT NULL,
    PRIMARY KEY (order_id, role)
);

-- What one person brings into China in one calendar year, in fen, as counters that only grow:
--   open = reserved - released - committed,  kept = committed - restored,  used = open + kept
CREATE TABLE IF NOT EXISTS quota (
    key        text PRIMARY KEY,      -- quota:<keyed hash of the identity number>:<year>
    reserved   bigint NOT NULL DEFAULT 0,
    released   bigint NOT NULL DEFAULT 0,
    committed  bigint NOT NULL DEFAULT 0,
    restored   bigint NOT NULL DEFAULT 0,
    allowed    bigint NOT NULL DEFAULT 0,
    CONSTRAINT within_the_year CHECK (reserved - released - restored <= allowed),
    CONSTRAINT open_not_negative CHECK (reserved - released - committed >= 0),
    CONSTRAINT kept_not_negative CHECK (committed - restored >= 0)
) WITH (fillfactor = 50);

-- Who complained about which merchant: only added to.
CREATE TABLE IF NOT EXISTS complaints (
    order_id  text NOT NULL,
    merchant  text NOT NULL,
    id        text NOT NULL,
    by        text NOT NULL,          -- buyer, brand, authority or inspection
    reason    text NOT NULL,
    filed_at  timestamptz NOT NULL    -- trade time
);
CREATE INDEX IF NOT EXISTS complaints_of_merchant ON complaints (merchant);
