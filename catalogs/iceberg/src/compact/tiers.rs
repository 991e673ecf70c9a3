use std::collections::BTreeMap;
use std::sync::Arc;

use super::bins::partition_key;
use crate::scan::TargetFile;

/// Files are of one tier where none is so many times as large as another; so many of a tier are made one.
const TIER: u64 = 8;
/// Files below this are of the lowest tier.
const LEAST_BYTES: u64 = 8 << 10;
/// A file is written anew where more than one row in so many is deleted.
const DELETED_SHARE: u64 = 10;

/// Files that become one each, for a table that small files keep coming to: a row is written anew once a tier, however many
/// files come.
pub(super) fn tiers(files: &[Arc<TargetFile>], target_bytes: u64) -> Vec<Vec<Arc<TargetFile>>> {
    let target = target_bytes.max(1);
    let mut by_tier: BTreeMap<((i32, String), u32), Vec<&Arc<TargetFile>>> = BTreeMap::new();
    let mut all = Vec::new();
    for file in files {
        if file.deleted_rows() * DELETED_SHARE > file.rows {
            all.push(vec![Arc::clone(file)]);
        } else if file.size_bytes < target / 2 {
            let tier = (file.size_bytes.max(LEAST_BYTES) / LEAST_BYTES).ilog(TIER);
            by_tier.entry((partition_key(file), tier)).or_default().push(file);
        }
    }
    for files in by_tier.into_values().filter(|files| files.len() >= TIER as usize) {
        let (mut bin, mut bytes) = (Vec::new(), 0);
        for file in files {
            if bytes + file.size_bytes > target && !bin.is_empty() {
                all.push(std::mem::take(&mut bin));
                bytes = 0;
            }
            bytes += file.size_bytes;
            bin.push(Arc::clone(file));
        }
        if bin.len() > 1 {
            all.push(bin);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::bins::tests::file;
    use super::*;

    #[test]
    fn files_stay_few_and_rows_are_seldom_written_anew() {
        const BYTES: u64 = 20_000;
        let (mut all, mut most, mut written) = (Vec::<Arc<TargetFile>>::new(), 0, 0);
        let commits = 20_000;
        for n in 0..commits {
            all.push(Arc::new(file(&format!("new {n}"), BYTES, 0)));
            if n % 30 != 0 {
                continue;
            }
            for (i, bin) in tiers(&all, 256 << 20).into_iter().enumerate() {
                let bytes: u64 = bin.iter().map(|f| f.size_bytes).sum();
                written += bytes;
                all.retain(|f| !bin.iter().any(|b| b.location == f.location));
                all.push(Arc::new(file(&format!("made {n} {i}"), bytes, 0)));
            }
            most = most.max(all.len());
        }
        assert_eq!(all.iter().map(|f| f.size_bytes).sum::<u64>(), commits * BYTES);
        assert!(most < 80, "{most} files");
        assert!(written < 6 * commits * BYTES, "{written} bytes written anew");
    }
}
