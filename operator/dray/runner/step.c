/*
 * One attempt of a step: wait at the gate, claim, run the command, say how it ended. docs/protocol.md has each file's form.
 *
 * The order is what makes it safe: nothing is executed before the claim stands, the status stands only when output and
 * log are on the disk, and the verdict, which opens the next gate, comes after the status. Whoever dies between any two
 * of these leaves a state that can be told from the others.
 */
#include "runner.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { LOOK_EVERY = 250, NOTE_ROOM = 512 }; /* milliseconds; bytes */

struct name {
    char text[64];
};

static struct name file(const struct step *step, const char *kind) {
    struct name name;
    snprintf(name.text, sizeof name.text, "%llu.%llu.%s", (unsigned long long)step->options->step,
             (unsigned long long)step->options->attempt, kind);
    return name;
}

static struct name verdict_of(uint64_t step) {
    struct name name;
    snprintf(name.text, sizeof name.text, "%llu.verdict", (unsigned long long)step);
    return name;
}

/* The first fault is the step's; errno is what it came with. NULL is none. */
void step_fault(struct step *step, fault error) {
    if (error == NULL || step->error)
        return;
    step->error = error;
    step->error_number = error == DATA_LIMIT || error == DISK_FLOOR ? 0 : errno;
}

/* ---- before the gate */

/* Keeps for the command what it would have had, and takes signals by reading them. */
static int prepare(struct step *step) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_WRONLY : O_RDONLY) < 0)
            return -1;
    sigset_t all;
    struct sigaction usual = {.sa_handler = SIG_DFL};
    sigfillset(&all);
    step->mask = umask(022);
    if (sigprocmask(SIG_SETMASK, &all, &step->blocked) < 0 || sigaction(SIGCHLD, &usual, &step->on_child) < 0)
        return -1;
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* orphans come to us also where we are not PID 1 */
    step->signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    step->dir = open(step->options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return step->signals < 0 || step->dir < 0 ? -1 : 0;
}

/* ---- the gate */

/* The signal that ends the wait, or 0. */
static int asked_to_end(const struct step *step) {
    struct signalfd_siginfo heard;
    while (read(step->signals, &heard, sizeof heard) == sizeof heard)
        if (heard.ssi_signo == SIGTERM || heard.ssi_signo == SIGINT || heard.ssi_signo == SIGHUP || heard.ssi_signo == SIGQUIT)
            return (int)heard.ssi_signo;
    return 0;
}

/* Whether the verdict is "ok ATTEMPT\n" and no more. */
static bool parse_ok(const char *text, uint64_t *attempt) {
    char end = 0;
    unsigned long long number;
    if (strncmp(text, "ok ", 3) != 0 || strspn(text + 3, "0123456789") == 0 || sscanf(text + 3, "%18llu%c", &number, &end) != 2 || end != '\n')
        return false;
    *attempt = number;
    return text[3 + strspn(text + 3, "0123456789") + 1] == 0;
}

static void wait_a_little(const struct step *step, int watch) {
    char events[4096];
    struct pollfd on[2] = {{step->signals, POLLIN, 0}, {watch, POLLIN, 0}};
    if (poll(on, 2, LOOK_EVERY) > 0 && on[1].revents)
        while (read(watch, events, sizeof events) > 0)
            ;
}

/* Returns -1 when the gate is open, `input` then being the attempt whose output comes in, or else what to exit with. */
static int wait_at_gate(const struct step *step, uint64_t *input) {
    char text[64];
    struct name verdict = verdict_of(step->options->step - 1);
    int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watch >= 0)
        inotify_add_watch(watch, step->options->dir, IN_CREATE | IN_MOVED_TO);
    int outcome = -2;
    while (outcome == -2) {
        int signal = asked_to_end(step);
        if (signal)
            outcome = 128 + signal;
        else if (read_small(step->dir, verdict.text, text, sizeof text) >= 0)
            outcome = parse_ok(text, input) ? -1 : 0;
        else if (errno == ENOENT)
            wait_a_little(step, watch);
        else
            outcome = FAILED;
    }
    if (outcome == FAILED)
        complain(verdict.text);
    if (watch >= 0)
        close(watch);
    return outcome;
}

/* ---- the claim, and what is made with it */

/* What the status of the attempt before says its output has; -1 when it says nothing. */
static int64_t promised(const struct step *step, uint64_t attempt) {
    char text[NOTE_ROOM], name[64];
    snprintf(name, sizeof name, "%llu.%llu.status", (unsigned long long)step->options->step - 1, (unsigned long long)attempt);
    if (read_small(step->dir, name, text, sizeof text) < 0)
        return -1;
    const char *key = strstr(text, "\"out\":");
    unsigned long long size;
    return key && sscanf(key, "\"out\":%18llu,", &size) == 1 ? (int64_t)size : -1;
}

/* Step 0 reads nothing; any other the whole output of the step before, as its status has it, or it fails. */
static fault open_input(struct step *step, uint64_t attempt) {
    char name[64];
    struct stat found;
    if (step->options->step == 0) {
        step->input = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return step->input < 0 ? BAD_INPUT : NULL;
    }
    snprintf(name, sizeof name, "%llu.%llu.out", (unsigned long long)step->options->step - 1, (unsigned long long)attempt);
    step->input = open_regular(step->dir, name, &found);
    if (step->input < 0)
        return BAD_INPUT;
    step->in = (uint64_t)found.st_size;
    errno = 0;
    return found.st_size == promised(step, attempt) ? NULL : BAD_INPUT;
}

/* It appears whole, and once. */
static int claim(struct step *step) {
    char text[32];
    struct note note;
    struct name name = file(step, "claim");
    step->started = now_us();
    int size = snprintf(text, sizeof text, "%llu\n", (unsigned long long)step->started);
    if (note_make(&note, step->dir, name.text, 0) < 0)
        return -1;
    if (note_write(&note, text, (size_t)size, false) == 0)
        return note_publish(&note, name.text, false);
    note_discard(&note);
    return -1;
}

/* Output and log, and whether there is room for them. */
static void make_files(struct step *step) {
    const struct options *options = step->options;
    step_fault(step, out_open(&step->out, step->dir, file(step, "out").text, options->data_cap, options->floor));
    step_fault(step, log_open(&step->log, step->dir, file(step, "log").text, options->log_cap));
    step_fault(step, floor_check(step->dir, options->floor));
    if (options->begin && *options->output != '/')
        step_fault(step, filter_make(&step->filter, &step->out, options->begin, options->end));
}

/* ---- the end */

/* On the disk, and closed. */
static fault settle(int fd) {
    if (fd < 0)
        return NULL;
    int error = fdatasync(fd) < 0 ? errno : 0;
    if (close(fd) < 0 && !error)
        error = errno;
    errno = error;
    return error ? BAD_WRITE : NULL;
}

/* Nothing more comes. Each part is tried whatever became of the one before; the first fault counts. */
static void complete(struct step *step) {
    if (!step->error && step->filter.out)
        step_fault(step, filter_finish(&step->filter));
    if (step->log.fd >= 0)
        step_fault(step, log_finish(&step->log));
    if (!step->error && step->code == 0 && *step->options->output == '/')
        step_fault(step, out_copy(&step->out, step->options->output));
    step_fault(step, settle(step->out.fd));
    step_fault(step, settle(step->log.fd));
}

static int exit_code(const struct step *step) {
    if (step->error == BAD_EXEC)
        return step->error_number == ENOENT ? NOT_FOUND : CANNOT_EXEC;
    return step->error ? FAILED : step->signal ? 128 + step->signal : step->code;
}

static int say_status(const struct step *step, struct note *note) {
    char text[NOTE_ROOM];
    int size = snprintf(
        text, sizeof text,
        "{\"exit\":%d,\"code\":%d,\"signal\":%d,\"error\":\"%s\",\"errno\":%d,\"in\":%llu,\"out\":%llu,\"log\":%llu,\"lines\":%llu,"
        "\"left_out_lines\":%llu,\"left_out_bytes\":%llu,\"started\":%llu,\"finished\":%llu}\n",
        step->exit, step->code, step->signal, step->error ? step->error : "", step->error_number, (unsigned long long)step->in,
        (unsigned long long)step->out.size, (unsigned long long)step->log.size, (unsigned long long)step->log.lines,
        (unsigned long long)step->log.left_lines, (unsigned long long)step->log.left_bytes, (unsigned long long)step->started,
        (unsigned long long)step->finished);
    if (size >= NOTE_ROOM || note_write(note, text, (size_t)size, true) < 0)
        return -1;
    return note_publish(note, file(step, "status").text, true);
}

/* One that stands already is right: the operator's. */
static int say_verdict(const struct step *step, struct note *note) {
    char text[64];
    int size = step->exit == 0 ? snprintf(text, sizeof text, "ok %llu\n", (unsigned long long)step->options->attempt)
                               : snprintf(text, sizeof text, "failed\n");
    if (note_write(note, text, (size_t)size, false) < 0)
        return -1;
    return note_publish(note, verdict_of(step->options->step).text, false) < 0 && errno != EEXIST ? -1 : 0;
}

/* Room for both notes is set aside before the command can fill the disk. */
static int attempt(struct step *step, fault input_error, int input_errno) {
    struct note status = {.fd = -1}, verdict = {.fd = -1};
    errno = input_errno;
    step_fault(step, input_error);
    if (fsync(step->dir) < 0 && errno != EINVAL) /* not even a power cut may take the claim of what has run */
        step_fault(step, BAD_WRITE);
    if (note_make(&status, step->dir, file(step, "status").text, NOTE_ROOM) < 0 ||
        note_make(&verdict, step->dir, verdict_of(step->options->step).text, NOTE_ROOM) < 0)
        step_fault(step, BAD_WRITE);
    make_files(step);
    if (!step->error)
        run_command(step);
    complete(step);
    step->finished = now_us();
    step->exit = exit_code(step);
    if (status.fd < 0 || say_status(step, &status) < 0 || verdict.fd < 0 || say_verdict(step, &verdict) < 0) {
        complain(file(step, "status").text);
        note_discard(&status);
        note_discard(&verdict);
        return FAILED;
    }
    return step->exit;
}

int step_main(const struct options *options) {
    static struct step step; /* a quarter of a MiB, and all zero */
    uint64_t input = 0;
    step.options = options;
    step.code = step.input = step.out.fd = step.log.fd = -1;
    if (prepare(&step) < 0) {
        complain(options->dir);
        return FAILED;
    }
    int outcome = options->step ? wait_at_gate(&step, &input) : -1;
    if (outcome >= 0)
        return outcome;
    /* Here, between gate and claim, is the place to look at `stop` and `hold`. */
    fault input_error = open_input(&step, input);
    int input_errno = errno;
    if (claim(&step) < 0) {
        complain(file(&step, "claim").text);
        return FAILED;
    }
    return attempt(&step, input_error, input_errno);
}
