//! Who computes digests.

use rayon::prelude::*;

/// Threads that share tasks among them.
pub trait Team: Sync {
    /// Does tasks `0..tasks`, each once, in any order, and returns when all of them are done.
    fn share(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// The threads of rayon's pool, which sleep until they are asked.
#[derive(Debug, Clone, Copy)]
pub struct Pool;

impl Team for Pool {
    fn share(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).into_par_iter().for_each(task);
    }
}

/// What each task gives, in the order of the tasks.
pub fn gather<T: Send + Sync>(team: &dyn Team, tasks: usize, task: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let slots: Vec<std::sync::OnceLock<T>> = (0..tasks).map(|_| std::sync::OnceLock::new()).collect();
    team.share(tasks, &|i| {
        // A second answer to one task would be the same.
        let _ = slots[i].set(task(i));
    });
    slots.into_iter().map(|slot| slot.into_inner().expect("a team does every task")).collect()
}
