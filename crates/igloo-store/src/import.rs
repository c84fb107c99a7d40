//! Many archives at once: threads that unpack while others are still being downloaded.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use igloo_base::{Reporter, Sha256, Task, Unit};
use igloo_formats::nix::StorePath;

use crate::Store;
use crate::error::StoreError;
use crate::stage::Staged;
use crate::unpack::DebSource;

/// Unpacks archives on threads of its own. Dropped before [`Importer::finish`], it forgets what it did.
#[derive(Debug)]
pub struct Importer {
    store: Store,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Largest first, so that no thread begins a long one when the others are done.
    queue: BinaryHeap<Job>,
    /// Nothing more will come.
    closed: bool,
    /// Nobody waits for results any more.
    stopped: bool,
    submitted: u64,
    /// Size of all archives submitted.
    bytes: u64,
    done: Vec<(u64, Sha256, Result<Outcome, StoreError>)>,
}

#[derive(Debug)]
enum Outcome {
    Known(StorePath),
    New(Box<Staged>),
}

#[derive(Debug)]
struct Job {
    number: u64,
    deb: DebSource,
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Job {}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Job {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.deb.size, other.number).cmp(&(other.deb.size, self.number))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(|e| e.into_inner())
    }

    fn work(&self, store: &Store) {
        loop {
            let mut state = self.lock();
            let job = loop {
                if state.stopped {
                    return;
                }
                match state.queue.pop() {
                    Some(job) => break job,
                    None if state.closed => return,
                    None => state = self.wait(state),
                }
            };
            drop(state);
            let outcome = store.import(&job.deb);
            let mut state = self.lock();
            // One that failed ends them all.
            state.stopped |= outcome.is_err();
            state.done.push((job.number, job.deb.sha256, outcome));
            drop(state);
            self.changed.notify_all();
        }
    }
}

/// From so many bytes of archives on, the disk is told to write early.
const LARGE: u64 = 8 << 20;
/// And so often.
const PERIOD: Duration = Duration::from_millis(500);

impl Shared {
    /// Has the disk write while archives are being unpacked, so that little is left to wait for at the end.
    fn write_out(&self, store: &Store) {
        let mut state = self.lock();
        let mut next = Instant::now() + PERIOD;
        while !(state.stopped || state.closed && state.done.len() as u64 == state.submitted) {
            if state.bytes < LARGE {
                state = self.wait(state);
                continue;
            }
            // Each archive that is done wakes us, so that nobody waits for the end of a period when all are.
            if let Some(early) = next.checked_duration_since(Instant::now()) {
                state = self.changed.wait_timeout(state, early).map_or_else(|e| e.into_inner().0, |(state, _)| state);
                continue;
            }
            drop(state);
            // What fails here fails again when it matters.
            let _ = store.sync();
            next = Instant::now() + PERIOD;
            state = self.lock();
        }
    }
}

impl Importer {
    /// Queues an archive, from any thread; never waits. What is wrong with it, [`Importer::finish`] tells.
    pub fn submit(&self, deb: DebSource) {
        let mut state = self.shared.lock();
        let number = state.submitted;
        state.submitted += 1;
        state.bytes += deb.size;
        state.queue.push(Job { number, deb });
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits for all that was submitted, and registers it in one step; objects by the digest of their archive. If an
    /// archive is bad, nothing is registered.
    pub fn finish(mut self, reporter: &dyn Reporter) -> Result<BTreeMap<Sha256, StorePath>, StoreError> {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.changed.notify_all();
        let total = state.submitted;
        drop(state);
        if total > 0 {
            // Here and not at the end: a new database takes some writes to the disk, while which the threads unpack.
            self.store.db()?;
        }
        let mut state = self.shared.lock();
        let task = Task::start(reporter, format!("unpack {total} packages"), Some(total), Unit::Items);
        let mut told = 0;
        loop {
            let done = state.done.len() as u64;
            let over = done == total || state.stopped;
            if done > told {
                task.advance(done - told);
                told = done;
            }
            if over || self.threads.iter().all(JoinHandle::is_finished) {
                break;
            }
            state = self.shared.wait(state);
        }
        drop(state);
        let mut died = false;
        for thread in self.threads.drain(..) {
            died |= thread.join().is_err();
        }
        let mut done = std::mem::take(&mut self.shared.lock().done);
        done.sort_by_key(|(number, _, _)| *number);
        let mut paths = BTreeMap::new();
        let mut staged = Vec::new();
        for (_, sha256, outcome) in done {
            match outcome? {
                Outcome::Known(path) => drop(paths.insert(sha256, path)),
                Outcome::New(one) => {
                    paths.insert(sha256, one.path().clone());
                    staged.push(*one);
                }
            }
        }
        if died {
            return Err(StoreError::ThreadDied);
        }
        drop(task);
        self.store.commit(staged)?;
        Ok(paths)
    }
}

impl Drop for Importer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        drop(state);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // Its panic was told where it happened.
            let _ = thread.join();
        }
    }
}

impl Store {
    /// Starts threads (0: one a core) that unpack archives as they arrive.
    pub fn importer(&self, threads: usize) -> Importer {
        let shared = Arc::new(Shared::default());
        let start = |run: fn(&Shared, &Store)| {
            let (store, shared) = (self.clone(), Arc::clone(&shared));
            std::thread::spawn(move || {
                let guard = StopOnPanic(&shared);
                run(&shared, &store);
                std::mem::forget(guard);
            })
        };
        let mut threads: Vec<_> = (0..crate::threads(threads)).map(|_| start(Shared::work)).collect();
        threads.push(start(Shared::write_out));
        Importer { store: self.clone(), shared, threads }
    }

    /// Adds archives, those not yet known on `threads` threads (0: one a core); objects in the order of `debs`.
    pub fn add_debs(
        &self,
        debs: &[DebSource],
        reporter: &dyn Reporter,
        threads: usize,
    ) -> Result<Vec<StorePath>, StoreError> {
        let importer = self.importer(threads);
        debs.iter().for_each(|deb| importer.submit(deb.clone()));
        let paths = importer.finish(reporter)?;
        debs.iter().map(|deb| paths.get(&deb.sha256).cloned().ok_or(StoreError::ThreadDied)).collect()
    }

    fn import(&self, deb: &DebSource) -> Result<Outcome, StoreError> {
        if let Some(path) = self.deb_path(&deb.sha256)? {
            // Protected first and then looked at again, since it may have been collected in between.
            self.protect(std::slice::from_ref(&path))?;
            if self.is_valid(&path)? {
                return Ok(Outcome::Known(path));
            }
        }
        Ok(Outcome::New(Box::new(self.stage_deb(deb)?)))
    }
}

/// A thread that panics must not leave [`Importer::finish`] waiting for it.
struct StopOnPanic<'a>(&'a Shared);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}
