/*
 * What a step waits for and what stops it: the verdict of the step before, `hold`, `stop`, and signals. For step.c and run.c.
 *
 * Whoever waits is woken by inotify, and looks each LOOK_EVERY besides: on some hosts there are few inotify instances, on
 * some file systems none. The watch stays for as long as the runner lives, so what comes between two waits is not missed.
 */
#include "runner.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <unistd.h>

void gate_watch(struct step *step) {
    step->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (step->watch >= 0)
        inotify_add_watch(step->watch, step->options->dir, IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO);
}

/* The stop file's word, or that of cancelling when it is no other; NULL where there is no such file. */
fault stop_word(const struct step *step) {
    char text[64];
    struct stat found;
    if (fstatat(step->dir, step->options->stop, &found, AT_SYMLINK_NOFOLLOW) < 0)
        return NULL;
    if (read_small(step->dir, step->options->stop, text, sizeof text) < 0)
        return CANCELLED;
    text[strcspn(text, "\n")] = 0;
    return strcmp(text, TIMED_OUT) == 0 ? TIMED_OUT : CANCELLED;
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

static bool input_given(const struct options *options) {
    return strcmp(options->input, "given") == 0;
}

/* Whether anything comes before the step. */
bool gated(const struct options *options) {
    return input_given(options) || (options->step && strcmp(options->input, "none") != 0);
}

struct name verdict_of(uint64_t step) {
    struct name name;
    snprintf(name.text, sizeof name.text, "%llu.verdict", (unsigned long long)step);
    return name;
}

/* Of the attempt before whose output comes in. */
struct name file_before(const struct step *step, const char *kind) {
    struct name name;
    if (input_given(step->options))
        snprintf(name.text, sizeof name.text, "input.%llu.%s", (unsigned long long)step->before, kind);
    else
        snprintf(name.text, sizeof name.text, "%llu.%llu.%s", (unsigned long long)step->options->step - 1,
                 (unsigned long long)step->before, kind);
    return name;
}

/* Of the step before: `ok` opens, anything else ends the wait. */
int look_for_verdict(struct step *step) {
    char text[64];
    struct name name = input_given(step->options) ? (struct name){"input.verdict"} : verdict_of(step->options->step - 1);
    if (read_small(step->dir, name.text, text, sizeof text) >= 0)
        return parse_ok(text, &step->before) ? GO_ON : 0;
    if (errno == ENOENT)
        return WAIT;
    complain(name.text);
    return FAILED;
}

int look_for_hold(struct step *step) {
    struct stat found;
    return fstatat(step->dir, "hold", &found, AT_SYMLINK_NOFOLLOW) < 0 ? GO_ON : WAIT;
}

/* The signal that ends the wait, or 0. */
static int asked_to_end(const struct step *step) {
    struct signalfd_siginfo heard;
    while (read(step->signals, &heard, sizeof heard) == sizeof heard)
        if (heard.ssi_signo == SIGTERM || heard.ssi_signo == SIGINT || heard.ssi_signo == SIGHUP || heard.ssi_signo == SIGQUIT)
            return (int)heard.ssi_signo;
    return 0;
}

/* GO_ON when that is what `look` says, or else what to exit with. Stop and signals come first: they are looked at last. */
int gate_wait(struct step *step, int (*look)(struct step *step)) {
    for (;;) {
        int outcome = look(step), signal = asked_to_end(step);
        if (signal)
            return 128 + signal;
        if (stop_word(step))
            return 0;
        if (outcome != WAIT)
            return outcome;
        struct pollfd on[2] = {{step->signals, POLLIN, 0}, {step->watch, POLLIN, 0}};
        if (poll(on, 2, LOOK_EVERY) > 0 && on[1].revents)
            forget_events(step->watch);
    }
}
