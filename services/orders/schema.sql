-- The persons of each order, sealed. Nothing else of Tradewind knows a name, an address or an identity number.
CREATE TABLE IF NOT EXISTS vault (
    order_id  text NOT NULL,
    role      text NOT NULL,          -- buyer, consignee, or both in one
    token     text NOT NULL,
    hash      text NOT NULL,
    sealed    text NOT NULL,
    PRIMARY KEY (order_id, role)
);
