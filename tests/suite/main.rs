//! All integration tests, in one binary.
//!
//! - `slt/…`: every file under `tests/slt`, each against a server and a development broker of its own;
//! - `live/…`: reads of rows that are not committed yet, and SUBSCRIBE, while records arrive;
//! - `crash/…`: a server in its own process, killed and started again;
//! - `flight/…`: Arrow Flight SQL, through arrow-flight's own client;
//! - `tls/…`: encrypted connections of both protocols;
//! - `faults/…`: memory, network, broker and disk that fail (those with real parts are named `e2e/faults_…`);
//! - `fuzz/…`: bytes and statements that are almost right;
//! - `histories/…`: random changes of rows, of many sessions at once and beside PostgreSQL;
//! - `documents/…`: the SQL blocks of the README and of `docs/`;
//! - `e2e/…`: real parts (Apache Kafka, Spark, PyIceberg, DuckDB); ignored unless `cargo xtask e2e` runs them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash;
mod documents;
mod e2e;
mod faults;
mod flight;
mod fuzz;
mod histories;
mod live;
mod slt;
mod spark;
mod spark_version_3;
mod tls;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use tidewater_tests::SERVE_CHILD;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap();
    let rest: Vec<_> = args.collect();
    if rest.first().is_some_and(|a| a == SERVE_CHILD) {
        let command_line = std::iter::once(program).chain(rest.into_iter().skip(1));
        return tidewater_server::cli::main(command_line);
    }
    let mut arguments = Arguments::from_args();
    // Servers with broker and flows: more at once than cores only makes them wait for each other.
    arguments.test_threads.get_or_insert(2);
    let trials: Vec<Trial> = [
        slt::trials(),
        live::trials(),
        flight::trials(),
        tls::trials(),
        faults::trials(),
        fuzz::trials(),
        crash::trials(),
        histories::trials(),
        documents::trials(),
        e2e::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    println!(
        "found {} slt files, {} tests in all",
        trials.iter().filter(|t| t.name().starts_with("slt/")).count(),
        trials.len()
    );
    libtest_mimic::run(&arguments, trials).exit_code()
}
