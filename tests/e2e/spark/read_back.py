"""Reads tables of the ledger with Spark, as ../read_back.py does with others; one session for all of them.

usage: read_back.py JARS TABLES

JARS is a directory. TABLES is a JSON array of objects with `catalog` (PyIceberg's catalog properties), `namespace`,
`table`, `group` and `number` (columns; the group may be a constant). Prints a JSON array with an array for each table:
its rows [group, count, distinct numbers, sum of numbers].
"""

import json
import sys

from session import session


def main():
    jars, tables = sys.argv[1], json.loads(sys.argv[2])
    # Catalogs of the SQL kind keep their name in the database.
    named = {}
    for table in tables:
        table["in"] = "lake" if table["catalog"]["type"] == "sql" else "rest"
        named[table["in"]] = table["catalog"]
    spark = session([jars], named)
    answers = []
    for table in tables:
        name = ".".join(f"`{part}`" for part in (table["in"], *table["namespace"].split("."), table["table"]))
        group, number = table["group"], table["number"]
        rows = spark.sql(
            f"SELECT {group} AS g, count(*), count(DISTINCT {number}), sum({number}) FROM {name} GROUP BY g ORDER BY g"
        )
        answers.append([[int(value) for value in row] for row in rows.collect()])
    print(json.dumps(answers))
    spark.stop()


if __name__ == "__main__":
    main()
