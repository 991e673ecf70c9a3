//! Which manifests are merged.

use std::collections::BTreeMap;

use iceberg::spec::{ManifestContentType, ManifestFile};

/// Manifests are of one tier where none is so many times as large as another; so many of a tier above the first are
/// merged.
const TIER: u64 = 8;

/// Groups of indexes to merge, of one spec and at most the target size each. Manifests of about one size are merged with
/// each other, so that an entry is written anew a few times only, however many there are.
pub(super) fn choose(manifests: &[ManifestFile], target: u64, enough: usize) -> Vec<Vec<usize>> {
    let size = |index: &usize| u64::try_from(manifests[*index].manifest_length).unwrap_or(0).max(1);
    let mut by_spec: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (index, manifest) in manifests.iter().enumerate() {
        let data = manifest.content == ManifestContentType::Data && manifest.key_metadata.is_none();
        if data && size(&index) < target {
            by_spec.entry(manifest.partition_spec_id).or_default().push(index);
        }
    }
    let mut bins = Vec::new();
    for indexes in by_spec.into_values() {
        let least = indexes.iter().map(size).min().unwrap_or(1);
        let mut tiers: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for index in indexes {
            tiers.entry((size(&index) / least).ilog(TIER)).or_default().push(index);
        }
        let due = tiers.into_iter().filter(|(tier, i)| i.len() >= if *tier == 0 { enough } else { TIER as usize });
        for (_, indexes) in due {
            let (mut bin, mut bytes) = (Vec::new(), 0);
            for index in indexes {
                let more = size(&index);
                if bytes + more > target && !bin.is_empty() {
                    bins.push(std::mem::take(&mut bin));
                    bytes = 0;
                }
                bin.push(index);
                bytes += more;
            }
            bins.push(bin);
        }
    }
    bins.retain(|bin| bin.len() > 1);
    bins
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn manifest(bytes: i64) -> ManifestFile {
        ManifestFile {
            manifest_path: String::new(),
            manifest_length: bytes,
            partition_spec_id: 0,
            content: ManifestContentType::Data,
            sequence_number: 1,
            min_sequence_number: 1,
            added_snapshot_id: 1,
            added_files_count: None,
            existing_files_count: None,
            deleted_files_count: None,
            added_rows_count: None,
            existing_rows_count: None,
            deleted_rows_count: None,
            partitions: None,
            key_metadata: None,
            first_row_id: None,
        }
    }

    #[test]
    fn manifests_stay_few_and_entries_are_seldom_written_anew() {
        const HEADER: i64 = 6000;
        const ENTRY: i64 = 150;
        const TARGET: u64 = 8 << 20;
        let (mut all, mut most, mut copied) = (Vec::<ManifestFile>::new(), 0, 0);
        let commits = 100_000;
        for _ in 0..commits {
            let bins = choose(&all, TARGET, 50);
            let merged = bins.iter().flatten().copied().collect::<std::collections::HashSet<usize>>();
            assert_eq!(merged.len(), bins.iter().map(Vec::len).sum::<usize>());
            let made: Vec<ManifestFile> = bins
                .iter()
                .map(|bin| {
                    let entries: i64 = bin.iter().map(|i| all[*i].manifest_length - HEADER).sum();
                    assert!(entries as u64 <= TARGET);
                    copied += entries / ENTRY;
                    manifest(HEADER + entries)
                })
                .collect();
            let kept = all.iter().enumerate().filter(|(n, _)| !merged.contains(n)).map(|(_, m)| m.clone());
            all = made.into_iter().chain(kept).chain([manifest(HEADER + ENTRY)]).collect();
            most = most.max(all.len());
        }
        assert_eq!(all.iter().map(|m| (m.manifest_length - HEADER) / ENTRY).sum::<i64>(), commits);
        assert!(most < 90, "{most} manifests");
        assert!(copied < 12 * commits, "{copied} entries written anew");
    }
}
