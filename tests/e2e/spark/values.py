"""Values, files and layouts."""

from table import PEOPLE, PEOPLE_QUERIES, Table, call, create, people

SCALARS = """b BOOLEAN, i INT, l BIGINT, f FLOAT, d DOUBLE, small DECIMAL(9,2), medium DECIMAL(18,4), large DECIMAL(38,10),
    day DATE, ts TIMESTAMP, local TIMESTAMP_NTZ, s STRING, bin BINARY"""
NESTED = """a ARRAY<INT>, t ARRAY<STRING>, aa ARRAY<ARRAY<INT>>, m MAP<STRING, INT>, mi MAP<INT, STRING>,
    v STRUCT<x: INT, when: TIMESTAMP, day: DATE, dec: DECIMAL(9,2), f: DOUBLE, s: STRING, bin: BINARY, b: BOOLEAN>"""

TABLES = {
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
    # A branch is not the table, and what was rolled back is no more.
    "branched": Table(
        [
            create(PEOPLE),
            people(0, 50),
            "ALTER TABLE {t} CREATE BRANCH other",
            "INSERT INTO {t}.branch_other SELECT id, 'branch', 'x', 1 FROM range(5)",
            "DELETE FROM {t}.branch_other WHERE id % 3 = 0",
            "DELETE FROM {t} WHERE id % 7 = 0",
            lambda writer, table: writer.sql(
                f"CALL peer.system.rollback_to_snapshot('{table}', {writer.sql(f'SELECT snapshot_id FROM {table}.snapshots ORDER BY committed_at LIMIT 1').first()[0]})"
            ),
            "DELETE FROM {t} WHERE id = 11",
        ],
        PEOPLE_QUERIES,
    ),
    "variant": Table(
        [create("id BIGINT, v VARIANT", 3), """INSERT INTO {t} SELECT id, parse_json('{"a": 1}') FROM range(0, 3)"""],
        ["SELECT id FROM {t}"],
        may_be_refused=True,
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
