/*
 * The log, N.A.log: both streams as blocks of whole lines, written as they are read. For run.c and step.c.
 *
 * A line longer than LINE_HELD goes in pieces, each an OPEN block. When the next block would go past the budget, the log
 * is capped: from there on blocks go through the tail, a window of the last TAIL_SIZE bytes, which is written at the end.
 * What comes first in goes first out, a block at a time, so of each stream one range of bytes is left out: its log is
 * what came before that range and what came after. Blocks of the tail hold whole lines, PIECE bytes at most; only a line
 * longer than that is cut, and keeps its last part. A line counts as left out when no byte of it is in the log.
 */
#include "runner.h"

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Payload of a block to be: first what was held of its first line, without a line end, then what has just been read. */
struct payload {
    struct iovec part[2];
};

static size_t payload_size(const struct payload *payload) {
    return payload->part[0].iov_len + payload->part[1].iov_len;
}

/* Line ends among the bytes, many at a time: each of those has its own counter, summed before one can overflow. */
static uint64_t count_lines(const char *bytes, size_t size) {
    typedef uint8_t vector __attribute__((vector_size(16)));
    const vector line_end = (vector){0} + '\n';
    uint64_t lines = 0;
    while (size >= sizeof(vector)) {
        vector counters = {0}, some;
        for (int i = 0; i < 255 && size >= sizeof some; i++, bytes += sizeof some, size -= sizeof some) {
            memcpy(&some, bytes, sizeof some);
            counters -= (vector)(some == line_end);
        }
        for (size_t i = 0; i < sizeof counters; i++)
            lines += counters[i];
    }
    for (; size > 0; size--)
        lines += *bytes++ == '\n';
    return lines;
}

static void put_header(unsigned char *header, size_t size, uint64_t lines, uint64_t time, int stream, int flags) {
    uint32_t sizes[2] = {htole32((uint32_t)size), htole32((uint32_t)lines)};
    uint64_t stamp = htole64(time);
    memset(header, 0, HEADER);
    memcpy(header, sizes, sizeof sizes);
    memcpy(header + 8, &stamp, sizeof stamp);
    header[16] = (unsigned char)stream;
    header[17] = (unsigned char)flags;
}

/* The log ends with a whole block, also when this one cannot be written. */
static fault write_out(struct log *log, const struct iovec *parts, uint64_t lines) {
    uint64_t written = 0;
    if (log->broken)
        return NULL;
    if (writev_all(log->fd, parts, 2, &written) < 0) {
        int error = errno;
        log->broken = true;
        if (ftruncate(log->fd, (off_t)log->size) < 0)
            log->size += written;
        errno = error;
        return BAD_WRITE;
    }
    log->size += written;
    log->lines += lines;
    return NULL;
}

static fault write_block(struct log *log, int stream, int flags, uint64_t lines, uint64_t time, const struct payload *payload) {
    unsigned char joined[HEADER + LINE_HELD];
    size_t held = payload->part[0].iov_len;
    put_header(joined, payload_size(payload), lines, time, stream, flags);
    if (held)
        memcpy(joined + HEADER, payload->part[0].iov_base, held);
    struct iovec parts[2] = {{joined, HEADER + held}, payload->part[1]};
    if (stream != MARKER)
        log->streams[stream - 1].open = flags & OPEN;
    return write_out(log, parts, lines);
}

static fault close_line(struct log *log, int stream, uint64_t time) {
    struct payload empty = {{{NULL, 0}, {NULL, 0}}};
    return write_block(log, stream, 0, 1, time, &empty);
}

/* ---- the tail */

static void leave_out(struct log *log, int stream, size_t size, uint64_t lines, bool line_end) {
    struct stream *of = &log->streams[stream - 1];
    of->left += size;
    of->left_lines += lines;
    of->left_line_end = line_end;
}

/* A block of the tail: its size with the header, its lines, its stream and flags. */
struct block {
    size_t size;
    uint32_t lines;
    int stream, flags;
};

static struct block tail_block(const struct log *log, size_t at) {
    uint32_t sizes[2];
    memcpy(sizes, log->tail + at, sizeof sizes);
    return (struct block){HEADER + le32toh(sizes[0]), le32toh(sizes[1]), log->tail[at + 16], log->tail[at + 17]};
}

static void drop_to(struct log *log, size_t most) {
    while (log->past - log->first > most) {
        struct block oldest = tail_block(log, log->first);
        log->streams[oldest.stream - 1].kept -= oldest.size - HEADER;
        leave_out(log, oldest.stream, oldest.size - HEADER, oldest.lines, !(oldest.flags & OPEN));
        log->first += oldest.size;
    }
}

static void advance(struct payload *payload, size_t size) {
    for (int i = 0; i < 2; i++) {
        size_t part = MIN(size, payload->part[i].iov_len);
        if (part == 0)
            continue;
        payload->part[i].iov_base = (char *)payload->part[i].iov_base + part;
        payload->part[i].iov_len -= part;
        size -= part;
    }
}

/* Of more than the tail holds only the end is looked at. It may begin within a line; the block with that is the first to go. */
static void skip(struct log *log, int stream, struct payload *payload) {
    if (payload_size(payload) <= TAIL_SIZE)
        return;
    drop_to(log, 0);
    struct payload before = *payload;
    advance(payload, payload_size(payload) - TAIL_SIZE);
    size_t read_left = before.part[1].iov_len - payload->part[1].iov_len;
    uint64_t lines = count_lines(before.part[1].iov_base, read_left);
    leave_out(log, stream, payload_size(&before) - payload_size(payload), lines, false);
}

/* Makes the next block of the tail out of the payload's start: as many whole lines as a piece holds, or a piece of one. */
static void keep_piece(struct log *log, int stream, uint64_t time, struct payload *payload) {
    if (log->past + HEADER + PIECE > sizeof log->tail) {
        memmove(log->tail, log->tail + log->first, log->past - log->first);
        log->past -= log->first;
        log->first = 0;
    }
    unsigned char *block = log->tail + log->past, *bytes = block + HEADER;
    size_t held = MIN((size_t)PIECE, payload->part[0].iov_len), size = MIN((size_t)PIECE, payload_size(payload));
    if (held)
        memcpy(bytes, payload->part[0].iov_base, held);
    if (size > held)
        memcpy(bytes + held, payload->part[1].iov_base, size - held);
    unsigned char *line_end = memrchr(bytes, '\n', size);
    if (line_end != NULL)
        size = (size_t)(line_end - bytes) + 1;
    put_header(block, size, line_end ? count_lines((char *)bytes, size) : 0, time, stream, line_end ? 0 : OPEN);
    advance(payload, size);
    log->past += HEADER + size;
    log->streams[stream - 1].kept += size;
    drop_to(log, TAIL_SIZE);
}

static void keep(struct log *log, int stream, uint64_t time, struct payload *payload) {
    skip(log, stream, payload);
    while (payload_size(payload) > 0)
        keep_piece(log, stream, time, payload);
}

/* ---- from the streams to blocks */

/* The first block that does not fit: its lines that do are written, and the log is capped. */
static fault cap(struct log *log, int stream, int flags, uint64_t time, struct payload *payload) {
    log->capped = true;
    uint64_t used = log->size + HEADER + payload->part[0].iov_len;
    if (flags & OPEN || used >= log->budget || payload->part[1].iov_len == 0)
        return NULL;
    const char *bytes = payload->part[1].iov_base;
    const char *line_end = memrchr(bytes, '\n', MIN(payload->part[1].iov_len, log->budget - used));
    if (line_end == NULL)
        return NULL;
    struct payload fits = *payload;
    fits.part[1].iov_len = (size_t)(line_end - bytes) + 1;
    advance(payload, payload_size(&fits));
    return write_block(log, stream, 0, count_lines(bytes, fits.part[1].iov_len), time, &fits);
}

static fault put(struct log *log, int stream, int flags, uint64_t lines, uint64_t time, struct payload payload) {
    if (!log->capped && log->size + HEADER + payload_size(&payload) <= log->budget)
        return write_block(log, stream, flags, lines, time, &payload);
    fault error = log->capped ? NULL : cap(log, stream, flags, time, &payload);
    keep(log, stream, time, &payload);
    return error;
}

fault log_open(struct log *log, int dir, const char *name, uint64_t most) {
    uint64_t others = 0;
    log->fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (log->fd < 0 || sum_sizes(dir, ".log", name, &others) < 0)
        return BAD_WRITE;
    uint64_t taken = others + TAIL_RESERVE;
    log->budget = most > taken ? most - taken : 0;
    return NULL;
}

fault log_take(struct log *log, int stream, const char *bytes, size_t size) {
    struct stream *from = &log->streams[stream - 1];
    uint64_t time = now_us();
    const char *line_end = memrchr(bytes, '\n', size);
    size_t whole = line_end ? (size_t)(line_end - bytes) + 1 : 0, rest = size - whole;
    fault error = NULL;
    if (whole) {
        uint64_t lines = log->capped ? 0 : count_lines(bytes, whole);
        error = put(log, stream, 0, lines, time, (struct payload){{{from->held, from->held_size}, {(char *)bytes, whole}}});
        from->held_size = 0;
    }
    if (!error && from->held_size + rest > LINE_HELD) {
        error = put(log, stream, OPEN, 0, time, (struct payload){{{from->held, from->held_size}, {(char *)bytes + whole, rest}}});
        from->held_size = 0;
    } else if (!error && rest) {
        memcpy(from->held + from->held_size, bytes + whole, rest);
        from->held_size += rest;
    }
    return error;
}

/* Lines of which nothing is in the log. A line that began before the border is there in part, whatever became of its end. */
static uint64_t lines_left(const struct stream *of, bool began_before) {
    uint64_t lines = of->left_lines + (of->left && !of->left_line_end && !of->kept);
    return lines - (began_before && lines > 0);
}

/* What the log lacks, said in its place. */
static fault write_marker(struct log *log, uint64_t time) {
    char text[128];
    int size = snprintf(text, sizeof text, "dray: %llu lines, %llu bytes left out here, the log's cap is reached\n",
                        (unsigned long long)log->left_lines, (unsigned long long)log->left_bytes);
    return write_block(log, MARKER, 0, 1, time, &(struct payload){{{NULL, 0}, {text, (size_t)size}}});
}

static fault write_tail(struct log *log) {
    uint64_t time = now_us(), lines = 0;
    if (log->past > log->first) {
        memcpy(&time, log->tail + log->first + 8, sizeof time);
        time = le64toh(time);
    }
    fault error = NULL;
    for (int stream = STDOUT; stream <= STDERR; stream++) {
        struct stream *of = &log->streams[stream - 1];
        log->left_bytes += of->left;
        log->left_lines += lines_left(of, of->open);
        if (!error && of->open && of->left)
            error = close_line(log, stream, time);
    }
    if (!error && log->left_bytes)
        error = write_marker(log, time);
    if (error)
        return error;
    for (size_t at = log->first; at < log->past;) {
        struct block block = tail_block(log, at);
        log->streams[block.stream - 1].open = block.flags & OPEN;
        lines += block.lines;
        at += block.size;
    }
    struct iovec parts[2] = {{log->tail + log->first, log->past - log->first}, {NULL, 0}};
    return write_out(log, parts, lines);
}

/* Both streams have ended: what is held, the tail, and the last line's end. The file stays open. */
fault log_finish(struct log *log) {
    fault error = NULL;
    for (int stream = STDOUT; !error && stream <= STDERR; stream++) {
        struct stream *of = &log->streams[stream - 1];
        if (of->held_size)
            error = put(log, stream, 0, 1, now_us(), (struct payload){{{of->held, of->held_size}, {NULL, 0}}});
        of->held_size = 0;
    }
    if (!error && log->capped)
        error = write_tail(log);
    for (int stream = STDOUT; !error && stream <= STDERR; stream++)
        if (log->streams[stream - 1].open)
            error = close_line(log, stream, now_us());
    return error;
}
