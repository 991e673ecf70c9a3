//! The events of a shop. Event number `n` of a topic is always the same but for its time, so that a restart goes on
//! with the number that follows the records in the topic: no order id comes twice. Clicks lie in several partitions, of
//! which a kill may leave one behind; their ids hold the time, so that a number used again makes no id twice.

use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, Utc};

/// One record in so many is broken, as records are in real life.
pub const MALFORMED_EVERY: u64 = 2_000;
/// The shop opens with these.
const FIRST_CUSTOMERS: u64 = 200;
/// Behind them one change in so many is a new customer.
const NEW_CUSTOMER_EVERY: u64 = 10;
const PRODUCTS: u64 = 400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Customers,
    Orders,
    Clicks,
}

impl Topic {
    pub const ALL: [Topic; 3] = [Self::Customers, Self::Orders, Self::Clicks];

    pub fn name(self) -> &'static str {
        match self {
            Self::Customers => "customers",
            Self::Orders => "orders",
            Self::Clicks => "clicks",
        }
    }

    pub fn partitions(self) -> u32 {
        match self {
            // One, so that the end of the topic says exactly which number comes next, whenever the process is killed.
            Self::Customers | Self::Orders => 1,
            Self::Clicks => 4,
        }
    }
}

/// Where the shop stands: the number of the next event of each topic.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shop {
    pub customers: u64,
    pub orders: u64,
    pub clicks: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// A form that was sent unchecked: a word where a number belongs.
    WrongType,
    /// A writer that died in the middle of a record.
    CutShort,
}

/// One record, in buffers that are used again.
#[derive(Debug, Default)]
pub struct Record {
    pub key: String,
    pub value: String,
}

impl Shop {
    /// Writes the next event into `out`. Of a hundred events one is a change of a customer, nine are orders.
    pub fn next(&mut self, now: DateTime<Utc>, out: &mut Record) -> Topic {
        out.key.clear();
        out.value.clear();
        let (topic, n) = if self.customers < FIRST_CUSTOMERS {
            (Topic::Customers, post_increment(&mut self.customers))
        } else {
            match (self.customers - FIRST_CUSTOMERS + self.orders + self.clicks) % 100 {
                0 => (Topic::Customers, post_increment(&mut self.customers)),
                n if n % 11 == 1 => (Topic::Orders, post_increment(&mut self.orders)),
                _ => (Topic::Clicks, post_increment(&mut self.clicks)),
            }
        };
        let mut dice = Dice::new(topic as u64, n);
        let at = now.to_rfc3339_opts(SecondsFormat::Millis, true);
        let fault = match dice.below(2 * MALFORMED_EVERY) {
            0 => Fault::WrongType,
            1 => Fault::CutShort,
            _ => Fault::None,
        };
        let broken = fault == Fault::WrongType;
        // Writing to a string cannot fail.
        let _ = match topic {
            Topic::Customers => customer(n, &mut dice, &at, out),
            Topic::Orders => order(n, customers_after(self.customers), &mut dice, &at, broken, out),
            Topic::Clicks => click(n, customers_after(self.customers), &mut dice, now, &at, broken, out),
        };
        if fault == Fault::CutShort || (broken && topic == Topic::Customers) {
            let cut = out.value.len() / 2;
            out.value.truncate(cut);
        }
        topic
    }
}

fn post_increment(n: &mut u64) -> u64 {
    *n += 1;
    *n - 1
}

/// How many customers there are after so many changes.
fn customers_after(changes: u64) -> u64 {
    changes.min(FIRST_CUSTOMERS) + changes.saturating_sub(FIRST_CUSTOMERS).div_ceil(NEW_CUSTOMER_EVERY)
}

fn customer(n: u64, dice: &mut Dice, at: &str, out: &mut Record) -> std::fmt::Result {
    let is_new = n < FIRST_CUSTOMERS || (n - FIRST_CUSTOMERS).is_multiple_of(NEW_CUSTOMER_EVERY);
    let (op, id) = if is_new {
        ("c", customers_after(n + 1))
    } else {
        let op = if dice.below(50) == 0 { "d" } else { "u" };
        (op, 1 + dice.below(customers_after(n)))
    };
    write!(out.key, "{id}")?;
    let (first, last) = (dice.pick(FIRST_NAMES), dice.pick(LAST_NAMES));
    let (mail, country) = (dice.pick(MAIL_HOSTS), dice.pick(COUNTRIES));
    write!(
        out.value,
        r#"{{"op":"{op}","id":{id},"name":"{first} {last}","email":"{first}.{last}{id}@{mail}","country":"{country}","updated_at":"{at}"}}"#
    )
}

fn order(n: u64, customers: u64, dice: &mut Dice, at: &str, broken: bool, out: &mut Record) -> std::fmt::Result {
    let customer = 1 + dice.below(customers);
    write!(out.key, "{customer}")?;
    let status = dice.pick(STATUSES);
    let currency = dice.pick(CURRENCIES);
    let id = n + 1;
    if broken {
        write!(out.value, r#"{{"id":"A-{id}""#)?;
    } else {
        write!(out.value, r#"{{"id":{id}"#)?;
    }
    write!(out.value, r#","customer_id":{customer},"status":"{status}","currency":"{currency}","items":["#)?;
    let mut total = 0;
    for line in 0..1 + dice.below(4) {
        let (product, quantity) = (dice.below(PRODUCTS), 1 + dice.below(3));
        let price = price_cents(product);
        total += price * quantity;
        let comma = if line == 0 { "" } else { "," };
        let (whole, cents) = (price / 100, price % 100);
        write!(out.value, r#"{comma}{{"sku":"SKU-{product:04}","quantity":{quantity},"price":{whole}.{cents:02}}}"#)?;
    }
    write!(out.value, r#"],"total":{}.{:02},"ordered_at":"{at}"}}"#, total / 100, total % 100)
}

fn price_cents(product: u64) -> u64 {
    199 + Dice::new(99, product).below(20_000)
}

fn click(
    n: u64,
    customers: u64,
    dice: &mut Dice,
    now: DateTime<Utc>,
    at: &str,
    broken: bool,
    out: &mut Record,
) -> std::fmt::Result {
    // A visitor clicks about eight times in a row.
    let mut visit = Dice::new(7, n / 64 * 8 + n % 8);
    let session = visit.next();
    let customer = 1 + visit.below(customers);
    write!(out.key, "{session:016x}")?;
    let ms = now.timestamp_millis();
    write!(out.value, r#"{{"event_id":"{ms:012x}{n:012x}","session":"{session:016x}","#)?;
    if broken {
        write!(out.value, r#""customer_id":"guest","#)?;
    } else if visit.below(3) == 0 {
        write!(out.value, r#""customer_id":null,"#)?;
    } else {
        write!(out.value, r#""customer_id":{customer},"#)?;
    }
    let (referrer, agent) = (visit.pick(REFERRERS), visit.pick(USER_AGENTS));
    match dice.below(5) {
        0 => write!(out.value, r#""page":"/","#)?,
        1 => write!(out.value, r#""page":"/cart","#)?,
        2 => write!(out.value, r#""page":"/search","#)?,
        _ => write!(out.value, r#""page":"/product/SKU-{:04}","#, dice.below(PRODUCTS))?,
    }
    let duration = 40 + dice.below(2_000);
    write!(
        out.value,
        r#""referrer":"{referrer}","user_agent":"{agent}","duration_ms":"{duration}","clicked_at":"{at}"}}"#
    )
}

/// Chance that comes out the same for the same event (SplitMix64).
struct Dice(u64);

impl Dice {
    fn new(kind: u64, n: u64) -> Self {
        let mut dice = Self(kind.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ n.wrapping_mul(0xa076_1d64_78bd_642f));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 where `n` is 0.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len() as u64) as usize]
    }
}

const FIRST_NAMES: &[&str] = &[
    "Ada", "Bao", "Carla", "Dmitri", "Elif", "Femi", "Greta", "Hugo", "Ines", "Jonas", "Kofi", "Lena", "Mara", "Noor",
    "Oskar", "Priya", "Quentin", "Rosa", "Sven", "Thandi", "Uma", "Viktor", "Wanda", "Yuki", "Zoe",
];
const LAST_NAMES: &[&str] = &[
    "Abe", "Bauer", "Costa", "Diaz", "Eriksen", "Fischer", "Garcia", "Haddad", "Ito", "Jansen", "Kim", "Lopez",
    "Moreau", "Novak", "Okafor", "Patel", "Rossi", "Silva", "Tanaka", "Weber",
];
const MAIL_HOSTS: &[&str] = &["example.com", "example.org", "mail.example", "post.example"];
const COUNTRIES: &[&str] = &["de", "fr", "es", "it", "nl", "pl", "se", "us", "ca", "br", "jp", "in", "ng", "za"];
const STATUSES: &[&str] = &["placed", "placed", "placed", "paid", "paid", "cancelled"];
const CURRENCIES: &[&str] = &["EUR", "EUR", "EUR", "USD", "GBP"];
const REFERRERS: &[&str] = &["", "", "https://search.example/", "https://news.example/a", "https://social.example/"];
const USER_AGENTS: &[&str] = &[
    "Mozilla/5.0 (X11; Linux x86_64)",
    "Mozilla/5.0 (Macintosh)",
    "Mozilla/5.0 (iPhone)",
    "Mozilla/5.0 (Android 15)",
    "Mozilla/5.0 (Windows NT 10.0)",
    "crawlbot/2.1 (+https://crawl.example/bot)",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::collections::HashSet;

    use super::*;

    fn events(from: Shop, count: usize) -> Vec<(Topic, String, String)> {
        let mut shop = from;
        let mut record = Record::default();
        let now = DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
        (0..count)
            .map(|_| {
                let topic = shop.next(now, &mut record);
                (topic, record.key.clone(), record.value.clone())
            })
            .collect()
    }

    #[test]
    fn a_restart_goes_on_with_the_numbers_that_follow() {
        let all = events(Shop::default(), 20_000);
        let mut shop = Shop::default();
        for cut in [100, 5_000, 13_337] {
            shop = Shop::default();
            for (topic, ..) in &all[..cut] {
                match topic {
                    Topic::Customers => shop.customers += 1,
                    Topic::Orders => shop.orders += 1,
                    Topic::Clicks => shop.clicks += 1,
                }
            }
            assert_eq!(events(shop, 500), all[cut..cut + 500]);
        }
        assert!(shop.orders > 1_000 && shop.clicks > 10_000, "{shop:?}");
    }

    #[test]
    fn most_records_are_whole_and_some_are_not() {
        let all = events(Shop::default(), 60_000);
        let mut order_ids = HashSet::new();
        let mut created = HashSet::new();
        let (mut cut_short, mut wrong_type) = (0, 0);
        for (topic, key, value) in &all {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(value) else {
                cut_short += 1;
                continue;
            };
            match topic {
                Topic::Customers => {
                    let id = value["id"].as_u64().unwrap();
                    assert_eq!(&id.to_string(), key);
                    if value["op"] == "c" {
                        assert!(created.insert(id), "customer {id} is created once");
                    } else {
                        assert!(id <= created.len() as u64 + 1);
                    }
                }
                Topic::Orders if value["id"].is_u64() => {
                    assert!(order_ids.insert(value["id"].as_u64().unwrap()));
                    let sum: f64 = value["items"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|i| i["price"].as_f64().unwrap() * i["quantity"].as_f64().unwrap())
                        .sum();
                    assert!((sum - value["total"].as_f64().unwrap()).abs() < 0.005);
                }
                Topic::Clicks if value["customer_id"] != "guest" => {
                    value["duration_ms"].as_str().unwrap().parse::<u32>().unwrap();
                    assert_eq!(value["clicked_at"], "2023-11-14T22:13:20.123Z");
                }
                _ => wrong_type += 1,
            }
        }
        assert!(cut_short > 3 && wrong_type > 3, "{cut_short} {wrong_type}");
        assert!(cut_short + wrong_type < 120);
    }
}
