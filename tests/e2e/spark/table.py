"""How a table comes to be, and what is asked of it beside all rows and their number."""

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
    # Where Spark cannot read the table itself: a query for the rows that it must have.
    instead: str = ""


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


PEOPLE = "id BIGINT NOT NULL, name STRING, city STRING, age INT"


def people(first, end):
    return f"""INSERT INTO {{t}} SELECT id, concat('name ', id % 13),
        CASE id % 4 WHEN 0 THEN NULL ELSE concat('city ', id % 4) END, CAST(id % 90 AS INT) FROM range({first}, {end})"""


PEOPLE_QUERIES = [
    "SELECT city, count(*), min(id), max(age) FROM {t} GROUP BY city",
    "SELECT name FROM {t} WHERE id >= 170 AND id < 200",
    "SELECT count(*) FROM {t} WHERE city IS NULL",
    "SELECT count(name), count(city), min(id), max(id) FROM {t}",
    "SELECT count(*) FROM (SELECT id FROM {t} LIMIT 1000) x",
]
