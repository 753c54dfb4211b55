// stamp: row[m] = {cycles, nanoseconds} of every multiprocessor m: its cycle counter, and the GPU's timer. The difference of two
// stamps is the work between them in cycles, whatever the clock was; cycles divided by nanoseconds is the mean clock.
//
// Shapes: row [count] pairs of 8-byte words, by %smid; the pair of a multiprocessor without a block stays unchanged.
// No arithmetic. One block per multiprocessor with one store of 16 bytes, so that no pair is half written. Cycle counters of
// different multiprocessors must not be compared. Cycles and nanoseconds are read directly one after the other.
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
