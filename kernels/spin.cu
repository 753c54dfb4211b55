// spin: keeps the stream busy for some nanoseconds. What is launched meanwhile waits in the stream's queue, and is then timed without
// the host's gaps between launches.
//
// No arithmetic but on the clock. One block of one thread: the rest of the GPU rests. L2 keeps what it has.
//
// spin_cycles: every multiprocessor spins for so many cycles of its own, work of a known size to try a gate with. A block of one thread
// for each of them.
//
// Versions: one of each.
__device__ __forceinline__ unsigned long long nanoseconds() {
    unsigned long long now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

extern "C" __global__ void spin_ns(long long ns) {
    const unsigned long long start = nanoseconds();
    while (nanoseconds() - start < static_cast<unsigned long long>(ns)) asm volatile("nanosleep.u32 500;");
}

extern "C" __global__ void spin_cycles(long long cycles) {
    const long long start = clock64();
    while (clock64() - start < cycles) {}
}
