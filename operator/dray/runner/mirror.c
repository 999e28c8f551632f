/*
 * What the log has, on the runner's own streams too, for who looks there. For run.c and step.c.
 *
 * It is read back from the log's file, as fast as the streams take it, so nothing waits and nothing is kept in memory.
 * A pipe that can be written to takes PIECE bytes at once.
 */
#include "runner.h"

#include <endian.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PIECES_A_TURN = 16, LAST_WAIT = 1000 }; /* LAST_WAIT: milliseconds */

/* Of the log that has just been made; where it cannot be read, nothing is shown. */
void mirror_start(struct mirror *mirror, int dir, const char *name) {
    mirror->log = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
}

static void stop(struct mirror *mirror) {
    if (mirror->log >= 0)
        close(mirror->log);
    mirror->log = -1;
}

/* To the payload of the next block. */
static void go_to_block(struct mirror *mirror) {
    unsigned char header[HEADER];
    uint32_t size;
    if (pread_all(mirror->log, header, sizeof header, mirror->at) != sizeof header)
        return stop(mirror);
    memcpy(&size, header, sizeof size);
    mirror->at += HEADER;
    mirror->left = le32toh(size);
    mirror->to = header[16] == STDOUT ? STDOUT_FILENO : STDERR_FILENO;
}

/* The stream that what comes next goes to, or -1 when all `size` bytes of the log are shown. */
int mirror_to(struct mirror *mirror, uint64_t size) {
    while (mirror->log >= 0) {
        if (mirror->left > 0 && !mirror->gone[mirror->to])
            return mirror->to;
        mirror->at += mirror->left;
        mirror->left = 0;
        if (mirror->at >= size)
            return -1;
        go_to_block(mirror);
    }
    return -1;
}

/* Nobody reads the stream any more. The signal that told so was for us alone. */
static void give_up(struct mirror *mirror) {
    static const struct timespec AT_ONCE = {0, 0};
    sigset_t broken;
    sigemptyset(&broken);
    sigaddset(&broken, SIGPIPE);
    sigtimedwait(&broken, NULL, &AT_ONCE);
    mirror->gone[mirror->to] = true;
}

/* Whether there may be room for more. */
static bool show_piece(struct mirror *mirror) {
    char bytes[PIECE];
    struct pollfd on = {mirror->to, POLLOUT, 0};
    if (poll(&on, 1, 0) <= 0)
        return false;
    ssize_t size = pread_all(mirror->log, bytes, MIN(mirror->left, sizeof bytes), mirror->at), got = -1;
    if (size <= 0) {
        stop(mirror);
        return false;
    }
    if (on.revents == POLLOUT && (got = write(mirror->to, bytes, (size_t)size)) < 0 && errno != EPIPE)
        return false;
    if (got < 0)
        give_up(mirror);
    mirror->at += (uint64_t)MAX(got, 0);
    mirror->left -= (uint64_t)MAX(got, 0);
    return true;
}

/* Shows what there is room for now, but not for long. */
void mirror_show(struct mirror *mirror, uint64_t size) {
    for (int i = 0; i < PIECES_A_TURN && mirror_to(mirror, size) >= 0 && show_piece(mirror); i++)
        ;
}

/* The rest, or what of it is taken in a short time. */
void mirror_finish(struct mirror *mirror, uint64_t size) {
    uint64_t end = now_ms() + LAST_WAIT;
    for (uint64_t now; mirror_to(mirror, size) >= 0 && (now = now_ms()) < end; mirror_show(mirror, size)) {
        struct pollfd on = {mirror->to, POLLOUT, 0};
        poll(&on, 1, (int)(end - now));
    }
    stop(mirror);
}
