/*
 * One attempt of a step: wait at the gate, claim, run the command, say how it ended. docs/protocol.md has each file's form.
 *
 * The order is what makes it safe: nothing is executed before the claim stands, the status stands only when output and
 * log are written, and the verdict, which opens the next gate, comes after the status. Whoever dies between any two of
 * these leaves a state that can be told from the others. Only the claim is synced: docs/decisions/0007 says why.
 */
#include "runner.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { BOOT_TEXT = 64 };

static struct name file(const struct step *step, const char *kind) {
    struct name name;
    snprintf(name.text, sizeof name.text, "%llu.%llu.%s", (unsigned long long)step->options->step,
             (unsigned long long)step->options->attempt, kind);
    return name;
}

/* The first fault is the step's; errno is what it came with. NULL is none. */
void step_fault(struct step *step, fault error) {
    if (error == NULL || step->error)
        return;
    step->error = error;
    step->error_number = error == DATA_LIMIT || error == DISK_FLOOR || error == CANCELLED || error == TIMED_OUT ? 0 : errno;
}

/* As a fault, when there is a word. */
void step_stop(struct step *step, fault word) {
    step->stopped = step->stopped || (word && !step->error);
    step_fault(step, word);
}

/* ---- before the gate */

/* For a wait at the gate. Keeps for the command what it would have had, and takes signals by reading them. */
int step_prepare(struct step *step) {
    step->code = step->input = step->out.fd = step->log.fd = step->mirror.log = -1;
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_WRONLY : O_RDONLY) < 0)
            return -1;
    sigset_t all;
    struct sigaction usual = {.sa_handler = SIG_DFL};
    sigfillset(&all);
    step->umask = umask(022);
    if (sigprocmask(SIG_SETMASK, &all, &step->blocked) < 0 || sigaction(SIGCHLD, &usual, &step->on_child) < 0)
        return -1;
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* orphans come to us also where we are not PID 1 */
    step->signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    step->dir = open(step->options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    gate_watch(step);
    return step->signals < 0 || step->dir < 0 ? -1 : 0;
}

/* ---- the input */

/* Of this start of the machine; empty where it is not told. */
static void read_boot(char text[BOOT_TEXT]) {
    text[0] = 0;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = pread_all(fd, text, BOOT_TEXT - 1, 0);
    close(fd);
    text[MAX(got, 0)] = 0;
    text[strcspn(text, "\n")] = 0;
}

/* What the status of an attempt says of its output; without a size of 0 or more it says nothing. */
struct promise {
    long long size;
    char sha256[SHA256_TEXT], boot[BOOT_TEXT];
};

static struct promise read_promise(const struct step *step) {
    struct promise found = {.size = -1};
    char text[NOTE_ROOM];
    if (read_small(step->dir, file_before(step, "status").text, text, sizeof text) < 0)
        return found;
    const char *size = strstr(text, "\"out\":"), *sha256 = strstr(text, "\"sha256\":"), *boot = strstr(text, "\"boot\":");
    if (size == NULL || sscanf(size, "\"out\":%18lld,", &found.size) != 1)
        found.size = -1;
    if (sha256)
        sscanf(sha256, "\"sha256\":\"%64[0-9a-f]\"", found.sha256);
    if (boot)
        sscanf(boot, "\"boot\":\"%63[^\"]\"", found.boot);
    return found;
}

/* Whether the input is what was promised byte for byte; -1 where it cannot be read. */
static int prove(const struct step *step, const char *sha256) {
    static char bytes[READ_SIZE];
    char text[SHA256_TEXT];
    struct sha256 hash;
    ssize_t got;
    sha256_start(&hash);
    while ((got = pread_all(step->input, bytes, sizeof bytes, hash.size)) > 0)
        sha256_add(&hash, bytes, (size_t)got);
    sha256_finish(&hash, text);
    return got < 0 ? -1 : strcmp(text, sha256) == 0;
}

/*
 * Without a gate nothing is read; with one the whole output of the step before, as its status has it, or it fails.
 * Outputs are not synced. A page that was written is lost by a power cut alone, and after one the machine has another
 * boot id than the status tells: then not the size alone counts, but every byte.
 */
static fault open_input(struct step *step) {
    char boot[BOOT_TEXT];
    struct stat found;
    if (!gated(step->options)) {
        step->input = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return step->input < 0 ? BAD_INPUT : NULL;
    }
    step->input = open_regular(step->dir, file_before(step, "out").text, &found);
    if (step->input < 0)
        return BAD_INPUT;
    step->in = (uint64_t)found.st_size;
    struct promise promised = read_promise(step);
    read_boot(boot);
    errno = 0;
    if (found.st_size != promised.size)
        return BAD_INPUT;
    if (*boot && strcmp(boot, promised.boot) == 0)
        return NULL;
    return prove(step, promised.sha256) == 1 ? NULL : BAD_INPUT;
}

/* ---- the claim, and what is made with it */

/* It appears whole, and once. */
static int claim(struct step *step) {
    char text[32];
    struct note note;
    struct name name = file(step, "claim");
    step->started = now_us();
    step->due = step->options->timeout ? now_ms() + step->options->timeout + 1 : 0; /* the clock's millisecond has begun: never early */
    int size = snprintf(text, sizeof text, "%llu\n", (unsigned long long)step->started);
    if (note_make(&note, step->dir, name.text, 0) < 0)
        return -1;
    if (note_write(&note, text, (size_t)size, false) == 0)
        return note_publish(&note, name.text, false);
    note_discard(&note);
    return -1;
}

/* Output and log, whether there is room for them, and what stands between them and the command. */
static void make_files(struct step *step) {
    const struct options *options = step->options;
    step_fault(step, out_open(&step->out, step->dir, file(step, "out").text, options->data_cap, options->floor));
    step_fault(step, log_open(&step->log, step->dir, file(step, "log").text, options->log_cap));
    if (options->mirror)
        mirror_start(&step->mirror, step->dir, file(step, "log").text);
    step_fault(step, floor_check(step->dir, options->floor));
    if (options->begin && *options->output != '/')
        step_fault(step, filter_make(&step->filter, &step->out, options->begin, options->end));
    step_fault(step, mask_make(&step->mask, options->masked));
}

/* ---- the end */

/* Nothing more comes. Each part is tried whatever became of the one before; the first fault counts. */
static void complete(struct step *step) {
    if (!step->error && step->filter.out)
        step_fault(step, filter_finish(&step->filter));
    if (step->log.fd >= 0)
        step_fault(step, mask_finish(&step->mask, &step->log));
    if (step->log.fd >= 0)
        step_fault(step, log_finish(&step->log));
    if (!step->error && step->code == 0 && *step->options->output == '/')
        step_fault(step, out_copy(&step->out, step->options->output));
    if ((step->out.fd >= 0 && close(step->out.fd) < 0) || (step->log.fd >= 0 && close(step->log.fd) < 0))
        step_fault(step, BAD_WRITE);
}

static int exit_code(const struct step *step) {
    if (step->error == BAD_EXEC)
        return step->error_number == ENOENT ? NOT_FOUND : CANNOT_EXEC;
    return step->error ? FAILED : step->signal ? 128 + step->signal : step->code;
}

static int say_status(struct step *step, struct note *note) {
    char text[NOTE_ROOM], sha256[SHA256_TEXT], boot[BOOT_TEXT];
    hasher_finish(&step->out.hasher, sha256);
    read_boot(boot);
    int size = snprintf(
        text, sizeof text,
        "{\"exit\":%d,\"code\":%d,\"signal\":%d,\"error\":\"%s\",\"errno\":%d,\"in\":%llu,\"out\":%llu,\"log\":%llu,\"lines\":%llu,"
        "\"left_out_lines\":%llu,\"left_out_bytes\":%llu,\"started\":%llu,\"finished\":%llu,\"sha256\":\"%s\",\"boot\":\"%s\"}\n",
        step->exit, step->code, step->signal, step->error ? step->error : "", step->error_number, (unsigned long long)step->in,
        (unsigned long long)step->out.size, (unsigned long long)step->log.size, (unsigned long long)step->log.lines,
        (unsigned long long)step->log.left_lines, (unsigned long long)step->log.left_bytes, (unsigned long long)step->started,
        (unsigned long long)step->finished, sha256, boot);
    if (size >= NOTE_ROOM || note_write(note, text, (size_t)size, false) < 0)
        return -1;
    return note_publish(note, file(step, "status").text, true);
}

/* One that stands already is right: the operator's. A failure with attempts left is not final: the operator's too. */
static int say_verdict(const struct step *step, struct note *note) {
    char text[64];
    if (step->exit != 0 && step->options->retries > 0 && !step->stopped) {
        note_discard(note);
        return 0;
    }
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
    step_stop(step, stop_word(step)); /* one that came while it was claimed */
    if (*step->options->output == '/')
        out_clear(step->options->output);
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
    mirror_finish(&step->mirror, step->log.size);
    return step->exit;
}

/* From the gate on; what to exit with. */
int step_run(struct step *step) {
    int outcome = gated(step->options) ? gate_wait(step, look_for_verdict) : GO_ON;
    if (outcome != GO_ON)
        return outcome;
    fault input_error = open_input(step);
    int input_errno = errno;
    outcome = gate_wait(step, look_for_hold);
    if (outcome != GO_ON)
        return outcome;
    if (claim(step) < 0) {
        complain(file(step, "claim").text);
        return FAILED;
    }
    return attempt(step, input_error, input_errno);
}

int step_main(const struct options *options) {
    static struct step step = {0}; /* some 1.5 MiB, all zero, of which a small step touches little */
    step.options = options;
    if (step_prepare(&step) < 0) {
        complain(options->dir);
        return FAILED;
    }
    return step_run(&step);
}
