// The threads of a block as fibers of one OS thread. A fiber runs until it has to wait for others,
// a warp until all of its fibers wait: an order as far from lockstep as CUDA allows, so what lacks
// a barrier reads what is not written yet. Warps and lanes also run in reverse.
#pragma once

#include <cuda_runtime.h>
#include <ucontext.h>

#include <string>
#include <vector>

namespace emulation {

struct Failure {
  cudaError_t code = cudaSuccess;
  std::string reason;
};

class Block {
 public:
  Block(int threads, bool reversed, const std::function<void()>& kernel, void* end_of_launch);
  Block(const Block&) = delete;

  // All threads, to their ends or to the first failure.
  Failure run();

  // What the thread that runs calls.
  uint64_t shuffle_xor(unsigned mask, uint64_t bits, int distance, int site);
  void barrier(int site);
  [[noreturn]] void fail(cudaError_t code, const std::string& reason);

  // The one whose thread calls; null in host code.
  static Block* current();

 private:
  enum class State { kReady, kInShuffle, kAtBarrier, kEnded };

  struct Fiber {
    ucontext_t context;
    void* tsan = nullptr;
    State state = State::kReady;
    int site = 0;
    uint64_t bits = 0;  // that it gives in a shuffle
    int distance = 0;
  };

  static void begin_on(char* stack, ucontext_t& context);
  static void enter();
  void switch_to(Fiber& from, Fiber& to);
  void resume(int thread);
  void wait(State state, int site);
  int in_order(int position, int count) const;
  bool run_warp(int warp);
  bool exchange(int warp);
  bool release_barrier();
  void report_deadlock();

  const std::function<void()>& kernel_;
  const bool reversed_;
  void* const end_of_launch_;
  std::vector<Fiber> fibers_;
  Fiber scheduler_;
  int running_ = 0;
  unsigned barriers_ = 0;
  char begin_ = 0, barrier_of_[2] = {};  // addresses that stand for them in ThreadSanitizer
  Failure failure_;
};

}  // namespace emulation
