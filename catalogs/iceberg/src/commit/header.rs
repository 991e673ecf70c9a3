//! Manifests as other libraries write them, in the form that the `iceberg` crate reads.
//!
//! The crate binds a manifest's partition spec to the schema beside it, and finds partition values by name. Other
//! libraries go by id: they rewrite manifests of an old spec under a schema that has lost the source column or has
//! another column by the name of a partition field, and they spell names that Avro does not allow in another way
//! (`s_x2Ex` for `s.x`), but for letters beyond ASCII, which they leave. The crate refuses such schemas and letters, and
//! takes a value under another name for null.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use iceberg::spec::{NestedField, PartitionField, PrimitiveType, Schema, SchemaRef, TableMetadata, Transform, Type};
use serde_json::Value;

const MAGIC: &[u8] = b"Obj\x01";

/// Key-value pairs of an Avro file, and where they end.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) pairs: Vec<(String, Vec<u8>)>,
    end: usize,
}

impl Header {
    pub(crate) fn parse(file: &[u8]) -> Option<Header> {
        let mut input = Input { bytes: file, at: 0 };
        if input.take(MAGIC.len())? != MAGIC {
            return None;
        }
        let mut pairs = Vec::new();
        loop {
            let mut count = input.long()?;
            if count == 0 {
                return Some(Header { pairs, end: input.at });
            }
            if count < 0 {
                input.long()?;
                count = count.checked_neg()?;
            }
            for _ in 0..count {
                let key = String::from_utf8(input.counted()?.to_vec()).ok()?;
                pairs.push((key, input.counted()?.to_vec()));
            }
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&[u8]> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_slice())
    }

    pub(crate) fn set(&mut self, key: &str, value: Vec<u8>) {
        if let Some((_, old)) = self.pairs.iter_mut().find(|(k, _)| k == key) {
            *old = value;
        }
    }

    /// `file` under this header.
    pub(crate) fn put_before(&self, file: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put_long(&mut out, self.pairs.len() as i64);
        for (key, value) in &self.pairs {
            for bytes in [key.as_bytes(), value] {
                put_long(&mut out, bytes.len() as i64);
                out.extend_from_slice(bytes);
            }
        }
        put_long(&mut out, 0);
        out.extend_from_slice(&file[self.end..]);
        out
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.long()?).ok()?;
        self.take(count)
    }

    fn long(&mut self) -> Option<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        None
    }
}

fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The manifest with its spec's fields named as its partition values are, and with a schema that fits the spec. What
/// is as the crate wants it, or cannot be made so, comes back as it is.
pub(crate) fn readable(file: Bytes, metadata: &TableMetadata) -> Bytes {
    match mended(&file, metadata) {
        Some(mended) => Bytes::from(mended),
        None => file,
    }
}

fn mended(file: &[u8], metadata: &TableMetadata) -> Option<Vec<u8>> {
    let mut header = Header::parse(file)?;
    let mut spec: Vec<PartitionField> = serde_json::from_slice(header.get("partition-spec")?).ok()?;
    let mut avro: Value = serde_json::from_slice(header.get("avro.schema")?).ok()?;
    let (names, renamed) = partition_names(&mut avro)?;
    if renamed {
        header.set("avro.schema", serde_json::to_vec(&avro).ok()?);
    }
    let mut changed = renamed;
    for field in &mut spec {
        if let Some(name) = names.get(&i64::from(field.field_id)).filter(|name| **name != field.name) {
            field.name.clone_from(name);
            changed = true;
        }
    }
    header.set("partition-spec", serde_json::to_vec(&spec).ok()?);
    let schema: Schema = serde_json::from_slice(header.get("schema")?).ok()?;
    if let Some(schema) = fitting(&schema, &spec, metadata) {
        header.set("schema", serde_json::to_vec(&schema).ok()?);
        changed = true;
    }
    changed.then(|| header.put_before(file))
}

/// Names of the partition values in the manifest's Avro schema, by field id; true where some had to change. Avro finds
/// values by their order, so that names are free.
fn partition_names(avro: &mut Value) -> Option<(HashMap<i64, String>, bool)> {
    fn record<'a>(of: &'a mut Value, name: &str) -> Option<&'a mut Value> {
        let mut fields = of.get_mut("fields")?.as_array_mut()?.iter_mut();
        match fields.find(|f| f.get("name").is_some_and(|n| n == name))?.get_mut("type")? {
            Value::Array(options) => options.iter_mut().find(|option| option.is_object()),
            other => Some(other),
        }
    }
    let partition = record(record(avro, "data_file")?, "partition")?;
    let (mut names, mut renamed) = (HashMap::new(), false);
    for field in partition.get_mut("fields")?.as_array_mut()? {
        let (id, name) = (field.get("field-id")?.as_i64()?, field.get_mut("name")?);
        // Java's library lets letters of any script stand, the crate's does not.
        let spelled = avro_name(name.as_str()?);
        if name.as_str() != Some(&spelled) {
            *name = Value::String(spelled.clone());
            renamed = true;
        }
        names.insert(id, spelled);
    }
    Some((names, renamed))
}

/// The schema with every source column of the spec, and no other column under the name of a partition field.
/// `None` where it is so already.
fn fitting(schema: &Schema, spec: &[PartitionField], metadata: &TableMetadata) -> Option<Schema> {
    let columns = schema.as_struct().fields();
    let mut taken: HashSet<String> = columns.iter().map(|c| c.name.clone()).collect();
    taken.extend(spec.iter().map(|f| f.name.clone()));
    let mut free = |name: &str| {
        let mut name = format!("{name}'");
        while !taken.insert(name.clone()) {
            name.push('\'');
        }
        name
    };
    let mut changed = false;
    let mut fitting: Vec<NestedField> = Vec::with_capacity(columns.len());
    for column in columns {
        let mut column = column.as_ref().clone();
        let own = |f: &PartitionField| f.transform == Transform::Identity && f.source_id == column.id;
        if spec.iter().any(|f| f.name == column.name && !own(f)) {
            column.name = free(&column.name);
            changed = true;
        }
        fitting.push(column);
    }
    for field in spec {
        if schema.field_by_id(field.source_id).is_some() || fitting.iter().any(|c| c.id == field.source_id) {
            continue;
        }
        let mut schemas: Vec<&SchemaRef> = metadata.schemas_iter().collect();
        schemas.sort_by_key(|s| std::cmp::Reverse(s.schema_id()));
        let data_type = match schemas.into_iter().find_map(|s| s.field_by_id(field.source_id)) {
            Some(dropped) => dropped.field_type.as_ref().clone(),
            None if field.transform == Transform::Void => Type::Primitive(PrimitiveType::String),
            None => continue,
        };
        fitting.push(NestedField::optional(field.source_id, free(&field.name), data_type));
        changed = true;
    }
    if !changed {
        return None;
    }
    let fields = fitting.into_iter().map(std::sync::Arc::new).collect::<Vec<_>>();
    Schema::builder().with_schema_id(schema.schema_id()).with_fields(fields).build().ok()
}

/// A name that Avro allows, as the Java library spells it.
pub(crate) fn avro_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (index, c) in name.chars().enumerate() {
        match c {
            'a'..='z' | 'A'..='Z' | '_' => out.push(c),
            '0'..='9' if index > 0 => out.push(c),
            '0'..='9' => {
                out.push('_');
                out.push(c);
            }
            other => {
                let mut units = [0u16; 2];
                other.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("_x{unit:X}")));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn names_are_spelled_for_avro() {
        for (name, spelled) in [("day", "day"), ("s.x", "s_x2Ex"), ("9a-9", "_9a_x2D9"), ("ü", "_xFC"), ("_a1", "_a1")]
        {
            assert_eq!(avro_name(name), spelled);
        }
    }

    #[test]
    fn headers_come_back_as_they_were() {
        let pairs = vec![("a".to_owned(), b"x".to_vec()), ("long".to_owned(), vec![7; 300])];
        let file = Header { pairs: pairs.clone(), end: 0 }.put_before(b"the rest");
        let header = Header::parse(&file).unwrap();
        assert_eq!(header.pairs, pairs);
        assert_eq!(header.put_before(&file), file);
        for cut in 0..file.len() - b"the rest".len() {
            assert!(Header::parse(&file[..cut]).is_none(), "{cut}");
        }
        let mut blocks = MAGIC.to_vec();
        // One block that gives its size, -1 pairs of 4 bytes, and one that does not.
        blocks.extend([1, 8, 2, b'k', 2, b'v', 2, 2, b'l', 2, b'w', 0, 99]);
        let header = Header::parse(&blocks).unwrap();
        assert_eq!(header.pairs, [("k".to_owned(), b"v".to_vec()), ("l".to_owned(), b"w".to_vec())]);
        assert!(header.put_before(&blocks).ends_with(&[0, 99]));
    }
}
