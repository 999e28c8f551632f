/* The command: started with what it would have had without the runner, its streams taken, its signals passed on. For step.c. */
#include "runner.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PIPE_SIZE = KIB * KIB, FLOOR_EVERY = 16 * KIB * KIB };

/* The running command; the read ends of its streams and of what says why it could not be executed. -1: closed. */
struct run {
    pid_t child;
    bool ended;
    int wait_status, streams[2], verdict;
    uint64_t looked, kill; /* when `stop` was last looked at; when the command is killed, or 0; on now_ms' clock */
};

/* The child: only what is safe after fork, and errno to the runner where it fails. */
static _Noreturn void become_command(const struct step *step, const int *streams, int verdict) {
    setsid();
    umask(step->umask);
    if (dup2(step->input, STDIN_FILENO) >= 0 && dup2(streams[0], STDOUT_FILENO) >= 0 && dup2(streams[1], STDERR_FILENO) >= 0 &&
        sigaction(SIGCHLD, &step->on_child, NULL) == 0 && sigprocmask(SIG_SETMASK, &step->blocked, NULL) == 0)
        execvp(step->options->command[0], step->options->command);
    int error = errno;
    _exit(write(verdict, &error, sizeof error) == sizeof error ? NOT_FOUND : FAILED);
}

static int make_pipe(int *read_end, int *write_end) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    *read_end = ends[0];
    *write_end = ends[1];
    return fcntl(ends[0], F_SETFL, O_NONBLOCK);
}

static void close_end(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static fault start(struct step *step, struct run *run) {
    int writes[3] = {-1, -1, -1}, reads[3] = {-1, -1, -1};
    fault error = NULL;
    for (int i = 0; i < 3 && !error; i++)
        error = make_pipe(&reads[i], &writes[i]) < 0 ? BAD_EXEC : NULL;
    for (int i = 0; i < 2 && !error; i++)
        fcntl(writes[i], F_SETPIPE_SZ, PIPE_SIZE); /* it works with less too */
    if (!error && (run->child = fork()) < 0)
        error = BAD_EXEC;
    if (!error && run->child == 0)
        become_command(step, writes, writes[2]);
    int number = errno;
    for (int i = 0; i < 3; i++)
        close_end(&writes[i]);
    close_end(&step->input);
    errno = number;
    run->streams[0] = reads[0];
    run->streams[1] = reads[1];
    run->verdict = reads[2];
    return error;
}

/* To all that is still of its process group; a child that is not yet the command has none. */
static void send_signal(const struct run *run, int signal) {
    if (!run->ended && kill(-run->child, signal) < 0)
        kill(run->child, signal);
}

/* When there is a fault: the step has it, and the command is killed. */
static void fail(struct step *step, struct run *run, fault error) {
    if (error == NULL)
        return;
    step_fault(step, error);
    send_signal(run, SIGKILL);
}

/* Bytes of a stream, to where they belong. After a fault of the output the log still gets what it can. */
static void take(struct step *step, struct run *run, int stream, const char *bytes, size_t size) {
    const char *captured = stream == STDOUT ? "stdout" : "stderr";
    fault error = NULL;
    if (strcmp(step->options->output, captured) == 0 && !step->error)
        error = step->filter.out ? filter_take(&step->filter, bytes, size) : out_pass(&step->out, bytes, size);
    fail(step, run, error);
    fail(step, run, mask_take(&step->mask, &step->log, stream, bytes, size));
    uint64_t written = step->out.size + step->log.size;
    if (!step->error && written - step->checked >= FLOOR_EVERY) {
        step->checked = written;
        fail(step, run, floor_check(step->dir, step->options->floor));
    }
}

/* One read of a stream, at most `most` bytes; how many there were. Its end closes it. */
static size_t read_stream(struct step *step, struct run *run, int stream, size_t most) {
    char *bytes = out_buffer(&step->out);
    int *fd = &run->streams[stream - 1];
    ssize_t got = read(*fd, bytes, MIN(most, (size_t)READ_SIZE));
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (got < 0)
        fail(step, run, BAD_WRITE);
    if (got <= 0) {
        close_end(fd);
        return 0;
    }
    take(step, run, stream, bytes, (size_t)got);
    return (size_t)got;
}

/* The command has ended: what is in the pipe now is all of its own. Others may hold the pipe, and go on writing. */
static void drain(struct step *step, struct run *run, int stream) {
    int left = 0;
    if (run->streams[stream - 1] < 0 || ioctl(run->streams[stream - 1], FIONREAD, &left) < 0)
        return;
    while (left > 0) {
        size_t got = read_stream(step, run, stream, (size_t)left);
        if (got == 0)
            break;
        left -= (int)got;
    }
    close_end(&run->streams[stream - 1]);
}

static void reap(struct run *run) {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == run->child) {
            run->ended = true;
            run->wait_status = status;
        }
}

/* Every signal goes on to the command. */
static void hear(struct step *step, struct run *run) {
    struct signalfd_siginfo heard;
    while (read(step->signals, &heard, sizeof heard) == sizeof heard)
        if (heard.ssi_signo != SIGCHLD && !run->ended)
            kill(run->child, (int)heard.ssi_signo);
    reap(run);
}

/* ---- before its time */

/* The stop file's word, when something in the directory has changed or it has not been looked for lately. */
static fault asked_to_stop(const struct step *step, struct run *run, bool changed, uint64_t now) {
    if (changed)
        forget_events(step->watch);
    else if (now - run->looked < LOOK_EVERY)
        return NULL;
    run->looked = now;
    return stop_word(step);
}

/* Ends a command that is told to stop or out of time: it is asked to end, once, and after the grace it is killed. */
static void mind(struct step *step, struct run *run, bool changed) {
    uint64_t now = now_ms();
    fault word = asked_to_stop(step, run, changed, now);
    if ((word || (step->due && now >= step->due)) && !step->error) {
        reap(run);
        if (run->ended)
            return; /* by itself, and that counts */
        step_stop(step, word);
        step_fault(step, TIMED_OUT); /* unless there was a word: the first fault is the step's */
        send_signal(run, SIGTERM);
        run->kill = now + step->options->grace;
    }
    if (run->kill && now >= run->kill) {
        send_signal(run, SIGKILL);
        run->kill = 0;
    }
}

/* How long to wait for something to happen, in milliseconds. */
static int patience(const struct step *step, const struct run *run) {
    uint64_t now = now_ms(), until = run->looked + LOOK_EVERY;
    if (step->due && !step->error)
        until = MIN(until, step->due);
    if (run->kill)
        until = MIN(until, run->kill);
    return until > now ? (int)(until - now) : 0;
}

static void follow(struct step *step, struct run *run) {
    while (!run->ended) {
        struct pollfd on[5] = {{step->signals, POLLIN, 0},
                               {step->watch, POLLIN, 0},
                               {run->streams[0], POLLIN, 0},
                               {run->streams[1], POLLIN, 0},
                               {mirror_to(&step->mirror, step->log.size), POLLOUT, 0}};
        if (poll(on, 5, patience(step, run)) < 0)
            continue; /* EINTR: nothing is handled by a handler; ENOMEM passes */
        for (int stream = STDOUT; stream <= STDERR; stream++)
            if (on[1 + stream].revents)
                read_stream(step, run, stream, READ_SIZE);
        if (on[4].revents)
            mirror_show(&step->mirror, step->log.size);
        if (on[0].revents)
            hear(step, run);
        if (!run->ended)
            mind(step, run, on[1].revents);
    }
    for (int stream = STDOUT; stream <= STDERR; stream++)
        drain(step, run, stream);
}

/* How it ended. What says why it was not executed is empty when it was. */
static void judge(struct step *step, struct run *run) {
    int error = 0;
    if (read(run->verdict, &error, sizeof error) == sizeof error) {
        errno = error;
        step_fault(step, BAD_EXEC);
    } else if (WIFSIGNALED(run->wait_status)) {
        step->signal = WTERMSIG(run->wait_status);
    } else {
        step->code = WEXITSTATUS(run->wait_status);
    }
}

/* Leaves the outcome in the step: code or signal, and the first fault. */
void run_command(struct step *step) {
    struct run run = {.child = -1, .streams = {-1, -1}, .verdict = -1, .looked = now_ms()};
    fault error = start(step, &run);
    if (error) {
        step_fault(step, error);
    } else {
        follow(step, &run);
        judge(step, &run);
    }
    for (int i = 0; i < 2; i++)
        close_end(&run.streams[i]);
    close_end(&run.verdict);
}
