/* The output, N.A.out: the captured stream's bytes as they are, the lines between delimiters, or a file. For run.c and step.c. */
#include "runner.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* The job's outputs together may have `data_cap` bytes, or any number when that is 0. */
fault out_open(struct out *out, int dir, const char *name, uint64_t data_cap, uint64_t floor) {
    uint64_t others = 0;
    out->dir = dir;
    out->floor = floor;
    out->room = UINT64_MAX;
    hasher_start(&out->hasher);
    out->fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (out->fd < 0)
        return BAD_WRITE;
    if (data_cap == 0)
        return NULL;
    if (sum_sizes(dir, ".out", name, &others) < 0)
        return BAD_WRITE;
    out->room = data_cap > others ? data_cap - others : 0;
    return others > data_cap ? DATA_LIMIT : NULL;
}

/* What is not all written was written in part, `size` then being that. Bytes past the limit are not written at all. */
static fault put(struct out *out, const char *bytes, size_t *size) {
    struct iovec part = {(char *)bytes, *size};
    uint64_t written = 0;
    if (*size > out->room - out->size) {
        *size = 0;
        return DATA_LIMIT;
    }
    fault error = writev_all(out->fd, &part, 1, &written) < 0 ? BAD_WRITE : NULL;
    out->size += *size = written;
    return error;
}

fault out_write(struct out *out, const char *bytes, size_t size) {
    fault error = put(out, bytes, &size);
    int number = errno;
    hasher_add(&out->hasher, bytes, size);
    errno = number;
    return error;
}

/* Where to read the next bytes to, READ_SIZE of them. */
char *out_buffer(struct out *out) {
    struct ring *ring = &out->ring;
    ring->turn = (ring->turn + 1) % PIECES;
    hasher_wait(&out->hasher, ring->given[ring->turn]);
    return ring->bytes[ring->turn];
}

/* As out_write, but of bytes in the last buffer, which may then be read still, not written, until it is had again. */
fault out_pass(struct out *out, const char *bytes, size_t size) {
    fault error = put(out, bytes, &size);
    int number = errno;
    out->ring.given[out->ring.turn] = hasher_give(&out->hasher, bytes, size);
    errno = number;
    return error;
}

/* Whether the disk has as much left as it must. */
fault floor_check(int dir, uint64_t floor) {
    struct statvfs disk;
    if (floor == 0)
        return NULL;
    if (fstatvfs(dir, &disk) < 0)
        return BAD_WRITE;
    return (uint64_t)disk.f_bavail * disk.f_frsize < floor ? DISK_FLOOR : NULL;
}

/* ---- a file as output */

enum { FLOOR_EVERY = 16 * KIB * KIB };

/* As long as the file is now: one that somebody still writes to does not keep us. */
static fault copy_from(struct out *out, int from, uint64_t size) {
    fault error = NULL;
    for (uint64_t checked = 0; !error && out->size < size;) {
        char *bytes = out_buffer(out);
        ssize_t got = pread_all(from, bytes, MIN(size - out->size, (uint64_t)READ_SIZE), out->size);
        if (got < 0)
            return BAD_WRITE;
        if (got == 0)
            break;
        error = out_pass(out, bytes, (size_t)got);
        if (error || out->size - checked < FLOOR_EVERY)
            continue;
        checked = out->size;
        error = floor_check(out->dir, out->floor);
    }
    return error;
}

fault out_copy(struct out *out, const char *path) {
    struct stat found;
    int from = open_regular(AT_FDCWD, path, &found);
    if (from < 0)
        return OUTPUT_MISSING;
    fault error = (uint64_t)found.st_size > out->room ? DATA_LIMIT : copy_from(out, from, (uint64_t)found.st_size);
    int number = errno;
    close(from);
    errno = number;
    return error;
}

/* What an earlier attempt in the same container left there is no output of this one's; where it may not be emptied, it stays. */
void out_clear(const char *path) {
    int file = open(path, O_WRONLY | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file >= 0)
        close(file);
}

/* ---- delimiters */

fault filter_make(struct filter *filter, struct out *out, const char *begin, const char *end) {
    *filter = (struct filter){.out = out, .begin = begin, .end = end, .begin_size = strlen(begin), .end_size = strlen(end)};
    filter->room = MAX(filter->begin_size, filter->end_size) + 2;
    filter->held = malloc(filter->room);
    return filter->held ? NULL : BAD_WRITE;
}

static bool same(const char *line, size_t size, const char *delimiter, size_t delimiter_size) {
    return size == delimiter_size && memcmp(line, delimiter, size) == 0;
}

/* Whether the whole line is wanted; a delimiter turns that for the lines after it. */
static bool wanted(struct filter *filter, const char *line, size_t size) {
    if (size && line[size - 1] == '\n')
        size--;
    if (size && line[size - 1] == '\r')
        size--;
    if (same(line, size, filter->end, filter->end_size))
        filter->on = false;
    bool on = filter->on;
    if (same(line, size, filter->begin, filter->begin_size))
        filter->on = true;
    return on;
}

/* Goes on with the line that the last read left unfinished; `used` is how much of the bytes is that line's. */
static fault resume(struct filter *filter, const char *bytes, size_t size, size_t *used) {
    const char *line_end = memchr(bytes, '\n', size);
    size_t rest = *used = line_end ? (size_t)(line_end - bytes) + 1 : size;
    fault error = NULL;
    if (!filter->passing) {
        size_t more = MIN(rest, filter->room - filter->held_size);
        memcpy(filter->held + filter->held_size, bytes, more);
        filter->held_size += more;
        if (more == rest && (line_end || filter->held_size < filter->room))
            return line_end ? filter_finish(filter) : NULL;
        filter->passing = true;
        error = filter->on ? out_write(filter->out, filter->held, filter->held_size) : NULL;
        filter->held_size = 0;
        bytes += more;
        rest -= more;
    }
    if (!error && filter->on && rest)
        error = out_write(filter->out, bytes, rest);
    if (line_end)
        filter->passing = false;
    return error;
}

/* The bytes' last line, which has no end yet: whether to write it already. */
static bool start_line(struct filter *filter, const char *line, size_t size) {
    filter->passing = size >= filter->room;
    if (filter->passing)
        return filter->on;
    memcpy(filter->held, line, size);
    filter->held_size = size;
    return false;
}

fault filter_take(struct filter *filter, const char *bytes, size_t size) {
    size_t used = 0;
    fault error = filter->passing || filter->held_size ? resume(filter, bytes, size, &used) : NULL;
    const char *run = bytes + used, *end = bytes + size; /* from run on: wanted, and not yet written */
    for (const char *line = run, *next; !error && line < end; line = next) {
        const char *line_end = memchr(line, '\n', (size_t)(end - line));
        next = line_end ? line_end + 1 : end;
        size_t length = (size_t)(next - line);
        if (line_end ? wanted(filter, line, length) : start_line(filter, line, length))
            continue;
        if (line > run)
            error = out_write(filter->out, run, (size_t)(line - run));
        run = next;
    }
    return !error && run < end ? out_write(filter->out, run, (size_t)(end - run)) : error;
}

/* The line held is whole: it has its end, or the stream has ended. */
fault filter_finish(struct filter *filter) {
    size_t size = filter->held_size;
    filter->held_size = 0;
    return size && wanted(filter, filter->held, size) ? out_write(filter->out, filter->held, size) : NULL;
}
