/* Puts this program where the other containers of a pod find it, and makes the volume theirs to write to. */
#include "runner.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { OPEN_TO_ALL = 0777, STICKY = 01000, EXECUTABLE = 0755, WRITABLE = 0666 };

/* All bytes of the program that runs. */
static int copy_self(int to) {
    static char bytes[READ_SIZE];
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ssize_t got = -1;
    for (uint64_t at = 0; from >= 0 && (got = pread_all(from, bytes, sizeof bytes, at)) > 0; at += (uint64_t)got)
        if (write_all(to, bytes, (size_t)got) < 0)
            break;
    int error = errno;
    if (from >= 0)
        close(from);
    errno = error;
    return got == 0 ? 0 : -1;
}

/* By rename: somebody may be executing what is there. */
static int install(const char *into) {
    struct note note;
    int dir = open(into, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || note_make(&note, dir, "dray-runner", 0) < 0)
        return -1;
    if (copy_self(note.fd) == 0 && fchmod(note.fd, EXECUTABLE) == 0 && close(note.fd) == 0)
        return note_publish(&note, "dray-runner", true);
    note_discard(&note);
    return -1;
}

/* As far as we may; a root of another owner must be open to all already. */
static int open_up(const char *volume) {
    struct stat found;
    if (stat(volume, &found) < 0)
        return -1;
    if (chmod(volume, (found.st_mode & 07777) | STICKY | OPEN_TO_ALL) == 0)
        return 0;
    return (found.st_mode & OPEN_TO_ALL) == OPEN_TO_ALL ? 0 : -1;
}

/* Empty files that everybody may write to, to be mounted where steps write their outputs. */
static int lay_files(const char *volume, uint64_t count) {
    int dir = open(volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = dir < 0 ? -1 : 0;
    for (uint64_t step = 0; !error && step < count; step++) {
        char name[32];
        snprintf(name, sizeof name, ".%llu.file", (unsigned long long)step);
        int file = openat(dir, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, WRITABLE);
        error = file < 0 ? -1 : fchmod(file, WRITABLE);
        if (file >= 0)
            close(file);
    }
    return error;
}

int install_main(const struct options *options) {
    umask(022);
    if (install(options->into) < 0) {
        complain(options->into);
        return FAILED;
    }
    if (options->volume && (open_up(options->volume) < 0 || lay_files(options->volume, options->files) < 0)) {
        complain(options->volume);
        return FAILED;
    }
    return 0;
}
