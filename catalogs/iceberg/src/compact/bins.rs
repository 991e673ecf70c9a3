use std::collections::BTreeMap;
use std::sync::Arc;

use crate::scan::TargetFile;

/// Files that are smaller than this share of the target, or larger than that one, are not of their size.
const SMALL: f64 = 0.75;
const LARGE: f64 = 1.8;

/// What a file has to be to be written anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) target_bytes: u64,
    /// New files are of this one.
    pub(super) spec_id: i32,
    /// So many small files are worth being made one.
    pub(super) least_files: usize,
    /// The table's order, where rows are put in it.
    pub(super) order_id: Option<i32>,
    /// All of them, whatever they are.
    pub(super) all: bool,
    /// Old files that become new ones together.
    pub(super) bin_bytes: u64,
}

/// The text of a partition's values tells partitions apart; where it is the same for two, so are they.
pub(super) fn partition_key(file: &TargetFile) -> (i32, String) {
    (file.spec_id, format!("{:?}", file.partition))
}

/// Files that are read together; without an order they become about one file each bin. Those of one partition, in their order.
pub(super) fn bins(files: &[Arc<TargetFile>], wanted: Wanted) -> Vec<Vec<Arc<TargetFile>>> {
    let target = wanted.target_bytes.max(1);
    let small = |file: &TargetFile| (file.size_bytes as f64) < SMALL * target as f64;
    let must = |file: &TargetFile| {
        wanted.all
            || file.has_deletes()
            || file.spec_id != wanted.spec_id
            || file.size_bytes as f64 > LARGE * target as f64
            || wanted.order_id.is_some_and(|order| file.sort_order_id != Some(order))
    };
    let mut partitions: BTreeMap<(i32, String), Vec<&Arc<TargetFile>>> = BTreeMap::new();
    for file in files.iter().filter(|file| small(file) || must(file)) {
        partitions.entry(partition_key(file)).or_default().push(file);
    }
    let mut all = Vec::new();
    for files in partitions.into_values() {
        let mut bin: Vec<Arc<TargetFile>> = Vec::new();
        let mut bytes = 0;
        let mut close = |bin: &mut Vec<Arc<TargetFile>>| {
            let bin = std::mem::take(bin);
            if bin.len() >= wanted.least_files.max(2) || bin.iter().any(|file| must(file)) {
                all.push(bin);
            }
        };
        for file in files {
            if bytes + file.size_bytes > wanted.bin_bytes && !bin.is_empty() {
                close(&mut bin);
                bytes = 0;
            }
            bytes += file.size_bytes;
            bin.push(Arc::clone(file));
        }
        close(&mut bin);
    }
    all
}

#[cfg(test)]
pub(super) mod tests {
    use iceberg::spec::{Literal, Struct};

    use super::*;

    pub(in crate::compact) fn file(name: &str, size_bytes: u64, partition: i32) -> TargetFile {
        TargetFile {
            location: name.to_owned(),
            manifest: String::new(),
            spec_id: 1,
            partition: Struct::from_iter([Some(Literal::int(partition))]),
            rows: 1,
            size_bytes,
            sequence_number: 1,
            first_row_id: None,
            deletes: Vec::new(),
            equality_deletes: false,
            sort_order_id: None,
        }
    }

    const PLAIN: Wanted =
        Wanted { target_bytes: 100, spec_id: 1, least_files: 2, order_id: None, all: false, bin_bytes: 100 };

    fn names(files: Vec<TargetFile>) -> Vec<Vec<String>> {
        names_wanted(files, PLAIN)
    }

    fn names_wanted(files: Vec<TargetFile>, wanted: Wanted) -> Vec<Vec<String>> {
        let files: Vec<Arc<TargetFile>> = files.into_iter().map(Arc::new).collect();
        let bins = bins(&files, wanted);
        bins.into_iter().map(|bin| bin.iter().map(|f| f.location.clone()).collect()).collect()
    }

    #[test]
    fn small_files_of_a_partition_go_together() {
        let files = vec![file("a", 10, 0), file("b", 20, 1), file("c", 30, 0), file("d", 70, 0), file("e", 5, 1)];
        assert_eq!(names(files), [vec!["a", "c"], vec!["b", "e"]]);
    }

    #[test]
    fn one_small_file_and_files_of_their_size_stay() {
        assert!(names(vec![file("a", 10, 0), file("b", 20, 1), file("c", 100, 0), file("d", 179, 0)]).is_empty());
    }

    #[test]
    fn files_with_deletes_of_another_layout_or_too_large_are_written_anew() {
        let deleted = TargetFile { equality_deletes: true, ..file("a", 100, 0) };
        let old = TargetFile { spec_id: 0, ..file("b", 100, 0) };
        assert_eq!(names(vec![deleted, old, file("c", 181, 0)]), [vec!["b"], vec!["a"], vec!["c"]]);
    }

    #[test]
    fn files_that_are_not_in_the_order_are_sorted_together() {
        let sorted = |name: &str, bytes, order| TargetFile { sort_order_id: Some(order), ..file(name, bytes, 0) };
        let ordered = Wanted { order_id: Some(2), bin_bytes: 1000, ..PLAIN };
        let files = || vec![sorted("a", 90, 2), sorted("b", 90, 1), file("c", 90, 0), file("d", 90, 1)];
        assert_eq!(names_wanted(files(), ordered), [vec!["b", "c"], vec!["d"]]);
        assert_eq!(names_wanted(files(), Wanted { all: true, ..ordered }), [vec!["a", "b", "c"], vec!["d"]]);
        assert_eq!(names_wanted(vec![sorted("a", 10, 2)], ordered), Vec::<Vec<String>>::new());
    }

    #[test]
    fn a_bin_is_about_one_file() {
        let files = (0..10).map(|i| file(&i.to_string(), 40, 0)).collect();
        assert_eq!(names(files).iter().map(Vec::len).collect::<Vec<_>>(), [2; 5]);
    }
}
