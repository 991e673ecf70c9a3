package e2e;

import java.io.IOException;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.time.LocalTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.iceberg.DataFiles;
import org.apache.iceberg.FileFormat;
import org.apache.iceberg.FileScanTask;
import org.apache.iceberg.PartitionKey;
import org.apache.iceberg.PartitionSpec;
import org.apache.iceberg.RowDelta;
import org.apache.iceberg.Schema;
import org.apache.iceberg.StructLike;
import org.apache.iceberg.Table;
import org.apache.iceberg.TableProperties;
import org.apache.iceberg.data.GenericAppenderFactory;
import org.apache.iceberg.data.GenericRecord;
import org.apache.iceberg.data.InternalRecordWrapper;
import org.apache.iceberg.data.Record;
import org.apache.iceberg.deletes.EqualityDeleteWriter;
import org.apache.iceberg.encryption.EncryptedFiles;
import org.apache.iceberg.encryption.EncryptedOutputFile;
import org.apache.iceberg.expressions.Expressions;
import org.apache.iceberg.expressions.Literal;
import org.apache.iceberg.io.CloseableIterable;
import org.apache.iceberg.io.DataWriter;
import org.apache.iceberg.io.PositionOutputStream;
import org.apache.iceberg.mapping.MappingUtil;
import org.apache.iceberg.mapping.NameMappingParser;
import org.apache.iceberg.spark.Spark3Util;
import org.apache.iceberg.types.Conversions;
import org.apache.iceberg.types.Type;
import org.apache.iceberg.types.Types;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;

/** What Spark's SQL cannot write and Iceberg's own library can: called by write_tables.py, in Spark's JVM. */
public final class SparkTables {
    private SparkTables() {}

    /**
     * Deletes by equality, all in one commit: `keys` are rows of the columns that decide.
     *
     * <p>`where` is a partition (`day=2026-01-01`), `*` for each partition that has data, or empty for a delete without
     * a partition, which holds for the whole table. `rows` (or null) are added by the same commit; its own deletes must
     * spare them.
     */
    public static void deleteEqual(
            SparkSession spark, String name, Dataset<Row> keys, String where, String format, Dataset<Row> rows)
            throws Exception {
        Table table = Spark3Util.loadIcebergTable(spark, name);
        List<String> paths = new ArrayList<>();
        leaves("", keys.schema(), paths);
        int[] ids = paths.stream().mapToInt(p -> table.schema().findField(p).fieldId()).toArray();
        Schema deleted = table.schema().select(paths);
        RowDelta delta = table.newRowDelta();
        for (Map.Entry<PartitionSpec, StructLike> place : places(table, where).values()) {
            PartitionSpec spec = place.getKey();
            GenericAppenderFactory writers =
                    new GenericAppenderFactory(table, table.schema(), spec, Map.of(), ids, deleted);
            EqualityDeleteWriter<Record> writer =
                    writers.newEqDeleteWriter(output(table, format), FileFormat.fromString(format), place.getValue());
            try (writer) {
                for (Row key : keys.collectAsList()) {
                    writer.write(record(key, keys.schema(), deleted.asStruct()));
                }
            }
            delta.addDeletes(writer.toDeleteFile());
        }
        if (rows != null) {
            for (DataWriter<Record> writer : dataWriters(table, rows).values()) {
                delta.addRows(writer.toDataFile());
            }
        }
        delta.commit();
    }

    /** Appends rows whose types Spark does not know: UUIDs and times are given as text. */
    public static void append(SparkSession spark, String name, Dataset<Row> rows) throws Exception {
        Table table = Spark3Util.loadIcebergTable(spark, name);
        var append = table.newAppend();
        for (DataWriter<Record> writer : dataWriters(table, rows).values()) {
            append.appendFile(writer.toDataFile());
        }
        append.commit();
    }

    /** `type` as Iceberg writes it: `uuid`, `fixed[4]`. */
    public static void addColumn(SparkSession spark, String name, String column, String type) throws Exception {
        Table table = Spark3Util.loadIcebergTable(spark, name);
        table.updateSchema().addColumn(column, Types.fromPrimitiveString(type)).commit();
    }

    /** Rows that are there already have the default from now on. `parent` may be empty. */
    public static void addColumnWithDefault(
            SparkSession spark, String name, String parent, String column, String type, String value) throws Exception {
        Table table = Spark3Util.loadIcebergTable(spark, name);
        Type.PrimitiveType known = Types.fromPrimitiveString(type);
        Literal<?> literal = Expressions.lit(value).to(known);
        if (literal == null) {
            literal = Expressions.lit(Conversions.fromPartitionString(known, value));
        }
        table.updateSchema().addColumn(parent.isEmpty() ? null : parent, column, known, null, literal).commit();
    }

    /** Makes a Parquet file, which knows no field ids, part of a table that maps names to ids. */
    public static void addForeignFile(SparkSession spark, String name, byte[] content, long rows) throws Exception {
        Table table = Spark3Util.loadIcebergTable(spark, name);
        if (!table.properties().containsKey(TableProperties.DEFAULT_NAME_MAPPING)) {
            String mapping = NameMappingParser.toJson(MappingUtil.create(table.schema()));
            table.updateProperties().set(TableProperties.DEFAULT_NAME_MAPPING, mapping).commit();
        }
        String path = table.locationProvider().newDataLocation(UUID.randomUUID() + ".parquet");
        try (PositionOutputStream out = table.io().newOutputFile(path).create()) {
            out.write(content);
        }
        table.newAppend()
                .appendFile(DataFiles.builder(table.spec())
                        .withPath(path)
                        .withFileSizeInBytes(content.length)
                        .withRecordCount(rows)
                        .withFormat(FileFormat.PARQUET)
                        .build())
                .commit();
    }

    private static void leaves(String prefix, StructType type, List<String> out) {
        for (StructField field : type.fields()) {
            if (field.dataType() instanceof StructType) {
                leaves(prefix + field.name() + ".", (StructType) field.dataType(), out);
            } else {
                out.add(prefix + field.name());
            }
        }
    }

    private static Map<String, Map.Entry<PartitionSpec, StructLike>> places(Table table, String where)
            throws IOException {
        Map<String, Map.Entry<PartitionSpec, StructLike>> found = new LinkedHashMap<>();
        if (where.isEmpty()) {
            for (PartitionSpec spec : table.specs().values()) {
                if (spec.isUnpartitioned()) {
                    found.put("", new java.util.AbstractMap.SimpleEntry<>(spec, null));
                }
            }
        } else {
            try (CloseableIterable<FileScanTask> tasks = table.newScan().planFiles()) {
                for (FileScanTask task : tasks) {
                    String path = task.spec().partitionToPath(task.file().partition());
                    if (where.equals("*") || where.equals(path)) {
                        StructLike partition = task.file().partition();
                        found.put(
                                task.spec().specId() + " " + path,
                                new java.util.AbstractMap.SimpleEntry<>(
                                        task.spec(), task.spec().isUnpartitioned() ? null : partition));
                    }
                }
            }
        }
        if (found.isEmpty()) {
            throw new IllegalArgumentException("no partition " + where + " in " + table.name());
        }
        return found;
    }

    private static Map<String, DataWriter<Record>> dataWriters(Table table, Dataset<Row> rows) throws IOException {
        Map<String, DataWriter<Record>> writers = new LinkedHashMap<>();
        GenericAppenderFactory factory = new GenericAppenderFactory(table.schema(), table.spec());
        PartitionKey key = new PartitionKey(table.spec(), table.schema());
        InternalRecordWrapper wrapper = new InternalRecordWrapper(table.schema().asStruct());
        for (Row row : rows.collectAsList()) {
            Record record = record(row, rows.schema(), table.schema().asStruct());
            key.partition(wrapper.wrap(record));
            String path = table.spec().partitionToPath(key);
            if (!writers.containsKey(path)) {
                StructLike partition = table.spec().isUnpartitioned() ? null : key.copy();
                writers.put(path, factory.newDataWriter(output(table, "parquet"), FileFormat.PARQUET, partition));
            }
            writers.get(path).write(record);
        }
        for (DataWriter<Record> writer : writers.values()) {
            writer.close();
        }
        return writers;
    }

    private static EncryptedOutputFile output(Table table, String format) {
        String path = table.locationProvider().newDataLocation(UUID.randomUUID() + "." + format);
        return EncryptedFiles.plainAsEncryptedOutput(table.io().newOutputFile(path));
    }

    private static Record record(Row row, StructType from, Types.StructType to) {
        Record record = GenericRecord.create(to);
        for (int i = 0; i < from.size(); i++) {
            StructField field = from.fields()[i];
            Types.NestedField target = to.field(field.name());
            if (target == null) {
                throw new IllegalArgumentException("no column " + field.name() + " in " + to);
            }
            record.setField(field.name(), value(row.get(i), field.dataType(), target.type()));
        }
        return record;
    }

    private static Object value(Object value, DataType from, Type to) {
        if (value == null) {
            return null;
        }
        switch (to.typeId()) {
            case STRUCT:
                return record((Row) value, (StructType) from, to.asStructType());
            case TIMESTAMP:
                return value instanceof Instant ? ((Instant) value).atOffset(ZoneOffset.UTC) : value;
            case TIME:
                return LocalTime.parse((String) value);
            case UUID:
                return UUID.fromString((String) value);
            case BINARY:
                return ByteBuffer.wrap((byte[]) value);
            case DECIMAL:
                return ((BigDecimal) value).setScale(((Types.DecimalType) to).scale());
            case LIST:
            case MAP:
                throw new IllegalArgumentException("not built: " + to);
            default:
                return value;
        }
    }
}
