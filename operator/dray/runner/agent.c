/*
 * The agent: tells of a job's volume and reads it, on stdin and stdout, until stdin ends. Executed in the sandbox.
 *
 * One process, one conversation. After each `look` it watches, and says once when the volume is no longer what that
 * look told; then it is silent until the next. What "the same" means is one number over names, files and sizes; inotify
 * only says when to compute it again, and where there is none, a clock does.
 */
#include "runner.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

enum { LINE_SIZE = 1024, READ_MOST = 4 * KIB * KIB, FIRST_LINE = 4 * KIB };
enum { FILES_MOST = 8 * KIB, LISTING_MOST = KIB * KIB }; /* more than any job has that keeps to the layout */
enum { COMPARE_EVERY = 250, LOG_EVERY = 10 }; /* milliseconds */

/* What was there at a look. `logs`: the sizes of the log files; `files`: everything else that counts. */
struct sight {
    uint64_t files, logs;
};

struct listing {
    char *text;
    size_t size, room;
};

struct agent {
    const char *path;
    int dir, comings, growth; /* the directory; inotify of what comes and goes in it; of its logs */
    bool armed;
    struct sight seen;
    uint64_t told;            /* when growth was last told, in milliseconds */
    char input[LINE_SIZE + WRITE_MOST]; /* read and not yet used: from `first` to `past` */
    size_t first, past;
};

/* All that is ever said goes through here. Nobody there to hear it is the conversation's end. */
static void say(const void *bytes, size_t size) {
    if (write_all(STDOUT_FILENO, bytes, size) < 0)
        exit(errno == EPIPE ? 0 : FAILED);
}

static void reply(const char *id, int64_t size, const void *bytes) {
    char line[64];
    say(line, (size_t)snprintf(line, sizeof line, "%s %lld\n", id, (long long)size));
    if (size > 0)
        say(bytes, (size_t)size);
}

static void reply_outcome(const char *id, int done) {
    reply(id, done < 0 ? -errno : 0, NULL);
}

/* ---- names */

static bool proper(const char *name) {
    size_t size = strlen(name);
    return size >= 1 && size <= 255 && *name != '.' && strchr(name, '/') == NULL;
}

/* How much of the name is the step's number, or the word for what step 0 is given. */
static size_t step_size(const char *name) {
    size_t given = strlen("input");
    return strncmp(name, "input", given) == 0 ? given : strspn(name, "0123456789");
}

static const char *const MARKS[] = {"stop", "halt", "hold", NULL};

/* The kind of a file of the layout that is no mark, its ending: STEP.verdict, or STEP.ATTEMPT. and another; or NULL. */
static const char *kind_of(const char *name) {
    static const char *const KINDS[] = {"claim", "out", "log", "status", "launch", NULL};
    size_t step = step_size(name);
    if (step == 0 || name[step] != '.')
        return NULL;
    const char *rest = name + step + 1;
    if (strcmp(rest, "verdict") == 0)
        return rest;
    size_t attempt = strspn(rest, "0123456789");
    if (attempt == 0 || rest[attempt] != '.')
        return NULL;
    return one_of(rest + attempt + 1, KINDS);
}

static bool has_text(const char *kind) {
    static const char *const WITHOUT[] = {"out", "log", "launch", NULL};
    return one_of(kind, WITHOUT) == NULL;
}

/* Whether it counts whatever it is, and not only as a regular file: nothing takes its place, and to the runners it is there. */
static bool counts_by_name(const char *kind) {
    static const char *const BY_NAME[] = {"stop", "halt", "hold", "verdict", "launch", NULL};
    return one_of(kind, BY_NAME) != NULL;
}

/* ---- look */

/* A whole line, or, where the listing would be longer than LISTING_MOST, none; -1 when there is no memory. */
static int add(struct listing *listing, const char *line, size_t size) {
    if (listing->size + size > LISTING_MOST)
        return 0;
    if (listing->size + size > listing->room) {
        size_t room = MAX(2 * listing->room, listing->size + size + FIRST_LINE);
        char *text = realloc(listing->text, room);
        if (text == NULL)
            return -1;
        listing->text = text;
        listing->room = room;
    }
    memcpy(listing->text + listing->size, line, size);
    listing->size += size;
    return 0;
}

/* One line of the listing. A file that has gone meanwhile is told without its text: that it went is told soon after. */
static int add_file(struct agent *agent, struct listing *listing, const char *name, const char *kind, uint64_t size) {
    char line[NAME_SIZE + FIRST_LINE + 2];
    int length = snprintf(line, NAME_SIZE, has_text(kind) ? "%s %llu " : "%s %llu", name, (unsigned long long)size);
    char *text = line + length;
    *text = 0;
    if (has_text(kind))
        read_small(agent->dir, name, text, FIRST_LINE + 1);
    size_t end = (size_t)length + strcspn(text, "\n");
    line[end] = '\n';
    return add(listing, line, end + 1);
}

/* A number for a file's name, identity and size; theirs are summed, so that their order does not matter. */
static uint64_t number(const char *name, uint64_t inode, uint64_t size) {
    uint64_t hash = 0xcbf29ce484222325;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3;
    hash = (hash ^ inode) * 0x9e3779b97f4a7c15;
    hash = (hash ^ (hash >> 32) ^ size) * 0x9e3779b97f4a7c15;
    return hash ^ (hash >> 29);
}

static void watch_log(const struct agent *agent, const char *name) {
    char path[4096];
    if (agent->growth >= 0 && snprintf(path, sizeof path, "%s/%s", agent->path, name) < (int)sizeof path)
        inotify_add_watch(agent->growth, path, IN_MODIFY | IN_DONT_FOLLOW);
}

/* One file: into the sight, and into the listing where there is one. */
static int survey_file(struct agent *agent, struct sight *sight, struct listing *listing, const char *name, const char *kind) {
    struct stat found;
    bool log = strcmp(kind, "log") == 0;
    if (listing && log)
        watch_log(agent, name); /* before its size is read: no growth goes unseen */
    if (fstatat(agent->dir, name, &found, AT_SYMLINK_NOFOLLOW) < 0 || !(S_ISREG(found.st_mode) || counts_by_name(kind)))
        return 0;
    sight->files += number(name, found.st_ino, has_text(kind) ? (uint64_t)found.st_size : 0);
    sight->logs += log ? number(name, found.st_ino, (uint64_t)found.st_size) : 0;
    return listing ? add_file(agent, listing, name, kind, (uint64_t)found.st_size) : 0;
}

/* Goes through the volume once; with a listing, that is filled too and logs are watched from now on. The marks come first, and always. */
static int survey(struct agent *agent, struct sight *sight, struct listing *listing) {
    int fd = openat(agent->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0, left = FILES_MOST;
    DIR *files = fd < 0 ? NULL : fdopendir(fd);
    if (files == NULL)
        return -1;
    *sight = (struct sight){0, 0};
    for (const char *const *mark = MARKS; *mark && !error; mark++)
        error = survey_file(agent, sight, listing, *mark, *mark) < 0 ? errno : 0;
    while (!error && left > 0) {
        errno = 0;
        struct dirent *entry = readdir(files);
        if (entry == NULL) {
            error = errno;
            break;
        }
        const char *kind = kind_of(entry->d_name);
        left -= kind != NULL;
        if (kind && survey_file(agent, sight, listing, entry->d_name, kind) < 0)
            error = errno;
    }
    closedir(files);
    errno = error;
    return error ? -1 : 0;
}

static void look(struct agent *agent, const char *id) {
    struct listing listing = {NULL, 0, 0};
    forget_events(agent->comings);
    forget_events(agent->growth);
    if (survey(agent, &agent->seen, &listing) < 0) {
        reply_outcome(id, -1);
    } else {
        agent->armed = true;
        reply(id, (int64_t)listing.size, listing.text);
    }
    free(listing.text);
}

/* ---- watching */

/* How long log growth is still to be kept back, in milliseconds. */
static uint64_t kept_back(const struct agent *agent) {
    uint64_t since = now_ms() - agent->told;
    return since < LOG_EVERY ? LOG_EVERY - since : 0;
}

/* Says so when the volume is not as the last look told it. */
static void compare(struct agent *agent) {
    struct sight now;
    forget_events(agent->comings);
    if (kept_back(agent) == 0)
        forget_events(agent->growth);
    if (survey(agent, &now, NULL) < 0)
        now = (struct sight){~agent->seen.files, 0};
    bool grown = now.logs != agent->seen.logs && kept_back(agent) == 0;
    if (now.files == agent->seen.files && !grown)
        return;
    if (grown)
        agent->told = now_ms();
    agent->armed = false;
    say("0 0\n", 4);
}

/* Until there is something to read; meanwhile tells of changes. */
static void watch(struct agent *agent) {
    for (;;) {
        uint64_t back = kept_back(agent);
        struct pollfd on[3] = {{STDIN_FILENO, POLLIN, 0}, {agent->comings, POLLIN, 0}, {agent->growth, POLLIN, 0}};
        if (!agent->armed)
            on[1].fd = on[2].fd = -1;
        if (back > 0)
            on[2].fd = -1;
        int ready = poll(on, 3, !agent->armed ? -1 : back > 0 ? (int)back : COMPARE_EVERY);
        if (ready > 0 && on[0].revents)
            return;
        if (ready >= 0 && agent->armed)
            compare(agent);
    }
}

/* ---- requests */

static void serve_read(struct agent *agent, const char *id, const char *name, uint64_t offset, uint64_t most) {
    static char bytes[READ_MOST];
    struct stat found;
    int fd = open_regular(agent->dir, name, &found);
    if (fd < 0) {
        errno = errno == ELOOP || errno == ENXIO || errno == EINVAL ? ENOENT : errno;
        return reply_outcome(id, -1);
    }
    ssize_t got = pread_all(fd, bytes, most, offset);
    int error = errno;
    close(fd);
    errno = error;
    if (got < 0)
        return reply_outcome(id, -1);
    reply(id, got, bytes);
}

/* More input after what is there; the end of input is the end. */
static void fill(struct agent *agent) {
    if (agent->past == sizeof agent->input) {
        memmove(agent->input, agent->input + agent->first, agent->past - agent->first);
        agent->past -= agent->first;
        agent->first = 0;
    }
    watch(agent);
    ssize_t got = read(STDIN_FILENO, agent->input + agent->past, sizeof agent->input - agent->past);
    if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
        exit(0);
    agent->past += got > 0 ? (size_t)got : 0;
}

static void skip(struct agent *agent, uint64_t size) {
    while (size > 0) {
        if (agent->past == agent->first) {
            agent->first = agent->past = 0;
            fill(agent);
        }
        size_t part = MIN(size, agent->past - agent->first);
        agent->first += part;
        size -= part;
    }
}

/* The bytes that follow a request are taken whatever the answer will be, so that what comes after them is a request again. */
static const char *take_body(struct agent *agent, const char *name, uint64_t size) {
    if (size > WRITE_MOST || !proper(name)) {
        skip(agent, size);
        return NULL;
    }
    while (agent->past - agent->first < size)
        fill(agent);
    agent->first += size;
    return agent->input + agent->first - size;
}

static void serve_write(struct agent *agent, const char *id, const char *name, uint64_t size) {
    const char *bytes = take_body(agent, name, size);
    if (bytes == NULL)
        return reply(id, -EINVAL, NULL);
    reply_outcome(id, file_make(agent->dir, name, bytes, size));
}

static void serve_append(struct agent *agent, const char *id, const char *name, uint64_t offset, uint64_t size) {
    const char *bytes = take_body(agent, name, size);
    if (bytes == NULL)
        return reply(id, -EINVAL, NULL);
    reply_outcome(id, part_append(agent->dir, name, bytes, size, offset));
}

static void serve_finish(struct agent *agent, const char *id, const char *name, uint64_t size) {
    if (!proper(name))
        return reply(id, -EINVAL, NULL);
    reply_outcome(id, part_finish(agent->dir, name, size));
}

static void serve_drop(struct agent *agent, const char *id, const char *name) {
    if (!proper(name))
        return reply(id, -EINVAL, NULL);
    reply_outcome(id, file_drop(agent->dir, name));
}

/* Digits, `most` of them at the most, and no value beyond what a file can have. */
static bool parse_number(const char *text, size_t most, uint64_t *value) {
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > most || text[digits])
        return false;
    errno = 0;
    *value = strtoull(text, NULL, 10);
    return errno == 0 && *value <= INT64_MAX - READ_MOST;
}

static bool parse_id(const char *text) {
    size_t digits = strspn(text, "0123456789");
    return digits >= 1 && digits <= 20 && !text[digits] && strspn(text, "0") < digits;
}

/* The line's words, cut at single spaces; how many, or `most` + 1. */
static int cut(char *line, char **words, int most) {
    int count = 0;
    for (char *word = line; word != NULL && count <= most; count++) {
        char *space = strchr(word, ' ');
        if (space)
            *space++ = 0;
        if (count < most)
            words[count] = word;
        word = space;
    }
    return count;
}

static void serve(struct agent *agent, char *line, size_t size) {
    char *words[5];
    uint64_t first = 0, second = 0;
    int count = strlen(line) == size ? cut(line, words, 5) : 0;
    const char *name = count > 2 ? words[2] : "";
    if (count < 2 || !parse_id(words[0]))
        reply("0", -EINVAL, NULL);
    else if (count == 2 && strcmp(words[1], "look") == 0)
        look(agent, words[0]);
    else if (count == 3 && strcmp(words[1], "drop") == 0)
        serve_drop(agent, words[0], name);
    else if (count == 4 && strcmp(words[1], "write") == 0 && parse_number(words[3], 20, &first))
        serve_write(agent, words[0], name, first);
    else if (count == 4 && strcmp(words[1], "finish") == 0 && parse_number(words[3], 20, &first))
        serve_finish(agent, words[0], name, first);
    else if (count == 5 && strcmp(words[1], "append") == 0 && parse_number(words[3], 20, &first) && parse_number(words[4], 20, &second))
        serve_append(agent, words[0], name, first, second);
    else if (count == 5 && strcmp(words[1], "read") == 0 && parse_number(words[3], 20, &first) && parse_number(words[4], 20, &second)) {
        if (proper(name) && second <= READ_MOST)
            serve_read(agent, words[0], name, first, second);
        else
            reply(words[0], -EINVAL, NULL);
    } else
        reply("0", -EINVAL, NULL);
}

/* The next request's line, copied out of the input; false when it is too long for one, and then it is skipped. */
static bool next_line(struct agent *agent, char *line, size_t *size) {
    for (bool fits = true;;) {
        char *start = agent->input + agent->first, *end = memchr(start, '\n', agent->past - agent->first);
        size_t length = end ? (size_t)(end - start) : agent->past - agent->first;
        fits = fits && length < LINE_SIZE;
        if (fits && end) {
            memcpy(line, start, length);
            line[length] = 0;
            *size = length;
        }
        if (end || !fits)
            agent->first += length + (end != NULL);
        if (end)
            return fits;
        if (agent->first == agent->past)
            agent->first = agent->past = 0;
        fill(agent);
    }
}

int agent_main(const struct options *options) {
    static struct agent agent;
    char line[LINE_SIZE];
    size_t size = 0;
    agent.path = options->dir;
    agent.dir = open(options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (agent.dir < 0) {
        complain(options->dir);
        return FAILED;
    }
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    agent.comings = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    agent.growth = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (agent.comings >= 0)
        inotify_add_watch(agent.comings, options->dir, IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE);
    for (;;)
        if (next_line(&agent, line, &size))
            serve(&agent, line, size);
        else
            reply("0", -EINVAL, NULL);
}
