/*
 * Secrets in the log: the values of some environment variables become '*', byte for byte, before the log sees them. For run.c.
 *
 * A secret is a value, and of a value of several lines each line too. Each is followed through each stream byte by byte
 * (after Knuth, Morris and Pratt), so it does not matter how the reads cut it. What may be the start of one is kept back,
 * but never the end of a line: a line that is complete goes on. Where a value goes over lines, its lines are masked one by one.
 */
#include "runner.h"

#include <stdlib.h>
#include <string.h>

enum { SHORTEST_LINE = 4 };

/* `border[i]`: how long the longest proper start of the secret is that its first i + 1 bytes also end with. */
struct secret {
    const char *bytes;
    size_t size, *border;
    size_t matched[2]; /* of each stream: how many of its bytes the stream now ends with */
};

/* ---- making */

static int add_secret(struct mask *mask, const char *bytes, size_t size) {
    struct secret *secrets = reallocarray(mask->secrets, mask->count + 1, sizeof *secrets);
    if (secrets == NULL)
        return -1;
    mask->secrets = secrets;
    size_t *border = reallocarray(NULL, size, sizeof *border);
    if (border == NULL)
        return -1;
    border[0] = 0;
    for (size_t at = 1, matched = 0; at < size; at++) {
        while (matched && bytes[matched] != bytes[at])
            matched = border[matched - 1];
        matched += bytes[matched] == bytes[at];
        border[at] = matched;
    }
    secrets[mask->count++] = (struct secret){bytes, size, border, {0, 0}};
    mask->longest = MAX(mask->longest, size);
    return 0;
}

/* The value without the line ends after it, and its lines, if there are several. */
static int add_value(struct mask *mask, const char *value) {
    size_t size = strlen(value);
    while (size && (value[size - 1] == '\n' || value[size - 1] == '\r'))
        size--;
    if (size == 0)
        return 0;
    if (add_secret(mask, value, size) < 0)
        return -1;
    if (memchr(value, '\n', size) == NULL)
        return 0;
    for (const char *line = value, *end = value + size, *next; line < end; line = next + 1) {
        const char *line_end = memchr(line, '\n', (size_t)(end - line));
        next = line_end ? line_end : end;
        size_t length = (size_t)(next - line);
        length -= length && line[length - 1] == '\r';
        if (length >= SHORTEST_LINE && add_secret(mask, line, length) < 0)
            return -1;
    }
    return 0;
}

/* `variables` ends with NULL. The environment stays as it is for as long as the mask is used. */
fault mask_make(struct mask *mask, const char *const *variables) {
    for (; *variables; variables++) {
        const char *value = getenv(*variables);
        if (value && add_value(mask, value) < 0)
            return BAD_WRITE;
    }
    for (int i = 0; i < 2 && mask->count; i++)
        if ((mask->kept[i].bytes = malloc(mask->longest + READ_SIZE)) == NULL)
            return BAD_WRITE;
    return NULL;
}

/* ---- masking */

/* Line ends stay, be they "\n" or "\r\n". */
static void cover(char *from, const char *end) {
    for (; from < end; from++)
        if (*from != '\n' && (*from != '\r' || from + 1 == end || from[1] != '\n'))
            *from = '*';
}

/* Follows the secret through what has come, `bytes`, and covers it in the stream's copy, which goes from `start` to `end`. */
static void find(struct secret *secret, int stream, const char *bytes, size_t size, char *start, char *end) {
    char *covered = start;
    size_t matched = secret->matched[stream - 1];
    for (size_t at = 0; at < size; at++) {
        const char *first = matched ? bytes + at : memchr(bytes + at, secret->bytes[0], size - at);
        if (first == NULL)
            break;
        at = (size_t)(first - bytes);
        while (matched && secret->bytes[matched] != bytes[at])
            matched = secret->border[matched - 1];
        matched += secret->bytes[matched] == bytes[at];
        if (matched < secret->size)
            continue;
        char *past = end - (size - at - 1);
        cover((size_t)(past - covered) > secret->size ? past - secret->size : covered, past);
        covered = past;
        matched = secret->border[matched - 1];
    }
    secret->matched[stream - 1] = matched;
}

/* How much of the stream's end may be the start of a secret and is in no complete line. */
static size_t unsure(const struct mask *mask, int stream, const struct kept *kept) {
    size_t most = 0;
    for (size_t i = 0; i < mask->count; i++)
        most = MAX(most, mask->secrets[i].matched[stream - 1]);
    most = MIN(most, kept->size);
    const char *end = kept->bytes + kept->size, *line_end = memrchr(end - most, '\n', most);
    return line_end ? (size_t)(end - line_end) - 1 : most;
}

/* At most READ_SIZE bytes of a stream, to the log. */
fault mask_take(struct mask *mask, struct log *log, int stream, const char *bytes, size_t size) {
    struct kept *kept = &mask->kept[stream - 1];
    if (mask->count == 0)
        return log_take(log, stream, bytes, size);
    memcpy(kept->bytes + kept->size, bytes, size);
    kept->size += size;
    for (size_t i = 0; i < mask->count; i++)
        find(&mask->secrets[i], stream, bytes, size, kept->bytes, kept->bytes + kept->size);
    size_t rest = unsure(mask, stream, kept), sure = kept->size - rest;
    fault error = log_take(log, stream, kept->bytes, sure);
    memmove(kept->bytes, kept->bytes + sure, rest);
    kept->size = rest;
    return error;
}

/* The streams have ended: what was kept back is no secret's start. */
fault mask_finish(struct mask *mask, struct log *log) {
    fault error = NULL;
    for (int stream = STDOUT; stream <= STDERR; stream++) {
        struct kept *kept = &mask->kept[stream - 1];
        if (!error && kept->size)
            error = log_take(log, stream, kept->bytes, kept->size);
        kept->size = 0;
    }
    return error;
}
