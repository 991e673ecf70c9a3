import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.iceberg.FileScanTask;
import org.apache.iceberg.Table;
import org.apache.iceberg.hadoop.HadoopTables;
import org.apache.iceberg.io.CloseableIterable;

/**
 * Runs statements on a Flink cluster, one after the other, each to its end; then prints how many rows the table has whose
 * directory is named, as its own metadata says.
 *
 * <p>Arguments: port of the cluster's REST interface, directory of the table, statements.
 */
public final class Submit {
    private Submit() {}

    public static void main(String[] args) throws Exception {
        Configuration configuration = new Configuration();
        configuration.setString("execution.target", "remote");
        configuration.setString("rest.address", "127.0.0.1");
        configuration.setString("rest.port", args[0]);
        TableEnvironment tables = TableEnvironment.create(
                EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build());
        for (int i = 2; i < args.length; i++) {
            TableResult result = tables.executeSql(args[i]);
            if (result.getJobClient().isPresent()) {
                result.await();
            }
        }
        System.out.println(rows(args[1]));
    }

    private static long rows(String directory) throws Exception {
        Table table = new HadoopTables(new org.apache.hadoop.conf.Configuration()).load(directory);
        long rows = 0;
        if (table.currentSnapshot() == null) {
            return rows;
        }
        try (CloseableIterable<FileScanTask> files = table.newScan().planFiles()) {
            for (FileScanTask file : files) {
                rows += file.file().recordCount();
            }
        }
        return rows;
    }
}
