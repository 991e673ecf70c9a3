use tidewater_catalogs::TableDraft;

use super::*;

impl Scene {
    /// Drafts of several tables come through together or not at all, where the catalog says that they can.
    pub(super) async fn tables_change_together(&self) {
        for table in ["first", "second"] {
            let made = self.one.create_table(self.new_table(table, vec![])).await.unwrap();
            append(made.as_ref(), vec![rows(0, 10)]).await.unwrap();
        }
        let begin = async |table: &str, from: i64, to: i64| -> Arc<dyn TableDraft> {
            let draft = self.one.load_table(&self.name(table)).await.unwrap().draft().unwrap();
            append(Arc::clone(&draft).table().unwrap().as_ref(), vec![rows(from, to)]).await.unwrap();
            draft
        };
        let counts = async || (self.count("first").await, self.count("second").await);
        // One alone, beside a commit of somebody else.
        let draft = begin("first", 10, 15).await;
        append(self.two.load_table(&self.name("first")).await.unwrap().as_ref(), vec![rows(20, 21)]).await.unwrap();
        self.one.commit_drafts(&[draft]).await.unwrap();
        assert_eq!(counts().await, (16, 10));
        if !self.one.commits_together("c").await.unwrap() {
            return;
        }
        let both = [begin("first", 30, 32).await, begin("second", 30, 33).await];
        append(self.two.load_table(&self.name("second")).await.unwrap().as_ref(), vec![rows(20, 21)]).await.unwrap();
        self.one.commit_drafts(&both).await.unwrap();
        assert_eq!(counts().await, (18, 14));
        // What empties a table that got rows meanwhile cannot be, and the other is left alone.
        let both = [begin("first", 40, 42).await, begin("second", 40, 42).await];
        let runner = crate::tests::runner();
        Arc::clone(&both[1]).table().unwrap().overwrite(None, false, &runner).await.unwrap();
        append(self.two.load_table(&self.name("second")).await.unwrap().as_ref(), vec![rows(50, 51)]).await.unwrap();
        assert_eq!(self.one.commit_drafts(&both).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(counts().await, (18, 15));
    }
}
