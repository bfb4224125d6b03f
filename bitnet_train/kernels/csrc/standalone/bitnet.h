/* A packed 1-bit model in C: load a folder that `bitnet-train export` wrote, continue token ids or text.
 *
 *     bitnet_model* model = bitnet_load("artefact", 0);
 *     if (model == NULL) { fprintf(stderr, "%s\n", bitnet_last_error()); exit(1); }
 *     bitnet_session* session = bitnet_session_new(model, 512, BITNET_CACHE_FLOAT32);
 *     bitnet_generate(session, ids, num_ids, 64, NULL, print_token, NULL);
 *     bitnet_session_free(session);
 *     bitnet_free(model);
 *
 * Ownership: what a function returns belongs to the caller until it is given to its `_free`; texts and arrays that are
 * passed in are read during the call only. Nothing is thrown: a function that fails returns NULL or -1, and
 * `bitnet_last_error` says why, and what to do.
 *
 * Threads: a model may be used from any thread, by several at once; one of them computes at a time. A session belongs
 * to one thread at a time. Results depend neither on the number of threads nor on the machine's, and equal those of
 * `NativeModel` in Python on the same instruction set, bit for bit.
 */
#ifndef BITNET_H
#define BITNET_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define BITNET_API __attribute__((visibility("default")))
#else
#define BITNET_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bitnet_model bitnet_model;     /* weights and tokenizer */
typedef struct bitnet_session bitnet_session; /* one text: the keys and values of what has been read */

typedef struct bitnet_info {
  size_t vocab;          /* tokens; logits are so many floats */
  size_t context;        /* the most tokens of a text, new ones included */
  size_t num_end_tokens; /* tokens that end a text */
  size_t weight_bytes;   /* memory of layers, embedding and head */
  int has_tokenizer;     /* 0: give and take token ids; bitnet_last_error after `bitnet_tokenize` says why */
} bitnet_info;

typedef enum bitnet_cache {
  BITNET_CACHE_FLOAT32 = 0, /* keys and values exactly */
  BITNET_CACHE_INT8 = 1     /* in about a quarter of the memory; logits differ a little */
} bitnet_cache;

typedef struct bitnet_sampling {
  double temperature;        /* 0: the likeliest token */
  size_t top_k;              /* of the likeliest so many; 0: all */
  double top_p;              /* of the fewest whose share reaches this; 1: all */
  double min_p;              /* of those with at least this share of the likeliest one's; 0: all */
  double repetition_penalty; /* above 1: tokens that were there are less likely; 1: none */
  uint64_t seed;             /* the same seed gives the same tokens */
} bitnet_sampling;

/* The likeliest token each time: `bitnet_sampling how = BITNET_GREEDY;`, then change what is to differ. */
#define BITNET_GREEDY {0.0, 0, 1.0, 0.0, 1.0, 0}

/* Called with each new token, one that ends the text included; anything but 0 ends there. It must not throw. */
typedef int (*bitnet_on_token)(int32_t token, void* user);

/* The version of this library, "0.1.0". Never fails. */
BITNET_API const char* bitnet_version(void);

/* Why the last call of this thread that failed did: a sentence in UTF-8, "" before there was one. Valid until the next
 * failure in this thread. */
BITNET_API const char* bitnet_last_error(void);

/* Load the packed folder at `folder` (a path in UTF-8); it must have native.json. `threads` compute, 0: one for every
 * core of this process. NULL when it is damaged, or memory is short. */
BITNET_API bitnet_model* bitnet_load(const char* folder, int threads);

/* Give a model back; its sessions stay valid until they are freed. NULL is allowed. */
BITNET_API void bitnet_free(bitnet_model* model);

/* What a model is. Never fails. */
BITNET_API bitnet_info bitnet_model_info(const bitnet_model* model);

/* A text that has read nothing, of at most `max_tokens` tokens (0: the model's context). Memory is taken as it grows.
 * NULL when `cache` is none of the enum or does not fit the model. */
BITNET_API bitnet_session* bitnet_session_new(bitnet_model* model, size_t max_tokens, bitnet_cache cache);

/* Give a session back. NULL is allowed. */
BITNET_API void bitnet_session_free(bitnet_session* session);

/* The token ids of a text in UTF-8 (NUL-terminated), with what the model expects before and after it. At most
 * `capacity` ids are written to `ids`; returns how many there are, which may be more: call again with as much room.
 * -1 without a tokenizer that this library reads exactly. */
BITNET_API int64_t bitnet_tokenize(const bitnet_model* model, const char* text, int32_t* ids, size_t capacity);

/* The bytes of one token, as `bitnet_tokenize` counts them: at most `capacity` are written to `bytes`, without a NUL.
 * 0 for a special token; a character may take several tokens, so bytes of one need not be whole UTF-8. -1 for an id
 * that is not in the vocabulary, or without a tokenizer. */
BITNET_API int64_t bitnet_piece(const bitnet_model* model, int32_t token, char* bytes, size_t capacity);

/* Read `count` tokens and write the logits after the last of them, float[vocab], where `logits` is not NULL. 0, or -1
 * when a token is not in the vocabulary or the session has no room; it has then read nothing. */
BITNET_API int bitnet_eval(bitnet_session* session, const int32_t* ids, size_t count, float* logits);

/* Read `count` tokens (at least 1) and continue with at most `max_new` new ones, until one of them ends the text or
 * `on_token` says so. `sampling` NULL is greedy; `on_token` may be NULL. Returns the number of new tokens, or -1. The
 * session has read all but the last of them: give that one first when the text goes on. */
BITNET_API int64_t bitnet_generate(bitnet_session* session, const int32_t* ids, size_t count, size_t max_new,
                                   const bitnet_sampling* sampling, bitnet_on_token on_token, void* user);

#ifdef __cplusplus
}
#endif
#endif
