"""Rows deleted by position: delete files in version 2, deletion vectors in version 3. And by copying."""

from table import PEOPLE, PEOPLE_QUERIES, Table, create, people

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


def changed(version, partitioned="", may_be_refused=False, **properties):
    steps = [create(PEOPLE, version, partitioned, **properties), people(0, 150), people(150, 300), *CHANGES]
    return Table(steps, PEOPLE_QUERIES, may_be_refused)


TABLES = {
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
