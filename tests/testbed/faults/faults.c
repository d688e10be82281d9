/* Loaded before libc (LD_PRELOAD): makes writes and flushes of one file fail, as a disk does.
 *
 * The file named by HOMEFED_FAULT says what happens next, in one line: WHAT SUFFIX ERRNO.
 *   write SUFFIX ERRNO   writes to files whose path ends in SUFFIX fail with ERRNO
 *   flush SUFFIX ERRNO   fsync and fdatasync of them fail
 *   torn SUFFIX 0        the first half of the next write reaches the file, then the process is killed
 * While it is missing or empty nothing fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

typedef ssize_t (*pwrite_call)(int, const void *, size_t, off64_t);
typedef int (*flush_call)(int);

static int order(char *what, char *suffix, int *number)
{
    const char *path = getenv("HOMEFED_FAULT");
    FILE *file = path ? fopen(path, "re") : NULL;
    int found = 0;
    if (file) {
        found = fscanf(file, "%15s %127s %d", what, suffix, number) == 3;
        fclose(file);
    }
    return found;
}

static int is_meant(int descriptor, const char *suffix)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path);
    size_t wanted = strlen(suffix);
    return length >= (ssize_t)wanted && memcmp(path + length - wanted, suffix, wanted) == 0;
}

static ssize_t faulty_pwrite(pwrite_call real, int descriptor, const void *data, size_t size, off64_t offset)
{
    char what[16], suffix[128];
    int number;
    if (order(what, suffix, &number) && is_meant(descriptor, suffix)) {
        if (strcmp(what, "write") == 0) {
            errno = number;
            return -1;
        }
        if (strcmp(what, "torn") == 0) {
            real(descriptor, data, size / 2, offset);
            kill(getpid(), SIGKILL);
        }
    }
    return real(descriptor, data, size, offset);
}

static int faulty_flush(flush_call real, int descriptor)
{
    char what[16], suffix[128];
    int number;
    if (order(what, suffix, &number) && strcmp(what, "flush") == 0 && is_meant(descriptor, suffix)) {
        errno = number;
        return -1;
    }
    return real(descriptor);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset)
{
    return faulty_pwrite((pwrite_call)dlsym(RTLD_NEXT, "pwrite64"), descriptor, data, size, offset);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset)
{
    return faulty_pwrite((pwrite_call)dlsym(RTLD_NEXT, "pwrite64"), descriptor, data, size, offset);
}

int fsync(int descriptor)
{
    return faulty_flush((flush_call)dlsym(RTLD_NEXT, "fsync"), descriptor);
}

int fdatasync(int descriptor)
{
    return faulty_flush((flush_call)dlsym(RTLD_NEXT, "fdatasync"), descriptor);
}
