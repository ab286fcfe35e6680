/* Preloaded into a server or a keeper: while the file SLOW_FSYNC_WHEN exists every fsync takes SLOW_FSYNC_SECONDS, as on a disk that is
   busy. SLOW_FSYNC_MARK comes into being when the first slow one has begun. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int slowly(const char *name, int descriptor) {
    const char *when = getenv("SLOW_FSYNC_WHEN"), *mark = getenv("SLOW_FSYNC_MARK"), *seconds = getenv("SLOW_FSYNC_SECONDS");
    if (when != NULL && mark != NULL && seconds != NULL && access(when, F_OK) == 0) {
        int made = open(mark, O_CREAT | O_WRONLY, 0600);
        if (made >= 0) close(made);
        struct timespec pause = {atoi(seconds), 0};
        nanosleep(&pause, NULL);
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(descriptor);
}

int fsync(int descriptor) { return slowly("fsync", descriptor); }
int fdatasync(int descriptor) { return slowly("fdatasync", descriptor); }
