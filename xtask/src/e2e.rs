//! Prepares the real parts, then runs the `e2e/` trials of the test binary.
//!
//! Downloads (the jars of Apache Kafka and of Apache Iceberg's REST catalog, object stores, Python packages of the
//! readers, Spark) are kept in `$TIDEWATER_E2E_DIR`, else in `~/.cache/tidewater/e2e`, outside the repository.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, root};

const KAFKA_VERSION: &str = "4.3.1";
const FLIGHT_JDBC: &str = "org.apache.arrow:flight-sql-jdbc-driver:18.3.0";
const ICEBERG_VERSION: &str = "1.11.0";
const AZURITE_VERSION: &str = "3.37.0";
/// Object stores that are built from their sources: program, package, version.
const GO_PROGRAMS: &[(&str, &str, &str)] = &[
    ("versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0"),
    ("fake-gcs-server", "github.com/fsouza/fake-gcs-server", "v1.56.1"),
];
const PYTHON_PACKAGES: &[&str] = &[
    "pyiceberg[sql-sqlite,s3fs]==0.12.0",
    "pyarrow==26.0.1",
    "duckdb==1.5.5",
    "duckdb-extension-avro==1.5.5",
    "duckdb-extension-httpfs==1.5.5",
    "duckdb-extension-iceberg==1.5.5",
    "psycopg[binary]==3.3.9",
    "adbc-driver-flightsql==1.13.0",
    "adbc-driver-manager==1.13.0",
    "pandas==3.1.1",
    "polars==2.1.0",
];
/// With Spark's jars in it: 500 MB.
const SPARK_PACKAGES: &[&str] = &["pyspark==4.0.1"];

const FLINK_PACKAGE: &str = "apache-flink-libraries==2.0.2";
const FLINK_POM: &str = "benchmarks/flink/pom.xml";

pub fn run(args: &[String]) -> Result<()> {
    let dir = directory()?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make directory {}", dir.display()))?;
    needs()?;
    jars(&dir, "kafka", "Apache Kafka", KAFKA_VERSION)?;
    jars(&dir, "iceberg-rest", "Apache Iceberg's REST catalog", ICEBERG_VERSION)?;
    jars(&dir, "spark", "Apache Iceberg for Spark", ICEBERG_VERSION)?;
    object_stores(&dir)?;
    flight_jdbc(&dir)?;
    python(&dir.join("python"), PYTHON_PACKAGES)?;
    python(&dir.join("spark-python"), SPARK_PACKAGES)?;
    let filter = format!("e2e/{}", args.first().map_or("", String::as_str));
    let dir = dir.to_str().context("the download directory's path is not UTF-8")?;
    cargo(
        &[
            "test",
            "--release",
            "--package",
            "tidewater-tests",
            "--test",
            "suite",
            "--",
            "--ignored",
            "--test-threads=1",
            &filter,
        ],
        &[("TIDEWATER_E2E_DIR", dir)],
    )
}

/// Flink's own jars, which PyPI has, beside those that Maven has of its connectors.
pub fn flink() -> Result<()> {
    let dir = directory()?;
    let packages = dir.join("flink-python");
    let jars = dir.join("flink");
    let done = jars.join(".complete");
    let wanted = format!("{FLINK_PACKAGE} {}", std::fs::read_to_string(root().join(FLINK_POM))?);
    if std::fs::read_to_string(&done).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    let _ = std::fs::remove_dir_all(&jars);
    std::fs::create_dir_all(&jars).with_context(|| format!("cannot make directory {}", jars.display()))?;
    // Its dependencies are those of PyFlink, of which nothing is used.
    python(&packages, &["--no-deps", FLINK_PACKAGE])?;
    eprintln!("fetching Flink's connectors with Maven");
    let status = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(root().join(FLINK_POM))
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .status()
        .context("cannot run mvn")?;
    if !status.success() {
        bail!("Maven could not fetch Flink's connectors");
    }
    for version in std::fs::read_dir(packages.join("lib"))? {
        let libs = version?.path().join("site-packages/pyflink/lib");
        for jar in std::fs::read_dir(&libs).with_context(|| format!("no jars in {}", libs.display()))? {
            let jar = jar?.path();
            if let Some(name) = jar.file_name() {
                std::os::unix::fs::symlink(&jar, jars.join(name)).context("cannot link a jar of Flink")?;
            }
        }
    }
    std::fs::write(done, wanted).context("cannot note the fetched jars")
}

fn directory() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("TIDEWATER_E2E_DIR") {
        return Ok(PathBuf::from(dir));
    }
    let home = std::env::var_os("HOME").context("set TIDEWATER_E2E_DIR: there is no HOME")?;
    Ok(Path::new(&home).join(".cache/tidewater/e2e"))
}

/// Names everything that is missing at once, with the line that installs it.
fn needs() -> Result<()> {
    let mut missing = Vec::new();
    for (program, argument, package) in [
        ("javac", "-version", "openjdk-17-jdk-headless"),
        ("mvn", "-version", "maven"),
        ("python3", "--version", "python3 python3-venv"),
        ("psql", "--version", "postgresql-client"),
        ("go", "version", "golang-go"),
        ("npm", "--version", "nodejs npm"),
    ] {
        let run = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !run.is_ok_and(|status| status.success()) {
            missing.push((program, package));
        }
    }
    if !Path::new("/usr/lib/postgresql").is_dir() {
        missing.push(("a PostgreSQL server", "postgresql"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|m| m.0).collect();
    let packages: Vec<&str> = missing.iter().map(|m| m.1).collect();
    bail!(
        "the end-to-end tests need {}, not found on the PATH; on Debian: apt-get install --yes {}",
        names.join(", "),
        packages.join(" ")
    )
}

/// Fetches what `tests/e2e/NAME-pom.xml` lists.
fn jars(dir: &Path, name: &str, title: &str, version: &str) -> Result<()> {
    let libs = dir.join(format!("{name}-{version}"));
    let done = libs.join(".complete");
    if !done.exists() {
        eprintln!("fetching {title} {version} with Maven");
        let status = Command::new("mvn")
            .args(["--quiet", "--batch-mode", "--file"])
            .arg(root().join(format!("tests/e2e/{name}-pom.xml")))
            .arg("dependency:copy-dependencies")
            .arg("-DincludeScope=runtime")
            .arg(format!("-DoutputDirectory={}", libs.display()))
            .args([format!("-Dkafka.version={version}"), format!("-Diceberg.version={version}")])
            .status()
            .context("cannot run mvn")?;
        if !status.success() {
            bail!("Maven could not fetch {title} {version}");
        }
        std::fs::write(done, "")?;
    }
    let link = dir.join(name);
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&libs, &link).with_context(|| format!("cannot link the jars of {title}"))
}

fn object_stores(dir: &Path) -> Result<()> {
    let bin = dir.join("bin");
    for (program, package, version) in GO_PROGRAMS {
        let done = bin.join(format!(".{program}-{version}"));
        if done.exists() {
            continue;
        }
        eprintln!("building {program} {version} with Go");
        let status = Command::new("go")
            .args(["install", &format!("{package}@{version}")])
            .env("GOBIN", &bin)
            // A newer Go than the machine's is fetched where a program asks for one.
            .env("GOTOOLCHAIN", "auto")
            .status()
            .context("cannot run go")?;
        if !status.success() {
            bail!("Go could not build {package} {version}");
        }
        std::fs::write(done, "")?;
    }
    let azurite = dir.join("azurite");
    let done = azurite.join(format!(".{AZURITE_VERSION}"));
    if !done.exists() {
        eprintln!("fetching azurite {AZURITE_VERSION} with npm");
        let status = Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
            .arg(&azurite)
            .arg(format!("azurite@{AZURITE_VERSION}"))
            .status()
            .context("cannot run npm")?;
        if !status.success() {
            bail!("npm could not fetch azurite {AZURITE_VERSION}");
        }
        std::fs::write(done, "")?;
    }
    Ok(())
}

/// The Flight SQL driver of Apache Arrow: one jar with everything in it.
fn flight_jdbc(dir: &Path) -> Result<()> {
    let jars = dir.join("flight-jdbc");
    let done = jars.join(".complete");
    if std::fs::read_to_string(&done).is_ok_and(|have| have == FLIGHT_JDBC) {
        return Ok(());
    }
    eprintln!("fetching {FLIGHT_JDBC} with Maven");
    let status = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "dependency:copy", "-Dmdep.stripVersion=true"])
        .arg(format!("-Dartifact={FLIGHT_JDBC}"))
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .status()
        .context("cannot run mvn")?;
    if !status.success() {
        bail!("Maven could not fetch {FLIGHT_JDBC}");
    }
    std::fs::write(done, FLIGHT_JDBC).context("cannot note the fetched driver")
}

/// A virtual environment with the packages.
fn python(venv: &Path, packages: &[&str]) -> Result<()> {
    let wanted = packages.join("\n");
    let done = venv.join(".packages");
    if std::fs::read_to_string(&done).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    eprintln!("installing {}", packages.join(", "));
    let steps = [
        Command::new("python3").args(["-m", "venv"]).arg(venv).status(),
        Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .args(packages)
            .status(),
    ];
    for step in steps {
        if !step.context("cannot run python3 or pip")?.success() {
            bail!("the Python packages of the readers could not be installed");
        }
    }
    std::fs::write(done, wanted).context("cannot note the installed packages")
}
