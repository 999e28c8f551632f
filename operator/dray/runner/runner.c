/*
 * dray-runner: runs a job's step behind its gate, is a sandbox, or speaks for a job's volume.
 * Called in containers by the engine; docs/protocol.md says what each command does.
 */
#include "runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: dray-runner step [--dir DIR] --step N --attempt A [--input verdict|none] --output stdout|stderr|none|/PATH\n"
    "                        [--begin LINE --end LINE] --log-cap BYTES --data-cap BYTES --floor BYTES [--timeout MS] [--grace MS]\n"
    "                        [--retries K] [--stop NAME] [--mask VARIABLE]... -- COMMAND [ARGUMENT...]\n"
    "       dray-runner agent [--dir DIR]\n"
    "       dray-runner sandbox\n";

/* A child speaks for the volume, on stdin and stdout, and is alone in holding them: when it ends, their other ends see it. */
static void agent_beside(const struct options *options) {
    if (fork() == 0)
        _exit(agent_main(options));
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
}

/* Ends at once when told to; until then it only reaps what comes to it as PID 1. */
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
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}

/* An option takes a text or a number; one that takes texts may come again, and each is put where the last was not. */
struct option {
    const char *name;
    const char **text;
    uint64_t *number;
    bool needed, again, given;
};

static bool parse_number(const char *text, uint64_t *number) {
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 18 || text[digits])
        return false;
    *number = strtoull(text, NULL, 10);
    return true;
}

static bool take_option(struct option *table, const char *name, const char *value) {
    for (struct option *option = table; option->name; option++) {
        if (strcmp(option->name, name) != 0)
            continue;
        option->given = true;
        if (option->number)
            return parse_number(value, option->number);
        *option->text = value;
        option->text += option->again;
        return true;
    }
    return false;
}

static bool parse_options(struct option *table, char **words, struct options *options) {
    while (*words && strcmp(*words, "--") != 0) {
        if (words[1] == NULL || !take_option(table, words[0], words[1]))
            return false;
        words += 2;
    }
    for (const struct option *option = table; option->name; option++)
        if (option->needed && !option->given)
            return false;
    if (*words)
        options->command = words + 1;
    return true;
}

static bool parse_step(char **words, struct options *options) {
    static const char *const INPUTS[] = {"verdict", "none", NULL}, *const OUTPUTS[] = {"stdout", "stderr", "none", NULL};
    size_t count = 0;
    while (words[count])
        count++;
    options->masked = calloc(count + 1, sizeof *options->masked);
    if (options->masked == NULL)
        return false;
    struct option table[] = {
        {"--dir", &options->dir, NULL, false, false, false},
        {"--step", NULL, &options->step, true, false, false},
        {"--attempt", NULL, &options->attempt, true, false, false},
        {"--input", &options->input, NULL, false, false, false},
        {"--output", &options->output, NULL, true, false, false},
        {"--begin", &options->begin, NULL, false, false, false},
        {"--end", &options->end, NULL, false, false, false},
        {"--log-cap", NULL, &options->log_cap, true, false, false},
        {"--data-cap", NULL, &options->data_cap, true, false, false},
        {"--floor", NULL, &options->floor, true, false, false},
        {"--timeout", NULL, &options->timeout, false, false, false},
        {"--grace", NULL, &options->grace, false, false, false},
        {"--retries", NULL, &options->retries, false, false, false},
        {"--stop", &options->stop, NULL, false, false, false},
        {"--mask", options->masked, NULL, false, true, false},
        {NULL, NULL, NULL, false, false, false},
    };
    if (!parse_options(table, words, options) || options->command == NULL || *options->command == NULL)
        return false;
    if (options->begin == NULL || options->end == NULL || !*options->begin || !*options->end)
        options->begin = options->end = NULL;
    return one_of(options->input, INPUTS) && (*options->output == '/' || one_of(options->output, OUTPUTS)) && *options->stop &&
           strchr(options->stop, '/') == NULL;
}

static bool parse_agent(char **words, struct options *options) {
    struct option table[] = {{"--dir", &options->dir, NULL, false, false, false}, {NULL, NULL, NULL, false, false, false}};
    return parse_options(table, words, options) && options->command == NULL;
}

static bool parse_nothing(char **words, struct options *options) {
    (void)options;
    return *words == NULL;
}

static const struct command {
    const char *name;
    bool (*parse)(char **words, struct options *options);
    int (*run)(const struct options *options);
} COMMANDS[] = {{"step", parse_step, step_main}, {"agent", parse_agent, agent_main}, {"sandbox", parse_nothing, sandbox_main}};

int main(int count, char **words) {
    static struct options options = {.dir = "/.dray", .input = "verdict", .stop = "stop", .grace = 10000};
    for (size_t i = 0; count > 1 && i < sizeof COMMANDS / sizeof *COMMANDS; i++)
        if (strcmp(words[1], COMMANDS[i].name) == 0 && COMMANDS[i].parse(words + 2, &options))
            return COMMANDS[i].run(&options);
    fputs(USAGE, stderr);
    return FAILED;
}
