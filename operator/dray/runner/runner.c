/*
 * dray-runner: runs a job's step behind its gate, keeps a pod, or speaks for a job's volume.
 * Called in containers by the engine; docs/protocol.md says what each command does.
 */
#include "runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: dray-runner step [--dir DIR] --step N --attempt A [--input verdict|none|given] --output stdout|stderr|none|/PATH\n"
    "                        [--begin LINE --end LINE] --log-cap BYTES --data-cap BYTES --floor BYTES [--timeout MS] [--grace MS]\n"
    "                        [--retries K] [--stop NAME] [--mask VARIABLE]... [--mirror] -- COMMAND [ARGUMENT...]\n"
    "       dray-runner box [--dir DIR] --step N [--input verdict|none|given] [--stop NAME]\n"
    "       dray-runner agent [--dir DIR]\n"
    "       dray-runner sandbox\n"
    "       dray-runner keeper --seconds MAX\n"
    "       dray-runner install DIR [--dir VOLUME [--files COUNT]]\n"
    "       dray-runner kill\n";

/* An option takes a text or a number, or is a flag; one that takes texts may come again, and each is put where the last was not. */
struct option {
    const char *name;
    const char **text;
    uint64_t *number;
    bool *flag, needed, again, given;
};

static bool parse_number(const char *text, uint64_t *number) {
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 18 || text[digits])
        return false;
    *number = strtoull(text, NULL, 10);
    return true;
}

/* How many of the words it took: 0 where they are no option. */
static int take_option(struct option *table, char **words) {
    for (struct option *option = table; option->name; option++) {
        if (strcmp(option->name, words[0]) != 0)
            continue;
        option->given = true;
        if (option->flag) {
            *option->flag = true;
            return 1;
        }
        if (words[1] == NULL || (option->number && !parse_number(words[1], option->number)))
            return 0;
        if (option->text)
            *option->text = words[1];
        option->text += option->text && option->again;
        return 2;
    }
    return 0;
}

static bool parse_options(struct option *table, char **words, struct options *options) {
    while (*words && strcmp(*words, "--") != 0) {
        int taken = take_option(table, words);
        if (taken == 0)
            return false;
        words += taken;
    }
    for (const struct option *option = table; option->name; option++)
        if (option->needed && !option->given)
            return false;
    if (*words)
        options->command = words + 1;
    return true;
}

/* What a step and the box that will run it are told alike. */
static bool sensible(const struct options *options) {
    static const char *const INPUTS[] = {"verdict", "none", "given", NULL};
    return one_of(options->input, INPUTS) && (strcmp(options->input, "given") != 0 || options->step == 0) && *options->stop &&
           strchr(options->stop, '/') == NULL;
}

bool parse_step(char **words, struct options *options) {
    static const char *const OUTPUTS[] = {"stdout", "stderr", "none", NULL};
    size_t count = 0;
    while (words[count])
        count++;
    options->masked = calloc(count + 1, sizeof *options->masked);
    if (options->masked == NULL)
        return false;
    struct option table[] = {
        {"--dir", .text = &options->dir},
        {"--step", .number = &options->step, .needed = true},
        {"--attempt", .number = &options->attempt, .needed = true},
        {"--input", .text = &options->input},
        {"--output", .text = &options->output, .needed = true},
        {"--begin", .text = &options->begin},
        {"--end", .text = &options->end},
        {"--log-cap", .number = &options->log_cap, .needed = true},
        {"--data-cap", .number = &options->data_cap, .needed = true},
        {"--floor", .number = &options->floor, .needed = true},
        {"--timeout", .number = &options->timeout},
        {"--grace", .number = &options->grace},
        {"--retries", .number = &options->retries},
        {"--stop", .text = &options->stop},
        {"--mask", .text = options->masked, .again = true},
        {"--mirror", .flag = &options->mirror},
        {NULL},
    };
    if (!parse_options(table, words, options) || options->command == NULL || *options->command == NULL)
        return false;
    if (options->begin == NULL || options->end == NULL || !*options->begin || !*options->end)
        options->begin = options->end = NULL;
    return sensible(options) && (*options->output == '/' || one_of(options->output, OUTPUTS));
}

static bool parse_box(char **words, struct options *options) {
    struct option table[] = {
        {"--dir", .text = &options->dir},
        {"--step", .number = &options->step, .needed = true},
        {"--input", .text = &options->input},
        {"--stop", .text = &options->stop},
        {NULL},
    };
    return parse_options(table, words, options) && options->command == NULL && sensible(options);
}

static bool parse_agent(char **words, struct options *options) {
    struct option table[] = {{"--dir", .text = &options->dir}, {NULL}};
    return parse_options(table, words, options) && options->command == NULL;
}

static bool parse_keeper(char **words, struct options *options) {
    struct option table[] = {{"--seconds", .number = &options->seconds, .needed = true}, {NULL}};
    return parse_options(table, words, options) && options->command == NULL;
}

static bool parse_install(char **words, struct options *options) {
    struct option table[] = {{"--dir", .text = &options->volume}, {"--files", .number = &options->files}, {NULL}};
    options->into = *words;
    return options->into && parse_options(table, words + 1, options) && options->command == NULL && (options->volume || !options->files);
}

static bool parse_nothing(char **words, struct options *options) {
    (void)options;
    return *words == NULL;
}

static const struct command {
    const char *name;
    bool (*parse)(char **words, struct options *options);
    int (*run)(const struct options *options);
} COMMANDS[] = {
    {"step", parse_step, step_main},          {"box", parse_box, box_main},
    {"agent", parse_agent, agent_main},       {"sandbox", parse_nothing, sandbox_main},
    {"keeper", parse_keeper, keeper_main},    {"install", parse_install, install_main},
    {"kill", parse_nothing, kill_main},
};

int main(int count, char **words) {
    static struct options options = DEFAULTS;
    for (size_t i = 0; count > 1 && i < sizeof COMMANDS / sizeof *COMMANDS; i++)
        if (strcmp(words[1], COMMANDS[i].name) == 0 && COMMANDS[i].parse(words + 2, &options))
            return COMMANDS[i].run(&options);
    fputs(USAGE, stderr);
    return FAILED;
}
