//! Benchmarks: each prints what it measured beside a peer, in one run. See `benchmarks/README.md`.

mod commits;
mod cpu;
mod events;
mod flink;
mod ingest;
mod latency;
mod memory;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidewater_tests::SERVE_CHILD;

#[derive(Parser)]
#[command(name = "tidewater-benchmarks")]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Kafka JSON into a streaming table, beside a bare loop over the same topic
    Ingest(ingest::Options),
    /// Commits of a flow while snapshots pile up
    Commits(commits::Options),
    /// From produced to visible over the Postgres protocol, live and committed
    Latency(latency::Options),
    /// Peak memory while catching up and under many queries at once, beside what the settings allow
    Memory(memory::Options),
    /// One run of the bare loop; `ingest` starts it as a process of its own
    #[command(hide = true)]
    BareLoop(ingest::BareLoop),
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next();
    if std::env::args_os().nth(1).is_some_and(|a| a == SERVE_CHILD) {
        return tidewater_server::cli::main(program.into_iter().chain(args.skip(1)));
    }
    let outcome = match Arguments::parse().benchmark {
        Benchmark::Ingest(options) => ingest::run(&options),
        Benchmark::Commits(options) => commits::run(&options),
        Benchmark::Latency(options) => latency::run(&options),
        Benchmark::Memory(options) => memory::run(&options),
        Benchmark::BareLoop(options) => ingest::bare_loop(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("benchmark failed: {e:#}");
            ExitCode::FAILURE
        }
    }
}
