/* Files in the volume: whole writes, small files that appear complete or not at all, sizes. For the step and the agent. */
#include "runner.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *const BAD_INPUT = "input", *const BAD_EXEC = "exec", *const BAD_WRITE = "write";
const char *const DATA_LIMIT = "data_limit", *const DISK_FLOOR = "disk_floor", *const OUTPUT_MISSING = "output_missing";
const char *const CANCELLED = "cancelled", *const TIMED_OUT = "timed_out";

uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Of a clock that nobody sets; never 0. */
uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 + 1;
}

/* The same word among `words`, after which stands NULL, or NULL. */
const char *one_of(const char *word, const char *const *words) {
    for (; *words; words++)
        if (strcmp(word, *words) == 0)
            return *words;
    return NULL;
}

/* To the container's own stderr: for a person who looks there, nothing reads it. */
void complain(const char *what) {
    dprintf(STDERR_FILENO, "dray-runner: %s: %s\n", what, strerror(errno));
}

int write_all(int fd, const void *bytes, size_t size) {
    struct iovec part = {(void *)bytes, size};
    uint64_t written = 0;
    return writev_all(fd, &part, 1, &written);
}

/* At most two parts. `written` grows by what got there, also when the rest failed. */
int writev_all(int fd, const struct iovec *parts, int count, uint64_t *written) {
    struct iovec left[2];
    memcpy(left, parts, (size_t)count * sizeof *parts);
    for (int i = 0; i < count;) {
        if (left[i].iov_len == 0) {
            i++;
            continue;
        }
        ssize_t got = writev(fd, left + i, count - i);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        *written += (uint64_t)got;
        for (size_t rest = (size_t)got; rest > 0;) {
            size_t part = MIN(rest, left[i].iov_len);
            left[i].iov_base = (char *)left[i].iov_base + part;
            left[i].iov_len -= part;
            rest -= part;
            i += left[i].iov_len == 0;
        }
    }
    return 0;
}

/* For reading. A link is ELOOP, anything else that is no regular file EINVAL: never waits for a FIFO's other end. */
int open_regular(int dir, const char *name, struct stat *found) {
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int error = fstat(fd, found) < 0 ? errno : S_ISREG(found->st_mode) ? 0 : EINVAL;
    if (error == 0 && fcntl(fd, F_SETFL, 0) == 0)
        return fd;
    close(fd);
    errno = error ? error : EIO;
    return -1;
}

/* Fills the bytes from `offset` on; fewer than `size` only at the file's end. */
ssize_t pread_all(int fd, void *bytes, size_t size, uint64_t offset) {
    size_t filled = 0;
    while (filled < size) {
        ssize_t got = pread(fd, (char *)bytes + filled, size - filled, (off_t)(offset + filled));
        if (got == 0)
            break;
        if (got > 0)
            filled += (size_t)got;
        else if (errno != EINTR)
            return -1;
    }
    return (ssize_t)filled;
}

/* The start of a file, with a zero byte after it; its length, below `size`. */
ssize_t read_small(int dir, const char *name, char *text, size_t size) {
    struct stat found;
    int fd = open_regular(dir, name, &found);
    if (fd < 0)
        return -1;
    ssize_t got = pread_all(fd, text, size - 1, 0);
    int error = errno;
    close(fd);
    errno = error;
    text[MAX(got, 0)] = 0;
    return got;
}

/* Of the files in the directory whose names end so, but for the one named. Files that go meanwhile count nothing. */
int sum_sizes(int dir, const char *ending, const char *except, uint64_t *sum) {
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    if (listing == NULL)
        return -1;
    *sum = 0;
    struct dirent *entry;
    while (errno = 0, (entry = readdir(listing)) != NULL) {
        size_t size = strlen(entry->d_name), tail = strlen(ending);
        struct stat found;
        if (size > tail && !strcmp(entry->d_name + size - tail, ending) && strcmp(entry->d_name, except) != 0 &&
            fstatat(dir, entry->d_name, &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(found.st_mode))
            *sum += (uint64_t)found.st_size;
    }
    int error = errno;
    closedir(listing);
    errno = error;
    return error ? -1 : 0;
}

/* A note for `name`, with `room` bytes set aside in it, so that it can still be written when the disk has filled up. */
int note_make(struct note *note, int dir, const char *name, size_t room) {
    static const char blank[NOTE_ROOM];
    note->dir = dir;
    snprintf(note->name, sizeof note->name, ".%.200s.%llx.%x", name, (unsigned long long)now_us(), (unsigned)getpid());
    note->fd = openat(dir, note->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (note->fd < 0)
        return -1;
    if (write_all(note->fd, blank, MIN(room, sizeof blank)) == 0)
        return 0;
    note_discard(note);
    return -1;
}

/* The note's whole text, over what was set aside. */
int note_write(struct note *note, const void *bytes, size_t size, bool synced) {
    if (lseek(note->fd, 0, SEEK_SET) < 0 || write_all(note->fd, bytes, size) < 0 || ftruncate(note->fd, (off_t)size) < 0)
        return -1;
    if (synced && fdatasync(note->fd) < 0)
        return -1;
    int fd = note->fd;
    note->fd = -1;
    return close(fd);
}

/* Gives the written note its name: over what is there, or else EEXIST. The note is gone afterwards either way. */
int note_publish(struct note *note, const char *name, bool over) {
    int done = over ? renameat(note->dir, note->name, note->dir, name) : linkat(note->dir, note->name, note->dir, name, 0);
    if (done < 0 || !over)
        note_discard(note);
    return done;
}

/* Keeps errno. */
void note_discard(struct note *note) {
    int error = errno;
    if (note->fd >= 0)
        close(note->fd);
    note->fd = -1;
    unlinkat(note->dir, note->name, 0);
    errno = error;
}

/* Of an inotify that does not block; -1 is none. */
void forget_events(int watch) {
    char events[4096];
    while (watch >= 0 && read(watch, events, sizeof events) > 0)
        ;
}
