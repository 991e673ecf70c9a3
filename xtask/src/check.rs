//! What must hold before each commit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{cargo, root};

/// Which crate may depend on which (without the prefix `tidewater-`). The missing arrows are the point: connectors meet
/// in `server` alone, and `sql` and `streaming` know only the vocabulary.
const EDGES: &[(&str, &[&str])] = &[
    ("catalogs", &[]),
    ("catalogs-iceberg", &["catalogs"]),
    ("catalogs-kafka", &["catalogs"]),
    ("catalogs-metastore", &["catalogs"]),
    ("catalogs-system", &["catalogs"]),
    ("streaming", &["catalogs"]),
    ("udfs", &[]),
    ("sql", &["catalogs", "catalogs-system", "streaming", "udfs"]),
    ("devbroker", &[]),
    (
        "server",
        &[
            "catalogs",
            "catalogs-iceberg",
            "catalogs-kafka",
            "catalogs-metastore",
            "catalogs-system",
            "devbroker",
            "sql",
            "streaming",
            "udfs",
        ],
    ),
    ("tests", &["devbroker", "server", "streaming"]),
    ("benchmarks", &["catalogs", "catalogs-iceberg", "devbroker", "server", "tests"]),
    ("features", &[]),
];

/// Lines of a source file, tests aside, beyond which it should be parted.
const LONG_FILE: usize = 1000;

pub fn run() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    edges()?;
    tidy()?;
    links()?;
    cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"], &[])?;
    cargo(
        &["doc", "--release", "--workspace", "--no-deps", "--document-private-items"],
        &[("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")],
    )?;
    eprintln!("check: all well");
    Ok(())
}

/// The manifests say what the drawing says.
fn edges() -> Result<()> {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let root = root();
    let manifest: toml::Table = std::fs::read_to_string(root.join("Cargo.toml"))?.parse()?;
    let members = manifest["workspace"]["members"].as_array().context("workspace.members is no list")?;
    for member in members.iter().filter_map(|m| m.as_str()).filter(|m| *m != "xtask") {
        let path = root.join(member).join("Cargo.toml");
        let table: toml::Table = std::fs::read_to_string(&path)?.parse()?;
        let name = member.replace('/', "-");
        let Some(may) = allowed.get(name.as_str()) else {
            bail!("crate {member} is not in the drawing of xtask/src/check.rs");
        };
        let dependencies = table.get("dependencies").and_then(|d| d.as_table()).cloned().unwrap_or_default();
        for dependency in dependencies.keys().filter_map(|d| d.strip_prefix("tidewater-")) {
            if dependency != "features" && !may.contains(&dependency) {
                bail!(
                    "{} depends on {dependency}, which the drawing in xtask/src/check.rs does not allow",
                    path.display()
                );
            }
        }
    }
    Ok(())
}

fn tidy() -> Result<()> {
    let mut problems = Vec::new();
    for file in files(&root(), &["rs"])? {
        let text = std::fs::read_to_string(&file)?;
        let shown = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or("");
        if code.lines().count() > LONG_FILE && !shown.ends_with("tests.rs") {
            problems.push(format!("{shown} has more than {LONG_FILE} lines: part it"));
        }
        for (i, line) in text.lines().enumerate() {
            if line.ends_with(' ') || line.trim_start_matches(' ').starts_with('\t') {
                problems.push(format!("{shown}:{}: stray white space", i + 1));
            }
        }
    }
    if !problems.is_empty() {
        bail!("not tidy:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

/// Relative links of the documents lead somewhere.
fn links() -> Result<()> {
    let mut broken = Vec::new();
    for file in files(&root(), &["md"])? {
        let text = std::fs::read_to_string(&file)?;
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or("");
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") || path.contains(' ') {
                continue;
            }
            let from = file.parent().unwrap_or(Path::new("."));
            if !from.join(path).exists() {
                broken.push(format!("{}: {target}", file.display()));
            }
        }
    }
    if !broken.is_empty() {
        bail!("broken links:\n  {}", broken.join("\n  "));
    }
    Ok(())
}

fn files(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "tidewater-data" {
                found.extend(files(&path, extensions)?);
            }
        } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e)) {
            found.push(path);
        }
    }
    Ok(found)
}
