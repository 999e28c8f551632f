/*
 * A step's box: waits for the order to run an attempt, runs it, and waits again where another may follow. PID 1 of its container.
 *
 * Each attempt is a process of its own, so that nothing of it is left in the box but what it left behind in the
 * container; that is killed. The box itself stays as small as one that waits.
 */
#include "runner.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ORDER_MOST = WRITE_MOST, GONE_WITHIN = 5 * 1000, GONE_EVERY = 5 }; /* milliseconds */

/* A box waits as a step does; its attempts run in copies of `gate`. */
struct box {
    struct step gate;
    uint64_t last, next; /* attempts: run, ordered; from 1 on */
    int code;            /* of the last attempt, or 0 */
};

/* An order taken apart: in `fields` its variables, NULL, its words, NULL. */
struct order {
    char *bytes, **fields, **words;
    struct options options;
};

static struct name name_of(const struct box *box, uint64_t attempt, const char *kind) {
    struct name name;
    snprintf(name.text, sizeof name.text, "%llu.%llu.%s", (unsigned long long)box->gate.options->step, (unsigned long long)attempt, kind);
    return name;
}

static bool is_there(const struct box *box, struct name name) {
    struct stat found;
    return fstatat(box->gate.dir, name.text, &found, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- waiting */

/* The attempt that the file orders, or 0. */
static uint64_t ordered_by(const struct box *box, const char *file) {
    unsigned long long step, attempt;
    if (sscanf(file, "%18llu.%18llu.launch", &step, &attempt) != 2 || strcmp(name_of(box, attempt, "launch").text, file) != 0)
        return 0;
    return attempt;
}

/* The highest attempt that is ordered. */
static int look_for_orders(struct box *box) {
    int fd = openat(box->gate.dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *files = fd < 0 ? NULL : fdopendir(fd);
    if (files == NULL)
        return WAIT; /* what is short now will not always be */
    box->next = box->last;
    for (struct dirent *entry; (entry = readdir(files)) != NULL;)
        box->next = MAX(box->next, ordered_by(box, entry->d_name));
    closedir(files);
    return box->next > box->last ? GO_ON : WAIT;
}

/* As a gate's: 0 where no order is to come any more. */
static int look_for_work(struct step *gate) {
    struct box *box = (struct box *)gate;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    if (is_there(box, verdict_of(gate->options->step)))
        return 0;
    int before = gated(gate->options) ? look_for_verdict(gate) : GO_ON;
    return before == GO_ON || before == WAIT ? look_for_orders(box) : before;
}

/* ---- the order */

static int read_order(const struct box *box, struct order *order, size_t *size) {
    struct stat found;
    int fd = open_regular(box->gate.dir, name_of(box, box->next, "launch").text, &found);
    if (fd < 0)
        return -1;
    *size = (size_t)MIN(found.st_size, (off_t)ORDER_MOST + 1);
    order->bytes = malloc(*size + 1);
    ssize_t got = order->bytes ? pread_all(fd, order->bytes, *size, 0) : -1;
    int error = got >= 0 ? EINVAL : errno;
    close(fd);
    errno = error;
    return got == (ssize_t)*size && *size > 0 && *size <= ORDER_MOST && order->bytes[*size - 1] == 0 ? 0 : -1;
}

/* Whether it has the form of one. */
static bool cut_order(struct order *order, size_t size) {
    size_t count = 0;
    for (size_t at = 0; at < size; at++)
        count += order->bytes[at] == 0;
    order->fields = calloc(count + 1, sizeof *order->fields);
    if (order->fields == NULL)
        return false;
    char *field = order->bytes;
    for (size_t i = 0; i < count; i++, field += strlen(field) + 1) {
        bool border = order->words == NULL && *field == 0;
        if (order->words == NULL && !border && strchr(field, '=') == NULL)
            return false;
        order->fields[i] = border ? NULL : field;
        if (border)
            order->words = order->fields + i + 1;
    }
    return order->words != NULL;
}

static bool take_order(const struct box *box, struct order *order) {
    size_t size;
    if (read_order(box, order, &size) < 0)
        return false;
    errno = EINVAL;
    return cut_order(order, size) && parse_step(order->words, &order->options) && order->options.step == box->gate.options->step &&
           order->options.attempt == box->next;
}

static void drop_order(struct order *order) {
    free(order->options.masked);
    free(order->fields);
    free(order->bytes);
}

static bool names(char *const *variables, const char *entry) {
    size_t size = strcspn(entry, "=") + 1;
    for (; *variables; variables++)
        if (strncmp(*variables, entry, size) == 0)
            return true;
    return false;
}

/* The container's variables, but for those that the order has too, and then the order's. */
static int add_environment(char **variables) {
    size_t count = 0, at = 0;
    for (char **entry = environ; *entry; entry++)
        count++;
    for (char **entry = variables; *entry; entry++)
        count++;
    char **all = calloc(count + 1, sizeof *all);
    if (all == NULL)
        return -1;
    for (char **entry = environ; *entry; entry++)
        if (!names(variables, *entry))
            all[at++] = *entry;
    for (char **entry = variables; *entry; entry++)
        all[at++] = *entry;
    environ = all;
    return 0;
}

/* ---- running */

static _Noreturn void become_attempt(struct box *box, struct order *order) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* as when the box is the container's first process */
    if (add_environment(order->fields) < 0) {
        complain("order");
        _exit(FAILED);
    }
    box->gate.options = &order->options;
    _exit(step_run(&box->gate));
}

/* Its wait status. Meanwhile every signal goes on to it, and orphans are reaped. */
static int follow(pid_t attempt) {
    sigset_t all;
    sigfillset(&all);
    for (;;) {
        int signal = sigwaitinfo(&all, NULL), status;
        if (signal > 0 && signal != SIGCHLD)
            kill(attempt, signal);
        for (pid_t pid; signal == SIGCHLD && (pid = waitpid(-1, &status, WNOHANG)) > 0;)
            if (pid == attempt)
                return status;
    }
}

/* Whether there is a status that tells this exit. */
static bool status_tells(const struct box *box, int code) {
    char text[NOTE_ROOM];
    int told;
    return read_small(box->gate.dir, name_of(box, box->last, "status").text, text, sizeof text) >= 0 &&
           sscanf(text, "{\"exit\":%d,", &told) == 1 && told == code;
}

/* How the attempt ended; whether another may follow. One that never began, stopped at its gate, is none. */
static bool judge(struct box *box, int status, uint64_t retries) {
    int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (code == 0 && !is_there(box, name_of(box, box->last, "claim")))
        return false;
    box->code = code;
    return WIFEXITED(status) && code != 0 && retries > 0 && status_tells(box, code) && !is_there(box, verdict_of(box->gate.options->step));
}

/* Runs what is ordered; whether another attempt may follow. */
static bool run_order(struct box *box) {
    struct order order = {.options = DEFAULTS};
    box->last = box->next;
    pid_t attempt = take_order(box, &order) ? fork() : -1;
    if (attempt == 0)
        become_attempt(box, &order);
    if (attempt < 0)
        complain(name_of(box, box->last, "launch").text);
    uint64_t retries = order.options.retries;
    drop_order(&order);
    if (attempt > 0)
        return judge(box, follow(attempt), retries);
    box->code = FAILED;
    return false;
}

/* ---- what is left of an attempt */

/* The box's own children, which are all that is left where it is not the first process, once theirs have come to it too. */
static void kill_children(void) {
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : pread_all(fd, text, sizeof text - 1, 0);
    if (fd >= 0)
        close(fd);
    text[MAX(got, 0)] = 0;
    for (char *rest = text, *word; (word = strsep(&rest, " ")) != NULL && rest != NULL;) /* the last may be cut */
        if (*word)
            kill((pid_t)strtol(word, NULL, 10), SIGKILL);
}

/* Kills what there still is; whether there is nothing. */
static bool cleared(void) {
    bool none = false;
    if (getpid() == 1)
        none = kill(-1, SIGKILL) < 0 && errno == ESRCH;
    else
        kill_children();
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
        ;
    return getpid() == 1 ? none : pid < 0;
}

/* False where something cannot be killed. */
static bool clear(void) {
    for (uint64_t end = now_ms() + GONE_WITHIN; !cleared();) {
        if (now_ms() >= end)
            return false;
        poll(NULL, 0, GONE_EVERY);
    }
    return true;
}

int box_main(const struct options *options) {
    static struct box box = {0};
    box.gate.options = options;
    if (step_prepare(&box.gate) < 0) {
        complain(options->dir);
        return FAILED;
    }
    do {
        int outcome = gate_wait(&box.gate, look_for_work);
        if (outcome != GO_ON)
            return outcome ? outcome : box.code;
    } while (run_order(&box) && clear());
    return box.code;
}
