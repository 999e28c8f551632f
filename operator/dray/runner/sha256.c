/*
 * SHA-256 (FIPS 180-4) of a stream of bytes: of outputs as they are written, of inputs that must be proved. For out.c and step.c.
 *
 * Blocks are hashed by the processor's own instructions where an x86-64 has them, which is asked once, else in plain C.
 * With SHA256_PORTABLE defined only the plain C is there: for the test of it on a machine that has the instructions.
 */
#include "runner.h"

#include <endian.h>
#include <string.h>

enum { BLOCK = 64, ROUNDS = 64 };

static const uint32_t K[ROUNDS] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* ---- in plain C */

static uint32_t turn(uint32_t word, int by) {
    return word >> by | word << (32 - by);
}

static uint32_t scheduled(const uint32_t *w, int round) {
    uint32_t before = w[(round - 15) & 15], last = w[(round - 2) & 15];
    uint32_t small0 = turn(before, 7) ^ turn(before, 18) ^ before >> 3, small1 = turn(last, 17) ^ turn(last, 19) ^ last >> 10;
    return w[round & 15] + small0 + w[(round - 7) & 15] + small1;
}

static void hash_plainly(uint32_t state[8], const unsigned char *bytes, size_t count) {
    for (; count > 0; count--, bytes += BLOCK) {
        uint32_t w[16], v[8]; /* v: a to h */
        memcpy(v, state, sizeof v);
        for (int round = 0; round < ROUNDS; round++) {
            if (round < 16) {
                memcpy(&w[round], bytes + 4 * round, 4);
                w[round] = be32toh(w[round]);
            } else {
                w[round & 15] = scheduled(w, round);
            }
            uint32_t big1 = turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25), big0 = turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22);
            uint32_t first = v[7] + big1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[round] + w[round & 15];
            uint32_t second = big0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
            memmove(v + 1, v, 7 * sizeof *v);
            v[4] += first;
            v[0] = first + second;
        }
        for (int i = 0; i < 8; i++)
            state[i] += v[i];
    }
}

/* ---- by the processor */

#if defined(__x86_64__) && !defined(SHA256_PORTABLE)
#include <cpuid.h>
#include <immintrin.h>

static bool has_instructions(void) {
    unsigned a, b, c, d;
    bool sse41 = __get_cpuid(1, &a, &b, &c, &d) && c & bit_SSE4_1;
    return sse41 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_SHA;
}

/* The instructions want the state as ABEF and CDGH, and take four rounds' words at a time. */
__attribute__((target("sha,sse4.1"))) static void hash_by_instructions(uint32_t state[8], const unsigned char *bytes, size_t count) {
    const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
    __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
    __m128i abef = _mm_alignr_epi8(badc, hgfe, 8), cdgh = _mm_blend_epi16(hgfe, badc, 0xf0);
    for (; count > 0; count--, bytes += BLOCK) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)bytes + i), order);
#pragma GCC unroll 16
        for (int i = 0; i < ROUNDS / 4; i++) {
            __m128i words = _mm_add_epi32(w[i & 3], _mm_loadu_si128((const __m128i *)K + i));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, words);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(words, 0x0e));
            __m128i later = _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4);
            later = _mm_add_epi32(_mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]), later);
            w[i & 3] = _mm_sha256msg2_epu32(later, w[(i + 3) & 3]);
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static void hash_blocks(uint32_t state[8], const unsigned char *bytes, size_t count) {
    static int known; /* 1: it has them, -1: it has not */
    if (known == 0)
        known = has_instructions() ? 1 : -1;
    (known > 0 ? hash_by_instructions : hash_plainly)(state, bytes, count);
}
#else
static void hash_blocks(uint32_t state[8], const unsigned char *bytes, size_t count) {
    hash_plainly(state, bytes, count);
}
#endif

/* ---- a stream */

void sha256_start(struct sha256 *hash) {
    static const uint32_t FIRST[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->state, FIRST, sizeof FIRST);
    hash->size = 0;
}

void sha256_add(struct sha256 *hash, const void *added, size_t size) {
    const unsigned char *bytes = added;
    size_t held = hash->size % BLOCK, more = MIN(size, (BLOCK - held) % BLOCK);
    hash->size += size;
    if (more) {
        memcpy(hash->held + held, bytes, more);
        if (held + more < BLOCK)
            return;
        hash_blocks(hash->state, hash->held, 1);
    }
    bytes += more;
    size -= more;
    hash_blocks(hash->state, bytes, size / BLOCK);
    memcpy(hash->held, bytes + size / BLOCK * BLOCK, size % BLOCK);
}

/* The digest in lower-case hexadecimal, of all that was added; the hash is used up. */
void sha256_finish(struct sha256 *hash, char text[SHA256_TEXT]) {
    static const unsigned char END[BLOCK] = {0x80};
    static const char DIGITS[] = "0123456789abcdef";
    uint64_t bits = htobe64(hash->size * 8);
    size_t held = hash->size % BLOCK;
    sha256_add(hash, END, (held < BLOCK - sizeof bits ? BLOCK : 2 * BLOCK) - sizeof bits - held);
    sha256_add(hash, &bits, sizeof bits);
    for (int i = 0; i < 64; i++)
        text[i] = DIGITS[hash->state[i / 8] >> (28 - 4 * (i % 8)) & 15];
    text[64] = 0;
}
