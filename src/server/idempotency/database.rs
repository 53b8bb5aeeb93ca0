//! The durable side on disk: one SQLite database with the idempotency records and the execution journal.

use std::fs::{self, File, TryLockError};
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use rusqlite::{
    CachedStatement, Connection, OpenFlags, OptionalExtension, Result as SqlResult, TransactionBehavior,
};
use thiserror::Error;

use super::{MemoryStore, Retention};

pub(super) const DATABASE_FILE: &str = "idempotency.sqlite";
const LOCK_FILE: &str = "lock";

/// Kept in the file's header, so that a later version knows what it opens.
const FORMAT: i64 = 1;

/// `WAL` with `FULL` syncs the log on every commit: what is committed survives a power cut too. `fullfsync` makes that
/// true on macOS, whose plain fsync stops at the drive's cache. 8 MiB of pages hold the inner nodes of both tables.
const PRAGMAS: &str = "PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA fullfsync = ON;
    PRAGMA cache_size = -8192;";

/// A remembered id has the position of its first execution. Times are unsigned nanoseconds in two's complement.
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS processed (
        position INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        processed_unix_ns INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS journal (
        position INTEGER PRIMARY KEY,
        incarnation INTEGER NOT NULL,
        processed_unix_ns INTEGER NOT NULL,
        id TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS server (incarnation INTEGER NOT NULL) STRICT;
    INSERT INTO server SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM server);
    PRAGMA user_version = 1;";

/// One execution, as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// The place in the order of all executions, counted from 0 over all runs of the server, without gaps (but where
    /// a server remembered by a fault what it did not execute).
    pub position: u64,
    /// Which run of the server it was: 1 for the first that opened the directory.
    pub incarnation: u64,
    /// When it was processed, in nanoseconds since the Unix epoch.
    pub processed_unix_ns: u64,
    /// The id of the message.
    pub id: String,
}

/// A state directory could not be opened by the server.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory or a file in it could not be made.
    #[error("cannot create `{}`", path.display())]
    Create {
        /// What could not be created.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Another server has it open.
    #[error("the state directory `{}` is in use by another server", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The database was written by another version of the program.
    #[error("the state in `{}` has format {found}, not {FORMAT}; use another directory", dir.display())]
    Format {
        /// The directory.
        dir: PathBuf,
        /// The format found.
        found: i64,
    },
    /// The database is damaged, or the disk refuses.
    #[error("cannot open the state in `{}`", dir.display())]
    Database {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        cause: rusqlite::Error,
    },
    /// The system would not start the writer's thread.
    #[error("cannot start the writer thread")]
    Thread {
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// The execution journal of a state directory could not be read.
#[derive(Debug, Error)]
#[error("cannot read the execution journal in `{}`", dir.display())]
pub struct JournalError {
    /// The directory.
    pub dir: PathBuf,
    /// Why.
    #[source]
    pub cause: rusqlite::Error,
}

/// Every execution in a server's state directory, in order: an id that was processed twice is there twice.
///
/// Reads one consistent state, and changes nothing; the server may be stopped, killed, or running.
///
/// # Errors
/// Where there is no database, or it can't be read.
pub fn read_journal(dir: &Path) -> Result<Vec<JournalEntry>, JournalError> {
    let read = || -> SqlResult<Vec<JournalEntry>> {
        let connection =
            Connection::open_with_flags(dir.join(DATABASE_FILE), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut entries = connection
            .prepare("SELECT position, incarnation, processed_unix_ns, id FROM journal ORDER BY position")?;
        let entries = entries.query_map([], |row| {
            Ok(JournalEntry {
                position: row.get::<_, i64>(0)?.cast_unsigned(),
                incarnation: row.get::<_, i64>(1)?.cast_unsigned(),
                processed_unix_ns: row.get::<_, i64>(2)?.cast_unsigned(),
                id: row.get(3)?,
            })
        })?;
        entries.collect()
    };
    read().map_err(|cause| JournalError { dir: dir.to_owned(), cause })
}

/// The open database; the only one that writes to its directory.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    retention: Retention,
    journal_max_entries: Option<NonZeroU64>,
    /// The number of this run of the server.
    incarnation: i64,
    /// What the tables hold, so that a commit need not ask; replaced when a transaction has succeeded.
    window: Window,
    /// Last, so that it outlives the connection.
    _lock: DirectoryLock,
}

/// What is to be committed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) id: &'a str,
    pub(super) processed_unix_ns: u64,
    /// Whether the journal is to have it.
    pub(super) executed: bool,
}

/// An execution.
impl<'a> From<(&'a str, u64)> for Entry<'a> {
    fn from((id, processed_unix_ns): (&'a str, u64)) -> Self {
        Self { id, processed_unix_ns, executed: true }
    }
}

/// The range of executions that are still remembered.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// Where the next execution goes.
    next_position: i64,
    /// The number of remembered ids.
    remembered: usize,
    /// The oldest remembered.
    oldest: Option<Oldest>,
}

#[derive(Debug, Clone, Copy)]
struct Oldest {
    position: i64,
    processed_unix_ns: u64,
}

impl Database {
    /// Opens or creates the database in `dir`, finishes what a killed predecessor left, and counts a new incarnation.
    /// Ids beyond a lowered `retention.max_ids` are forgotten at once; over-age ones with the next commit.
    pub(super) fn open(
        dir: &Path,
        retention: Retention,
        journal_max_entries: Option<NonZeroU64>,
    ) -> Result<Self, OpenError> {
        fs::create_dir_all(dir).map_err(|cause| OpenError::Create { path: dir.to_owned(), cause })?;
        let lock = DirectoryLock::acquire(dir)?;
        let database = |cause| OpenError::Database { dir: dir.to_owned(), cause };
        let mut connection = Connection::open(dir.join(DATABASE_FILE)).map_err(database)?;
        match connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(database)? {
            0 | FORMAT => {}
            found => return Err(OpenError::Format { dir: dir.to_owned(), found }),
        }
        let (incarnation, window) = start_incarnation(&mut connection, retention).map_err(database)?;
        Ok(Self { connection, retention, journal_max_entries, incarnation, window, _lock: lock })
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation.cast_unsigned()
    }

    /// Lets the file grow by `pages` more pages and no further, as a full disk would.
    #[cfg(test)]
    pub(super) fn limit_growth(&self, pages: u32) {
        let held: u32 = self.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        self.connection.pragma_update_and_check(None, "max_page_count", held + pages, |_| Ok(())).unwrap();
    }

    /// Everything remembered, as a store in memory.
    pub(super) fn load(&self) -> SqlResult<MemoryStore> {
        let mut store = MemoryStore::new(self.retention);
        let mut remembered =
            self.connection.prepare("SELECT id, processed_unix_ns FROM processed ORDER BY position")?;
        let mut rows = remembered.query([])?;
        while let Some(row) = rows.next()? {
            store.restore(row.get_ref(0)?.as_str()?, row.get::<_, i64>(1)?.cast_unsigned());
        }
        Ok(store)
    }

    /// Records executions, each an id and the time in nanoseconds since the Unix epoch, in one transaction (and what is
    /// to be remembered only): all of it is on the disk on return, or nothing. Forgets exactly what [`MemoryStore::record`] would, call by call.
    pub(super) fn commit<'a>(
        &mut self,
        entries: impl IntoIterator<Item = impl Into<Entry<'a>>>,
    ) -> SqlResult<()> {
        let mut window = self.window;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut statements = Statements::prepare(&transaction)?;
        for entry in entries {
            let entry = entry.into();
            while let Some(oldest) = window.oldest
                && self.retention.is_over_age(oldest.processed_unix_ns, entry.processed_unix_ns)
            {
                statements.forget(&mut window, oldest)?;
            }
            statements.record(&mut window, self.incarnation, entry)?;
            if window.remembered > self.retention.max_ids.get()
                && let Some(oldest) = window.oldest
            {
                statements.forget(&mut window, oldest)?;
            }
        }
        if let Some(max_entries) = self.journal_max_entries {
            let keep_from = window.next_position.saturating_sub_unsigned(max_entries.get());
            statements.trim_journal.execute([keep_from])?;
        }
        drop(statements);
        transaction.commit()?;
        self.window = window;
        Ok(())
    }
}

/// The statements of a commit, compiled once and kept by the connection.
struct Statements<'a> {
    remember: CachedStatement<'a>,
    append: CachedStatement<'a>,
    forget: CachedStatement<'a>,
    oldest_after: CachedStatement<'a>,
    trim_journal: CachedStatement<'a>,
}

impl<'a> Statements<'a> {
    fn prepare(connection: &'a Connection) -> SqlResult<Self> {
        Ok(Self {
            remember: connection
                .prepare_cached("INSERT INTO processed VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING")?,
            append: connection.prepare_cached("INSERT INTO journal VALUES (?1, ?2, ?3, ?4)")?,
            forget: connection.prepare_cached("DELETE FROM processed WHERE position = ?1")?,
            oldest_after: connection.prepare_cached(OLDEST_AFTER)?,
            trim_journal: connection.prepare_cached("DELETE FROM journal WHERE position < ?1")?,
        })
    }

    /// Remembers an id unless it is remembered, and in any case adds it to the journal, where it was executed.
    fn record(&mut self, window: &mut Window, incarnation: i64, entry: Entry<'_>) -> SqlResult<()> {
        let Entry { id, processed_unix_ns, executed } = entry;
        let position = window.next_position;
        let at = processed_unix_ns.cast_signed();
        if self.remember.execute((position, id, at))? == 1 {
            window.remembered += 1;
            window.oldest = window.oldest.or(Some(Oldest { position, processed_unix_ns }));
        }
        if executed {
            self.append.execute((position, incarnation, at, id))?;
        }
        window.next_position += 1;
        Ok(())
    }

    fn forget(&mut self, window: &mut Window, oldest: Oldest) -> SqlResult<()> {
        window.remembered -= self.forget.execute([oldest.position])?;
        window.oldest = self.oldest_after.query_row([oldest.position], oldest_from_row).optional()?;
        Ok(())
    }
}

const OLDEST_AFTER: &str =
    "SELECT position, processed_unix_ns FROM processed WHERE position > ?1 ORDER BY position LIMIT 1";

fn oldest_from_row(row: &rusqlite::Row<'_>) -> SqlResult<Oldest> {
    Ok(Oldest { position: row.get(0)?, processed_unix_ns: row.get::<_, i64>(1)?.cast_unsigned() })
}

/// Held as long as the database is open; the system lets go of it however the process ends. SQLite itself would let
/// two servers take turns in one directory, each blind to what the other processed.
#[derive(Debug)]
struct DirectoryLock(File);

impl DirectoryLock {
    fn acquire(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(LOCK_FILE);
        let create = |cause| OpenError::Create { path: path.clone(), cause };
        let file = File::options().create(true).write(true).truncate(false).open(&path).map_err(create)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(cause)) => Err(create(cause)),
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing is not enough: a child process that another thread has forked, and that has yet to become its own
        // program, shares the open file and would keep it locked. The system unlocks it at the latest with the process.
        let _ = self.0.unlock();
    }
}

/// Makes the tables where there are none, counts the run, applies the bound by count, and finds the window.
fn start_incarnation(connection: &mut Connection, retention: Retention) -> SqlResult<(i64, Window)> {
    connection.execute_batch(PRAGMAS)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    let incarnation = transaction.query_row(
        "UPDATE server SET incarnation = incarnation + 1 RETURNING incarnation",
        [],
        |row| row.get(0),
    )?;
    let max_ids = i64::try_from(retention.max_ids.get()).unwrap_or(i64::MAX);
    transaction.execute(
        "DELETE FROM processed WHERE position IN (SELECT position FROM processed ORDER BY position
            LIMIT max(0, (SELECT count(*) FROM processed) - ?1))",
        [max_ids],
    )?;
    let remembered: i64 = transaction.query_row("SELECT count(*) FROM processed", [], |row| row.get(0))?;
    let window = Window {
        next_position: transaction.query_row(
            "SELECT coalesce(max(position) + 1, 0) FROM
                (SELECT position FROM processed UNION ALL SELECT max(position) FROM journal)",
            [],
            |row| row.get(0),
        )?,
        remembered: usize::try_from(remembered).unwrap_or(usize::MAX),
        oldest: transaction.query_row(OLDEST_AFTER, [-1], oldest_from_row).optional()?,
    };
    transaction.commit()?;
    Ok((incarnation, window))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn retention(max_ids: usize, max_age_ns: u64) -> Retention {
        Retention { max_ids: NonZeroUsize::new(max_ids).unwrap(), max_age: Duration::from_nanos(max_age_ns) }
    }

    fn unbounded() -> Retention {
        retention(1_000_000, u64::MAX)
    }

    fn open(dir: &TempDir, retention: Retention) -> Database {
        Database::open(dir.path(), retention, None).unwrap()
    }

    fn contents(store: &MemoryStore) -> Vec<(String, u64)> {
        store.iter().map(|(id, at)| (id.to_owned(), at)).collect()
    }

    fn journal_ids(dir: &TempDir) -> Vec<String> {
        read_journal(dir.path()).unwrap().into_iter().map(|entry| entry.id).collect()
    }

    proptest! {
        // Each case waits for the disk some twenty times.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn the_disk_remembers_what_memory_would(
            max_ids in 1_usize..12,
            max_age_ns in 0_u64..40,
            // A negative step is a clock set back; an empty batch re-opens.
            batches in prop::collection::vec(prop::collection::vec((0_u8..20, -5_i64..12), 0..12), 0..12),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let retention = retention(max_ids, max_age_ns);
            let mut database = open(&dir, retention);
            let mut memory = MemoryStore::new(retention);
            let mut executed = Vec::new();
            let mut incarnation = 1;
            let mut now = 1_000_u64;
            for batch in batches {
                if batch.is_empty() {
                    drop(database);
                    database = open(&dir, retention);
                    incarnation += 1;
                }
                let batch: Vec<_> = batch
                    .into_iter()
                    .map(|(id, step)| {
                        now = now.saturating_add_signed(step);
                        (format!("c-{id}"), now)
                    })
                    .collect();
                database.commit(batch.iter().map(|(id, at)| (id.as_str(), *at))).unwrap();
                for (id, at) in batch {
                    memory.record(&id, at);
                    let position = executed.len() as u64;
                    executed.push(JournalEntry { position, incarnation, processed_unix_ns: at, id });
                }
                prop_assert_eq!(contents(&database.load().unwrap()), contents(&memory));
                prop_assert_eq!(database.incarnation(), incarnation);
            }
            prop_assert_eq!(read_journal(dir.path()).unwrap(), executed);
        }
    }

    #[test]
    fn an_id_processed_twice_is_in_the_journal_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = open(&dir, unbounded());
        database.commit([("a", 1), ("b", 2), ("a", 3)]).unwrap();
        assert_eq!(journal_ids(&dir), ["a", "b", "a"]);
        assert_eq!(contents(&database.load().unwrap()), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    }

    #[test]
    fn what_is_only_remembered_is_not_in_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = open(&dir, unbounded());
        let remembered = |id, at| Entry { executed: false, ..Entry::from((id, at)) };
        database.commit([("a", 1)]).unwrap();
        database.commit([remembered("b", 2), remembered("c", 3), Entry::from(("b", 4))]).unwrap();
        drop(database);
        // The last place is one that the journal does not have.
        let mut database = open(&dir, unbounded());
        database.commit([remembered("d", 5)]).unwrap();
        drop(database);
        let mut database = open(&dir, unbounded());
        database.commit([("e", 6)]).unwrap();
        assert_eq!(journal_ids(&dir), ["a", "b", "e"]);
        let ids: Vec<_> = contents(&database.load().unwrap()).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn any_id_and_any_time_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = open(&dir, unbounded());
        let executions = [("", 0), ("nul\0inside", u64::MAX), ("naïve-Ω-'--", 1 << 63), ("A", 7), ("a", 8)];
        database.commit(executions).unwrap();
        let expected = executions.map(|(id, at)| (id.to_owned(), at));
        assert_eq!(contents(&database.load().unwrap()), expected);
    }

    #[test]
    fn the_journal_keeps_its_last_entries_where_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = Database::open(dir.path(), unbounded(), NonZeroU64::new(2)).unwrap();
        database.commit([("a", 1), ("b", 2), ("c", 3)]).unwrap();
        assert_eq!(journal_ids(&dir), ["b", "c"]);
        drop(database);
        let mut database = Database::open(dir.path(), unbounded(), NonZeroU64::new(2)).unwrap();
        database.commit([("d", 4)]).unwrap();
        let journal = read_journal(dir.path()).unwrap();
        let places: Vec<_> = journal.iter().map(|entry| (entry.position, entry.incarnation)).collect();
        assert_eq!(places, [(2, 1), (3, 2)]);
        assert_eq!(database.load().unwrap().len(), 4);
    }

    #[test]
    fn a_lowered_bound_holds_from_the_opening_on() {
        let dir = tempfile::tempdir().unwrap();
        open(&dir, unbounded()).commit([("a", 1), ("b", 2), ("c", 3)]).unwrap();
        let mut database = open(&dir, retention(2, u64::MAX));
        assert_eq!(contents(&database.load().unwrap()), [("b".to_owned(), 2), ("c".to_owned(), 3)]);
        database.commit([("d", 4)]).unwrap();
        assert_eq!(contents(&database.load().unwrap()), [("c".to_owned(), 3), ("d".to_owned(), 4)]);
    }

    #[test]
    fn a_full_disk_fails_the_whole_transaction_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = open(&dir, retention(2, u64::MAX));
        database.commit([("a", 1), ("b", 2)]).unwrap();
        database.limit_growth(4);
        let too_long = "x".repeat(1 << 20);
        let error = database.commit([("c", 3), (too_long.as_str(), 4)]).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull));
        assert_eq!(contents(&database.load().unwrap()), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        database.commit([("d", 5)]).unwrap();
        assert_eq!(journal_ids(&dir), ["a", "b", "d"]);
        assert_eq!(contents(&database.load().unwrap()), [("b".to_owned(), 2), ("d".to_owned(), 5)]);
    }

    #[test]
    fn a_directory_serves_one_server_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(&dir, unbounded());
        let second = Database::open(dir.path(), unbounded(), None);
        assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
        // What a process forked at this moment would hold until it is its own program.
        let forked = first._lock.0.try_clone().unwrap();
        drop(first);
        assert_eq!(open(&dir, unbounded()).incarnation(), 2);
        drop(forked);
    }

    #[test]
    fn what_is_no_state_of_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_journal(dir.path()).is_err());
        assert!(!dir.path().join(DATABASE_FILE).exists(), "reading must create nothing");

        let later = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
        later.pragma_update(None, "user_version", FORMAT + 1).unwrap();
        drop(later);
        let refused = Database::open(dir.path(), unbounded(), None);
        assert!(matches!(refused, Err(OpenError::Format { found: 2, .. })), "{refused:?}");

        fs::write(dir.path().join(DATABASE_FILE), "no database at all").unwrap();
        let refused = Database::open(dir.path(), unbounded(), None);
        assert!(matches!(refused, Err(OpenError::Database { .. })), "{refused:?}");

        let under_a_file = dir.path().join(DATABASE_FILE).join("state");
        let refused = Database::open(&under_a_file, unbounded(), None);
        assert!(matches!(refused, Err(OpenError::Create { .. })), "{refused:?}");
    }
}
