-- Stock by warehouse and SKU, as counters that only grow:
--   open (reserved, still on the shelf) = reserved - released - consumed - shrunk
--   on the shelf                        = received + restocked - consumed - shrunk
--   held of a harvest                    = presold - unsold; of what is still to come, announced - arrived
--   free to sell                        = on the shelf - open = received + restocked + released - reserved
CREATE TABLE IF NOT EXISTS stock (
    sku        text NOT NULL,
    warehouse  text NOT NULL,
    received   bigint NOT NULL DEFAULT 0,
    reserved   bigint NOT NULL DEFAULT 0,
    released   bigint NOT NULL DEFAULT 0,
    consumed   bigint NOT NULL DEFAULT 0,
    restocked  bigint NOT NULL DEFAULT 0,
    shrunk     bigint NOT NULL DEFAULT 0,      -- reserved, but not on the shelf when it was to be packed
    announced  bigint NOT NULL DEFAULT 0,      -- a harvest that will come, and what of it has come
    arrived    bigint NOT NULL DEFAULT 0,
    presold    bigint NOT NULL DEFAULT 0,      -- held of it for orders whose season has not opened, and no longer held
    unsold     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sku, warehouse),
    CONSTRAINT never_sold_twice CHECK (received + restocked + released - reserved >= 0),
    CONSTRAINT no_more_arrives_than_was_announced CHECK (arrived <= announced),
    CONSTRAINT held_not_negative CHECK (unsold <= presold),
    CONSTRAINT open_not_negative CHECK (reserved - released - consumed - shrunk >= 0)
) WITH (fillfactor = 50);

-- Blocks of serial numbers of parcels (storage.Serials). Never a second time: when the last of 10^10 numbers is given out,
-- allocation stops with the sequence's error until the operator has another company prefix and the posts have been asked.
CREATE SEQUENCE IF NOT EXISTS parcel_serial_blocks MINVALUE 0 START 0 MAXVALUE 9999999 NO CYCLE;

-- Where a unit with a serial number was seen last: unit:<GTIN of 14 digits>.<serial number>. A row without a parcel was locked by
-- a batch that came to nothing.
CREATE TABLE IF NOT EXISTS units (
    key        text PRIMARY KEY,
    order_id   text NOT NULL DEFAULT '',
    parcel_id  text NOT NULL DEFAULT '',
    place      text NOT NULL DEFAULT '',
    seen_at    timestamptz,
    lot        text NOT NULL DEFAULT '',
    back       boolean NOT NULL DEFAULT false   -- it came back from that parcel and may be packed again
) WITH (fillfactor = 60);
