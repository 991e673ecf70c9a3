//! Columns from a sample of records.

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use tidewater_catalogs::HiddenColumn;

use crate::format::{Malformed, Scan, Str, is_timestamp, json_field};

/// Objects nested deeper than this, or with more members, are kept as JSON: they are data rather than structure.
const DEEPEST: u32 = 4;
const WIDEST: usize = 100;
/// Above this a double no longer holds every integer.
const EXACT: u64 = 1 << 53;

/// What a member has been so far.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    Null,
    Bool,
    Int { exact_in_double: bool },
    Double,
    Timestamp,
    Text,
    Object(Vec<(String, Shape)>),
    List(Box<Shape>),
    Json,
}

impl Shape {
    fn and(self, other: Shape) -> Shape {
        use Shape as S;
        match (self, other) {
            (S::Null, other) | (other, S::Null) => other,
            (S::Int { exact_in_double: a }, S::Int { exact_in_double: b }) => S::Int { exact_in_double: a && b },
            (S::Int { exact_in_double: true }, S::Double) | (S::Double, S::Int { exact_in_double: true }) => S::Double,
            // Neither bigint nor double holds both without loss.
            (S::Int { .. }, S::Double) | (S::Double, S::Int { .. }) => S::Text,
            (S::Timestamp, S::Text) | (S::Text, S::Timestamp) => S::Text,
            (S::Object(mut a), S::Object(b)) => {
                for (name, shape) in b {
                    add(&mut a, name, shape);
                }
                if a.len() > WIDEST { S::Json } else { S::Object(a) }
            }
            (S::List(a), S::List(b)) => S::List(Box::new(a.and(*b))),
            (a, b) if a == b => a,
            (a, b) if a.is_scalar() && b.is_scalar() => S::Text,
            _ => S::Json,
        }
    }

    fn is_scalar(&self) -> bool {
        !matches!(self, Self::Object(_) | Self::List(_) | Self::Json)
    }

    /// `None` for what has no type of its own: it is kept as JSON.
    fn data_type(&self) -> Option<DataType> {
        Some(match self {
            Self::Bool => DataType::Boolean,
            Self::Int { .. } => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            Self::Text => DataType::Utf8,
            Self::Object(members) if !members.is_empty() => {
                DataType::Struct(members.iter().map(|(name, shape)| shape.field(name)).collect::<Fields>())
            }
            Self::List(item) if **item != Self::Null => DataType::List(item.field("element").into()),
            Self::Null | Self::Object(_) | Self::List(_) | Self::Json => return None,
        })
    }

    fn field(&self, name: &str) -> Field {
        match self.data_type() {
            Some(data_type) => Field::new(name, data_type, true),
            None => json_field(name),
        }
    }
}

fn add(members: &mut Vec<(String, Shape)>, name: String, shape: Shape) {
    match members.iter_mut().find(|(n, _)| *n == name) {
        Some((_, known)) => {
            let before = std::mem::replace(known, Shape::Null);
            *known = before.and(shape);
        }
        None => members.push((name, shape)),
    }
}

/// Members of the records seen so far.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    members: Vec<(String, Shape)>,
    pub(crate) records: usize,
    pub(crate) malformed: Option<Malformed>,
}

impl Sample {
    pub(crate) fn add(&mut self, value: &[u8]) {
        match object(value) {
            Ok(members) => {
                self.records += 1;
                for (name, shape) in members {
                    add(&mut self.members, name, shape);
                }
            }
            Err(e) => {
                self.malformed.get_or_insert(e);
            }
        }
    }

    /// One column per member, in order of first appearance. Members that are named like a hidden column stay out.
    pub(crate) fn fields(&self) -> Vec<Field> {
        self.members
            .iter()
            .filter(|(name, _)| HiddenColumn::from_name(name).is_none() && !name.is_empty())
            .map(|(name, shape)| shape.field(name))
            .collect()
    }
}

fn object(value: &[u8]) -> Result<Vec<(String, Shape)>, Malformed> {
    let text = std::str::from_utf8(value).map_err(|_| Malformed::new("value is not UTF-8"))?;
    let mut scan = Scan::new(text);
    scan.space();
    if !scan.eat(b'{') {
        return Err(Malformed::new("value is not a JSON object"));
    }
    let members = read_members(&mut scan, 1)?;
    scan.space();
    match scan.peek() {
        None => Ok(members),
        Some(_) => Err(scan.error("expected nothing behind the object")),
    }
}

fn read_members(scan: &mut Scan<'_>, depth: u32) -> Result<Vec<(String, Shape)>, Malformed> {
    let mut members = Vec::new();
    let mut scratch = Vec::new();
    scan.space();
    if !scan.eat(b'}') {
        loop {
            let name = scan.member_name()?.text(&mut scratch)?.to_owned();
            let shape = read(scan, depth)?;
            if name.contains('\0') {
                // No column can be called so.
                if scan.more(b'}')? {
                    continue;
                }
                break;
            }
            // Of a member that occurs twice the last counts, as when it is decoded.
            match members.iter_mut().find(|(n, _): &&mut (String, Shape)| *n == name) {
                Some((_, before)) => *before = shape,
                None => members.push((name, shape)),
            }
            if !scan.more(b'}')? {
                break;
            }
        }
    }
    Ok(members)
}

fn read(scan: &mut Scan<'_>, depth: u32) -> Result<Shape, Malformed> {
    let start = scan.pos();
    Ok(match scan.peek() {
        Some(b'{' | b'[') if depth >= DEEPEST => {
            scan.skip(depth)?;
            Shape::Json
        }
        Some(b'{') => {
            scan.eat(b'{');
            let members = read_members(scan, depth + 1)?;
            if members.len() > WIDEST { Shape::Json } else { Shape::Object(members) }
        }
        Some(b'[') => {
            scan.eat(b'[');
            let mut item = Shape::Null;
            scan.space();
            if !scan.eat(b']') {
                loop {
                    scan.space();
                    item = item.and(read(scan, depth + 1)?);
                    if !scan.more(b']')? {
                        break;
                    }
                }
            }
            Shape::List(Box::new(item))
        }
        Some(b'"') => match scan.string()? {
            Str::Plain(text) if is_timestamp(text) => Shape::Timestamp,
            _ => Shape::Text,
        },
        Some(b'-' | b'0'..=b'9') => {
            let text = scan.number()?;
            match text.parse::<i64>() {
                Ok(n) => Shape::Int { exact_in_double: n.unsigned_abs() <= EXACT },
                // Longer integers, and numbers beyond a double, keep their text.
                Err(_) if !text.contains(['.', 'e', 'E']) => Shape::Text,
                Err(_) if text.parse::<f64>().is_ok_and(f64::is_finite) => Shape::Double,
                Err(_) => Shape::Text,
            }
        }
        Some(b't' | b'f') => {
            scan.skip(depth)?;
            Shape::Bool
        }
        _ => {
            scan.skip(depth)?;
            debug_assert_eq!(scan.since(start), "null");
            Shape::Null
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infer(records: &[&str]) -> String {
        let mut sample = Sample::default();
        records.iter().for_each(|r| sample.add(r.as_bytes()));
        let show = |f: &Field| {
            let json = if crate::format::is_json(f) { " json" } else { "" };
            format!("{}:{}{json}", f.name(), f.data_type())
        };
        sample.fields().iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn members_in_order_of_first_appearance() {
        assert_eq!(infer(&[r#"{"b":1,"a":"x"}"#, r#"{"c":true,"a":null,"b":2}"#]), "b:Int64 a:Utf8 c:Boolean");
    }

    #[test]
    fn conflicts_widen_without_loss() {
        assert_eq!(infer(&[r#"{"a":1}"#, r#"{"a":1.5}"#]), "a:Float64");
        assert_eq!(infer(&[r#"{"a":9007199254740993}"#, r#"{"a":1.5}"#]), "a:Utf8");
        assert_eq!(infer(&[r#"{"a":12345678901234567890}"#]), "a:Utf8");
        assert_eq!(infer(&[r#"{"a":1e400}"#]), "a:Utf8");
        assert_eq!(infer(&[r#"{"a":1}"#, r#"{"a":"x"}"#]), "a:Utf8");
        assert_eq!(infer(&[r#"{"a":1}"#, r#"{"a":{"b":1}}"#]), "a:Utf8 json");
        assert_eq!(infer(&[r#"{"a":null}"#]), "a:Utf8 json");
        assert_eq!(infer(&[r#"{"a":{}}"#]), "a:Utf8 json");
        assert_eq!(infer(&[r#"{"a":[]}"#]), "a:Utf8 json");
    }

    #[test]
    fn timestamps_need_every_value_to_be_one() {
        assert_eq!(infer(&[r#"{"t":"2024-01-01T00:00:00Z"}"#]), "t:Timestamp(µs, \"+00:00\")");
        assert_eq!(infer(&[r#"{"t":"2024-01-01T00:00:00Z"}"#, r#"{"t":"soon"}"#]), "t:Utf8");
        assert_eq!(infer(&[r#"{"t":"2024-01-01"}"#]), "t:Utf8");
    }

    #[test]
    fn malformed_records_and_hidden_names_stay_out() {
        assert_eq!(infer(&["[1]", "{", r#"{"_offset":1,"a":1}"#, r#"{"a":1}{"b":2}"#]), "a:Int64");
    }

    #[test]
    fn nested_values_become_structs_and_lists() {
        assert_eq!(
            infer(&[r#"{"o":{"x":1,"y":[1,2]}}"#, r#"{"o":{"z":"t"}}"#]),
            "o:Struct(\"x\": Int64, \"y\": List(Int64, field: 'element'), \"z\": Utf8)"
        );
    }
}
