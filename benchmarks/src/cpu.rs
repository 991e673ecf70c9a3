//! CPU time of whole processes, all threads, from `/proc`.

use anyhow::{Context, Result};

/// Linux counts these in hundredths of a second on every architecture that matters here.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system seconds of a process so far. `pid` may be `self`.
pub fn seconds(pid: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("cannot read /proc: this needs Linux")?;
    // The name in parentheses may hold spaces.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("cannot read /proc/PID/stat")?;
    Ok((user + system) / TICKS_PER_SECOND)
}

/// Largest resident set so far, in MiB.
pub fn peak_rss_mib(pid: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no VmHWM in /proc/PID/status")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
