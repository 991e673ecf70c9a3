use super::fakes::Bench;

#[tokio::test]
async fn errors_carry_postgres_codes_and_words() {
    let mut b = Bench::new().await;
    for (sql, code, message) in [
        ("SELEC 1", "42601", "syntax error"),
        ("SELECT * FROM nothing", "42P01", "relation \"nothing\" does not exist"),
        ("SELECT nothing FROM t", "42703", "column \"nothing\" does not exist"),
        ("SELECT t.nothing FROM t", "42703", "column t.nothing does not exist"),
        ("SELECT nothing(1)", "42883", "function nothing"),
        ("SELECT id FROM t a, t b", "42702", "column reference \"id\" is ambiguous"),
        ("SELECT name, count(*) FROM t", "42803", "must appear in the GROUP BY clause"),
        ("SELECT 1 / (id - id) FROM t", "22012", "division by zero"),
        ("SELECT 'abc'::int", "22P02", "invalid input syntax for type integer: \"abc\""),
        ("SELECT '99999999999'::int", "22003", "out of range"),
        ("SELECT 'abc'::date", "22007", "invalid input syntax for type date: \"abc\""),
        ("SELECT 'abc'::timestamptz", "22007", "invalid input syntax for type timestamp"),
        ("SELECT (SELECT id FROM t)", "21000", "more than one row"),
        ("SELECT 1 UNION ALL SELECT 1, 2", "42601", "same number of columns"),
        ("SELECT * FROM t WHERE id", "42804", "must be type boolean"),
        ("SELECT true + 1", "42883", "operator does not exist"),
        ("SELECT sum(name) FROM t", "42883", "function sum"),
        ("SELECT * FROM t a JOIN t a ON true", "42712", ""),
        ("SELECT $1", "08P01", "bind message supplies 0 parameters"),
    ] {
        let (found, text) = b.error(sql).await;
        assert_eq!(found, code, "{sql}: {text}");
        assert!(text.contains(message), "{sql}: {text}");
    }
}

#[tokio::test]
async fn positions_count_characters_of_the_whole_text() {
    let mut b = Bench::new().await;
    let e = b.run("SELECT nothing FROM t").await.unwrap_err();
    assert_eq!(e.position, Some(8));
    let e = b.run("SELECT 'é', nothing FROM t").await.unwrap_err();
    assert_eq!(e.position, Some(13));
    let e = b.run("SELECT 1;\n SELECT *\n FROM nothing").await.unwrap_err();
    assert_eq!(e.position, Some(27));
}
