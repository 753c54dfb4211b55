// spin: keeps the stream busy for some nanoseconds. Work that is launched meanwhile waits in the stream's queue, so it can be timed
// without the host's gaps between launches.
//
// No arithmetic except on the clock. One block of one thread: the rest of the GPU is idle. The L2 cache is not changed.
//
// spin_cycles: every multiprocessor spins for a number of its own cycles, which is work of a known size to test a gate. One block
// of one thread per multiprocessor.
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
