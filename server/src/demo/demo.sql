-- The statements of the demo. They run at every start; IF NOT EXISTS lets a second start go on with what is there.
-- Edit your copy, in the data directory: what you add here is made at the next start.

-- The development broker that the demo brings along.
CREATE CONNECTION IF NOT EXISTS demo TO KAFKA WITH (brokers = '127.0.0.1:9192');

-- A stream is a topic seen as a table. Records that do not fit these columns go to system.dlq.<stream>.

-- Changes of customers: op is c (created), u (updated) or d (deleted).
CREATE STREAM IF NOT EXISTS customers (
  op         TEXT NOT NULL,
  id         BIGINT NOT NULL,
  name       TEXT,
  email      TEXT,
  country    TEXT,
  updated_at TIMESTAMPTZ NOT NULL
) WITH (connection = 'demo', topic = 'customers');

CREATE STREAM IF NOT EXISTS orders (
  id          BIGINT NOT NULL,
  customer_id BIGINT NOT NULL,
  status      TEXT,
  currency    TEXT,
  total       NUMERIC(12,2),
  items       STRUCT<sku TEXT, quantity INT, price NUMERIC(10,2)>[],
  ordered_at  TIMESTAMPTZ NOT NULL
) WITH (connection = 'demo', topic = 'orders');

-- Web shops send numbers as text now and then: duration_ms is one.
CREATE STREAM IF NOT EXISTS clicks (
  event_id    TEXT NOT NULL,
  session     TEXT,
  customer_id BIGINT,
  page        TEXT,
  referrer    TEXT,
  user_agent  TEXT,
  duration_ms TEXT,
  clicked_at  TIMESTAMPTZ NOT NULL
) WITH (connection = 'demo', topic = 'clicks');

-- A streaming table is an Iceberg table and a flow that keeps it up to date, exactly once.

-- Clicks of people, typed: crawlers are left out, the duration becomes a number.
CREATE STREAMING TABLE IF NOT EXISTS clicks_clean
  PARTITIONED BY (days(clicked_at))
  COMMENT 'clicks without crawlers'
AS
SELECT event_id,
       session,
       customer_id,
       page,
       split_part(page, '/', 2)          AS section,
       nullif(referrer, '')              AS referrer,
       CAST(duration_ms AS INT)          AS duration_ms,
       clicked_at
FROM STREAM clicks
WHERE user_agent NOT LIKE '%bot%';

-- One row per line of an order.
CREATE STREAMING TABLE IF NOT EXISTS order_items
  PARTITIONED BY (days(ordered_at))
  COMMENT 'lines of orders'
AS
SELECT order_id,
       customer_id,
       item.sku                   AS sku,
       item.quantity              AS quantity,
       item.price                 AS price,
       item.quantity * item.price AS amount,
       ordered_at
FROM (
  SELECT id AS order_id, customer_id, ordered_at, unnest(items) AS item FROM STREAM orders
) AS lines;

-- Every change of a customer, in order; the latest one per customer is a query away.
CREATE STREAMING TABLE IF NOT EXISTS customer_changes
  PARTITIONED BY (days(updated_at))
  COMMENT 'changes of customers'
  WITH (commit_interval = '5 s')
AS
SELECT op,
       id             AS customer_id,
       name,
       lower(email)   AS email,
       upper(country) AS country,
       updated_at,
       _offset        AS change
FROM STREAM customers;
