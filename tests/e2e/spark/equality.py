"""Rows deleted by equality, through Iceberg's own library."""

from table import Table, call, create


def equal(keys, **more):
    return lambda writer, table: writer.delete_equal(table, keys, **more)


NUMBERED = "id BIGINT, name STRING, n INT"


def numbered(first, end, text="n"):
    return f"INSERT INTO {{t}} SELECT id, concat('{text}', id % 5), CAST(id % 10 AS INT) FROM range({first}, {end})"


KEYED = """b BOOLEAN, i INT, l BIGINT, f FLOAT, d DOUBLE, dec DECIMAL(12,2), day DATE, ts TIMESTAMP, local TIMESTAMP_NTZ,
    s STRING, bin BINARY, id BIGINT"""
KEYED_ROWS = """INSERT INTO {t} SELECT id % 2 = 0, CAST(id AS INT), id * 10000000000, CAST(id / 4.0 AS FLOAT), id / 8.0D,
    CAST(id / 100.0 AS DECIMAL(12,2)), date_add(DATE '2026-01-01', CAST(id AS INT)),
    timestamp_micros(1767225600000001 + id), CAST(timestamp_micros(1767225600000001 + id) AS TIMESTAMP_NTZ),
    concat('s', id), CAST(concat('b', id) AS BINARY), id FROM range(0, 40)"""


def keyed(expression, column):
    return equal(f"SELECT {expression} AS {column}")


FLOATS = """INSERT INTO {t} VALUES (1, 0.0D, CAST(0.0 AS FLOAT)), (2, -0.0D, CAST('-0.0' AS FLOAT)),
    (3, CAST('NaN' AS DOUBLE), CAST('NaN' AS FLOAT)), (4, CAST('Infinity' AS DOUBLE), CAST('Infinity' AS FLOAT)),
    (5, CAST('-Infinity' AS DOUBLE), CAST('-Infinity' AS FLOAT)), (6, NULL, NULL), (7, 1.5D, CAST(1.5 AS FLOAT))"""

TABLES = {
    "equal_plain": Table(
        [
            create(NUMBERED),
            numbered(0, 60),
            equal("SELECT CAST(id AS BIGINT) AS id FROM range(0, 20)"),
            # Later rows with the same keys stay.
            numbered(10, 30, "again"),
        ],
        [
            "SELECT name FROM {t}",
            "SELECT n, count(*) FROM {t} GROUP BY n",
            "SELECT name FROM {t} WHERE n = 3",
            "SELECT count(*) FROM {t} WHERE id = 5",
            "SELECT count(*), min(id), max(id), count(name) FROM {t}",
            "SELECT count(*) FROM (SELECT n FROM {t} LIMIT 1000) x",
        ],
    ),
    # As upserting writers do it: the deletes spare rows of their own commit.
    "equal_upserted": Table(
        [
            create(NUMBERED),
            numbered(0, 30),
            equal("SELECT id FROM range(0, 10)", rows="SELECT id, 'upserted' AS name, 77 AS n FROM range(0, 10)"),
            equal("SELECT id FROM range(5, 15)", rows="SELECT id, 'twice' AS name, 78 AS n FROM range(5, 15)"),
        ],
        ["SELECT name, count(*) FROM {t} GROUP BY name"],
    ),
    "equal_several_keys": Table(
        [
            create(NUMBERED),
            numbered(0, 60),
            "INSERT INTO {t} VALUES (100, NULL, 1), (101, NULL, NULL), (102, 'n1', NULL), (NULL, NULL, NULL)",
            # NULL equals NULL.
            equal("SELECT * FROM VALUES ('n1', CAST(NULL AS INT)), (NULL, 1), (NULL, NULL), ('n2', 7) AS k(name, n)"),
            equal("SELECT CAST(NULL AS BIGINT) AS id UNION ALL SELECT 33L"),
            equal("SELECT 9 AS n UNION ALL SELECT 4"),
        ],
        ["SELECT id FROM {t}", "SELECT count(*) FROM {t} WHERE name IS NULL"],
    ),
    "equal_partitioned": Table(
        [
            create(NUMBERED, partitioned="n"),
            numbered(0, 60),
            equal("SELECT 'n1' AS name", where="n=1"),
            equal("SELECT 'n3' AS name"),
            equal("SELECT 'n2' AS name", where="n=2"),
        ],
        ["SELECT id FROM {t} WHERE n = 1", "SELECT n, count(*) FROM {t} GROUP BY n"],
    ),
    # Without a partition a delete holds for files of every spec.
    "equal_global": Table(
        [
            create(NUMBERED),
            numbered(0, 30),
            "ALTER TABLE {t} ADD PARTITION FIELD n",
            numbered(30, 60),
            equal("SELECT 'n1' AS name", where=""),
            "ALTER TABLE {t} ADD PARTITION FIELD bucket(2, id)",
            numbered(60, 80),
            equal("SELECT id FROM range(65, 70)", where=""),
        ],
        ["SELECT n, count(*) FROM {t} GROUP BY n"],
    ),
    "equal_after_rename": Table(
        [
            create(NUMBERED),
            numbered(0, 30),
            equal("SELECT 'n1' AS name"),
            "ALTER TABLE {t} RENAME COLUMN name TO title",
            "ALTER TABLE {t} ALTER COLUMN n TYPE BIGINT",
            numbered(30, 60),
            equal("SELECT 'n2' AS title, 7L AS n"),
        ],
        ["SELECT id FROM {t}", "SELECT title FROM {t} WHERE n > 5"],
    ),
    # Keys written narrow, rows written wide, and the other way round.
    "equal_widened": Table(
        [
            create("id BIGINT, i INT, f FLOAT, d DECIMAL(6,2)"),
            "INSERT INTO {t} SELECT id, CAST(id AS INT), CAST(id / 4 AS FLOAT), CAST(id / 4 AS DECIMAL(6,2)) FROM range(0, 30)",
            equal("SELECT CAST(id AS INT) AS i FROM range(0, 5)"),
            equal("SELECT CAST(2.5 AS FLOAT) AS f"),
            equal("SELECT CAST(3.75 AS DECIMAL(6,2)) AS d"),
            "ALTER TABLE {t} ALTER COLUMN i TYPE BIGINT",
            "ALTER TABLE {t} ALTER COLUMN f TYPE DOUBLE",
            "ALTER TABLE {t} ALTER COLUMN d TYPE DECIMAL(18,2)",
            "INSERT INTO {t} SELECT id, id, id / 4.0D, CAST(id / 4 AS DECIMAL(18,2)) FROM range(10, 40)",
            equal("SELECT id AS i FROM range(20, 25)"),
            equal("SELECT 6.5D AS f UNION ALL SELECT 9.25D"),
            equal("SELECT CAST(7.00 AS DECIMAL(18,2)) AS d"),
        ]
    ),
    "equal_missing_column": Table(
        [
            create(NUMBERED),
            numbered(0, 20),
            "ALTER TABLE {t} ADD COLUMN extra STRING",
            "INSERT INTO {t} SELECT id, 'x', 1, CASE WHEN id % 2 = 0 THEN 'e' END FROM range(20, 30)",
            # Files without the column have NULL there.
            equal("SELECT CAST(NULL AS STRING) AS extra, 3 AS n"),
            equal("SELECT CAST(NULL AS STRING) AS extra, 1 AS n"),
            numbered(20, 40).replace(" FROM", ", NULL FROM"),
        ],
        ["SELECT id FROM {t}"],
    ),
    # Spark fails on it, now and then.
    "equal_nested": Table(
        [
            create("id BIGINT, address STRUCT<street: STRING, zip: INT, geo: STRUCT<x: INT, y: INT>>"),
            """INSERT INTO {t} SELECT id, named_struct('street', concat('s', id % 3), 'zip', CAST(id % 7 AS INT), 'geo',
                named_struct('x', CAST(id % 2 AS INT), 'y', 1)) FROM range(0, 40)""",
            "INSERT INTO {t} VALUES (100, NULL), (101, named_struct('street', NULL, 'zip', 5, 'geo', NULL))",
            equal("SELECT named_struct('zip', 3) AS address"),
            equal("SELECT named_struct('street', 's1', 'geo', named_struct('x', 0)) AS address"),
            "ALTER TABLE {t} RENAME COLUMN address.zip TO code",
            "ALTER TABLE {t} ALTER COLUMN address.code TYPE BIGINT",
            "INSERT INTO {t} VALUES (102, named_struct('street', 'x', 'code', 3, 'geo', NULL)), (103, named_struct('street', 'x', 'code', 4, 'geo', NULL))",
            equal("SELECT named_struct('code', 4L) AS address"),
        ],
        ["SELECT id FROM {t}"],
        instead="""SELECT id, named_struct('street', concat('s', id % 3), 'code', id % 7, 'geo',
                named_struct('x', CAST(id % 2 AS INT), 'y', 1)) AS address
            FROM range(0, 40) WHERE id % 7 NOT IN (3, 4) AND NOT (id % 3 = 1 AND id % 2 = 0)
            UNION ALL VALUES (100L, NULL), (101L, named_struct('street', NULL, 'code', 5L, 'geo', NULL)),
                (102L, named_struct('street', 'x', 'code', 3L, 'geo', NULL))""",
    ),
    # The deletes hold on when their column is gone.
    "equal_dropped_column": Table(
        [
            create(NUMBERED),
            numbered(0, 30),
            equal("SELECT 'n1' AS name"),
            "ALTER TABLE {t} DROP COLUMN name",
            "INSERT INTO {t} SELECT id, 1 FROM range(30, 35)",
        ],
        ["SELECT id FROM {t}"],
        instead="""SELECT id, CAST(id % 10 AS INT) AS n FROM range(0, 30) WHERE id % 5 <> 1
            UNION ALL SELECT id, 1 FROM range(30, 35)""",
    ),
    # Compacted files are new, unless they keep the number of the commit that they come from.
    "equal_compacted": Table(
        [
            create(NUMBERED, partitioned="n"),
            numbered(0, 30),
            equal("SELECT id FROM range(0, 10)"),
            numbered(0, 5, "again"),
            call("rewrite_data_files", "options => map('rewrite-all', 'true', 'use-starting-sequence-number', 'true'), where => 'n = 1 OR n = 2'"),
            call("rewrite_data_files", "options => map('rewrite-all', 'true', 'use-starting-sequence-number', 'false'), where => 'n = 3'"),
            equal("SELECT id FROM range(11, 14)"),
        ],
        ["SELECT name FROM {t} WHERE id < 5"],
    ),
    "equal_with_positions": Table(
        [
            create(NUMBERED, partitioned="bucket(2, id)"),
            numbered(0, 60),
            "DELETE FROM {t} WHERE id % 6 = 0",
            equal("SELECT id FROM range(10, 25)"),
            "DELETE FROM {t} WHERE id % 6 = 1",
            numbered(20, 22, "late"),
        ],
        ["SELECT name, count(*) FROM {t} GROUP BY name"],
    ),
    "equal_with_vectors": Table(
        [
            create(NUMBERED, version=3),
            numbered(0, 60),
            "DELETE FROM {t} WHERE id % 6 = 0",
            equal("SELECT id FROM range(10, 25)"),
            "DELETE FROM {t} WHERE id % 6 = 1",
            numbered(20, 22, "late"),
        ],
        ["SELECT name, count(*) FROM {t} GROUP BY name", "SELECT n FROM {t} WHERE id > 20"],
    ),
    "equal_types": Table(
        [
            create(KEYED),
            KEYED_ROWS,
            keyed("CAST(1 AS INT)", "i"),
            keyed("CAST(20000000000 AS BIGINT)", "l"),
            keyed("CAST(0.75 AS FLOAT)", "f"),
            keyed("0.5D", "d"),
            keyed("CAST(0.05 AS DECIMAL(12,2))", "dec"),
            keyed("DATE '2026-01-07'", "day"),
            keyed("timestamp_micros(1767225600000008)", "ts"),
            keyed("CAST(timestamp_micros(1767225600000009) AS TIMESTAMP_NTZ)", "local"),
            keyed("'s9'", "s"),
            keyed("CAST('b10' AS BINARY)", "bin"),
            equal("SELECT true AS b, 12 AS i UNION ALL SELECT false, 14 UNION ALL SELECT true, 15"),
        ],
        ["SELECT id FROM {t}"],
    ),
    "equal_floats": Table(
        [
            create("id INT, d DOUBLE, f FLOAT"),
            FLOATS,
            equal("SELECT CAST('NaN' AS DOUBLE) AS d UNION ALL SELECT -0.0D UNION ALL SELECT CAST('Infinity' AS DOUBLE)"),
        ]
    ),
    "equal_single_floats": Table(
        [
            create("id INT, d DOUBLE, f FLOAT"),
            FLOATS,
            equal("SELECT CAST('NaN' AS FLOAT) AS f UNION ALL SELECT CAST(0.0 AS FLOAT) UNION ALL SELECT NULL"),
        ]
    ),
    "equal_avro": Table(
        [create(NUMBERED), numbered(0, 30), equal("SELECT id FROM range(0, 20)", format="avro")],
        ["SELECT name FROM {t}"],
        may_be_refused=True,
    ),
    "equal_many": Table(
        [
            create(NUMBERED),
            numbered(0, 20000),
            equal("SELECT id FROM range(0, 20000, 3)"),
            equal("SELECT id FROM range(0, 20000, 7)"),
        ],
        ["SELECT n, count(*), min(id), max(id) FROM {t} GROUP BY n"],
    ),
}
