"""Reads a streaming table of the ledger with PyIceberg and with DuckDB, independently of Tidewater.

usage: read_back.py SQLITE_FILE WAREHOUSE NAMESPACE TABLE GROUP_COLUMN NUMBER_COLUMN

Prints one JSON object: for each reader, rows [group, count, distinct numbers, sum of numbers].
"""

import json
import sys
from pathlib import Path

import duckdb
from pyiceberg.catalog.sql import SqlCatalog

EXTENSIONS = ["avro", "httpfs", "iceberg"]


def with_pyiceberg(table, group, number):
    arrow = table.scan(selected_fields=(group, number)).to_arrow()
    rows = arrow.group_by(group).aggregate([([], "count_all"), (number, "count_distinct"), (number, "sum")])
    return sorted([r[group], r["count_all"], r[f"{number}_count_distinct"], r[f"{number}_sum"]] for r in rows.to_pylist())


def extension_file(name):
    import importlib

    package = importlib.import_module(f"duckdb_extension_{name}")
    return str(next(Path(list(package.__path__)[0]).rglob("*.duckdb_extension")))


def with_duckdb(table, group, number):
    db = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    for name in EXTENSIONS:
        db.execute(f"LOAD '{extension_file(name)}'")
    location = table.metadata_location.removeprefix("file://")
    query = f"""SELECT "{group}", count(*), count(DISTINCT "{number}"), sum("{number}")
                FROM iceberg_scan('{location}') GROUP BY 1 ORDER BY 1"""
    return [[int(value) for value in row] for row in db.execute(query).fetchall()]


def main():
    database, warehouse, namespace, name, group, number = sys.argv[1:]
    catalog = SqlCatalog("lake", uri=f"sqlite:///{database}", warehouse=f"file://{warehouse}")
    table = catalog.load_table((*namespace.split("."), name))
    print(json.dumps({
        "pyiceberg": with_pyiceberg(table, group, number),
        "duckdb": with_duckdb(table, group, number),
    }))


if __name__ == "__main__":
    main()
