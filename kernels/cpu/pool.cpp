#include "pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include <unistd.h>

namespace egregium {
namespace {

struct Job {
    void (*run)(void*, int);
    void* context;
    int tasks;
    std::atomic<int> next{0};
    std::atomic<int> helpers{0};  // at work on it; goes up under the pool's mutex only

    void work() {
        for (int task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) run(context, task);
    }
};

class Pool {
  public:
    void run(Job& job, int threads) {
        std::unique_lock lock(mutex_);
        while (int(helpers_.size()) < threads - 1) helpers_.emplace_back(&Pool::help, this, int(helpers_.size()));
        job_ = &job;
        wanted_ = threads - 1;
        ++generation_;
        const bool asleep = asleep_ > 0;
        lock.unlock();
        if (asleep) wake_.notify_all();
        job.work();
        // No one is waited for who has not begun: waking up takes some 50 us, as long as a small job.
        lock.lock();
        job_ = nullptr;
        lock.unlock();
        // Tasks are short: spinning a little first is cheaper than going to sleep for the last one.
        for (int spins = 0; spins < 4000 && job.helpers.load(std::memory_order_acquire) > 0; ++spins) std::this_thread::yield();
        lock.lock();
        done_.wait(lock, [&] { return job.helpers.load() == 0; });
    }

  private:
    void help(int index) {
        unsigned seen = 0;
        for (;;) {
            // A pass is a dozen jobs, one right after the other: no sleep between them.
            for (int spins = 0; spins < 200 && generation_.load(std::memory_order_acquire) == seen; ++spins) std::this_thread::yield();
            std::unique_lock lock(mutex_);
            ++asleep_;
            wake_.wait(lock, [&] { return generation_ != seen; });
            --asleep_;
            seen = generation_;
            if (index >= wanted_ || !job_) continue;
            Job& job = *job_;
            ++job.helpers;
            lock.unlock();
            job.work();
            lock.lock();
            if (--job.helpers == 0) done_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> helpers_;
    Job* job_ = nullptr;
    int wanted_ = 0;
    int asleep_ = 0;
    std::atomic<unsigned> generation_{0};
};

}  // namespace

void parallel_for(int tasks, int threads, void (*run)(void*, int), void* context) {
    Job job{run, context, tasks};
    if (threads > tasks) threads = tasks;
    // One caller at a time may use the helpers; another Python thread that comes meanwhile works alone. The pool is
    // never destroyed (its threads may outlive static destructors) and is made anew after a fork, where a child has
    // the memory of the threads but not the threads.
    static std::mutex in_use;
    static Pool* pool = nullptr;
    static pid_t owner = 0;
    std::unique_lock lock(in_use, std::defer_lock);
    if (threads <= 1 || !lock.try_lock()) {
        job.work();
        return;
    }
    if (!pool || owner != getpid()) {
        pool = new Pool;
        owner = getpid();
    }
    pool->run(job, threads);
}

}  // namespace egregium
