use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tidewater_catalogs::Result;

use super::gzip::{Part, Writer};
use super::{id, unwritable};

/// Beyond this many bytes a piece is closed and shared.
const PIECE: usize = 64 << 10;

/// Elements of a JSON array, each followed by a comma. States that follow each other share all but the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Elements {
    pub(super) count: usize,
    pub(super) bytes: usize,
    closed: Vec<Arc<Piece>>,
    /// Has an element wherever there are any.
    end: Vec<Element>,
    end_json: Vec<u8>,
}

#[derive(Debug)]
struct Piece {
    elements: Vec<Element>,
    json: Vec<u8>,
    packed: OnceLock<Part>,
}

#[derive(Debug, Clone, Copy)]
struct Element {
    snapshot: Option<i64>,
    /// Of its JSON, with the comma.
    len: usize,
}

impl Elements {
    pub(super) fn of(values: &[Value]) -> Result<Self> {
        let mut all = Self::default();
        for value in values {
            all.push(value)?;
        }
        Ok(all)
    }

    pub(super) fn push(&mut self, value: &Value) -> Result<()> {
        self.close_if_long();
        let before = self.end_json.len();
        serde_json::to_writer(&mut self.end_json, value).map_err(unwritable)?;
        self.end_json.push(b',');
        self.count_in(Element { snapshot: id(value), len: self.end_json.len() - before });
        Ok(())
    }

    fn copy(&mut self, element: Element, json: &[u8]) {
        self.close_if_long();
        self.end_json.extend_from_slice(json);
        self.count_in(element);
    }

    fn count_in(&mut self, element: Element) {
        self.end.push(element);
        self.count += 1;
        self.bytes += element.len;
    }

    fn close_if_long(&mut self) {
        if self.end_json.len() > PIECE {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.end.is_empty() {
            let (elements, json) = (std::mem::take(&mut self.end), std::mem::take(&mut self.end_json));
            self.closed.push(Arc::new(Piece { elements, json, packed: OnceLock::new() }));
        }
    }

    /// Those that `keep` wants, by number and snapshot. Pieces that lose nothing stay as they are; what is left of the
    /// others is gathered.
    pub(super) fn retain(&self, keep: impl Fn(usize, Option<i64>) -> bool) -> Self {
        let mut kept = Self::default();
        let mut number = 0;
        for piece in &self.closed {
            let first = number;
            number += piece.elements.len();
            let stays = piece.elements.iter().zip(first..).all(|(element, n)| keep(n, element.snapshot));
            // A short one is a remainder from before, and would be one for ever.
            if stays && piece.json.len() > PIECE / 2 {
                kept.close();
                kept.count += piece.elements.len();
                kept.bytes += piece.json.len();
                kept.closed.push(Arc::clone(piece));
            } else {
                kept.copy_some(&piece.elements, &piece.json, first, &keep);
            }
        }
        kept.copy_some(&self.end, &self.end_json, number, &keep);
        if kept.end.is_empty()
            && let Some(last) = kept.closed.pop()
        {
            (kept.end, kept.end_json) = (last.elements.clone(), last.json.clone());
        }
        kept
    }

    fn copy_some(
        &mut self,
        elements: &[Element],
        json: &[u8],
        first: usize,
        keep: &impl Fn(usize, Option<i64>) -> bool,
    ) {
        let mut rest = json;
        for (element, number) in elements.iter().zip(first..) {
            let (own, after) = rest.split_at(element.len.min(rest.len()));
            if keep(number, element.snapshot) {
                self.copy(*element, own);
            }
            rest = after;
        }
    }

    /// Compresses what commits to come share.
    pub(super) fn pack(&self) -> Result<()> {
        self.closed.iter().try_for_each(|piece| piece.packed().map(|_| ()))
    }

    fn last(&self) -> &[u8] {
        self.end_json.strip_suffix(b",").unwrap_or_default()
    }

    pub(super) fn write(&self, file: &mut Vec<u8>) {
        self.closed.iter().for_each(|piece| file.extend_from_slice(&piece.json));
        file.extend_from_slice(self.last());
    }

    pub(super) fn write_packed(&self, file: &mut Writer) -> Result<()> {
        self.pack()?;
        file.reserve(self.closed.iter().filter_map(|piece| piece.packed.get()).map(Part::len).sum());
        for piece in &self.closed {
            file.part(piece.packed()?)?;
        }
        file.plain(self.last());
        Ok(())
    }
}

impl Piece {
    fn packed(&self) -> Result<&Part> {
        if let Some(packed) = self.packed.get() {
            return Ok(packed);
        }
        let packed = Part::of(&self.json)?;
        Ok(self.packed.get_or_init(|| packed))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        /// Drops the oldest, but for every so many.
        Drop(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..400usize).prop_map(Step::Push),
            (0..500usize, 2..60usize).prop_map(|(count, pinned)| Step::Drop(count, pinned)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn elements_are_those_that_were_pushed_and_kept(steps in prop::collection::vec(step(), 1..20)) {
            let (mut all, mut expected, mut next) = (Elements::default(), Vec::<Value>::new(), 0i64);
            for step in steps {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        next += 1;
                        let value = json!({"snapshot-id": next, "text": "x".repeat((next % 900) as usize)});
                        all.push(&value).unwrap();
                        expected.push(value);
                    },
                    Step::Drop(count, pinned) => {
                        let dropped = |n: usize, id: Option<i64>| n < count && id.unwrap() % pinned as i64 != 0;
                        all = all.retain(|n, id| !dropped(n, id));
                        let mut n = 0;
                        expected.retain(|value| {
                            n += 1;
                            !dropped(n - 1, id(value))
                        });
                    }
                }
                let json = serde_json::to_vec(&expected).unwrap();
                let inner = &json[1..json.len() - 1];
                let mut plain = Vec::new();
                all.write(&mut plain);
                prop_assert!(plain == inner);
                prop_assert_eq!(all.count, expected.len());
                // The last comma is counted too.
                prop_assert_eq!(all.bytes, inner.len() + usize::from(!expected.is_empty()));
                let mut packed = Writer::new();
                all.write_packed(&mut packed).unwrap();
                prop_assert!(super::super::gzip::unpack(&packed.finish().unwrap()).unwrap() == inner);
                // At most one short piece beside each long one.
                let bound = all.bytes / (PIECE / 4) + 2;
                prop_assert!(all.closed.len() <= bound, "{} pieces, {} bytes", all.closed.len(), all.bytes);
            }
        }
    }

    #[test]
    fn pieces_that_lose_nothing_are_shared() {
        let mut all = Elements::default();
        for n in 0..5000i64 {
            all.push(&json!({"snapshot-id": n, "text": "x".repeat(100)})).unwrap();
        }
        let kept = all.retain(|n, _| n >= 700);
        let shared = kept.closed.iter().filter(|piece| all.closed.iter().any(|other| Arc::ptr_eq(piece, other)));
        assert_eq!(shared.count(), all.closed.len() - 2);
    }
}
