"""Schemas and partitions that changed."""

from table import Table, create

# --- Schemas ---

STRUCT = "a: INT, b: STRING, inner: STRUCT<x: INT, y: STRING>"
STRUCT_VALUE = "named_struct('a', {i}, 'b', concat('b', id), 'inner', named_struct('x', {i}, 'y', concat('y', id)))"
OLD_VALUE = STRUCT_VALUE.format(i="CAST(id AS INT)")
# After `nested_changes`: a widened, b dropped and added again as a number, inner.x renamed, inner.z added, order changed.
NEW_VALUE = """named_struct('added', CAST(id AS DOUBLE), 'inner', named_struct('z', id % 2 = 0, 'renamed', CAST(id AS INT), 'y', 'new'),
    'a', id * 10000000000, 'b', CAST(id AS INT))"""


def nested_changes(path):
    return [
        f"ALTER TABLE {{t}} ALTER COLUMN {path}.a TYPE BIGINT",
        f"ALTER TABLE {{t}} DROP COLUMN {path}.b",
        f"ALTER TABLE {{t}} RENAME COLUMN {path}.inner.x TO renamed",
        f"ALTER TABLE {{t}} ADD COLUMN {path}.b INT",
        f"ALTER TABLE {{t}} ADD COLUMN {path}.inner.z BOOLEAN",
        f"ALTER TABLE {{t}} ALTER COLUMN {path}.inner.z FIRST",
        f"ALTER TABLE {{t}} ADD COLUMN {path}.added DOUBLE FIRST",
        f"ALTER TABLE {{t}} ALTER COLUMN {path}.inner AFTER added",
    ]


def nested(kind, path, wrap, queries):
    """`wrap` makes the column's value from that of the struct in it."""
    return Table(
        [
            create(f"id BIGINT, v {kind}"),
            f"INSERT INTO {{t}} SELECT id, {wrap(OLD_VALUE)} FROM range(0, 4)",
            "INSERT INTO {t} VALUES (50, NULL)",
            *nested_changes(path),
            f"INSERT INTO {{t}} SELECT id, {wrap(NEW_VALUE)} FROM range(10, 14)",
            "INSERT INTO {t} VALUES (51, NULL)",
            "DELETE FROM {t} WHERE id = 2 OR id = 12",
        ],
        queries,
    )


SCHEMAS = {
    "evolved_columns": Table(
        [
            create("id INT NOT NULL, gone STRING, i INT, f FLOAT, d DECIMAL(6,2), name STRING, day DATE"),
            """INSERT INTO {t} SELECT CAST(id AS INT), concat('gone', id), CAST(id AS INT), CAST(id / 4 AS FLOAT),
                CAST(id / 8 AS DECIMAL(6,2)), concat('name', id), date_add(DATE '2026-01-01', CAST(id AS INT)) FROM range(0, 10)""",
            "ALTER TABLE {t} DROP COLUMN gone",
            "ALTER TABLE {t} ADD COLUMN gone INT",
            "ALTER TABLE {t} ALTER COLUMN id TYPE BIGINT",
            "ALTER TABLE {t} ALTER COLUMN i TYPE BIGINT",
            "ALTER TABLE {t} ALTER COLUMN f TYPE DOUBLE",
            "ALTER TABLE {t} ALTER COLUMN d TYPE DECIMAL(20,2)",
            "ALTER TABLE {t} RENAME COLUMN name TO title",
            "ALTER TABLE {t} ADD COLUMN name BOOLEAN AFTER id",
            "ALTER TABLE {t} ALTER COLUMN day FIRST",
            "ALTER TABLE {t} ALTER COLUMN id DROP NOT NULL",
            """INSERT INTO {t} (day, id, name, i, f, d, title, gone) SELECT date_add(DATE '2026-02-01', CAST(id AS INT)),
                id * 10000000000, id % 2 = 0, id * 10000000000, id / 3.0D, CAST('123456789012345678.25' AS DECIMAL(20,2)),
                concat('title', id), CAST(id AS INT) FROM range(10, 20)""",
            "DELETE FROM {t} WHERE i = 3 OR title = 'title12'",
        ],
        [
            "SELECT gone, name FROM {t}",
            "SELECT id, title FROM {t} WHERE gone IS NULL",
            "SELECT id FROM {t} WHERE i > 5 AND f >= 1.75",
            "SELECT id FROM {t} WHERE d = 0.5",
            "SELECT count(gone), count(name), min(id), max(i), min(f), max(d) FROM {t}",
            "SELECT title FROM {t} WHERE title < 'name3'",
        ],
    ),
    "evolved_struct": nested(
        f"STRUCT<{STRUCT}>", "v", lambda value: value, ['SELECT id FROM {t} WHERE id > 2 AND v IS NOT NULL']
    ),
    "evolved_array": nested(
        f"ARRAY<STRUCT<{STRUCT}>>", "v.element", lambda value: f"CASE id % 4 WHEN 1 THEN array() ELSE array({value}, NULL, {value}) END", []
    ),
    "evolved_map": nested(
        f"MAP<STRING, STRUCT<{STRUCT}>>", "v.value", lambda value: f"CASE id % 4 WHEN 1 THEN map() ELSE map(concat('k', id), {value}) END", []
    ),
    "evolved_deep": nested(
        f"STRUCT<list: ARRAY<MAP<STRING, STRUCT<{STRUCT}>>>>",
        "v.list.element.value",
        lambda value: f"named_struct('list', array(map('k', {value}), NULL, map()))",
        [],
    ),
    # Arrays and maps whose own type is widened.
    "evolved_elements": Table(
        [
            create("id BIGINT, a ARRAY<INT>, m MAP<STRING, FLOAT>, d ARRAY<DECIMAL(4,1)>"),
            "INSERT INTO {t} SELECT id, array(CAST(id AS INT), NULL), map('k', CAST(id / 4 AS FLOAT)), array(CAST(id AS DECIMAL(4,1))) FROM range(0, 4)",
            "ALTER TABLE {t} ALTER COLUMN a.element TYPE BIGINT",
            "ALTER TABLE {t} ALTER COLUMN m.value TYPE DOUBLE",
            "ALTER TABLE {t} ALTER COLUMN d.element TYPE DECIMAL(20,1)",
            "INSERT INTO {t} SELECT id, array(id * 10000000000), map('k', id / 3.0D), array(CAST(id * 10000000000 AS DECIMAL(20,1))) FROM range(4, 8)",
        ]
    ),
    "defaults": Table(
        [
            # Spark's vectorised reader fails on the default of a decimal.
            create("id BIGINT, v STRUCT<a: INT>", version=3, read_parquet_vectorization_enabled="false"),
            "INSERT INTO {t} SELECT id, named_struct('a', CAST(id AS INT)) FROM range(0, 5)",
            "INSERT INTO {t} VALUES (50, NULL)",
            lambda writer, table: [
                writer.add_column_with_default(table, *column)
                for column in [
                    ("i", "int", "7"),
                    ("s", "string", "given"),
                    ("d", "decimal(9,2)", "1.25"),
                    ("f", "double", "0.5"),
                    ("day", "date", "2026-02-03"),
                    ("ts", "timestamptz", "2026-02-03T04:05:06.789012+00:00"),
                    ("b", "boolean", "true"),
                    ("inner", "string", "nested", "v"),
                ]
            ],
            """INSERT INTO {t} VALUES (6, named_struct('a', 6, 'inner', NULL), NULL, NULL, NULL, NULL, NULL, NULL, NULL),
                (7, named_struct('a', 7, 'inner', 'said'), 1, 's', 2, 3, DATE '2000-01-01', TIMESTAMP '2000-01-01 00:00:00', false)""",
            "DELETE FROM {t} WHERE id = 3",
        ],
        [
            # Spark looks for the column in the file before it thinks of the default.
            ("SELECT id FROM {t} WHERE i = 7", "SELECT id FROM {t} WHERE coalesce(i, 0) = 7"),
            "SELECT id FROM {t} WHERE s IS NULL",
            "SELECT count(i), min(s), max(d) FROM {t}",
            ("SELECT id FROM {t} WHERE day > DATE '2026-01-01'", "SELECT id FROM {t} WHERE coalesce(day, DATE '1970-01-01') > DATE '2026-01-01'"),
        ],
    ),
    "name_mapped": Table(
        [
            create("id BIGINT, name STRING, v STRUCT<a: INT, b: STRING>, l ARRAY<STRUCT<x: INT>>, m MAP<STRING, STRUCT<y: INT>>"),
            lambda writer, table: writer.add_foreign_file(
                table,
                """SELECT id, concat('n', id) AS name, named_struct('b', 'b', 'a', CAST(id AS INT)) AS v,
                   array(named_struct('x', CAST(id AS INT))) AS l, map('k', named_struct('y', CAST(id AS INT))) AS m FROM range(0, 5)""",
            ),
            # A renamed column keeps its old name in the mapping.
            "ALTER TABLE {t} RENAME COLUMN name TO title",
            lambda writer, table: writer.add_foreign_file(
                table, "SELECT 'other' AS unknown, CAST(id AS INT) AS id, concat('t', id) AS title FROM range(5, 8)"
            ),
            "INSERT INTO {t} SELECT id, 'own', NULL, NULL, NULL FROM range(8, 10)",
            "DELETE FROM {t} WHERE id IN (1, 6)",
        ],
        ["SELECT id, title FROM {t} WHERE title > 'n2'"],
    ),
}

# --- Partitions ---

EVENTS = "id BIGINT, ts TIMESTAMP, name STRING, region STRING, extra STRING"


def events(first, end, extra=", 'e'"):
    return f"""INSERT INTO {{t}} SELECT id, timestamp_seconds(1767225600 + id * 7200), concat('name', id), concat('r', id % 3){extra}
        FROM range({first}, {end})"""


EVENT_QUERIES = [
    "SELECT id FROM {t} WHERE ts >= CAST('2026-01-02 00:00:00' AS TIMESTAMP) AND ts < CAST('2026-01-03 00:00:00' AS TIMESTAMP)",
    "SELECT id FROM {t} WHERE region = 'r1'",
    "SELECT name FROM {t} WHERE id = 17 OR id = 31",
    "SELECT id FROM {t} WHERE name LIKE 'name1%'",
    "SELECT region, count(*), min(ts), max(name) FROM {t} GROUP BY region",
    "SELECT count(*) FROM {t} WHERE ts IS NULL OR region IS NULL",
]
# A version 1 table keeps the place of a dropped field, with a transform that gives nothing.
PARTITION_CHANGES = [
    events(0, 12),
    "ALTER TABLE {t} ADD PARTITION FIELD bucket(4, id)",
    events(12, 20),
    "ALTER TABLE {t} DROP PARTITION FIELD days(ts)",
    events(20, 28),
    "ALTER TABLE {t} ADD PARTITION FIELD truncate(5, name)",
    "ALTER TABLE {t} ADD PARTITION FIELD region",
    events(28, 36),
    "ALTER TABLE {t} REPLACE PARTITION FIELD region WITH extra AS other",
    events(36, 40),
    "ALTER TABLE {t} DROP PARTITION FIELD other",
    "ALTER TABLE {t} ADD PARTITION FIELD hours(ts)",
    "INSERT INTO {t} VALUES (100, NULL, NULL, NULL, NULL), (101, NULL, '', '', '')",
    events(40, 44),
    "DELETE FROM {t} WHERE id % 5 = 1",
]

PARTITIONS = {
    "evolved_partitions": Table([create(EVENTS, partitioned="days(ts)"), *PARTITION_CHANGES], EVENT_QUERIES),
    "evolved_partitions_of_version_1": Table(
        [create(EVENTS, 1, "days(ts)", write_delete_mode="copy-on-write"), *PARTITION_CHANGES], EVENT_QUERIES
    ),
    "partition_column_dropped": Table(
        [
            create(EVENTS, partitioned="extra"),
            events(0, 12),
            # Not later: Spark cannot delete where the column of an old partition is gone.
            "DELETE FROM {t} WHERE id % 5 = 1",
            "ALTER TABLE {t} DROP PARTITION FIELD extra",
            events(12, 16),
            "ALTER TABLE {t} DROP COLUMN extra",
            "ALTER TABLE {t} ADD PARTITION FIELD region",
            events(16, 24, ""),
        ],
        EVENT_QUERIES,
    ),
    "partition_transforms": Table(
        [
            create(
                "id BIGINT, i INT, dec DECIMAL(9,2), day DATE, local TIMESTAMP_NTZ, s STRING, bin BINARY",
                partitioned="truncate(10, i), truncate(50, dec), months(day), years(local), bucket(3, s), truncate(2, bin)",
            ),
            """INSERT INTO {t} SELECT id, CAST(id * 3 - 20 AS INT), CAST(id / 3 - 2 AS DECIMAL(9,2)), date_add(DATE '1969-12-20', CAST(id AS INT)),
                CAST(timestamp_seconds(id * 20000000 - 100000000) AS TIMESTAMP_NTZ), concat('é', id), CAST(concat('b', id) AS BINARY)
                FROM range(0, 12)""",
            "INSERT INTO {t} VALUES (100, NULL, NULL, NULL, NULL, NULL, NULL)",
            "DELETE FROM {t} WHERE id % 5 = 1",
        ],
        [
            "SELECT id FROM {t} WHERE i < -11",
            "SELECT id FROM {t} WHERE i >= -11 AND i < 10",
            "SELECT id FROM {t} WHERE dec > -1.5 AND dec <= 0.67",
            "SELECT id FROM {t} WHERE day < DATE '1970-01-01'",
            "SELECT id FROM {t} WHERE day = DATE '1969-12-31'",
            "SELECT id FROM {t} WHERE local < CAST('1970-01-01 00:00:00' AS TIMESTAMP)",
            "SELECT id FROM {t} WHERE s = 'é5'",
            "SELECT id FROM {t} WHERE s IS NULL",
            "SELECT id FROM {t} WHERE i IS NULL",
        ],
    ),
}

TABLES = {**SCHEMAS, **PARTITIONS}
