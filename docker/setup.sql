CREATE SECRET IF NOT EXISTS store_key AS 'tidewater';
CREATE SECRET IF NOT EXISTS store_secret AS 'tidewater-secret';

CREATE CATALOG IF NOT EXISTS team WITH (
  type = 'rest',
  uri = 'http://catalog:8181',
  "s3.endpoint" = 'http://store:7070',
  "s3.region" = 'us-east-1',
  "s3.path-style-access" = 'true',
  "s3.access-key-id" = SECRET store_key,
  "s3.secret-access-key" = SECRET store_secret
);
CREATE SCHEMA IF NOT EXISTS team.sales;

CREATE CONNECTION IF NOT EXISTS shop TO KAFKA WITH (brokers = 'kafka:9092');
CREATE STREAM IF NOT EXISTS orders (
  id         BIGINT NOT NULL,
  customer   TEXT,
  total      NUMERIC(12,2),
  ordered_at TIMESTAMPTZ
) WITH (connection = 'shop', topic = 'orders', create_topic = true);

CREATE STREAMING TABLE IF NOT EXISTS team.sales.orders
  PARTITIONED BY (days(ordered_at))
AS SELECT id, customer, total, ordered_at FROM STREAM orders;
