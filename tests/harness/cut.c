/* Stops a process at its n-th operation on files below a folder. Loaded with LD_PRELOAD.

   cut_arm(folder, n, signal) starts to count. The n-th operation does not happen: the process sends the signal to
   itself first. After SIGKILL, the files are as they were. After SIGSTOP and SIGCONT, the operation goes on. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[4096];
static int wanted, number;
static atomic_int counted;
static char watched[65536]; /* file descriptors of files below the folder */

void cut_arm(const char *path, int n, int signal) {
    strncpy(folder, path, sizeof folder - 1);
    wanted = n;
    number = signal;
    atomic_store(&counted, 0);
}

int cut_count(void) { return atomic_load(&counted); }

static int below(const char *path) { return folder[0] && path && strncmp(path, folder, strlen(folder)) == 0; }

static void step(void) {
    if (atomic_fetch_add(&counted, 1) + 1 == wanted) kill(getpid(), number);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                            \
        va_list list;                                                       \
        va_start(list, flags);                                              \
        mode_t mode = va_arg(list, mode_t);                                 \
        va_end(list);                                                       \
        int writes = below(path) && (flags & (O_WRONLY | O_RDWR | O_CREAT)); \
        if (writes) step();                                                 \
        int file = REAL(name)(path, flags, mode);                           \
        if (file >= 0 && file < (int)sizeof watched) watched[file] = writes; \
        return file;                                                        \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int file, const void *data, size_t size) {
    if (file >= 0 && file < (int)sizeof watched && watched[file]) step();
    return REAL(write)(file, data, size);
}

int fsync(int file) {
    if (file >= 0 && file < (int)sizeof watched && watched[file]) step();
    return REAL(fsync)(file);
}

int close(int file) {
    if (file >= 0 && file < (int)sizeof watched) watched[file] = 0;
    return REAL(close)(file);
}

int link(const char *from, const char *to) {
    if (below(to)) step();
    return REAL(link)(from, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    if (below(to)) step();
    return REAL(linkat)(a, from, b, to, flags);
}

int rename(const char *from, const char *to) {
    if (below(to)) step();
    return REAL(rename)(from, to);
}

int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    if (below(to)) step();
    return REAL(renameat2)(a, from, b, to, flags);
}

int unlink(const char *path) {
    if (below(path)) step();
    return REAL(unlink)(path);
}

int mkdir(const char *path, mode_t mode) {
    if (below(path)) step();
    return REAL(mkdir)(path, mode);
}
