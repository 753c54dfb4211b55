// Hopper's own instructions (sm_90a): barriers that count bytes, copies of boxes by the tensor memory accelerator (TMA), matrices of
// 8 x 8 moved between registers and shared memory.
//
// Shared memory is addressed by its 32-bit address in the shared window. The instructions are PTX ISA 8.0. For other targets
// `HOPPER` is 0, and entry points that need these instructions have no body (`BODY`).
#pragma once

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER 1
#else
#define HOPPER 0
#endif

// The body of an entry point; other targets have none.
#if HOPPER
#define BODY(...) __VA_ARGS__
#else
#define BODY(...)
#endif

typedef unsigned int u32;
typedef unsigned long long u64;

// The descriptor that cuTensorMapEncodeTiled makes: a matrix in memory, and the box that one copy moves.
struct alignas(64) TensorMap {
    u64 word[16];
};

#if HOPPER

__device__ __forceinline__ u32 shared_address(const void* p) {
    u32 address;
    asm("{\n.reg .u64 t;\ncvta.to.shared.u64 t, %1;\ncvt.u32.u64 %0, t;\n}\n" : "=r"(address) : "l"(p));
    return address;
}

__device__ __forceinline__ void barrier_init(u32 barrier, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(barrier), "r"(count) : "memory");
}

// Waits until the barrier's phase of that parity is complete.
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    u32 done;
    do {
        asm volatile(
            "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
            : "=r"(done)
            : "r"(barrier), "r"(parity)
            : "memory"
        );
    } while (!done);
}

// One arrival, with the number of bytes that copies will still bring.
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" : : "r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 barrier, u32 times) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" : : "r"(barrier), "r"(times) : "memory");
}

// A barrier for several whole warps of the block; number 0 is that of __syncthreads.
__device__ __forceinline__ void named_sync(u32 name, u32 threads) {
    asm volatile("bar.sync %0, %1;" : : "r"(name), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(u32 name, u32 threads) {
    asm volatile("bar.arrive %0, %1;" : : "r"(name), "r"(threads) : "memory");
}

__device__ __forceinline__ void fetch_map(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" : : "l"(&map) : "memory");
}

// Copies the box at (column, row) to shared memory. Elements beyond the matrix are zeros and count as bytes too.
__device__ __forceinline__ void load_box(u32 to, const TensorMap& map, u32 barrier, int column, int row) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
        :
        : "r"(to), "l"(&map), "r"(barrier), "r"(column), "r"(row)
        : "memory"
    );
}

// Copies bytes to shared memory; size and both addresses are multiples of 16.
__device__ __forceinline__ void load_bytes(u32 to, const void* from, u32 bytes, u32 barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
        :
        : "r"(to), "l"(from), "r"(bytes), "r"(barrier)
        : "memory"
    );
}

// Copies a box to memory; nothing beyond the matrix is written. Call `shared_written` between ordinary stores to the box and this.
__device__ __forceinline__ void store_box(const TensorMap& map, u32 from, int column, int row) {
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];"
        :
        : "l"(&map), "r"(from), "r"(column), "r"(row)
        : "memory"
    );
}

__device__ __forceinline__ void store_box(const TensorMap& map, u32 from, int column, int row, int plane) {
    asm volatile(
        "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];"
        :
        : "l"(&map), "r"(from), "r"(column), "r"(row), "r"(plane)
        : "memory"
    );
}

__device__ __forceinline__ void shared_written() { asm volatile("fence.proxy.async.shared::cta;" : : : "memory"); }
__device__ __forceinline__ void stores_begin() { asm volatile("cp.async.bulk.commit_group;" : : : "memory"); }
// Waits until all boxes that this thread stores have been read from shared memory; until they are in memory.
__device__ __forceinline__ void stores_read() { asm volatile("cp.async.bulk.wait_group.read 0;" : : : "memory"); }
__device__ __forceinline__ void stores_done() { asm volatile("cp.async.bulk.wait_group 0;" : : : "memory"); }

// Four matrices of 8 x 8 16-bit values; the row at a lane's address is row lane % 8 of matrix lane / 8.
__device__ __forceinline__ void load_matrices(u32 from, u32 (&word)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "r"(from)
                 : "memory");
}
__device__ __forceinline__ void store_matrices(u32 to, const u32 (&word)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(to), "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3])
                 : "memory");
}

#endif
