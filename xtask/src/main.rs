//! `cargo xtask check|test|slt|e2e|bench`: the chores of this repository, without a shell script to read.

mod check;
mod e2e;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  check           format, clippy, the drawing of the crates, links of the documents, tidiness
  test            all tests that need nothing but this repository
  slt [--update] [FILTER]
                  the .slt files alone; --update rewrites their expected results
  e2e [FILTER]    end-to-end tests with a real Apache Kafka, Spark, PyIceberg and DuckDB
  bench [--dist] [ARGS]
                  benchmarks, see benchmarks/README.md; --dist builds them as shipped binaries are built, and
                  `ingest --flink` fetches Apache Flink (500 MB) first
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = args.get(1..).unwrap_or_default();
    let outcome = match args.first().map(String::as_str) {
        Some("check") => check::run(),
        Some("test") => cargo(&["test", "--release", "--workspace"], &[]),
        Some("slt") => slt(rest),
        Some("e2e") => e2e::run(rest),
        Some("bench") => bench(rest),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn slt(args: &[String]) -> Result<()> {
    let update = args.iter().any(|a| a == "--update");
    let filter = args.iter().find(|a| !a.starts_with("--")).map_or("", String::as_str);
    let env: &[(&str, &str)] = if update { &[("TIDEWATER_SLT_UPDATE", "1")] } else { &[] };
    let name = format!("slt/{filter}");
    cargo(&["test", "--release", "--package", "tidewater-tests", "--test", "suite", "--", &name], env)
}

fn bench(args: &[String]) -> Result<()> {
    let (dist, rest): (Vec<&String>, Vec<&String>) = args.iter().partition(|a| *a == "--dist");
    if rest.iter().any(|a| *a == "--flink") {
        e2e::flink()?;
    }
    let profile = if dist.is_empty() { "release" } else { "dist" };
    let mut all = vec!["run", "--profile", profile, "--package", "tidewater-benchmarks", "--"];
    all.extend(rest.into_iter().map(String::as_str));
    cargo(&all, &[])
}

/// The root of the workspace that runs this: a target directory may be shared by several clones.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = PathBuf::from(here);
    here.parent().unwrap_or(&here).to_path_buf()
}

fn cargo(args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    eprintln!("$ cargo {}", args.join(" "));
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    // What Cargo told this process about its own package must not reach the next Cargo: build scripts watch these
    // variables, and everything above them would be compiled again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    let status =
        command.args(args).envs(env.iter().copied()).current_dir(root()).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo {} failed", args.first().unwrap_or(&""));
    }
    Ok(())
}
