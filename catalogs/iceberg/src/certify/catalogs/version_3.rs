use datafusion::common::ScalarValue;

use super::*;

impl Scene {
    /// Made of format version 3 or raised to it, tables take rows from flows and statements, and keep default values.
    pub(super) async fn tables_are_raised(&self) {
        for version in ["3", "2"] {
            let table = format!("version{version}");
            let name = self.name(&table);
            let properties = |version: &str| BTreeMap::from([("format-version".to_string(), version.to_string())]);
            let new = NewTable { properties: properties(version), ..self.new_table(&table, vec![]) };
            self.one.create_table(new).await.unwrap();
            let flow = self.one.commit_table(&name).await.unwrap();
            next(flow.as_ref(), &begin(flow.as_ref()).await, 0, 10).await;
            let load = || async { self.two.load_table(&name).await.unwrap() };
            append(load().await.as_ref(), vec![rows(10, 15)]).await.unwrap();
            load().await.alter(&[Alteration::SetProperties(properties("3"))]).await.unwrap();
            let head = flow.load_head(FLOW).await.unwrap();
            next(flow.as_ref(), &head, 15, 20).await;
            append(load().await.as_ref(), vec![rows(20, 25)]).await.unwrap();
            let path = vec!["c".to_string()];
            let seven = Some(ScalarValue::Int32(Some(7)));
            let add = AddColumn {
                path: path.clone(),
                data_type: DataType::Int32,
                default: seven,
                required: true,
                comment: None,
                place: None,
                if_not_exists: false,
            };
            load().await.alter(&[Alteration::AddColumn(add)]).await.unwrap();
            let eight = ScalarValue::Int32(Some(8));
            let change = Alteration::ChangeDefault { path, default: Some(eight.clone()) };
            load().await.alter(&[change]).await.unwrap();
            let seen = self.one.load_table(&name).await.unwrap();
            assert_eq!(seen.info().defaults, BTreeMap::from([("c".to_string(), eight)]));
            let found = query(seen.as_ref(), "SELECT count(*), min(c), max(c) FROM t").await;
            let shown = arrow::util::pretty::pretty_format_batches(&found).unwrap().to_string();
            assert!(shown.contains("| 25       | 7        | 7        |"), "{shown}");
            let back = load().await.alter(&[Alteration::SetProperties(properties("2"))]).await.unwrap_err();
            assert_eq!(back.kind(), ErrorKind::InvalidInput);
        }
    }
}
