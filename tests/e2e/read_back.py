"""Reads a table of the ledger with PyIceberg and with DuckDB, independently of Tidewater.

usage: read_back.py CATALOG NAMESPACE TABLE GROUP_COLUMN NUMBER_COLUMN

CATALOG is a JSON object of PyIceberg's catalog properties. Prints one JSON object: for each reader, rows
[group, count, distinct numbers, sum of numbers].
"""

import importlib
import json
import os
import sys
from pathlib import Path

import duckdb
from pyiceberg.catalog import load_catalog

EXTENSIONS = ["avro", "httpfs", "iceberg"]


def with_pyiceberg(table, group, number):
    arrow = table.scan(selected_fields=(group, number)).to_arrow()
    rows = arrow.group_by(group).aggregate([([], "count_all"), (number, "count_distinct"), (number, "sum")])
    return sorted([r[group], r["count_all"], r[f"{number}_count_distinct"], r[f"{number}_sum"]] for r in rows.to_pylist())


def extension_file(name):
    package = importlib.import_module(f"duckdb_extension_{name}")
    return str(next(Path(list(package.__path__)[0]).rglob("*.duckdb_extension")))


def with_duckdb(catalog, table, namespace, name, group, number):
    db = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    for extension in EXTENSIONS:
        db.execute(f"LOAD '{extension_file(extension)}'")
    if "s3.endpoint" in catalog:
        db.execute(f"""CREATE SECRET (TYPE s3, KEY_ID '{catalog["s3.access-key-id"]}',
            SECRET '{catalog["s3.secret-access-key"]}', ENDPOINT '{catalog["s3.endpoint"].removeprefix("http://")}',
            REGION 'us-east-1', URL_STYLE 'path', USE_SSL false)""")
    if catalog["type"] == "rest":
        # As its users have it: through the catalog, not past it.
        db.execute(f"ATTACH '' AS c (TYPE iceberg, ENDPOINT '{catalog['uri']}', AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none')")
        source = f'c."{namespace}"."{name}"'
    else:
        source = f"iceberg_scan('{table.metadata_location.removeprefix('file://')}')"
    query = f"""SELECT "{group}", count(*), count(DISTINCT "{number}"), sum("{number}")
                FROM {source} GROUP BY 1 ORDER BY 1"""
    return [[int(value) for value in row] for row in db.execute(query).fetchall()]


def main():
    catalog, namespace, name, group, number = sys.argv[1:]
    catalog = json.loads(catalog)
    os.environ.setdefault("AWS_REGION", "us-east-1")
    table = load_catalog("lake", **catalog).load_table((*namespace.split("."), name))
    print(json.dumps({
        "pyiceberg": with_pyiceberg(table, group, number),
        "duckdb": with_duckdb(catalog, table, namespace, name, group, number),
    }))


if __name__ == "__main__":
    main()
