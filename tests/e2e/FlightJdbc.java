import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Statement;

/**
 * What a BI tool does through the Flight SQL JDBC driver: connect, list tables, query with a parameter.
 *
 * <p>usage: FlightJdbc HOST:PORT PROPERTIES
 */
public final class FlightJdbc {
    public static void main(String[] args) throws Exception {
        Class.forName("org.apache.arrow.driver.jdbc.ArrowFlightJdbcDriver");
        String url = "jdbc:arrow-flight-sql://" + args[0] + "/?" + args[1];
        try (Connection connection = DriverManager.getConnection(url)) {
            try (Statement statement = connection.createStatement()) {
                statement.executeUpdate("CREATE TABLE jdbc_t (id INT, name TEXT, price NUMERIC(10,2), at TIMESTAMPTZ)");
                int n = statement.executeUpdate(
                        "INSERT INTO jdbc_t VALUES (1, 'one', 1.50, '2026-01-01T00:00:00Z'), (2, NULL, 2.50, NULL)");
                check(n == 2, "counted " + n);
            }
            StringBuilder tables = new StringBuilder();
            try (ResultSet rows = connection.getMetaData().getTables(null, "public", "jdbc%", null)) {
                while (rows.next()) {
                    tables.append(rows.getString("TABLE_NAME")).append(' ').append(rows.getString("TABLE_TYPE"));
                }
            }
            check(tables.toString().equals("jdbc_t TABLE"), "tables: " + tables);
            String columns = "";
            try (ResultSet rows = connection.getMetaData().getColumns(null, "public", "jdbc_t", null)) {
                while (rows.next()) {
                    columns += rows.getString("COLUMN_NAME") + ":" + rows.getInt("DATA_TYPE") + " ";
                }
            }
            check(columns.startsWith("id:4 name:12 price:3 at:"), "columns: " + columns);
            check(connection.getMetaData().getDatabaseProductName().equals("Tidewater"), "product name");
            try (PreparedStatement query = connection.prepareStatement("SELECT name, price FROM jdbc_t WHERE id = ?")) {
                query.setInt(1, 1);
                try (ResultSet rows = query.executeQuery()) {
                    check(rows.next(), "no row");
                    check(rows.getString(1).equals("one"), rows.getString(1));
                    check(rows.getBigDecimal(2).toString().equals("1.50"), rows.getBigDecimal(2).toString());
                    check(!rows.next(), "too many rows");
                }
            }
            try (Statement statement = connection.createStatement()) {
                statement.executeQuery("SELECT * FROM nowhere");
                throw new AssertionError("a table that does not exist was read");
            } catch (java.sql.SQLException e) {
                check(e.getMessage().contains("42P01"), e.getMessage());
            }
        }
        System.out.println("ok");
        // The driver leaves threads behind.
        System.exit(0);
    }

    private static void check(boolean holds, String found) {
        if (!holds) {
            throw new AssertionError(found);
        }
    }
}
