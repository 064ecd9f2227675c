#include "block.h"

#include <memory>

#include "tsan.h"

dim3 threadIdx, blockIdx;

namespace emulation {
namespace {

constexpr int kLanes = 32;
constexpr size_t kStack = 64 << 10;

Block* running_block = nullptr;

// What a fiber runs on. It is dear, so it serves many blocks; neighbours have different ones, which
// lets ThreadSanitizer see what they share.
struct Ground {
  std::unique_ptr<char[]> stack{new char[kStack]};
  void* tsan = tsan::create_fiber();
};

Ground& ground_of(unsigned block, size_t thread) {
  static std::vector<Ground> grounds[2];
  std::vector<Ground>& mine = grounds[block % 2];
  if (mine.size() <= thread) mine.resize(thread + 1);
  return mine[thread];
}

}  // namespace

Block::Block(int threads, bool reversed, const std::function<void()>& kernel, void* end_of_launch)
    : kernel_(kernel), reversed_(reversed), end_of_launch_(end_of_launch), fibers_(threads) {
  scheduler_.tsan = tsan::current_fiber();
  for (size_t thread = 0; thread < fibers_.size(); ++thread) {
    const Ground& ground = ground_of(blockIdx.x, thread);
    begin_on(ground.stack.get(), fibers_[thread].context);
    fibers_[thread].tsan = ground.tsan;
  }
  tsan::release(&begin_);
}

void Block::begin_on(char* stack, ucontext_t& context) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = kStack;
  makecontext(&context, &Block::enter, 0);
}

Block* Block::current() { return running_block; }

void Block::enter() {
  Block& block = *running_block;
  tsan::acquire(&block.begin_);
  block.kernel_();
  tsan::release(block.end_of_launch_);
  block.wait(State::kEnded, 0);
}

void Block::switch_to(Fiber& from, Fiber& to) {
  tsan::switch_to(to.tsan);
  swapcontext(&from.context, &to.context);
}

void Block::resume(int thread) {
  running_ = thread;
  threadIdx.x = static_cast<unsigned>(thread);
  running_block = this;
  switch_to(scheduler_, fibers_[thread]);
  running_block = nullptr;
}

void Block::wait(State state, int site) {
  Fiber& fiber = fibers_[running_];
  fiber.state = state;
  fiber.site = site;
  switch_to(fiber, scheduler_);
}

void Block::fail(cudaError_t code, const std::string& reason) {
  if (failure_.code == cudaSuccess) {
    failure_ = {code, "block " + std::to_string(blockIdx.x) + ", thread " +
                          std::to_string(running_) + ": " + reason};
  }
  for (;;) wait(State::kEnded, 0);
}

uint64_t Block::shuffle_xor(unsigned mask, uint64_t bits, int distance, int site) {
  Fiber& fiber = fibers_[running_];
  if (mask != 0xFFFFFFFFu) fail(cudaErrorLaunchFailure, "a shuffle of a part of a warp");
  fiber.bits = bits;
  fiber.distance = distance;
  wait(State::kInShuffle, site);
  return fiber.bits;
}

void Block::barrier(int site) {
  // All arrive before any goes on, and only then can one arrive at the next but one: two addresses
  // suffice.
  char* const address = &barrier_of_[barriers_ % 2];
  tsan::release(address);
  wait(State::kAtBarrier, site);
  tsan::acquire(address);
}

int Block::in_order(int position, int count) const {
  return reversed_ ? count - 1 - position : position;
}

// Whether a thread of the warp could run.
bool Block::run_warp(int warp) {
  bool ran = false;
  for (int position = 0; position < kLanes; ++position) {
    const int thread = warp * kLanes + in_order(position, kLanes);
    if (fibers_[thread].state != State::kReady) continue;
    resume(thread);
    ran = true;
  }
  return ran;
}

// Whether the lanes of the warp were all in one shuffle, and go on.
bool Block::exchange(int warp) {
  Fiber* const lanes = &fibers_[warp * kLanes];
  uint64_t given[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lanes[lane].state != State::kInShuffle || lanes[lane].site != lanes[0].site) return false;
    given[lane] = lanes[lane].bits;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    lanes[lane].bits = given[(lane ^ lanes[lane].distance) % kLanes];
    lanes[lane].state = State::kReady;
  }
  return true;
}

// Whether the threads that have not ended were all at one barrier, and go on.
bool Block::release_barrier() {
  const Fiber* first = nullptr;
  for (const Fiber& fiber : fibers_) {
    if (fiber.state == State::kEnded) continue;
    if (first == nullptr) first = &fiber;
    if (fiber.state != State::kAtBarrier || fiber.site != first->site) return false;
  }
  if (first == nullptr) return false;
  ++barriers_;
  for (Fiber& fiber : fibers_) {
    if (fiber.state == State::kAtBarrier) fiber.state = State::kReady;
  }
  return true;
}

void Block::report_deadlock() {
  for (size_t thread = 0; thread < fibers_.size(); ++thread) {
    const Fiber& fiber = fibers_[thread];
    if (fiber.state == State::kEnded) continue;
    failure_ = {cudaErrorLaunchFailure,
                "block " + std::to_string(blockIdx.x) + ", thread " + std::to_string(thread) +
                    ": waits in line " + std::to_string(fiber.site) + " for threads of its " +
                    (fiber.state == State::kInShuffle ? "warp" : "block") + " that never come"};
    return;
  }
}

Failure Block::run() {
  const int warps = static_cast<int>(fibers_.size()) / kLanes;
  do {
    for (int position = 0; position < warps; ++position) {
      const int warp = in_order(position, warps);
      do {
        while (run_warp(warp)) {
        }
      } while (exchange(warp));
    }
  } while (failure_.code == cudaSuccess && release_barrier());
  if (failure_.code == cudaSuccess) report_deadlock();
  return failure_;
}

}  // namespace emulation
