//! Nix's database, schema 10: which objects are valid, and what they refer to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use igloo_base::file::{FileLock, create_dirs, read_optional, write_atomic};
use igloo_base::{At as _, Sha256};
use igloo_formats::nix::StorePath;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use crate::error::StoreError;
use crate::layout::Layout;
use crate::persist;

/// The schema that Nix has used since 2.0 and still uses.
pub const SCHEMA: u32 = 10;

/// Nix waits as long for other writers.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Disk space that Nix keeps for the moment when there is none left: a collection frees it before it begins.
const RESERVED: u64 = 8 << 20;

const TABLES: &str = "
create table if not exists ValidPaths (
    id               integer primary key autoincrement not null,
    path             text unique not null,
    hash             text not null,
    registrationTime integer not null,
    deriver          text,
    narSize          integer,
    ultimate         integer,
    sigs             text,
    ca               text
);
create table if not exists Refs (
    referrer  integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
create index if not exists IndexReferrer on Refs(referrer);
create index if not exists IndexReference on Refs(reference);
create trigger if not exists DeleteSelfRefs before delete on ValidPaths
  begin
    delete from Refs where referrer = old.id and reference = old.id;
  end;
create table if not exists DerivationOutputs (
    drv  integer not null,
    id   text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
create index if not exists IndexDerivationOutputs on DerivationOutputs(path);
";

const COLUMNS: &str = "id, path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca";

/// What the database knows of a valid object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The object.
    pub path: StorePath,
    /// Digest of its archive.
    pub nar_hash: Sha256,
    /// Bytes of its archive.
    pub nar_size: u64,
    /// Objects it names, sorted.
    pub references: Vec<StorePath>,
    /// When it was registered, in seconds since 1970.
    pub registered: i64,
    /// The derivation that built it.
    pub deriver: Option<StorePath>,
    /// True if it was built here.
    pub ultimate: bool,
    /// Signatures, `name:base64`.
    pub signatures: Vec<String>,
    /// How its path follows from its content, `fixed:r:sha256:…`.
    pub content_address: Option<String>,
}

/// An open database.
pub(crate) struct Db {
    connection: Mutex<Connection>,
    path: PathBuf,
    /// Nix takes it exclusively to change the schema.
    _big_lock: Option<FileLock>,
}

impl Db {
    /// Opens the database to write, and makes it if there is none.
    pub(crate) fn open(layout: &Layout) -> Result<Self, StoreError> {
        let big_lock = layout.db_dir().join("big-lock");
        let path = layout.db_dir().join("db.sqlite");
        if read_schema(layout)?.is_none() {
            let _exclusive = FileLock::exclusive(&big_lock)?;
            if read_schema(layout)?.is_none() {
                create_dirs(layout.db_dir())?;
                let db = Self::connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
                db.execute_batch(TABLES).map_err(|e| database("create tables", &path, e))?;
                drop(db);
                write_atomic(layout.schema(), SCHEMA.to_string().as_bytes())?;
            }
        }
        let shared = FileLock::shared(&big_lock)?;
        check_schema(layout)?;
        let connection = Self::connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        Ok(Self { connection: Mutex::new(connection), path, _big_lock: Some(shared) })
    }

    /// Opens the database of a store that we may only read, also while others write.
    pub(crate) fn open_readonly(layout: &Layout) -> Result<Self, StoreError> {
        if read_schema(layout)?.is_none() {
            return Err(StoreError::NoStore(layout.root.clone()));
        }
        check_schema(layout)?;
        let path = layout.db_dir().join("db.sqlite");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let probe =
            |c: Connection| c.query_row("select count(*) from ValidPaths where id < 0", [], |_| Ok(())).map(|()| c);
        let connection = match Self::connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map(probe) {
            Ok(Ok(connection)) => connection,
            // Without the writers' shared memory and no right to make it, only the main file can be read. It is
            // complete then: the last writer to leave folds its log into it.
            _ => {
                let uri = format!("file:{}?immutable=1", escape(&path));
                let connection = Connection::open_with_flags(&uri, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX);
                connection.and_then(probe).map_err(|e| database("read", &path, e))?
            }
        };
        Ok(Self { connection: Mutex::new(connection), path, _big_lock: None })
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            connection.busy_timeout(PATIENCE)?;
            if flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
                connection.execute_batch(
                    "pragma foreign_keys = 1; pragma journal_mode = wal; pragma synchronous = normal;
                     pragma wal_autocheckpoint = 40000;",
                )?;
                persist::keep_log(&connection);
            }
            connection.set_prepared_statement_cache_capacity(32);
            Ok(connection)
        };
        open().map_err(|e| database("open", path, e))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic inside a transaction rolled it back.
        self.connection.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn failed(&self, act: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + '_ {
        move |e| database(act, &self.path, e)
    }

    pub(crate) fn valid_subset(&self, paths: &[StorePath]) -> Result<BTreeSet<StorePath>, StoreError> {
        let connection = self.lock();
        let run = || -> rusqlite::Result<BTreeSet<StorePath>> {
            let mut query = connection.prepare_cached("select 1 from ValidPaths where path = ?")?;
            let mut out = BTreeSet::new();
            for path in paths {
                if query.exists([path.full()])? {
                    out.insert(path.clone());
                }
            }
            Ok(out)
        };
        run().map_err(self.failed("look up objects"))
    }

    pub(crate) fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        let connection = self.lock();
        let failed = self.failed("look up an object");
        let sql = format!("select {COLUMNS} from ValidPaths where path = ?");
        let row = connection.prepare_cached(&sql).and_then(|mut query| query.query_row([path.full()], raw).optional());
        let Some(row) = row.map_err(&failed)? else { return Ok(None) };
        let run = || -> rusqlite::Result<Vec<String>> {
            let sql = "select path from Refs join ValidPaths on reference = id where referrer = ?";
            connection.prepare_cached(sql)?.query_map([row.id], |r| r.get(0))?.collect()
        };
        let references = run().map_err(&failed)?;
        let mut info = row.info()?;
        info.references = references.iter().map(|p| parse(p)).collect::<Result<_, _>>()?;
        info.references.sort();
        Ok(Some(info))
    }

    /// Every valid object, by path.
    pub(crate) fn list(&self) -> Result<Vec<PathInfo>, StoreError> {
        let mut connection = self.lock();
        let failed = self.failed("list objects");
        // One transaction, so that both tables are of the same moment.
        let moment = connection.transaction_with_behavior(TransactionBehavior::Deferred).map_err(&failed)?;
        let rows = |t: &Transaction| -> rusqlite::Result<Vec<RawInfo>> {
            t.prepare(&format!("select {COLUMNS} from ValidPaths order by path"))?.query_map([], raw)?.collect()
        };
        let refs = |t: &Transaction| -> rusqlite::Result<Vec<(i64, i64)>> {
            t.prepare("select referrer, reference from Refs")?.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect()
        };
        let (rows, refs) = (rows(&moment).map_err(&failed)?, refs(&moment).map_err(&failed)?);
        drop(moment);
        let index: HashMap<i64, usize> = rows.iter().enumerate().map(|(i, row)| (row.id, i)).collect();
        let mut infos = rows.into_iter().map(RawInfo::info).collect::<Result<Vec<_>, _>>()?;
        for (referrer, reference) in refs {
            if let (Some(from), Some(to)) = (index.get(&referrer), index.get(&reference)) {
                let to = infos[*to].path.clone();
                infos[*from].references.push(to);
            }
        }
        infos.iter_mut().for_each(|info| info.references.sort());
        Ok(infos)
    }

    pub(crate) fn closure(&self, paths: &[StorePath]) -> Result<Vec<PathInfo>, StoreError> {
        let mut found = BTreeMap::new();
        let mut open: Vec<StorePath> = paths.to_vec();
        while let Some(path) = open.pop() {
            if found.contains_key(&path) {
                continue;
            }
            let info = self.path_info(&path)?.ok_or_else(|| StoreError::NotValid(path.clone()))?;
            open.extend(info.references.iter().filter(|r| !found.contains_key(*r)).cloned());
            found.insert(path, info);
        }
        Ok(found.into_values().collect())
    }

    pub(crate) fn referrers(&self, path: &StorePath) -> Result<Vec<StorePath>, StoreError> {
        let connection = self.lock();
        let run = || -> rusqlite::Result<Vec<String>> {
            let sql =
                "select f.path from Refs join ValidPaths t on reference = t.id join ValidPaths f on referrer = f.id
                       where t.path = ? order by f.path";
            connection.prepare_cached(sql)?.query_map([path.full()], |r| r.get(0))?.collect()
        };
        run().map_err(self.failed("look up referrers"))?.iter().map(|p| parse(p)).collect()
    }

    /// Registers objects in one transaction; those already valid stay as they are.
    pub(crate) fn register(&self, infos: &[&PathInfo]) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let failed = self.failed("register objects");
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        for info in infos {
            insert(&transaction, info).map_err(&failed)?;
        }
        for info in infos {
            let referrer = id(&transaction, &info.path).map_err(&failed)?;
            for path in &info.references {
                let reference = id(&transaction, path).map_err(&failed)?;
                let (Some(referrer), Some(reference)) = (referrer, reference) else {
                    return Err(StoreError::MissingReference { path: info.path.clone(), reference: path.clone() });
                };
                let sql = "insert or replace into Refs (referrer, reference) values (?, ?)";
                let run = transaction.prepare_cached(sql).and_then(|mut s| s.execute([referrer, reference]));
                run.map_err(&failed)?;
            }
        }
        transaction.commit().map_err(&failed)
    }

    /// Adds signatures to those that an object has.
    pub(crate) fn add_signatures(&self, path: &StorePath, signatures: &[String]) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let mut run = || -> rusqlite::Result<bool> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let sql = "select sigs from ValidPaths where path = ?";
            let held = transaction.query_row(sql, [path.full()], |r| r.get::<_, Option<String>>(0)).optional()?;
            let Some(held) = held else { return Ok(false) };
            let held = held.unwrap_or_default();
            let mut all: BTreeSet<&str> = held.split_whitespace().collect();
            all.extend(signatures.iter().map(String::as_str));
            let text = all.into_iter().collect::<Vec<_>>().join(" ");
            transaction.execute("update ValidPaths set sigs = ? where path = ?", [text, path.full()])?;
            transaction.commit()?;
            Ok(true)
        };
        match run().map_err(self.failed("add signatures"))? {
            true => Ok(()),
            false => Err(StoreError::NotValid(path.clone())),
        }
    }

    /// Forgets objects in one transaction. Nothing else may refer to them.
    pub(crate) fn invalidate(&self, paths: &[StorePath]) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let mut run = || -> rusqlite::Result<()> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // First what they refer to, so that the order among themselves does not matter.
            for path in paths {
                let sql = "delete from Refs where referrer = (select id from ValidPaths where path = ?)";
                transaction.prepare_cached(sql)?.execute([path.full()])?;
            }
            for path in paths {
                transaction.prepare_cached("delete from ValidPaths where path = ?")?.execute([path.full()])?;
            }
            transaction.commit()
        };
        run().map_err(self.failed("forget objects"))
    }
}

/// The bytes of a database in which just these objects are valid: a function of them alone. It is made in `scratch`.
pub fn database_of(infos: &[PathInfo], scratch: &Path) -> Result<Vec<u8>, StoreError> {
    let path = scratch.join("db.sqlite");
    let connection = Connection::open(&path).and_then(|connection| {
        connection.execute_batch(TABLES)?;
        Ok(connection)
    });
    let connection = connection.map_err(|e| database("create", &path, e))?;
    let db = Db { connection: Mutex::new(connection), path: path.clone(), _big_lock: None };
    let mut sorted: Vec<&PathInfo> = infos.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    db.register(&sorted)?;
    drop(db);
    Ok(std::fs::read(&path).at("read", &path)?)
}

/// Makes the file whose blocks a collection frees when the disk is full.
pub(crate) fn reserve_space(layout: &Layout) {
    let path = layout.db_dir().join("reserved");
    if path.exists() {
        return;
    }
    // A disk that has no room for it has other troubles; they are told when something is written.
    if let Ok(file) = std::fs::File::create(&path) {
        let _ = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVED);
    }
}

/// Frees what [`reserve_space`] took.
pub(crate) fn free_reserved_space(layout: &Layout) {
    let _ = std::fs::remove_file(layout.db_dir().join("reserved"));
}

fn insert(transaction: &Transaction, info: &PathInfo) -> rusqlite::Result<()> {
    let sql = "insert into ValidPaths (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca)
               values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (path) do nothing";
    let signatures = (!info.signatures.is_empty()).then(|| info.signatures.join(" "));
    transaction.prepare_cached(sql)?.execute(params![
        info.path.full(),
        format!("sha256:{}", info.nar_hash),
        info.registered,
        info.deriver.as_ref().map(StorePath::full),
        info.nar_size as i64,
        info.ultimate.then_some(1),
        signatures,
        info.content_address,
    ])?;
    Ok(())
}

fn id(transaction: &Transaction, path: &StorePath) -> rusqlite::Result<Option<i64>> {
    let mut query = transaction.prepare_cached("select id from ValidPaths where path = ?")?;
    query.query_row([path.full()], |row| row.get(0)).optional()
}

/// A row as it is.
struct RawInfo {
    id: i64,
    path: String,
    hash: String,
    registered: i64,
    deriver: Option<String>,
    nar_size: Option<i64>,
    ultimate: Option<i64>,
    signatures: Option<String>,
    content_address: Option<String>,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<RawInfo> {
    Ok(RawInfo {
        id: row.get(0)?,
        path: row.get(1)?,
        hash: row.get(2)?,
        registered: row.get(3)?,
        deriver: row.get(4)?,
        nar_size: row.get(5)?,
        ultimate: row.get(6)?,
        signatures: row.get(7)?,
        content_address: row.get(8)?,
    })
}

impl RawInfo {
    fn info(self) -> Result<PathInfo, StoreError> {
        let path = parse(&self.path)?;
        let digest = self.hash.strip_prefix("sha256:").and_then(|h| h.parse().ok());
        let nar_hash = digest.ok_or_else(|| StoreError::BadDigest(path.clone()))?;
        Ok(PathInfo {
            path,
            nar_hash,
            nar_size: self.nar_size.unwrap_or(0).max(0) as u64,
            references: Vec::new(),
            registered: self.registered,
            deriver: self.deriver.as_deref().map(parse).transpose()?,
            ultimate: self.ultimate == Some(1),
            signatures: self.signatures.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            content_address: self.content_address.filter(|ca| !ca.is_empty()),
        })
    }
}

fn parse(path: &str) -> Result<StorePath, StoreError> {
    StorePath::parse(path).map_err(StoreError::BadPath)
}

fn database(act: &'static str, path: &Path, source: rusqlite::Error) -> StoreError {
    StoreError::Database { act, path: path.to_owned(), source }
}

/// Characters that end a path in an SQLite URI.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

fn read_schema(layout: &Layout) -> Result<Option<String>, StoreError> {
    let text = read_optional(layout.schema())?;
    Ok(text.map(|t| String::from_utf8_lossy(t.trim_ascii()).into_owned()).filter(|t| !t.is_empty()))
}

fn check_schema(layout: &Layout) -> Result<(), StoreError> {
    match read_schema(layout)? {
        Some(found) if found == SCHEMA.to_string() => Ok(()),
        found => Err(StoreError::Schema {
            path: layout.schema(),
            found: found.unwrap_or_default().chars().take(20).collect(),
            known: SCHEMA,
        }),
    }
}
