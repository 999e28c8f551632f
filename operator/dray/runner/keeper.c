/* What only keeps a pod: the sandbox, on an engine, and the keeper, a container of a Pod. Both are PID 1 and reap. */
#include "runner.h"

#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 1000 * 1000 * 1000 }; /* seconds */

static void reap_all(void) {
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

/* A child speaks for the volume, on stdin and stdout, and is alone in holding them: when it ends, their other ends see it. */
static void agent_beside(const struct options *options) {
    if (fork() == 0)
        _exit(agent_main(options));
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
}

/* Ends at once when told to. */
int sandbox_main(const struct options *options) {
    agent_beside(options);
    sigset_t heard;
    sigemptyset(&heard);
    sigaddset(&heard, SIGTERM);
    sigaddset(&heard, SIGINT);
    sigaddset(&heard, SIGCHLD);
    sigprocmask(SIG_BLOCK, &heard, NULL);
    for (;;) {
        int signal = sigwaitinfo(&heard, NULL);
        if (signal == SIGTERM || signal == SIGINT)
            return 0;
        reap_all();
    }
}

/* Ends when its time has come, whatever it is told before. */
int keeper_main(const struct options *options) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    uint64_t end = now_ms() + 1000 * MIN(options->seconds, (uint64_t)LONGEST);
    for (uint64_t now; (now = now_ms()) < end;) {
        struct timespec left = {(time_t)((end - now) / 1000), (long)((end - now) % 1000) * 1000000};
        sigtimedwait(&all, NULL, &left);
        reap_all();
    }
    return 0;
}
