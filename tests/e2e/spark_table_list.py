"""The tables of spark_tables.py: how each comes to be, and what is asked of it beside all rows and their number."""

from dataclasses import dataclass, field

MERGE_ON_READ = {f"write.{what}.mode": "merge-on-read" for what in ("delete", "update", "merge")}


@dataclass
class Table:
    """A step is SQL of Spark with the table as `{t}`, or a function of the writer and the table's full name.

    A query is SQL, or a pair of Tidewater's and of Spark's, where Spark answers the former wrongly.
    """

    steps: list
    queries: list = field(default_factory=list)
    # Files that Tidewater need not read: it answers right, or says that it cannot.
    may_be_refused: bool = False


def create(columns, version=2, partitioned="", **properties):
    """Underscores of property names stand for dots, `__` for hyphens."""
    named = {k.replace("__", "-").replace("_", "."): v for k, v in properties.items()}
    all = {"format-version": version, **MERGE_ON_READ, **named}
    listed = ", ".join(f"'{k}' = '{v}'" for k, v in all.items())
    by = f"PARTITIONED BY ({partitioned})" if partitioned else ""
    return f"CREATE TABLE {{t}} ({columns}) USING iceberg {by} TBLPROPERTIES ({listed})"


def call(procedure, arguments=""):
    """A maintenance procedure of Iceberg."""
    more = f", {arguments}" if arguments else ""
    return lambda writer, table: writer.sql(f"CALL peer.system.{procedure}(table => '{table}'{more})")


# --- Rows deleted by position: delete files in version 2, deletion vectors in version 3 ---

PEOPLE = "id BIGINT NOT NULL, name STRING, city STRING, age INT"


def people(first, end):
    return f"""INSERT INTO {{t}} SELECT id, concat('name ', id % 13),
        CASE id % 4 WHEN 0 THEN NULL ELSE concat('city ', id % 4) END, CAST(id % 90 AS INT) FROM range({first}, {end})"""


CHANGES = [
    "DELETE FROM {t} WHERE id % 7 = 3",
    "UPDATE {t} SET city = upper(city), age = age + 1 WHERE id % 11 = 0",
    """MERGE INTO {t} t USING (SELECT id, concat('merged ', id) AS name FROM range(180, 320)) s ON t.id = s.id
       WHEN MATCHED AND t.id % 2 = 0 THEN DELETE
       WHEN MATCHED THEN UPDATE SET name = s.name
       WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)""",
    # Once more where rows are deleted already.
    "DELETE FROM {t} WHERE id < 40 AND id % 2 = 0",
]
PEOPLE_QUERIES = [
    "SELECT city, count(*), min(id), max(age) FROM {t} GROUP BY city",
    "SELECT name FROM {t} WHERE id >= 170 AND id < 200",
    "SELECT count(*) FROM {t} WHERE city IS NULL",
    "SELECT count(name), count(city), min(id), max(id) FROM {t}",
    "SELECT count(*) FROM (SELECT id FROM {t} LIMIT 1000) x",
]


def changed(version, partitioned="", may_be_refused=False, **properties):
    steps = [create(PEOPLE, version, partitioned, **properties), people(0, 150), people(150, 300), *CHANGES]
    return Table(steps, PEOPLE_QUERIES, may_be_refused)


# --- Rows deleted by equality ---


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

EQUALITY = {
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
    "equal_nested": Table(
        [
            create("id BIGINT, address STRUCT<street: STRING, zip: INT, geo: STRUCT<x: INT, y: INT>>"),
            """INSERT INTO {t} SELECT id, named_struct('street', concat('s', id % 3), 'zip', CAST(id % 7 AS INT), 'geo',
                named_struct('x', CAST(id % 2 AS INT), 'y', 1)) FROM range(0, 40)""",
            "INSERT INTO {t} VALUES (100, NULL), (101, named_struct('street', NULL, 'zip', 5, 'geo', NULL))",
            equal("SELECT named_struct('zip', 3) AS address"),
            equal("SELECT named_struct('street', 's1', 'geo', named_struct('x', 0)) AS address"),
        ],
        ["SELECT id FROM {t}"],
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

# --- Schemas that changed ---

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
            ("SELECT id FROM {t} WHERE i = 7", "SELECT id FROM {t} WHERE i + 0 = 7"),
            "SELECT id FROM {t} WHERE s IS NULL",
            "SELECT count(i), min(s), max(d) FROM {t}",
            ("SELECT id FROM {t} WHERE day > DATE '2026-01-01'", "SELECT id FROM {t} WHERE date_add(day, 0) > DATE '2026-01-01'"),
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

# --- Partitions that changed ---

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

# --- Values, files and layouts ---

SCALARS = """b BOOLEAN, i INT, l BIGINT, f FLOAT, d DOUBLE, small DECIMAL(9,2), medium DECIMAL(18,4), large DECIMAL(38,10),
    day DATE, ts TIMESTAMP, local TIMESTAMP_NTZ, s STRING, bin BINARY"""
NESTED = """a ARRAY<INT>, t ARRAY<STRING>, aa ARRAY<ARRAY<INT>>, m MAP<STRING, INT>, mi MAP<INT, STRING>,
    v STRUCT<x: INT, when: TIMESTAMP, day: DATE, dec: DECIMAL(9,2), f: DOUBLE, s: STRING, bin: BINARY, b: BOOLEAN>"""

VALUES = {
    "types": Table(
        [
            create(SCALARS),
            """INSERT INTO {t} VALUES
            (true, 1, 1, CAST(1.5 AS FLOAT), 1.5D, 1.5, 1.5, 1.5, DATE '2026-01-01', TIMESTAMP '2026-01-01 01:02:03.456789', TIMESTAMP_NTZ '2026-01-01 01:02:03.4', 'text', X'00ff10'),
            (false, -2147483648, -9223372036854775808, CAST('-Infinity' AS FLOAT), CAST('-Infinity' AS DOUBLE), -9999999.99, -99999999999999.9999, -9999999999999999999999999999.9999999999, DATE '1900-01-01', TIMESTAMP '1900-01-01 00:00:00.000001', TIMESTAMP_NTZ '1582-10-15 00:00:00', '', X''),
            (NULL, 2147483647, 9223372036854775807, CAST('Infinity' AS FLOAT), CAST('Infinity' AS DOUBLE), 9999999.99, 99999999999999.9999, 9999999999999999999999999999.9999999999, DATE '9999-12-31', TIMESTAMP '9999-12-31 23:59:59.999999', TIMESTAMP_NTZ '9999-12-31 23:59:59.999999', 'ünïcödé \U0001F30A "quoted" \\\\ {braces}', X'5c78'),
            (true, 0, 0, CAST('NaN' AS FLOAT), CAST('NaN' AS DOUBLE), 0, 0, 0, DATE '1970-01-01', TIMESTAMP '1970-01-01 00:00:00', TIMESTAMP_NTZ '1969-12-31 23:59:59.999999', 'NULL', X'00'),
            (true, -1, -1, CAST('-0.0' AS FLOAT), CAST('-0.0' AS DOUBLE), -0.01, -0.0001, -0.0000000001, DATE '1969-12-31', TIMESTAMP '1969-12-31 23:59:59.999999', TIMESTAMP_NTZ '0001-01-01 00:00:00', ' lead', X'ff'),
            (false, 5, 5, CAST(1.17549435E-38 AS FLOAT), 4.9E-324D, 0.01, 0.0001, 0.0000000001, DATE '2024-02-29', TIMESTAMP '2024-02-29 12:00:00', TIMESTAMP_NTZ '2024-02-29 12:00:00', 'tab\\tline\\nend', X'0a'),
            (false, 6, 6, CAST(3.4028235E38 AS FLOAT), 1.7976931348623157E308D, 1, 1, 1, DATE '0001-01-01', TIMESTAMP '2038-01-19 03:14:08', TIMESTAMP_NTZ '2038-01-19 03:14:08', repeat('long ', 100), X'0102030405060708090a0b0c0d0e0f1011'),
            (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)""",
        ],
        [
            "SELECT i FROM {t} WHERE b",
            "SELECT l FROM {t} WHERE l > 5",
            "SELECT i FROM {t} WHERE small < 0",
            "SELECT i FROM {t} WHERE medium >= 99999999999999.9999",
            "SELECT i FROM {t} WHERE large > 0",
            "SELECT i FROM {t} WHERE day < DATE '1970-01-01'",
            "SELECT i FROM {t} WHERE s = ''",
            "SELECT i FROM {t} WHERE s > 'text' OR s IS NULL",
            "SELECT count(b), count(i), count(f), count(d), count(s), count(bin) FROM {t}",
            "SELECT min(i), max(i), min(l), max(l), min(large), max(large), min(day), max(day), min(ts), max(ts), min(local), max(local) FROM {t}",
        ],
    ),
    "nested_types": Table(
        [
            create(f"id INT, {NESTED}"),
            """INSERT INTO {t} VALUES
            (1, array(1, NULL, 3), array('a', '', 'NULL', NULL, 'x y', 'q"uote', 'b\\\\s'), array(array(1, 2), array(3, 4)), map('k', 1, 'l', NULL), map(1, 'x'),
             named_struct('x', 1, 'when', TIMESTAMP '2026-01-01 01:02:03.5', 'day', DATE '2026-01-01', 'dec', 1.50, 'f', CAST('NaN' AS DOUBLE), 's', 'é"\\n', 'bin', X'00ff', 'b', true)),
            (2, array(), array(), array(), map(), map(), named_struct('x', NULL, 'when', NULL, 'day', NULL, 'dec', NULL, 'f', NULL, 's', NULL, 'bin', NULL, 'b', NULL)),
            (3, NULL, NULL, NULL, NULL, NULL, NULL)""",
        ],
        ["SELECT id FROM {t} WHERE a IS NULL", "SELECT a, m FROM {t}"],
    ),
    "uuid_and_fixed": Table(
        [
            create("id BIGINT"),
            "INSERT INTO {t} VALUES (0)",
            lambda writer, table: writer.add_column(table, "u", "uuid"),
            lambda writer, table: writer.add_column(table, "fixed", "fixed[4]"),
            lambda writer, table: writer.append(
                table,
                """SELECT * FROM VALUES (1L, '00112233-4455-6677-8899-aabbccddeeff', X'00010203'), (2L, NULL, NULL),
                    (3L, 'ffffffff-ffff-ffff-ffff-ffffffffffff', X'ffffffff') AS r(id, u, fixed)""",
            ),
        ],
        # Not with a filter on the UUID: Spark finds nothing.
        ["SELECT count(u), count(fixed) FROM {t}"],
    ),
    # Deletes reach over the borders of row groups and pages.
    "row_groups": Table(
        [
            create(
                PEOPLE,
                write_parquet_row__group__size__bytes=4096,
                write_parquet_row__group__check__min__record__count=100,
                write_parquet_row__group__check__max__record__count=200,
                write_parquet_page__row__limit=50,
            ),
            people(0, 3000).replace("SELECT id", "SELECT /*+ COALESCE(1) */ id"),
            "DELETE FROM {t} WHERE id BETWEEN 700 AND 1300 OR id % 100 = 3 OR id = 2999",
        ],
        ["SELECT id FROM {t} WHERE id >= 1290 AND id < 1310", "SELECT name FROM {t} WHERE id > 2990", *PEOPLE_QUERIES],
    ),
    "odd_names": Table(
        [
            create('`a b` INT, `Upper` STRING, `select` INT, `dotted.name` INT, `ünïcode` STRING, `1st` INT', partitioned="`a b`, truncate(2, `Upper`), `ünïcode`"),
            "INSERT INTO {t} SELECT CAST(id AS INT), concat('v', id), 1, 2, 'ü/=?', 3 FROM range(0, 4)",
            "DELETE FROM {t} WHERE `a b` = 2",
        ],
        ['SELECT "Upper" FROM {t} WHERE "a b" = 1', 'SELECT "dotted.name", "1st" FROM {t} WHERE "ünïcode" = \'ü/=?\''],
    ),
    **{
        f"codec_{codec}": Table([create(PEOPLE, write_parquet_compression__codec=codec), people(0, 50), "DELETE FROM {t} WHERE id % 3 = 0"])
        for codec in ("uncompressed", "snappy", "gzip", "lz4")
    },
    **{
        f"written_in_{format}": Table(
            [create(PEOPLE, write_format_default=format), people(0, 50), "DELETE FROM {t} WHERE id % 3 = 0"], PEOPLE_QUERIES, may_be_refused=True
        )
        for format in ("avro", "orc")
    },
    "layout": Table(
        [
            create(PEOPLE, write_object__storage_enabled="true", write_metadata_compression__codec="gzip", write_metadata_metrics_default="none"),
            people(0, 50),
            "DELETE FROM {t} WHERE id % 3 = 0",
        ],
        PEOPLE_QUERIES,
    ),
    "overwritten": Table(
        [
            create(PEOPLE, partitioned="city"),
            people(0, 50),
            "INSERT OVERWRITE {t} SELECT id, 'over', 'city 1', 1 FROM range(5)",
            "DELETE FROM {t} WHERE city = 'city 2'",
            people(50, 60),
        ],
        PEOPLE_QUERIES,
    ),
    "emptied": Table([create(PEOPLE), people(0, 10), "DELETE FROM {t}"], ["SELECT max(id) FROM {t}"]),
    "never_written": Table([create(PEOPLE)], ["SELECT max(id) FROM {t}"]),
    "maintained": Table(
        [
            create(PEOPLE),
            people(0, 50),
            people(50, 100),
            "DELETE FROM {t} WHERE id % 7 = 3",
            "DELETE FROM {t} WHERE id % 7 = 4",
            call("rewrite_position_delete_files", "options => map('rewrite-all', 'true')"),
            call("rewrite_data_files", "options => map('rewrite-all', 'true'), where => 'id < 60'"),
            call("rewrite_manifests"),
            call("expire_snapshots", "older_than => TIMESTAMP '2100-01-01 00:00:00', retain_last => 1"),
            "DELETE FROM {t} WHERE id % 7 = 5",
        ],
        PEOPLE_QUERIES,
    ),
}

DELETED = {
    "position_deletes": changed(2),
    "position_deletes_by_partition": changed(2, "bucket(3, id)", write_delete_granularity="partition"),
    "position_deletes_of_identity_partitions": changed(2, "city"),
    "position_deletes_in_avro": changed(2, write_delete_format_default="avro", may_be_refused=True),
    "deletion_vectors": changed(3),
    "deletion_vectors_by_partition": changed(3, "truncate(6, name)"),
    "copy_on_write": changed(2, write_delete_mode="copy-on-write", write_update_mode="copy-on-write", write_merge_mode="copy-on-write"),
    # Position deletes of version 2 hold on in version 3, until a vector takes them in.
    "raised_to_version_3": Table(
        [create(PEOPLE), people(0, 150), people(150, 300), *CHANGES[:2], "ALTER TABLE {t} SET TBLPROPERTIES ('format-version' = '3')", *CHANGES[2:]],
        PEOPLE_QUERIES,
    ),
    "version_1": Table(
        [create(PEOPLE, 1, write_delete_mode="copy-on-write"), people(0, 50), people(50, 100), "DELETE FROM {t} WHERE id % 7 = 3"],
        PEOPLE_QUERIES,
    ),
}

TABLES = {**DELETED, **EQUALITY, **SCHEMAS, **PARTITIONS, **VALUES}
