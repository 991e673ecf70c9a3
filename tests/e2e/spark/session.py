"""A small Spark with Iceberg, in this process and one JVM beside it."""

import os
from pathlib import Path

from pyspark.sql import SparkSession

SETTINGS = {
    # Two tasks at a time and a bounded heap: brokers, stores and servers of the same test want to live as well.
    "spark.master": "local[2]",
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
}


def session(jars, catalogs, more=None):
    """`jars` are paths of files and directories; `catalogs` are properties by name, as PyIceberg has them."""
    settings = dict(SETTINGS)
    settings["spark.driver.extraClassPath"] = ":".join(f"{j}/*" if list(Path(j).glob("*.jar")) else j for j in jars)
    for name, properties in catalogs.items():
        prefix = f"spark.sql.catalog.{name}"
        settings[prefix] = "org.apache.iceberg.spark.SparkCatalog"
        # What was read a moment ago may have changed since.
        settings[f"{prefix}.cache-enabled"] = "false"
        for key, value in java_properties(properties).items():
            settings[f"{prefix}.{key}"] = value
    settings.update(more or {})
    os.environ.setdefault("AWS_REGION", "us-east-1")
    os.environ["TZ"] = "UTC"
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    builder = SparkSession.builder
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def java_properties(properties):
    """PyIceberg's properties of a catalog as Iceberg's Java library has them."""
    out = dict(properties)
    if out["type"] == "sql":
        del out["type"]
        out["catalog-impl"] = "org.apache.iceberg.jdbc.JdbcCatalog"
        out["uri"] = "jdbc:sqlite:file:" + out["uri"].removeprefix("sqlite:///")
        out["jdbc.schema-version"] = "V1"
    if "s3.endpoint" in out:
        out["io-impl"] = "org.apache.iceberg.aws.s3.S3FileIO"
        out["client.region"] = out.pop("s3.region")
    return out
