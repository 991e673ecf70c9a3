#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::io::Read;

use iceberg::spec::{
    FormatVersion, MAIN_BRANCH, NestedField, Operation, PrimitiveType, Schema, Snapshot, SnapshotReference,
    SnapshotRetention, SortOrder, Summary, Type, UnboundPartitionSpec,
};
use proptest::prelude::*;

use super::*;

const CODEC: &str = "write.metadata.compression-codec";

#[derive(Debug, Clone)]
enum Step {
    /// So many commits, of one of two flows or of none.
    Commit(usize, usize),
    /// The oldest go, as maintenance has it.
    Expire(usize),
    Forget(usize),
    /// What others do: the JSON is begun anew.
    Pin(usize),
    Codec(Option<&'static str>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..60usize, 0..3usize).prop_map(|(count, flow)| Step::Commit(count, flow)),
        3 => (1..80usize).prop_map(Step::Expire),
        1 => (0..2usize).prop_map(Step::Forget),
        1 => (0..50usize).prop_map(Step::Pin),
        1 => prop::sample::select(vec![None, Some("gzip"), Some("none")]).prop_map(Step::Codec),
    ];
    prop::collection::vec(step, 1..25)
}

struct Table {
    metadata: TableMetadata,
    json: MetadataJson,
    location: String,
    files: usize,
}

impl Table {
    fn new() -> Self {
        let field = NestedField::required(1, "n", Type::Primitive(PrimitiveType::Long));
        let schema = Schema::builder().with_fields(vec![field.into()]).build().unwrap();
        let (spec, order) = (UnboundPartitionSpec::default(), SortOrder::unsorted_order());
        let properties = HashMap::from([("write.metadata.previous-versions-max".to_owned(), "3".to_owned())]);
        let place = "file:///t".to_owned();
        let builder = TableMetadataBuilder::new(schema, spec, order, place, FormatVersion::V2, properties).unwrap();
        let metadata = builder.build().unwrap().metadata;
        let json = MetadataJson::of(&metadata).unwrap();
        Self { metadata, json, location: "file:///t/metadata/0.metadata.json".to_owned(), files: 0 }
    }

    fn built(&self, change: impl FnOnce(TableMetadataBuilder) -> TableMetadataBuilder) -> TableMetadata {
        change(self.metadata.clone().into_builder(Some(self.location.clone()))).build().unwrap().metadata
    }

    /// A change of ours: its JSON is made of parts.
    fn ours(&mut self, change: impl Fn(TableMetadataBuilder) -> TableMetadataBuilder) {
        self.metadata = self.built(&change);
        self.json = self.json.in_parts(&self.metadata, &self.location, |b| Ok(change(b))).unwrap().expect("in parts");
        self.moved();
    }

    fn others(&mut self, change: impl Fn(TableMetadataBuilder) -> TableMetadataBuilder) {
        self.metadata = self.built(change);
        self.json = MetadataJson::of(&self.metadata).unwrap();
        self.moved();
    }

    fn moved(&mut self) {
        self.files += 1;
        self.location = format!("file:///t/metadata/{}.metadata.json", self.files);
    }

    fn commit(&mut self, flow: usize) {
        let number = self.metadata.last_sequence_number() + 1;
        let id = number * 7919;
        let text = format!("{number:0width$}", width = 1500 + (number % 700) as usize);
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(self.metadata.current_snapshot_id())
            .with_sequence_number(number)
            .with_timestamp_ms(self.metadata.last_updated_ms() + 1)
            .with_manifest_list(format!("file:///t/metadata/snap-{id}.avro"))
            .with_summary(Summary {
                operation: Operation::Append,
                additional_properties: HashMap::from([("text".to_owned(), text)]),
            })
            .with_schema_id(0)
            .build();
        self.ours(|b| {
            let b = b.set_branch_snapshot(snapshot.clone(), MAIN_BRANCH).unwrap();
            if flow == 2 {
                return b;
            }
            let head = HashMap::from([(format!("head.{flow}"), id.to_string())]);
            b.set_ref(&flow.to_string(), tag(id)).unwrap().set_properties(head).unwrap()
        });
    }

    fn expire(&mut self, count: usize) {
        let refs = ["0", "1", "2", MAIN_BRANCH].into_iter();
        let kept: Vec<i64> =
            refs.filter_map(|name| self.metadata.snapshot_for_ref(name)).map(|s| s.snapshot_id()).collect();
        let mut ids: Vec<i64> = self.metadata.snapshots().map(|s| s.snapshot_id()).collect();
        ids.sort_unstable();
        ids.truncate(count);
        ids.retain(|id| !kept.contains(id));
        self.ours(|b| b.remove_snapshots(&ids));
    }

    fn check(&self) {
        let file = self.json.file().unwrap();
        let asked = self.metadata.properties().get(CODEC).map(String::as_str);
        let packed = asked == Some("gzip") || (asked.is_none() && self.json.bytes() > 1 << 20);
        assert_eq!(gzip::is_packed(&file), packed);
        let mut json = Vec::new();
        if packed {
            let mut plain = flate2::bufread::GzDecoder::new(file.as_ref());
            plain.read_to_end(&mut json).unwrap();
            assert!(plain.into_inner().is_empty());
        } else {
            json.extend_from_slice(&file);
        }
        assert_eq!(unpacked(file).unwrap(), json);
        assert!(json.len() <= self.json.bytes() + 64 && self.json.bytes() <= json.len() + 64);
        assert!(serde_json::from_slice::<TableMetadata>(&json).unwrap() == self.metadata);
    }
}

fn tag(id: i64) -> SnapshotReference {
    SnapshotReference::new(id, SnapshotRetention::Tag { max_ref_age_ms: None })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever came before, files say what the state says.
    #[test]
    fn files_made_of_parts_are_whole(steps in steps()) {
        let mut table = Table::new();
        for step in steps {
            match step {
                Step::Commit(count, flow) => (0..count).for_each(|_| table.commit(flow)),
                Step::Expire(count) => table.expire(count),
                Step::Forget(flow) => table.ours(|b| {
                    b.remove_ref(&flow.to_string()).remove_properties(&[format!("head.{flow}")]).unwrap()
                }),
                Step::Pin(nth) => {
                    let mut ids: Vec<i64> = table.metadata.snapshots().map(|s| s.snapshot_id()).collect();
                    ids.sort_unstable();
                    if let Some(id) = ids.get(nth).copied() {
                        table.others(|b| b.set_ref("2", tag(id)).unwrap());
                    }
                }
                Step::Codec(None) => table.others(|b| b.remove_properties(&[CODEC.to_owned()]).unwrap()),
                Step::Codec(Some(codec)) => {
                    table.others(|b| b.set_properties([(CODEC.to_owned(), codec.to_owned())].into()).unwrap());
                }
            }
            table.check();
        }
    }
}

#[test]
fn long_metadata_is_packed_unless_the_table_says_otherwise() {
    let mut table = Table::new();
    let mut packed = Vec::new();
    for _ in 0..650 {
        table.commit(0);
        packed.push(gzip::is_packed(&table.json.file().unwrap()));
    }
    table.check();
    let plain = packed.iter().take_while(|packed| !**packed).count();
    assert!((450..600).contains(&plain) && packed[plain..].iter().all(|packed| *packed), "{plain}");
    let file = table.json.file().unwrap();
    assert!(file.len() * 5 < table.json.bytes(), "{} bytes of {}", file.len(), table.json.bytes());
    table.others(|b| b.set_properties([(CODEC.to_owned(), "none".to_owned())].into()).unwrap());
    table.check();
}
