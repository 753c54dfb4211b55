/* A disk that fails: preloaded into a command, the n-th call that needs it, of a process and all its children, ends with
 * an error, and so does every later one where the disk stays full.
 *
 * FAILING_UNDER    a folder; other files are left alone
 * FAILING_FROM     number of the first call that fails, from 1
 * FAILING_TO       number of the last one
 * FAILING_WITH     errno
 * FAILING_COUNT    file of 8 bytes, shared by all processes: calls so far
 * FAILING_LOG      file that gets a line for each call: its number, name and file
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int under(const char *path) {
    const char *folder = getenv("FAILING_UNDER");
    size_t length = folder ? strlen(folder) : 0;
    return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static void named(int folder, const char *path, char *out) {
    char link[64];
    ssize_t length;
    out[0] = 0;
    if (!path || path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path ? path : "");
        return;
    }
    if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    length = readlink(link, out, PATH_MAX - 1);
    if (length < 0) length = 0;
    out[length] = 0;
    if (*path) snprintf(out + length, PATH_MAX - length, "/%s", path);
}

static void note(unsigned long number, const char *call, const char *path, int fails) {
    char line[PATH_MAX + 64];
    const char *log = getenv("FAILING_LOG");
    int file, length;
    if (!log) return;
    file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) return;
    length = snprintf(line, sizeof line, "%lu %s%s %s\n", number, call, fails ? " FAILS" : "", path);
    if (length > 0) length = syscall(SYS_write, file, line, (size_t)length);
    syscall(SYS_close, file);
}

/* Whether a call fails; errno says why then. */
static int fails(const char *call, int folder, const char *path) {
    char name[PATH_MAX];
    unsigned long *count, number, from, to;
    const char *shared = getenv("FAILING_COUNT");
    int file, kept = errno, end;
    if (!shared) return 0;
    named(folder, path, name);
    if (!under(name)) { errno = kept; return 0; }
    file = syscall(SYS_openat, AT_FDCWD, shared, O_RDWR | O_CLOEXEC);
    if (file < 0) { errno = kept; return 0; }
    count = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    if (count == MAP_FAILED) { errno = kept; return 0; }
    number = __sync_add_and_fetch(count, 1);
    munmap(count, 8);
    from = strtoul(getenv("FAILING_FROM") ? getenv("FAILING_FROM") : "0", NULL, 10);
    to = strtoul(getenv("FAILING_TO") ? getenv("FAILING_TO") : "0", NULL, 10);
    end = from && number >= from && number <= to;
    note(number, call, name, end);
    errno = end ? atoi(getenv("FAILING_WITH")) : kept;
    return end;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ON_FILE(type, name, parameters, arguments, file) \
    type name parameters { REAL(name); return fails(#name, file, "") ? -1 : real arguments; }
#define ON_PATH(type, name, parameters, arguments, folder, path) \
    type name parameters { REAL(name); return fails(#name, folder, path) ? -1 : real arguments; }

#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & O_CREAT))
#define OPENS(name, before, given, folder)                                                  \
    int name before {                                                                       \
        REAL(name);                                                                         \
        va_list more;                                                                       \
        va_start(more, flags);                                                              \
        mode_t mode = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                                       \
        return WRITES(flags) && fails(#name, folder, path) ? -1 : real given;               \
    }

OPENS(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPENS(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode), folder)
OPENS(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode), folder)

ON_FILE(ssize_t, write, (int file, const void *data, size_t size), (file, data, size), file)
ON_FILE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at), file)
ON_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at), file)
ON_FILE(ssize_t, writev, (int file, const struct iovec *rows, int number), (file, rows, number), file)
ON_FILE(ssize_t, sendfile, (int file, int from, off_t *at, size_t size), (file, from, at, size), file)
ON_FILE(ssize_t, sendfile64, (int file, int from, off64_t *at, size_t size), (file, from, at, size), file)
ON_FILE(ssize_t, copy_file_range, (int from, off64_t *at, int file, off64_t *to, size_t size, unsigned flags),
        (from, at, file, to, size, flags), file)
ON_FILE(int, fsync, (int file), (file), file)
ON_FILE(int, fdatasync, (int file), (file), file)
ON_PATH(int, rename, (const char *path, const char *to), (path, to), AT_FDCWD, to)
ON_PATH(int, renameat, (int folder, const char *path, int into, const char *to), (folder, path, into, to), into, to)
ON_PATH(int, link, (const char *path, const char *to), (path, to), AT_FDCWD, to)
ON_PATH(int, linkat, (int folder, const char *path, int into, const char *to, int flags),
        (folder, path, into, to, flags), into, to)
ON_PATH(int, symlink, (const char *path, const char *to), (path, to), AT_FDCWD, to)
ON_PATH(int, mkdir, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path)
ON_PATH(int, mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode), folder, path)
