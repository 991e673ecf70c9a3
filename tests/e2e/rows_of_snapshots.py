"""Reads every snapshot of a table that is asked for with PyIceberg.

usage: rows_of_snapshots.py CATALOG TABLE < SNAPSHOTS

CATALOG is a JSON object of PyIceberg's catalog properties, SNAPSHOTS a JSON list of snapshot ids. Prints a JSON object: by
snapshot id, the rows as lists of texts, sorted by the first column.
"""

import json
import sys

from pyiceberg.catalog import load_catalog

COLUMNS = ("id", "name", "n")


def main():
    catalog, name = sys.argv[1:]
    table = load_catalog("lake", **json.loads(catalog)).load_table(name)
    snapshots = {}
    for snapshot in json.load(sys.stdin):
        rows = table.scan(snapshot_id=snapshot, selected_fields=COLUMNS).to_arrow().to_pylist()
        rows = [[None if row[column] is None else str(row[column]) for column in COLUMNS] for row in rows]
        snapshots[snapshot] = sorted(rows, key=lambda row: int(row[0]))
    print(json.dumps(snapshots))


if __name__ == "__main__":
    main()
