/* Files that the operator puts into the volume: whole ones at once, large ones part by part. For the agent. */
#include "runner.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

struct part_name {
    char text[NAME_SIZE];
};

/* Of the file in the making: the same for every agent, since one goes on where another ended. */
static struct part_name part_of(const char *name) {
    struct part_name part;
    snprintf(part.text, sizeof part.text, ".%.255s.part", name);
    return part;
}

/* EEXIST where there is such a file, 0 where there is none. */
static int refuse_existing(int dir, const char *name) {
    struct stat found;
    if (fstatat(dir, name, &found, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -1;
    errno = EEXIST;
    return -1;
}

/* The file is there with all its bytes, or not at all. */
int file_make(int dir, const char *name, const char *bytes, size_t size) {
    struct note note;
    if (note_make(&note, dir, name, 0) < 0)
        return -1;
    if (note_write(&note, bytes, size, true) == 0)
        return note_publish(&note, name, false);
    note_discard(&note);
    return -1;
}

/* The name is free: what cannot be removed, a directory that a step made, is renamed to one that means nothing. */
int file_drop(int dir, const char *name) {
    char away[NAME_SIZE];
    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR)
        return -1;
    snprintf(away, sizeof away, ".%.200s.%llx.gone", name, (unsigned long long)now_us());
    return renameat(dir, name, dir, away);
}

static int put_at(int fd, const char *bytes, size_t size, uint64_t offset) {
    struct stat found;
    if (fstat(fd, &found) < 0)
        return -1;
    if (!S_ISREG(found.st_mode) || (uint64_t)found.st_size < offset) {
        errno = EINVAL;
        return -1;
    }
    if (lseek(fd, (off_t)offset, SEEK_SET) < 0 || write_all(fd, bytes, size) < 0)
        return -1;
    return ftruncate(fd, (off_t)(offset + size));
}

/* The same again is the same, as long as nothing came after it. From 0 on it begins anew, whatever lies there. */
int part_append(int dir, const char *name, const char *bytes, size_t size, uint64_t offset) {
    struct part_name part = part_of(name);
    if (refuse_existing(dir, name) < 0 || (offset == 0 && file_drop(dir, part.text) < 0))
        return -1;
    int fd = openat(dir, part.text, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    int done = put_at(fd, bytes, size, offset), error = errno;
    close(fd);
    errno = error;
    return done;
}

int part_finish(int dir, const char *name, uint64_t size) {
    struct part_name part = part_of(name);
    struct stat found;
    if (refuse_existing(dir, name) < 0 || fstatat(dir, part.text, &found, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (S_ISREG(found.st_mode) && (uint64_t)found.st_size == size)
        return renameat(dir, part.text, dir, name);
    errno = EINVAL;
    return -1;
}
