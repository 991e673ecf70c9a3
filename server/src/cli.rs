//! `tidewater serve`, `tidewater demo`, `tidewater settings`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config, LogFormat, SETTINGS, Values};
use crate::demo::{self, DemoOptions};
use crate::heap;
use crate::lock::DataLock;
use crate::process::Server;

/// Runs the command line to its end. Never panics; errors go to standard error.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    heap::share_arenas();
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tidewater: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    let serve = with_settings(Command::new("serve").about("Serve SQL over your own Kafka"));
    let demo =
        with_settings(Command::new("demo").about("Serve SQL over a built-in broker and a stream of shop events"))
            .arg(Arg::new("rate").long("rate").value_name("EVENTS/S").default_value("1000").help("Events per second"))
            .arg(
                Arg::new("broker_listen")
                    .long("broker-listen")
                    .value_name("ADDR:PORT")
                    .default_value("127.0.0.1:9192")
                    .help("Address of the built-in development broker"),
            );
    Command::new("tidewater")
        .about("Kafka topics in, Apache Iceberg tables out, PostgreSQL in front")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve)
        .subcommand(demo)
        .subcommand(Command::new("settings").about("Print every setting as a Markdown table"))
}

fn with_settings(command: Command) -> Command {
    let file = Arg::new("config").long("config").value_name("FILE").help("Read settings from a TOML file");
    SETTINGS.iter().fold(command.arg(file), |command, s| {
        let default = if s.default.is_empty() { String::new() } else { format!(" [default: {}]", s.default) };
        let variable = format!("TIDEWATER_{}", s.name.to_uppercase());
        command.arg(
            Arg::new(s.name)
                .long(s.name.replace('_', "-"))
                .value_name(s.shape)
                .help(format!("{}{default} [env: {variable}]", s.help)),
        )
    })
}

fn run(matches: &ArgMatches) -> Result<()> {
    match matches.subcommand() {
        Some(("serve", m)) => serve(load(m)?, None),
        Some(("demo", m)) => {
            let text = |name: &str| m.get_one::<String>(name).cloned().unwrap_or_default();
            let rate = text("rate").parse().ok().filter(|r| (1..=1_000_000).contains(r));
            let options = DemoOptions {
                rate: rate.context("--rate takes a number of events per second from 1 to 1000000")?,
                broker_listen: text("broker_listen").parse().context("--broker-listen takes ADDRESS:PORT")?,
            };
            serve(load(m)?, Some(options))
        }
        _ => {
            print!("{}", config::reference());
            Ok(())
        }
    }
}

fn load(m: &ArgMatches) -> Result<Config> {
    let flags: Values =
        SETTINGS.iter().filter_map(|s| m.get_one::<String>(s.name).map(|v| (s.name.to_owned(), v.clone()))).collect();
    let file = m.get_one::<String>("config").map(PathBuf::from);
    // Not `vars`, which panics where a variable of another program is not UTF-8.
    let variables = config::from_environment(std::env::vars_os())?;
    Config::load(&flags, &variables, file.as_deref())
}

fn serve(mut config: Config, demo: Option<DemoOptions>) -> Result<()> {
    if demo.is_some() && config.log == "info" {
        // The demo's screen is its live line.
        config.log = "warn".to_owned();
    }
    init_logs(&config)?;
    // Before the demo's broker opens its log there.
    let lock = DataLock::take(&config.data_dir)?;
    let demo = match demo {
        None => None,
        Some(options) => Some((demo::start_broker(&config.data_dir, &options)?, options.rate)),
    };
    let server = Server::start_locked(config, lock)?;
    let outcome = server.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let work = async {
            match &demo {
                None => std::future::pending().await,
                Some((broker, rate)) => server.demo(Arc::clone(broker), *rate).await,
            }
        };
        let outcome = tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            outcome = work => outcome,
        };
        // A second signal does not wait for flows to commit; what is lost is only time, at the next start.
        tokio::spawn(async move {
            tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
            eprintln!("tidewater: stopped at once");
            std::process::exit(130);
        });
        outcome
    });
    if let Err(e) = &outcome {
        tracing::error!(error = format!("{e:#}"), "stopping after a failure");
    }
    server.stop();
    outcome
}

fn init_logs(config: &Config) -> Result<()> {
    // A store that is away would fill the log with one line for each attempt of each request.
    let filter = EnvFilter::try_new(format!("object_store::client::retry=warn,{}", config.log))
        .with_context(|| format!("invalid value for setting \"log\": \"{}\"", config.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = match config.log_format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
    };
    result.map_err(|e| anyhow::anyhow!("cannot start logging: {e}"))
}
