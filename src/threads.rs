//! The thread pool: entered once per forward pass, then cheap to use for every operation in it.
//!
//! A pool of `n` threads is `n − 1` workers and the caller. [`Pool::enter`] takes the workers and gives a [`Team`];
//! [`Team::run`] gives every thread a share of an operation's chunks, lets those that are done early take from the others,
//! and returns when all are done. Which worker computes which chunk has no effect on the result.
//!
//! Between operations a worker spins for a moment, then offers its CPU to whoever wants it for a while, then parks. So
//! little is lost on a machine that is idle, or where more threads run than there are CPUs: `bench/oversubscribed.py`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Spins before a waiting thread yields: about 20 microseconds. Where another thread of the pool needs the CPU, all of it
/// is lost.
const SPINS: u32 = 1_000;

/// Yields before a waiting worker parks: in all about 100 microseconds, longer than the gap between two operations.
const YIELDS: u32 = 500;

/// How many threads this process may use: the CPUs it may run on, less what a cgroup quota takes away.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// A fixed set of worker threads that serve one forward pass at a time.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the [`Team`] that uses the workers.
    turn: Mutex<()>,
}

/// The right to use a pool's workers, until dropped.
pub struct Team<'p> {
    pool: &'p Pool,
    _turn: MutexGuard<'p, ()>,
}

struct Shared {
    /// Whether there is a job to join, and who has joined it: see [`Gate`].
    gate: AtomicU64,
    /// The job; valid while the gate is open or somebody is inside.
    job: AtomicPtr<Job>,
    stop: AtomicBool,
    parked: Vec<AtomicBool>,
    /// The shares of the job, one for each thread.
    next: Vec<Next>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The layout of [`Shared::gate`]. Workers join a job only while its gate is open, and its owner waits only for those
/// inside: a worker that the system has put aside delays nobody.
struct Gate;

impl Gate {
    /// Workers inside.
    const INSIDE: u64 = (1 << 31) - 1;
    const OPEN: u64 = 1 << 31;
    /// Counts jobs in the bits above.
    const NEXT: u64 = 1 << 32;
}

/// One operation: `chunks` independent pieces, called with (worker, chunk).
struct Job {
    run: *const (dyn Fn(usize, usize) + Sync),
    chunks: usize,
}

impl Job {
    /// Takes chunks off this worker's own share, which are neighbours: so are the weights that they read, and what was
    /// prefetched for the next is used. After that off the others' shares.
    fn work(&self, worker: usize, next: &[Next]) {
        let n = next.len();
        for share in (worker..n).chain(0..worker) {
            let end = Self::share(self.chunks, n, share).end;
            loop {
                let chunk = next[share].0.fetch_add(1, Ordering::Relaxed);
                if chunk >= end {
                    break;
                }
                // SAFETY: `Team::run` keeps the closure alive until every worker has finished with this job.
                unsafe { (*self.run)(worker, chunk) };
            }
        }
    }

    /// Share `i` of `n` of the chunks.
    fn share(chunks: usize, n: usize, i: usize) -> std::ops::Range<usize> {
        let (each, more) = (chunks / n, chunks % n);
        let start = |i: usize| i * each + i.min(more);
        start(i)..start(i + 1)
    }
}

/// The first chunk of a share that nobody has taken, in a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Next(AtomicUsize);

impl Pool {
    /// A pool of `threads` threads in all, the caller among them; at least 1.
    ///
    /// # Errors
    /// What the operating system says when it refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let n = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            stop: AtomicBool::new(false),
            parked: (0..n).map(|_| AtomicBool::new(false)).collect(),
            panic: Mutex::new(None),
            next: (0..=n).map(|_| Next::default()).collect(),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(n), turn: Mutex::new(()) };
        for i in 0..n {
            let shared = pool.shared.clone();
            let name = format!("llava-{}", i + 1);
            pool.workers.push(std::thread::Builder::new().name(name).spawn(move || shared.serve(i))?);
        }
        Ok(pool)
    }

    /// Threads in all, the caller among them.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Waits until nobody else uses the workers, and takes them.
    pub fn enter(&self) -> Team<'_> {
        // A panic in a job leaves the pool in order, so a poisoned lock means nothing here.
        Team { pool: self, _turn: self.turn.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for w in self.workers.drain(..) {
            w.thread().unpark();
            // A worker's panic was handed to the caller of `run` when it happened.
            let _ = w.join();
        }
    }
}

impl Team<'_> {
    /// Threads in all, the caller among them.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Calls `f(worker, chunk)` for every chunk in `0..chunks`, each once, spread over the threads; `worker` is
    /// below [`Team::threads`] and no two calls run at once with the same one. Returns when all are done. A panic
    /// in `f` is carried to the caller.
    pub fn run(&mut self, chunks: usize, f: impl Fn(usize, usize) + Sync) {
        let shared = &*self.pool.shared;
        let workers = &self.pool.workers;
        if workers.is_empty() || chunks <= 1 {
            (0..chunks).for_each(|chunk| f(0, chunk));
            return;
        }
        let f: &(dyn Fn(usize, usize) + Sync) = &f;
        // SAFETY: only the lifetime is forgotten. `Job::work` is the only reader, and this function does not return
        // or unwind before the gate is closed and every worker has left.
        let run = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize, usize) + Sync), *const (dyn Fn(usize, usize) + Sync + 'static)>(
                f,
            )
        };
        let mut job = Job { run, chunks };
        // Nobody is inside the gate, and the store that opens it publishes these.
        for (i, next) in shared.next.iter().enumerate() {
            next.0.store(Job::share(chunks, shared.next.len(), i).start, Ordering::Relaxed);
        }
        shared.job.store(&raw mut job, Ordering::Relaxed);
        let job_number = shared.gate.load(Ordering::Relaxed) / Gate::NEXT + 1;
        // SeqCst orders this against the workers' `parked` stores: either they see the new job before they park, or we
        // see that they are parked.
        shared.gate.store(job_number * Gate::NEXT + Gate::OPEN, Ordering::SeqCst);
        for (parked, worker) in shared.parked.iter().zip(workers).take(chunks - 1) {
            if parked.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        let mine = catch_unwind(AssertUnwindSafe(|| job.work(workers.len(), &shared.next)));
        let mut gate = shared.gate.fetch_and(!Gate::OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while gate & Gate::INSIDE > 0 {
            relax(&mut spins);
            gate = shared.gate.load(Ordering::Acquire);
        }
        let theirs = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }
}

/// Lets a moment pass; `spins` counts them.
fn relax(spins: &mut u32) {
    if *spins < SPINS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
    *spins = spins.saturating_add(1);
}

impl Team<'_> {
    /// Calls `f(worker, i, row)` for every row `i` of `rows`, `len` values each (the last may be shorter).
    pub fn for_rows<T: Send>(&mut self, rows: &mut [T], len: usize, f: impl Fn(usize, usize, &mut [T]) + Sync) {
        let (total, len) = (rows.len(), len.max(1));
        let all = Disjoint::new(rows);
        self.run(total.div_ceil(len), |worker, i| {
            let start = i * len;
            // SAFETY: every chunk runs once, and rows do not overlap.
            f(worker, i, unsafe { all.slice(start, len.min(total - start)) });
        });
    }
}

/// A mutable slice that several threads write in parts that do not overlap.
pub(crate) struct Disjoint<'a, T> {
    ptr: *mut T,
    len: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it only gives out what `slice`'s contract keeps apart, as `&mut [T]`, which is `Send` if `T` is.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { ptr: slice.as_mut_ptr(), len: slice.len(), lifetime: std::marker::PhantomData }
    }

    /// `start..start + len` of the slice.
    ///
    /// # Safety
    /// No two ranges in use at one time overlap.
    #[allow(clippy::mut_from_ref, reason = "the point of the type; see Safety")]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: inside the slice, by the line above; not aliased, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(start), len) }
    }

    /// The address of element `start`.
    pub(crate) fn at(&self, start: usize) -> *mut T {
        assert!(start <= self.len);
        self.ptr.wrapping_add(start)
    }
}

impl Shared {
    /// A worker's life.
    fn serve(&self, worker: usize) {
        let mut seen = 0;
        while self.wait(worker, &mut seen) {
            // SAFETY: inside the gate, so the job's owner waits for this worker to leave.
            let job = unsafe { &*self.job.load(Ordering::Relaxed) };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job.work(worker, &self.next))) {
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a job after number `seen`, and goes inside its gate; false when the pool ends.
    fn wait(&self, worker: usize, seen: &mut u64) -> bool {
        let mut spins = 0;
        loop {
            let gate = self.gate.load(Ordering::SeqCst);
            if gate / Gate::NEXT != *seen {
                if gate & Gate::OPEN == 0 {
                    *seen = gate / Gate::NEXT;
                } else if self.gate.compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    *seen = gate / Gate::NEXT;
                    return true;
                }
                continue;
            }
            if self.stop.load(Ordering::Acquire) {
                return false;
            }
            if spins < SPINS + YIELDS {
                relax(&mut spins);
                continue;
            }
            let parked = &self.parked[worker];
            parked.store(true, Ordering::SeqCst);
            if self.gate.load(Ordering::SeqCst) / Gate::NEXT == *seen && !self.stop.load(Ordering::Acquire) {
                std::thread::park();
            }
            parked.store(false, Ordering::SeqCst);
            spins = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_exactly_once_even_with_more_threads_than_cpus() {
        for threads in [1, 2, 3, 8, 4 * available()] {
            let pool = Pool::new(threads).unwrap();
            let mut team = pool.enter();
            for chunks in [0, 1, 2, 7, 1000] {
                let hits: Vec<_> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                team.run(chunks, |worker, chunk| {
                    assert!(worker < threads);
                    hits[chunk].fetch_add(1, Ordering::Relaxed);
                });
                assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1), "{threads} threads, {chunks} chunks");
            }
        }
    }

    #[test]
    fn workers_wake_after_they_have_parked() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let sum = AtomicUsize::new(0);
            pool.enter().run(100, |_, chunk| {
                sum.fetch_add(chunk, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2).unwrap();
        for _ in 0..10 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.enter().run(50, |_, chunk| assert!(chunk != 25, "chunk 25"));
            }));
            assert!(result.is_err());
            let sum = AtomicUsize::new(0);
            pool.enter().run(10, |_, _| {
                sum.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 10);
        }
    }

    #[test]
    fn callers_from_many_threads_take_turns() {
        let pool = Pool::new(4 * available()).unwrap();
        let total = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..50 {
                        pool.enter().run(20, |_, _| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 50 * 20);
    }

    #[test]
    fn several_pools_that_want_all_cpus_each_get_done() {
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    let pool = Pool::new(2 * available()).unwrap();
                    let mut rows = vec![0usize; 1000];
                    for round in 1..=200 {
                        pool.enter().for_rows(&mut rows, 30, |_, _, row| row.iter_mut().for_each(|x| *x += round));
                    }
                    assert!(rows.iter().all(|&x| x == 200 * 201 / 2));
                });
            }
        });
    }
}
