"""Writes Iceberg tables with Spark, in the ways in which Tidewater does not write them, and says what Spark reads.

usage: write_tables.py JARS CATALOG CLASSES [FILTER]

JARS is a directory. CATALOG is a JSON object of PyIceberg's catalog properties. CLASSES is a directory for compiled
Java. FILTER has parts of the names of tables, parted by commas. Tables are made in `peer.made`.

Prints one line of JSON: an object with `tables`, an array of [table, [[query, columns, rows, may be refused], …]],
where rows are sorted text as PostgreSQL's protocol sends it, and `failures`, an array of text. Then answers statements
from standard input, one on a line, with one line of JSON each: [columns, rows], or an object with `error`. Names are
quoted as in PostgreSQL.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyspark
from pg_text import text
from session import session

import deletes
import equality
import evolution
import values

TABLES = {**deletes.TABLES, **equality.TABLES, **evolution.TABLES, **values.TABLES}


class Writer:
    """What the statements of a table may use."""

    def __init__(self, spark):
        self.spark = spark
        self.java = spark._jvm.e2e.SparkTables

    def sql(self, statement):
        return self.spark.sql(statement)

    def delete_equal(self, table, keys, where="*", format="parquet", rows=None):
        added = self.sql(rows)._jdf if rows else None
        self.java.deleteEqual(self.spark._jsparkSession, table, self.sql(keys)._jdf, where, format, added)

    def append(self, table, rows):
        self.java.append(self.spark._jsparkSession, table, self.sql(rows)._jdf)

    def add_column(self, table, column, kind):
        self.java.addColumn(self.spark._jsparkSession, table, column, kind)

    def add_column_with_default(self, table, column, kind, value, parent=""):
        self.java.addColumnWithDefault(self.spark._jsparkSession, table, parent, column, kind, value)

    def add_foreign_file(self, table, rows):
        """A Parquet file of Spark's own: without field ids."""
        with tempfile.TemporaryDirectory() as dir:
            frame = self.sql(rows).coalesce(1)
            frame.write.mode("overwrite").parquet(f"file://{dir}/parquet")
            [file] = Path(dir, "parquet").glob("*.parquet")
            self.java.addForeignFile(self.spark._jsparkSession, table, file.read_bytes(), frame.count())


def ask(spark, query):
    frame = spark.sql(query.replace('"', "`"))
    kinds = [field.dataType for field in frame.schema.fields]
    rows = [[text(value, kind) for value, kind in zip(row, kinds)] for row in frame.collect()]
    # NULL before everything else.
    return [frame.columns, sorted(rows, key=lambda row: [(v is not None, v or "") for v in row])]


def make(writer, name, table):
    """Takes the steps of a table, then asks its queries."""
    for step in table.steps:
        if callable(step):
            step(writer, name)
        else:
            writer.sql(step.replace("{t}", name))
    queries = ["SELECT * FROM {t}", "SELECT count(*) FROM {t}"]
    pairs = [(query, query) if isinstance(query, str) else query for query in queries + table.queries]
    source = f"({table.instead})" if table.instead else name
    return [
        [ours.replace("{t}", name), *ask(writer.spark, sparks.replace("{t}", source)), table.may_be_refused]
        for ours, sparks in pairs
    ]


def compile_java(jars, classes):
    beside_spark = Path(pyspark.__path__[0], "jars")
    source = Path(__file__).with_name("SparkTables.java")
    subprocess.run(
        ["javac", "-nowarn", "-Xlint:none", "-d", classes, "-cp", f"{beside_spark}/*:{jars}/*", source], check=True
    )


def main():
    jars, catalog, classes = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    wanted = sys.argv[4].split(",") if len(sys.argv) > 4 else [""]
    begun = time.monotonic()

    def note(what):
        print(f"{time.monotonic() - begun:7.1f} s  {what}", file=sys.stderr, flush=True)

    compile_java(jars, classes)
    spark = session([jars, classes], {"peer": catalog}, {"spark.sql.datetime.java8API.enabled": "true"})
    writer = Writer(spark)
    spark.sql("CREATE NAMESPACE IF NOT EXISTS peer.made")
    note("Spark is up")
    answers, failures = [], []
    for name, table in TABLES.items():
        if not any(part in name for part in wanted):
            continue
        try:
            answers.append([name, make(writer, f"peer.made.{name}", table)])
            note(f"{name}: {len(answers[-1][1][0][2])} rows")
        except Exception as e:
            failures.append(f"{name}: {e}")
            note(failures[-1])
    print(json.dumps({"tables": answers, "failures": failures}), flush=True)
    for line in sys.stdin:
        try:
            answer = ask(spark, line)
        except Exception as e:
            # Without the hundred lines of a stack.
            answer = {"error": [line for line in str(e).splitlines() if not line.startswith(("\tat ", "\t\tat "))][:20]}
        print(json.dumps(answer), flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
