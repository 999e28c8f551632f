/*
 * The output's hash in a thread of its own: hashing takes as long as reading and writing together. For out.c.
 *
 * The thread is there from the first large piece on: a step that writes little never has one. Where none can be had (a
 * limit on the container's processes), it goes without. Pieces are hashed in order, and must stay as they are until
 * then: who gives one says before it takes the memory again which it was, by `hasher_wait`.
 */
#include "runner.h"

#include <stdlib.h>

enum { WORTH_IT = 64 * KIB };

static _Noreturn void *hash_on(void *given) {
    struct hasher *hasher = given;
    pthread_mutex_lock(&hasher->lock);
    for (;;) {
        while (hasher->done == hasher->given)
            pthread_cond_wait(&hasher->come, &hasher->lock);
        struct iovec piece = hasher->pieces[hasher->done % PIECES];
        pthread_mutex_unlock(&hasher->lock);
        sha256_add(&hasher->hash, piece.iov_base, piece.iov_len);
        pthread_mutex_lock(&hasher->lock);
        hasher->done++;
        pthread_cond_signal(&hasher->gone);
    }
}

static bool have_thread(struct hasher *hasher) {
    pthread_t thread;
    if (hasher->threaded || hasher->refused)
        return hasher->threaded;
    hasher->threaded = pthread_create(&thread, NULL, hash_on, hasher) == 0;
    hasher->refused = !hasher->threaded;
    return hasher->threaded;
}

void hasher_start(struct hasher *hasher) {
    sha256_start(&hasher->hash);
    pthread_mutex_init(&hasher->lock, NULL);
    pthread_cond_init(&hasher->come, NULL);
    pthread_cond_init(&hasher->gone, NULL);
}

/* Until the first `count` pieces that were given are hashed. */
void hasher_wait(struct hasher *hasher, uint64_t count) {
    if (!hasher->threaded)
        return;
    pthread_mutex_lock(&hasher->lock);
    while (hasher->done < count)
        pthread_cond_wait(&hasher->gone, &hasher->lock);
    pthread_mutex_unlock(&hasher->lock);
}

/* Hashes the bytes before it returns. */
void hasher_add(struct hasher *hasher, const void *bytes, size_t size) {
    hasher_wait(hasher, hasher->given);
    sha256_add(&hasher->hash, bytes, size);
}

/* Hashes the bytes in its own time. How many pieces were given with it. */
uint64_t hasher_give(struct hasher *hasher, const void *bytes, size_t size) {
    if (size < WORTH_IT || !have_thread(hasher)) {
        hasher_add(hasher, bytes, size);
        return hasher->given;
    }
    hasher_wait(hasher, hasher->given < PIECES ? 0 : hasher->given - PIECES + 1);
    pthread_mutex_lock(&hasher->lock);
    hasher->pieces[hasher->given++ % PIECES] = (struct iovec){(void *)bytes, size};
    pthread_cond_signal(&hasher->come);
    pthread_mutex_unlock(&hasher->lock);
    return hasher->given;
}

void hasher_finish(struct hasher *hasher, char text[SHA256_TEXT]) {
    hasher_wait(hasher, hasher->given);
    sha256_finish(&hasher->hash, text);
}
