/* What the runner's files share. docs/protocol.md says what stands under /.dray and in what order it gets there. */
#ifndef DRAY_RUNNER_H
#define DRAY_RUNNER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { FAILED = 125, CANNOT_EXEC = 126, NOT_FOUND = 127 }; /* the runner's own exit codes */
enum { KIB = 1024, READ_SIZE = 256 * KIB };

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/*
 * The command line. Sizes are in bytes, times in milliseconds. `begin` and `end` are NULL unless both were given and not
 * empty; `masked` are the names of variables, and after the last NULL.
 */
struct options {
    const char *dir, *input, *output, *begin, *end, *stop, **masked;
    uint64_t step, attempt, log_cap, data_cap, floor, timeout, grace, retries;
    bool mirror;
    char **command;
    uint64_t seconds;            /* of the keeper */
    const char *into, *volume;   /* where to install; the volume to open up, or NULL */
    uint64_t files;              /* how many files to lay in it for outputs */
};

#define DEFAULTS {.dir = "/.dray", .input = "verdict", .stop = "stop", .grace = 10000}

bool parse_step(char **words, struct options *options);
int step_main(const struct options *options);
int box_main(const struct options *options);
int sandbox_main(const struct options *options);
int keeper_main(const struct options *options);
int agent_main(const struct options *options);
int install_main(const struct options *options);
int kill_main(const struct options *options);

/* files.c. Whatever can fail returns -1 (or NULL) with errno set, unless it says otherwise. */
enum { NAME_SIZE = 320, NOTE_ROOM = KIB }; /* NOTE_ROOM: no status is longer */

/* A small file in the making, under a name that starts with a dot and that nobody else uses. */
struct note {
    int dir, fd;
    char name[NAME_SIZE];
};

uint64_t now_us(void);
uint64_t now_ms(void);
const char *one_of(const char *word, const char *const *words);
void complain(const char *what);
int write_all(int fd, const void *bytes, size_t size);
int writev_all(int fd, const struct iovec *parts, int count, uint64_t *written);
int open_regular(int dir, const char *name, struct stat *found);
ssize_t pread_all(int fd, void *bytes, size_t size, uint64_t offset);
ssize_t read_small(int dir, const char *name, char *text, size_t size);
int sum_sizes(int dir, const char *ending, const char *except, uint64_t *sum);
int note_make(struct note *note, int dir, const char *name, size_t room);
int note_write(struct note *note, const void *bytes, size_t size, bool synced);
int note_publish(struct note *note, const char *name, bool over);
void note_discard(struct note *note);
void forget_events(int watch);

/* A step fails with one of the words of the status' "error"; NULL is none. errno goes with it. */
typedef const char *fault;
extern const char *const BAD_INPUT, *const BAD_EXEC, *const BAD_WRITE, *const DATA_LIMIT, *const DISK_FLOOR, *const OUTPUT_MISSING;
extern const char *const CANCELLED, *const TIMED_OUT;

/* sha256.c */
enum { SHA256_TEXT = 65 };

struct sha256 {
    uint32_t state[8];
    uint64_t size;
    unsigned char held[64];
};

void sha256_start(struct sha256 *hash);
void sha256_add(struct sha256 *hash, const void *added, size_t size);
void sha256_finish(struct sha256 *hash, char text[SHA256_TEXT]);

/* hasher.c: a hash that is made beside other work. */
enum { PIECES = 4 }; /* given and not yet hashed, at most */

struct hasher {
    struct sha256 hash;
    struct iovec pieces[PIECES];
    uint64_t given, done;
    bool threaded, refused;
    pthread_mutex_t lock;
    pthread_cond_t come, gone;
};

void hasher_start(struct hasher *hasher);
void hasher_wait(struct hasher *hasher, uint64_t count);
void hasher_add(struct hasher *hasher, const void *bytes, size_t size);
uint64_t hasher_give(struct hasher *hasher, const void *bytes, size_t size);
void hasher_finish(struct hasher *hasher, char text[SHA256_TEXT]);

/* A ring of buffers, each of which the hasher may still be reading. */
struct ring {
    char bytes[PIECES][READ_SIZE];
    uint64_t given[PIECES]; /* how many pieces the hasher must have done before this one is free */
    size_t turn;
};

/* out.c: the step's output, N.A.out. */
struct out {
    int fd, dir;
    uint64_t size, room, floor; /* room: how large the file may get */
    struct hasher hasher;       /* of what is in it */
    struct ring ring;           /* where what comes is read to */
};

/* Passes only the lines between the delimiters, which may be cut anywhere by the reads. */
struct filter {
    struct out *out;
    const char *begin, *end;
    size_t begin_size, end_size;
    bool on, passing;     /* passing: in a line already too long to be a delimiter */
    char *held;           /* the start of a line that may yet be one */
    size_t held_size, room;
};

fault out_open(struct out *out, int dir, const char *name, uint64_t data_cap, uint64_t floor);
fault out_write(struct out *out, const char *bytes, size_t size);
char *out_buffer(struct out *out);
fault out_pass(struct out *out, const char *bytes, size_t size);
fault out_copy(struct out *out, const char *path);
void out_clear(const char *path);
fault floor_check(int dir, uint64_t floor);
fault filter_make(struct filter *filter, struct out *out, const char *begin, const char *end);
fault filter_take(struct filter *filter, const char *bytes, size_t size);
fault filter_finish(struct filter *filter);

/* parts.c: files that the agent puts there. */
enum { WRITE_MOST = KIB * KIB }; /* bytes at a time */

int file_make(int dir, const char *name, const char *bytes, size_t size);
int file_drop(int dir, const char *name);
int part_append(int dir, const char *name, const char *bytes, size_t size, uint64_t offset);
int part_finish(int dir, const char *name, uint64_t size);

/* log.c: the step's log, N.A.log. */
enum { MARKER, STDOUT, STDERR };             /* a block's stream */
enum { OPEN = 1 };                           /* a block's flag: its line goes on */
enum { HEADER = 24, LINE_HELD = 64 * KIB, TAIL_RESERVE = 64 * KIB, TAIL_SIZE = TAIL_RESERVE - 512, PIECE = 4 * KIB };

struct stream {
    char held[LINE_HELD]; /* an unfinished line */
    size_t held_size;
    bool open;                 /* the last block written of this stream is OPEN */
    uint64_t kept;             /* bytes in the tail */
    uint64_t left, left_lines; /* bytes and line ends that went out of the tail */
    bool left_line_end;        /* the last of them was a line end */
};

struct log {
    int fd;
    uint64_t size, budget, lines;
    bool capped; /* nothing more is written: what comes goes through the tail */
    bool broken; /* a write failed: nothing is written ever after */
    struct stream streams[2];
    unsigned char tail[2 * TAIL_RESERVE]; /* blocks as they will be written, from `first` to `past` */
    size_t first, past;
    uint64_t left_lines, left_bytes; /* known when finished */
};

fault log_open(struct log *log, int dir, const char *name, uint64_t cap);
fault log_take(struct log *log, int stream, const char *bytes, size_t size);
fault log_finish(struct log *log);

/* mirror.c: the log on the runner's own streams. */
struct mirror {
    int log, to;        /* the log's file, or -1: nothing is shown; the stream of the block at hand */
    uint64_t at, left;  /* in the log; of the block */
    bool gone[3];       /* streams that nobody reads */
};

void mirror_start(struct mirror *mirror, int dir, const char *name);
int mirror_to(struct mirror *mirror, uint64_t size);
void mirror_show(struct mirror *mirror, uint64_t size);
void mirror_finish(struct mirror *mirror, uint64_t size);

/* mask.c: what the log must not show. */
struct secret;

struct mask {
    struct secret *secrets;
    size_t count, longest;
    struct kept {
        char *bytes; /* masked, and not yet given to the log */
        size_t size;
    } kept[2]; /* of each stream */
};

fault mask_make(struct mask *mask, const char *const *variables);
fault mask_take(struct mask *mask, struct log *log, int stream, const char *bytes, size_t size);
fault mask_finish(struct mask *mask, struct log *log);

/* step.c, gate.c and run.c: one attempt of a step. box.c: one after another. */
enum { LOOK_EVERY = 250 }; /* milliseconds: how often `stop` and what a gate waits for are looked at, whatever inotify tells */

struct step {
    const struct options *options;
    int dir, input, signals, watch; /* watch: inotify of what comes and goes in the directory, or -1 */
    mode_t umask;                   /* as they were when the runner was started, for the command */
    sigset_t blocked;
    struct sigaction on_child;
    struct out out;
    struct filter filter;
    struct mask mask;
    struct log log;
    struct mirror mirror;
    uint64_t checked; /* bytes written when the floor was last looked at */
    uint64_t due;     /* when it has timed out, on now_ms' clock; 0: never */
    bool stopped;     /* by the stop file, which settles how it ended */
    fault error;
    int error_number, code, signal, exit;
    uint64_t before; /* the attempt of the step before whose output comes in */
    uint64_t in, started, finished;
};

/* What a wait comes to, if not to an exit code. */
enum { WAIT = -2, GO_ON = -1 };

struct name {
    char text[64];
};

int step_prepare(struct step *step);
int step_run(struct step *step);
bool gated(const struct options *options);
struct name file_before(const struct step *step, const char *kind);
struct name verdict_of(uint64_t step);
void gate_watch(struct step *step);
int gate_wait(struct step *step, int (*look)(struct step *step));
int look_for_verdict(struct step *step);
int look_for_hold(struct step *step);
fault stop_word(const struct step *step);
void step_fault(struct step *step, fault error);
void step_stop(struct step *step, fault word);
void run_command(struct step *step);
#endif
