// stamp: row[m] = {cycles, nanoseconds} of every multiprocessor m: its own cycle counter beside the GPU's timer. The difference of two
// stamps is the work between them in cycles, whatever the clock was, and cycles over nanoseconds is the mean clock.
//
// Shapes: row [count] pairs of 8-byte words, by %smid; those of a multiprocessor that got no block stay as they were.
// No arithmetic. A block per multiprocessor and one store each, 16 bytes at once, so that no pair is half written. A cycle counter
// belongs to its multiprocessor: only counters of the same one may be subtracted. Both are read next to each other.
//
// Versions: one. The row may lie in the host's pinned memory, so that reading it copies nothing.
extern "C" __global__ void __launch_bounds__(32) stamp_sm(ulonglong2* row, int count) {
    unsigned multiprocessor;
    unsigned long long cycles, nanoseconds;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(multiprocessor));
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(cycles));
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(nanoseconds));
    if (threadIdx.x == 0 && multiprocessor < static_cast<unsigned>(count)) {
        row[multiprocessor] = make_ulonglong2(cycles, nanoseconds);
    }
}
