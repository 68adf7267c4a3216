-- What every service's own database has. One owner writes a partition; everything it writes carries the partition.

-- Who owns a partition, and how far it has read. The row is locked first in every transaction of the owner (the fence),
-- so whoever claims it knows that nothing of the former owner is still in flight.
CREATE TABLE IF NOT EXISTS partitions (
    partition  smallint PRIMARY KEY,
    epoch      bigint NOT NULL DEFAULT 0,
    instance   text NOT NULL DEFAULT '',
    backend    integer NOT NULL DEFAULT 0,          -- the owner's database session, to be ended by its successor
    offsets    jsonb NOT NULL DEFAULT '{}',         -- topic -> next offset to read
    dead_levels jsonb NOT NULL DEFAULT '{}'         -- topic -> how near it is to the limit of dead letters; see limit.py
) WITH (fillfactor = 50);
ALTER TABLE partitions ADD COLUMN IF NOT EXISTS dead_levels jsonb NOT NULL DEFAULT '{}';
ALTER TABLE partitions ADD COLUMN IF NOT EXISTS standing bigint NOT NULL DEFAULT 0;  -- version of `merchants`; see standing.py
ALTER TABLE partitions ADD COLUMN IF NOT EXISTS walked bigint NOT NULL DEFAULT 0;    -- up to which open orders were told of it

-- How merchants stand with this service: what all orders of a merchant obey. Rows exist only for those it was told of.
CREATE TABLE IF NOT EXISTS merchants (
    merchant_id text PRIMARY KEY,
    label       text NOT NULL,                      -- another one after each change that orders must obey
    status      text NOT NULL,
    cause       text NOT NULL,                      -- id of the event that made it so
    facts       json NOT NULL,
    version     bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS merchants_changed ON merchants (version);

-- Facts of the installation that must not change silently: partition count, schema version.
CREATE TABLE IF NOT EXISTS installation (name text PRIMARY KEY, value text NOT NULL);

-- Each order as this service sees it: slim, and rewritten at every change.
CREATE TABLE IF NOT EXISTS orders (
    order_id   text PRIMARY KEY,
    partition  smallint NOT NULL,
    status     text NOT NULL,
    closed     boolean NOT NULL,
    seq        integer NOT NULL,                    -- last sequence this service published for the order
    track      json NOT NULL,                       -- last sequence seen per source, outsiders' ids, what waits
    state      json NOT NULL,
    merchant   text NOT NULL DEFAULT ''
) WITH (fillfactor = 60);
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'merchant') THEN
        ALTER TABLE orders ADD COLUMN merchant text NOT NULL DEFAULT '';
        UPDATE orders SET merchant = state->>'merchant_id' WHERE NOT closed;
    END IF;
END $$;
CREATE INDEX IF NOT EXISTS orders_of_merchant ON orders (partition, merchant, order_id) WHERE NOT closed;

-- What of an order is large and never changes.
CREATE TABLE IF NOT EXISTS documents (order_id text PRIMARY KEY, body json NOT NULL);

-- Committed, not yet acknowledged by the broker: one row a batch, sent in this order.
CREATE TABLE IF NOT EXISTS outbox (
    partition  smallint NOT NULL,
    batch      bigint NOT NULL,
    payload    bytea NOT NULL,
    PRIMARY KEY (partition, batch)
);
ALTER TABLE outbox ALTER COLUMN payload SET STORAGE EXTERNAL;  -- compressing costs more than it saves

-- "Not yet": records that wait for something else to happen to their order, and dead letters of our own events, which
-- keep their place in the queue of their source until a person has decided about them.
CREATE TABLE IF NOT EXISTS parked (
    partition  smallint NOT NULL,
    order_id   text NOT NULL,
    source     text NOT NULL,
    sequence   integer NOT NULL,
    id         text NOT NULL,
    topic      text NOT NULL,
    at_offset  bigint NOT NULL,
    headers    bytea NOT NULL,
    value      bytea NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT now(),   -- real time
    dead       text NOT NULL DEFAULT '',             -- the reason, where it is a dead letter
    PRIMARY KEY (order_id, source, sequence, id)
);
ALTER TABLE parked ADD COLUMN IF NOT EXISTS dead text NOT NULL DEFAULT '';
CREATE INDEX IF NOT EXISTS parked_since ON parked (partition, parked_at);

-- When an order wants to be woken (trade time); at most one row an order, its kinds are in the state.
CREATE TABLE IF NOT EXISTS timers (order_id text PRIMARY KEY, partition smallint NOT NULL, due timestamptz NOT NULL);
CREATE INDEX IF NOT EXISTS timers_due ON timers (partition, due);

-- Calls to the outside that have no definite answer yet.
CREATE TABLE IF NOT EXISTS intents (
    intent_id  text PRIMARY KEY,
    partition  smallint NOT NULL,
    order_id   text NOT NULL,
    kind       text NOT NULL,
    body       json NOT NULL,
    made_at    timestamptz NOT NULL DEFAULT now()
);
