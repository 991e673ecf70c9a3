"""Counts the rows of a table and adds up one of its columns with PyIceberg.

usage: sum_of_column.py CATALOG TABLE COLUMN

CATALOG is a JSON object of PyIceberg's catalog properties.
"""

import json
import os
import sys

from pyiceberg.catalog import load_catalog


def main():
    catalog, table, column = sys.argv[1:]
    os.environ.setdefault("AWS_REGION", "us-east-1")
    rows = load_catalog("lake", **json.loads(catalog)).load_table(table).scan(selected_fields=(column,)).to_arrow()
    print(rows.num_rows, sum(rows[column].to_pylist()))


if __name__ == "__main__":
    main()
