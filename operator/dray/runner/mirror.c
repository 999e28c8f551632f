/*
 * What is written to the log, on the runner's own streams too, for who looks there. For log.c.
 *
 * Nothing waits for it. A pipe that can be written to takes PIECE bytes at once, so pieces are written one by one, as
 * long as there is room; the first that there is none for, and what comes with it, is left out.
 */
#include "runner.h"

#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Nobody reads it any more. The signal that told so was for us alone. */
static void give_up(struct mirror *mirror, int fd) {
    static const struct timespec AT_ONCE = {0, 0};
    sigset_t broken;
    sigemptyset(&broken);
    sigaddset(&broken, SIGPIPE);
    sigtimedwait(&broken, NULL, &AT_ONCE);
    mirror->gone[fd == STDERR_FILENO] = true;
}

static bool show_piece(struct mirror *mirror, int fd, const char *bytes, size_t size) {
    struct pollfd on = {fd, POLLOUT, 0};
    if (poll(&on, 1, 0) <= 0)
        return false;
    if (on.revents == POLLOUT && write(fd, bytes, size) == (ssize_t)size)
        return true;
    if (on.revents != POLLOUT || errno == EPIPE)
        give_up(mirror, fd);
    return false;
}

/* Whole lines at a time, but of a line that is longer than a piece. */
void mirror_show(struct mirror *mirror, int stream, const char *bytes, size_t size) {
    int fd = stream == STDOUT ? STDOUT_FILENO : STDERR_FILENO;
    while (mirror->on && !mirror->gone[fd == STDERR_FILENO] && size > 0) {
        size_t piece = MIN(size, (size_t)PIECE);
        const char *line_end = memrchr(bytes, '\n', piece);
        if (line_end)
            piece = (size_t)(line_end - bytes) + 1;
        if (!show_piece(mirror, fd, bytes, piece))
            return;
        bytes += piece;
        size -= piece;
    }
}
