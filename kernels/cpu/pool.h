// Threads that wait between calls, and the loop that uses them.
//
// Tasks are handed out one by one from a counter, so uneven tiles balance; results never depend on which thread
// ran a task, so the same input gives the same bits for any number of threads.
#pragma once

namespace egregium {

/// Run `run(context, task)` for every task in [0, tasks) on up to `threads` threads, the caller's included.
void parallel_for(int tasks, int threads, void (*run)(void* context, int task), void* context);

/// Run `f(task)` likewise. A lambda's type is its file's own, so an instruction set's code stays under its own name.
template <class F> void each(int tasks, int threads, F&& f) {
    parallel_for(tasks, threads, [](void* c, int task) { (*static_cast<F*>(c))(task); }, &f);
}

}  // namespace egregium
