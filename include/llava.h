/*
 * llava: answers questions about images with LLaVA models in GGUF files.
 *
 *     llava_model *model = NULL;
 *     llava_image *image = NULL;
 *     llava_answer *answer = NULL;
 *     if (llava_model_open("models/llava-v1.5-7b", NULL, &model) == LLAVA_STATUS_OK &&
 *         llava_image_open("cat.jpg", &image) == LLAVA_STATUS_OK &&
 *         llava_model_describe(model, image, &answer) == LLAVA_STATUS_OK)
 *         puts(answer->text);
 *     else
 *         fprintf(stderr, "%s\n", llava_error_message());
 *     llava_answer_free(answer);
 *     llava_image_free(image);
 *     llava_model_free(model);
 *
 * LINKING. `cargo xtask install --prefix DIR` lays out this header, libllava.so and libllava.a, llava.pc
 * (`cc main.c $(pkg-config --cflags --libs llava)`) and a CMake package (`find_package(llava)`, `llava::llava` or
 * `llava::static`). The library needs no C++ and no Rust.
 *
 * ERRORS. What can fail returns a llava_status: 0, or a negative number that will never mean anything else.
 * llava_error_message() then has a sentence for the person at the keyboard, for this thread. Results come through the last
 * parameters, and nothing is written to them by a call that fails; a session that failed to answer is as it was before. No
 * call ends the process, throws, or unwinds.
 *
 * HANDLES. llava_model, llava_image, llava_embedding, llava_session and llava_batch are opaque: names, not addresses. Each
 * is freed once, in any order: what needs another keeps it alive. A handle that is NULL, was freed, or is of another type is
 * noticed: LLAVA_STATUS_INVALID_HANDLE. Freeing such a one does nothing. One that is forgotten is memory lost until the process ends.
 *
 * POINTERS. NULL is noticed wherever it may not be. Any other pointer must point to what the parameter's text says, for as
 * long as the call lasts; nothing is kept that was passed in, except for callbacks and their user_data. What comes out is the
 * library's, read-only, and valid as long as the text says.
 *
 * TEXTS are UTF-8. Paths and names end in NUL; texts that may hold a NUL come with their size in bytes, which may be
 * LLAVA_NUL_TERMINATED.
 *
 * OPTIONS are structs that begin with their size. NULL is the defaults, and so is a field of 0; NAME_init(&options, sizeof
 * options) sets the size and spells the defaults out. Newer versions add fields at the end, so a program built with an older
 * header goes on working.
 *
 * THREADS. Models, images, embeddings and answers never change: any number of threads may use one at once. A session or a
 * batch does one thing at a time; a call that finds it busy says LLAVA_STATUS_BUSY and does nothing. The cancel and free
 * functions may be called at any time, from any thread. A model has threads of its own, which do not outlive a fork(): load
 * it after.
 *
 * CALLBACKS take their user_data last, and are called on the thread that made the call, never two at once for one call.
 * They must return: no longjmp, no exception.
 */

#ifndef LLAVA_H
#define LLAVA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LLAVA_VERSION_MAJOR 0
#define LLAVA_VERSION_MINOR 1
#define LLAVA_VERSION_PATCH 0

/* As the size of a text: it ends at its first NUL. */
#define LLAVA_NUL_TERMINATED SIZE_MAX

/* Define LLAVA_STATIC to link libllava.a on Windows. */
#if defined(_WIN32) && !defined(LLAVA_STATIC)
#define LLAVA_API __declspec(dllimport)
#else
#define LLAVA_API
#endif

/**
 * Version of the binary interface. A program built with one works with every library that has the same.
 */
#define LLAVA_ABI_VERSION 1

/**
 * What every function that can fail returns: 0, or what went wrong. Numbers are never given a second meaning; a newer
 * library may return some that are not listed here.
 */
enum llava_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It worked.
     */
    LLAVA_STATUS_OK = 0,
    /**
     * An argument is out of its range: NULL where something is needed, text that is no UTF-8, an unknown number.
     */
    LLAVA_STATUS_INVALID_ARGUMENT = -1,
    /**
     * A handle is NULL, was freed, or is of another type.
     */
    LLAVA_STATUS_INVALID_HANDLE = -2,
    /**
     * A file could not be opened, read or written.
     */
    LLAVA_STATUS_IO = -10,
    /**
     * A GGUF file breaks the format, or its contents contradict each other.
     */
    LLAVA_STATUS_INVALID_MODEL = -11,
    /**
     * A GGUF file is sound, but uses something that is not implemented.
     */
    LLAVA_STATUS_UNSUPPORTED = -12,
    /**
     * The language model and the mmproj do not belong together.
     */
    LLAVA_STATUS_PAIR_MISMATCH = -13,
    /**
     * No model was named, none is where one was named, or the model has no vision tower.
     */
    LLAVA_STATUS_MODEL_NOT_FOUND = -14,
    /**
     * An image cannot be decoded or is over a limit.
     */
    LLAVA_STATUS_INVALID_IMAGE = -15,
    /**
     * A chat template does not compile, fails, or loses an image.
     */
    LLAVA_STATUS_TEMPLATE = -16,
    /**
     * A model could not be had from the Hugging Face Hub.
     */
    LLAVA_STATUS_DOWNLOAD = -17,
    /**
     * The prompt does not fit into the context.
     */
    LLAVA_STATUS_CONTEXT_FULL = -20,
    /**
     * More memory would be needed than there is or than is allowed.
     */
    LLAVA_STATUS_OUT_OF_MEMORY = -21,
    /**
     * It was cancelled.
     */
    LLAVA_STATUS_CANCELLED = -22,
    /**
     * The handle is in use: by a call on another thread, by the call whose callback this is, or by a batch.
     */
    LLAVA_STATUS_BUSY = -30,
    /**
     * An earlier call on this handle ended in LLAVA_STATUS_PANIC. It can only be freed.
     */
    LLAVA_STATUS_POISONED = -31,
    /**
     * A defect of the library. Please report it with llava_error_message().
     */
    LLAVA_STATUS_PANIC = -32,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum llava_status llava_status;
#else
typedef int32_t llava_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why an answer ended.
 */
enum llava_finish_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * There is no answer: see `status`.
     */
    LLAVA_FINISH_REASON_NONE = 0,
    /**
     * The model or a stop text ended it.
     */
    LLAVA_FINISH_REASON_STOP = 1,
    /**
     * `max_tokens` was reached.
     */
    LLAVA_FINISH_REASON_LENGTH = 2,
    /**
     * The context is full.
     */
    LLAVA_FINISH_REASON_CONTEXT = 3,
    /**
     * It was cancelled, or the text callback returned false.
     */
    LLAVA_FINISH_REASON_CANCELLED = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum llava_finish_reason llava_finish_reason;
#else
typedef int32_t llava_finish_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How keys and values of past positions are kept.
 */
enum llava_kv_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Half precision, or single with `exact`.
     */
    LLAVA_KV_TYPE_DEFAULT = 0,
    /**
     * Half precision.
     */
    LLAVA_KV_TYPE_F16 = 1,
    /**
     * Single precision.
     */
    LLAVA_KV_TYPE_F32 = 2,
    /**
     * Blocks of 32 8-bit numbers with a scale.
     */
    LLAVA_KV_TYPE_Q8_0 = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum llava_kv_type llava_kv_type;
#else
typedef int32_t llava_kv_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much is logged: a level and all above it.
 */
enum llava_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing.
     */
    LLAVA_LOG_LEVEL_OFF = 0,
    /**
     * What failed though no call did.
     */
    LLAVA_LOG_LEVEL_ERROR = 1,
    /**
     * Files that had to be guessed at.
     */
    LLAVA_LOG_LEVEL_WARN = 2,
    /**
     * Nothing so far.
     */
    LLAVA_LOG_LEVEL_INFO = 3,
    /**
     * What was chosen.
     */
    LLAVA_LOG_LEVEL_DEBUG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum llava_log_level llava_log_level;
#else
typedef int32_t llava_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The order of the bytes of one pixel. Alpha is straight, not premultiplied.
 */
enum llava_pixel_format
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Red, green, blue.
     */
    LLAVA_PIXEL_FORMAT_RGB = 1,
    /**
     * Blue, green, red, as OpenCV stores it.
     */
    LLAVA_PIXEL_FORMAT_BGR = 2,
    /**
     * Red, green, blue, alpha.
     */
    LLAVA_PIXEL_FORMAT_RGBA = 3,
    /**
     * Blue, green, red, alpha.
     */
    LLAVA_PIXEL_FORMAT_BGRA = 4,
    /**
     * Luminance alone.
     */
    LLAVA_PIXEL_FORMAT_GRAY = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum llava_pixel_format llava_pixel_format;
#else
typedef int32_t llava_pixel_format;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a progress callback hears of.
 */
enum llava_stage
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Opening a model. A step is one of its parts.
     */
    LLAVA_STAGE_LOAD = 1,
    /**
     * The vision tower. A step is one layer on one image.
     */
    LLAVA_STAGE_ENCODE = 2,
    /**
     * A prompt through the language model. A step is one layer on up to 512 positions.
     */
    LLAVA_STAGE_PREFILL = 3,
    /**
     * Files from the Hugging Face Hub. A step is one byte.
     */
    LLAVA_STAGE_DOWNLOAD = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum llava_stage llava_stage;
#else
typedef int32_t llava_stage;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Questions that are answered together: the weights are read once for all of them, and each gets exactly the answer that it
 * would get alone. One call at a time may use it, as with sessions; llava_batch_cancel() and llava_batch_free() may be called
 * at any time.
 */
typedef struct llava_batch llava_batch;

/**
 * An image as the language model sees it: image tokens, rows of float. Never changes: any number of threads and sessions
 * may use it at once.
 */
typedef struct llava_embedding llava_embedding;

/**
 * A decoded picture. Never changes: any number of threads and sessions may use it at once.
 */
typedef struct llava_image llava_image;

/**
 * A loaded LLaVA. Never changes: any number of threads may use it at once, and take turns at its threads. Sessions and
 * batches keep what they need of it, so it may be freed before them.
 */
typedef struct llava_model llava_model;

/**
 * A conversation: its history, what was computed of it, and how answers are made. One call at a time may use it, from
 * any thread; a second one returns LLAVA_STATUS_BUSY. llava_session_cancel() and llava_session_free() may be called at any time.
 */
typedef struct llava_session llava_session;

/**
 * Receives a line of the log: a llava_log_level and `size` bytes of UTF-8, not NUL-terminated, valid during the call. Called on
 * whichever thread has something to say, one at a time. It may call nothing of the library.
 */
typedef void (*llava_log_callback)(int32_t level, const char *text, size_t size, void *user_data);

/**
 * Hears how far something is: `done` of `total` steps of a stage (llava_stage), first with 0 done, then after each step.
 * Returns true to go on and false to cancel. Called on the thread that called the library; the model waits for it, and
 * the cancel functions are all it may call: others return LLAVA_STATUS_BUSY.
 */
typedef bool (*llava_progress_callback)(int32_t stage, size_t done, size_t total, void *user_data);

/**
 * How a model is opened. Fields that are 0 or NULL have the default.
 */
typedef struct llava_model_options {
    /**
     * sizeof(llava_model_options).
     */
    size_t struct_size;
    /**
     * Path of the mmproj; NULL takes the one beside the language model. Not for models from memory.
     */
    const char *mmproj;
    /**
     * Threads to compute with; 0 is as many as the process may use, and more are never taken.
     */
    size_t threads;
    /**
     * Positions that a conversation may take; 0 is what the model was trained with.
     */
    size_t context;
    /**
     * A llava_kv_type.
     */
    int32_t kv_type;
    /**
     * 1 computes in single precision throughout: slow, for comparison.
     */
    int32_t exact;
    /**
     * A conversation style by name ("vicuna_v1"); NULL takes the model's own.
     */
    const char *template_name;
    /**
     * Kernels by name ("scalar", "avx2", "avx512"); NULL takes the best of this machine.
     */
    const char *kernels;
    /**
     * Hears how far the loading is; NULL for nobody.
     */
    llava_progress_callback on_progress;
    /**
     * Handed to `on_progress`.
     */
    void *progress_data;
} llava_model_options;

/**
 * What a model is. Texts are NUL-terminated and valid until the model is freed.
 */
typedef struct llava_model_info {
    /**
     * Bytes of this struct that were written.
     */
    size_t struct_size;
    /**
     * The language model's file, "<memory>" for a model from memory.
     */
    const char *name;
    /**
     * The mmproj's file; NULL if there is none: the model takes no images.
     */
    const char *mmproj;
    /**
     * The conversation style in use.
     */
    const char *template_name;
    /**
     * Why it was chosen.
     */
    const char *template_reason;
    /**
     * The kernels in use, like "avx512".
     */
    const char *kernels;
    /**
     * Threads that compute.
     */
    size_t threads;
    /**
     * Positions that a conversation may take.
     */
    size_t context;
    /**
     * Positions that the model was trained with.
     */
    size_t trained_context;
    /**
     * Number of tokens in the vocabulary.
     */
    size_t vocab_size;
    /**
     * Width of the language model, and of image tokens.
     */
    size_t d_model;
    /**
     * Layers of the language model.
     */
    size_t n_layer;
    /**
     * Bytes that the KV cache takes for `context` positions.
     */
    uint64_t kv_bytes;
    /**
     * Side of the vision tower's input in pixels; 0 without one.
     */
    size_t image_size;
    /**
     * Side of a patch in pixels; 0 without a vision tower.
     */
    size_t patch_size;
} llava_model_info;

/**
 * A token and its natural log-probability under the model, before temperature and the like.
 */
typedef struct llava_token_logprob {
    /**
     * The token.
     */
    uint32_t id;
    /**
     * Its log-probability.
     */
    float logprob;
} llava_token_logprob;

/**
 * An answer. The library allocates it and llava_answer_free() frees it; all of it is read-only, and any number of threads
 * may read it. Newer libraries add fields at the end.
 */
typedef struct llava_answer {
    /**
     * Bytes of this struct in the library that made it.
     */
    size_t struct_size;
    /**
     * LLAVA_STATUS_OK, or in a batch why there is no answer.
     */
    int32_t status;
    /**
     * A llava_finish_reason.
     */
    int32_t finish_reason;
    /**
     * What went wrong, or "".
     */
    const char *error;
    /**
     * The text in UTF-8, without stop texts. A NUL follows it.
     */
    const char *text;
    /**
     * Bytes of the text, without that NUL.
     */
    size_t text_size;
    /**
     * The generated tokens, without the one that ended the answer.
     */
    const uint32_t *token_ids;
    /**
     * Number of generated tokens.
     */
    size_t n_tokens;
    /**
     * The tokens' log-probabilities, `n_tokens`; NULL unless asked for.
     */
    const struct llava_token_logprob *logprobs;
    /**
     * The most likely tokens at each place, most likely first: `n_tokens` rows of `n_top`; NULL unless asked for.
     */
    const struct llava_token_logprob *top_logprobs;
    /**
     * Entries in a row of `top_logprobs`.
     */
    size_t n_top;
    /**
     * Positions of the whole prompt, image tokens included.
     */
    size_t prompt_tokens;
    /**
     * How many of those are image tokens.
     */
    size_t image_tokens;
    /**
     * Milliseconds for resizing and normalising images.
     */
    double preprocess_ms;
    /**
     * Milliseconds in the vision tower and projector.
     */
    double encode_ms;
    /**
     * Milliseconds for the prompt in the language model.
     */
    double prefill_ms;
    /**
     * Milliseconds from the call to the first token.
     */
    double first_token_ms;
    /**
     * Milliseconds of the whole turn.
     */
    double total_ms;
} llava_answer;

/**
 * One piece of a prompt that is given as tokens: an image, or if that is NULL a token.
 */
typedef struct llava_input {
    /**
     * An encoded image, or NULL.
     */
    const struct llava_embedding *image;
    /**
     * The token.
     */
    uint32_t token;
} llava_input;

/**
 * What is added to the logit of a token before anything else; minus infinity forbids it.
 */
typedef struct llava_logit_bias {
    /**
     * The token.
     */
    uint32_t token;
    /**
     * What is added.
     */
    float bias;
} llava_logit_bias;

/**
 * A text with its size.
 */
typedef struct llava_text {
    /**
     * UTF-8.
     */
    const char *data;
    /**
     * Its bytes, or LLAVA_NUL_TERMINATED.
     */
    size_t size;
} llava_text;

/**
 * How answers are made. Fields that are 0 or NULL have the default: greedy, the same question has the same answer.
 * Probabilities are shaped in the order of the fields.
 */
typedef struct llava_generation_options {
    /**
     * sizeof(llava_generation_options).
     */
    size_t struct_size;
    /**
     * Tokens in the answer at most; 0 is 512.
     */
    size_t max_tokens;
    /**
     * Makes tokens of the answer so far less likely: above 1 discourages, 1 and 0 do nothing.
     */
    float repeat_penalty;
    /**
     * Divides the logits; 0 always takes the most likely token.
     */
    float temperature;
    /**
     * Draw from this many of the most likely tokens; 0 is all of them.
     */
    size_t top_k;
    /**
     * Draw from the fewest most likely tokens whose probabilities sum to this; 1 and 0 are all of them.
     */
    float top_p;
    /**
     * Draw only from tokens at least this likely relative to the most likely one; 0 is all of them.
     */
    float min_p;
    /**
     * Seed of the draws, if `has_seed` is 1.
     */
    uint64_t seed;
    /**
     * 1 for the draws of `seed`, 0 for different ones every time.
     */
    int32_t has_seed;
    /**
     * 1 to have the tokens' log-probabilities in the answer.
     */
    int32_t logprobs;
    /**
     * With `logprobs`: of this many most likely tokens at each place too.
     */
    size_t top_logprobs;
    /**
     * Changes to logits.
     */
    const struct llava_logit_bias *logit_bias;
    /**
     * Number of them.
     */
    size_t n_logit_bias;
    /**
     * Texts that end the answer and are not part of it, besides the template's own.
     */
    const struct llava_text *stop;
    /**
     * Number of them.
     */
    size_t n_stop;
    /**
     * Tokens that end the answer, besides the model's own.
     */
    const uint32_t *stop_tokens;
    /**
     * Number of them.
     */
    size_t n_stop_tokens;
} llava_generation_options;

/**
 * Receives a piece of an answer: `size` bytes of whole UTF-8 characters, not NUL-terminated, valid during the call. Returns
 * true to go on and false to end the answer here. Called on the thread that asks; it may use the library, except for the
 * session or batch that calls it, of which it may call the cancel function only.
 */
typedef bool (*llava_text_callback)(const char *text, size_t size, void *user_data);

/**
 * The likelihood of a choice as an answer.
 */
typedef struct llava_score {
    /**
     * Sum of its tokens' natural log-probabilities.
     */
    float logprob;
    /**
     * Number of its tokens; divide by it to compare choices of different lengths.
     */
    uint32_t tokens;
} llava_score;

/**
 * Where a field of a struct lies, for bindings that declare the structs anew. The field "" is the whole struct.
 */
typedef struct llava_field {
    /**
     * Name of the struct.
     */
    const char *structure;
    /**
     * Name of the field.
     */
    const char *field;
    /**
     * Bytes in front of it.
     */
    size_t offset;
    /**
     * Its bytes.
     */
    size_t size;
} llava_field;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The library's LLAVA_ABI_VERSION. Compare it with the header's if the library was loaded by hand.
 */
LLAVA_API uint32_t llava_abi_version(void);

/**
 * The library's version, like "0.1.0".
 */
LLAVA_API const char *llava_version(void);

/**
 * What went wrong in the last call on this thread that failed: a sentence that names the file or argument, what was found
 * and what was expected. "" if none has failed. Valid until a call on this thread fails again or the thread ends.
 */
LLAVA_API
const char *llava_error_message(void);

/**
 * The name of a status, like "LLAVA_STATUS_INVALID_IMAGE"; "LLAVA_STATUS_UNKNOWN" for other numbers. Static.
 */
LLAVA_API const char *llava_status_name(int32_t status);

/**
 * Has `callback` receive the log up to `level`, a llava_log_level, of all of the process; NULL for nobody, which is how it
 * begins. When it returns, the callback of before is not running any more.
 */
LLAVA_API
llava_status llava_set_log(int32_t level,
                           llava_log_callback callback,
                           void *user_data);

/**
 * Writes the defaults to `options`, a struct of `size` bytes: pass its sizeof.
 */
LLAVA_API llava_status llava_model_options_init(struct llava_model_options *options, size_t size);

/**
 * Opens a model: `path` is the language model's GGUF file (of a split model the first part) with the mmproj beside it, or
 * a folder that holds one pair; NULL takes what the environment variable LLAVA_MODEL names. "hf:OWNER/REPO", with ":FILE" or
 * ":TYPE" (as ":Q4_K_M") after it or not, is a model of the Hugging Face Hub: it is downloaded into the cache of Hugging Face's
 * own tools, unless it is there.
 *
 * The files are mapped: they must not be changed or cut short while the model is in use, or the system ends the process.
 */
LLAVA_API
llava_status llava_model_open(const char *path,
                              const struct llava_model_options *options,
                              struct llava_model **model);

/**
 * A model from the contents of its files, which are copied; `mmproj` may be NULL for a model that takes no images.
 */
LLAVA_API
llava_status llava_model_open_memory(const void *lm,
                                     size_t lm_size,
                                     const void *mmproj,
                                     size_t mmproj_size,
                                     const struct llava_model_options *options,
                                     struct llava_model **model);

/**
 * Ends the handle, and with it what llava_model_get_info() gave. Memory goes when the last session and batch have gone too.
 * NULL and handles that were freed already are ignored.
 */
LLAVA_API
void llava_model_free(struct llava_model *model);

/**
 * Writes what the model is to `info`, a struct of `size` bytes: pass its sizeof.
 */
LLAVA_API
llava_status llava_model_get_info(const struct llava_model *model,
                                  struct llava_model_info *info,
                                  size_t size);

/**
 * Image tokens that a picture of `width` times `height` pixels takes.
 */
LLAVA_API
llava_status llava_model_image_tokens(const struct llava_model *model,
                                      uint32_t width,
                                      uint32_t height,
                                      size_t *tokens);

/**
 * Describes an image: "Describe the image.", answered greedily. Everything else is in llava_session_ask().
 */
LLAVA_API
llava_status llava_model_describe(const struct llava_model *model,
                                  const struct llava_image *image,
                                  struct llava_answer **answer);

/**
 * Encodes an image once, for use in any number of sessions: the vision tower and the projector. `on_progress`, which may be
 * NULL, hears how far it is and can cancel it.
 */
LLAVA_API
llava_status llava_model_encode(const struct llava_model *model,
                                const struct llava_image *image,
                                llava_progress_callback on_progress,
                                void *user_data,
                                struct llava_embedding **embedding);

/**
 * The tokens of a text of `size` bytes. `special` is 1 to let the texts of control tokens ("</s>") stand for those tokens
 * and to begin with the token that begins prompts. Their number is written to `n_ids`; they themselves to `ids` if its
 * `capacity` is enough. NULL and 0 ask for the number alone.
 */
LLAVA_API
llava_status llava_model_tokenize(const struct llava_model *model,
                                  const char *text,
                                  size_t size,
                                  int32_t special,
                                  uint32_t *ids,
                                  size_t capacity,
                                  size_t *n_ids);

/**
 * The text of `n_ids` tokens: control tokens give nothing. Its bytes are written to `size`; the text itself to `text` if
 * its `capacity` is enough, without a NUL. NULL and 0 ask for the size alone.
 */
LLAVA_API
llava_status llava_model_detokenize(const struct llava_model *model,
                                    const uint32_t *ids,
                                    size_t n_ids,
                                    char *text,
                                    size_t capacity,
                                    size_t *size);

/**
 * The logits after each of the last `n` positions of a prompt given as tokens and images: `n` rows of `vocab_size` floats.
 * `capacity` is the number of floats at `logits`. `on_progress`, which may be NULL, hears how far it is and can cancel it.
 */
LLAVA_API
llava_status llava_model_logits(const struct llava_model *model,
                                const struct llava_input *inputs,
                                size_t n_inputs,
                                size_t n,
                                llava_progress_callback on_progress,
                                void *user_data,
                                float *logits,
                                size_t capacity);

/**
 * Continues a prompt given as tokens and images, without a template. `options` may be NULL. `on_text` receives the answer as
 * it is made, `on_progress` hears how far the prompt is; either may be NULL, and both get `user_data`.
 */
LLAVA_API
llava_status llava_model_generate(const struct llava_model *model,
                                  const struct llava_input *inputs,
                                  size_t n_inputs,
                                  const struct llava_generation_options *options,
                                  llava_text_callback on_text,
                                  llava_progress_callback on_progress,
                                  void *user_data,
                                  struct llava_answer **answer);

/**
 * Reads and decodes a JPEG, PNG, WebP, BMP or GIF, told apart by content. EXIF orientation is applied.
 */
LLAVA_API llava_status llava_image_open(const char *path, struct llava_image **image);

/**
 * Decodes `size` bytes of an encoded image, as llava_image_open() does a file's. The bytes are not needed afterwards.
 */
LLAVA_API llava_status llava_image_decode(const void *data, size_t size, struct llava_image **image);

/**
 * Copies raw pixels: `height` rows of `width` pixels of a llava_pixel_format, each row beginning `stride` bytes after the
 * one before. `size` is the number of bytes at `pixels`; the last row may end at its last pixel.
 */
LLAVA_API
llava_status llava_image_from_pixels(const void *pixels,
                                     size_t size,
                                     uint32_t width,
                                     uint32_t height,
                                     size_t stride,
                                     int32_t format,
                                     struct llava_image **image);

/**
 * The picture's size in pixels, after EXIF orientation.
 */
LLAVA_API llava_status llava_image_size(const struct llava_image *image, uint32_t *width, uint32_t *height);

/**
 * Ends the handle. NULL and handles that were freed already are ignored.
 */
LLAVA_API void llava_image_free(struct llava_image *image);

/**
 * An embedding from its values, `tokens` rows of `width`, row by row. They are copied.
 */
LLAVA_API
llava_status llava_embedding_new(const float *values,
                                 size_t tokens,
                                 size_t width,
                                 struct llava_embedding **embedding);

/**
 * Reads a NumPy file of float32 `[tokens, width]`, as llava_embedding_save() writes it.
 */
LLAVA_API llava_status llava_embedding_load(const char *path, struct llava_embedding **embedding);

/**
 * Writes a NumPy file of float32 `[tokens, width]`. A file of that name is replaced when all is written.
 */
LLAVA_API llava_status llava_embedding_save(const struct llava_embedding *embedding, const char *path);

/**
 * The values, `tokens` rows of `width`, row by row. They are the library's, and valid until the embedding is freed.
 */
LLAVA_API
llava_status llava_embedding_values(const struct llava_embedding *embedding,
                                    const float **values,
                                    size_t *tokens,
                                    size_t *width);

/**
 * Ends the handle, and with it what llava_embedding_values() gave. Sessions that it was attached to keep what they need.
 * NULL and handles that were freed already are ignored.
 */
LLAVA_API
void llava_embedding_free(struct llava_embedding *embedding);

/**
 * Writes the defaults, spelled out, to `options`, a struct of `size` bytes: pass its sizeof.
 */
LLAVA_API llava_status llava_generation_options_init(struct llava_generation_options *options, size_t size);

/**
 * A new conversation. `options` may be NULL.
 */
LLAVA_API
llava_status llava_session_new(const struct llava_model *model,
                               const struct llava_generation_options *options,
                               struct llava_session **session);

/**
 * Ends the handle. A call that is running on it goes on to its end. NULL and handles that were freed already are ignored.
 */
LLAVA_API
void llava_session_free(struct llava_session *session);

/**
 * How answers are made from now on; NULL for the defaults.
 */
LLAVA_API
llava_status llava_session_set_generation(struct llava_session *session,
                                          const struct llava_generation_options *options);

/**
 * The instruction in front of the conversation, a text of `size` bytes, instead of the template's own. Only before the first
 * question.
 */
LLAVA_API
llava_status llava_session_set_system(struct llava_session *session,
                                      const char *text,
                                      size_t size);

/**
 * A conversation style by name ("vicuna_v1"), instead of the model's.
 */
LLAVA_API llava_status llava_session_set_template(struct llava_session *session, const char *name);

/**
 * From now on `on_progress` hears how far the encoding of images and the running of prompts are, and can cancel them; NULL
 * for nobody.
 */
LLAVA_API
llava_status llava_session_set_progress(struct llava_session *session,
                                        llava_progress_callback on_progress,
                                        void *user_data);

/**
 * Cancels what the session is doing, from any thread or callback, within one layer of the network; without anything to
 * cancel it does nothing. Before the first word of an answer the call that was cancelled returns LLAVA_STATUS_CANCELLED;
 * later it returns what there is, with LLAVA_FINISH_REASON_CANCELLED.
 */
LLAVA_API
void llava_session_cancel(const struct llava_session *session);

/**
 * Forgets the conversation.
 */
LLAVA_API llava_status llava_session_reset(struct llava_session *session);

/**
 * A second session with the same past, whose memory is shared; what follows is each one's own. The progress callback is not
 * taken over.
 */
LLAVA_API
llava_status llava_session_fork(const struct llava_session *session,
                                struct llava_session **fork);

/**
 * Adds an encoded image to the next question.
 */
LLAVA_API llava_status llava_session_attach(struct llava_session *session, const struct llava_embedding *embedding);

/**
 * Takes back the images that were attached to the next question.
 */
LLAVA_API llava_status llava_session_detach(struct llava_session *session);

/**
 * Encodes `n_images` images, adds them to the next question, and runs the prompt up to their last token, so that forks
 * start from there.
 */
LLAVA_API
llava_status llava_session_prefill(struct llava_session *session,
                                   const struct llava_image *const *images,
                                   size_t n_images);

/**
 * Asks a question of `size` bytes about `n_images` images and those attached; both become part of the conversation.
 * `on_text`, which may be NULL, receives the answer as it is made. A call that fails leaves the conversation as it was.
 */
LLAVA_API
llava_status llava_session_ask(struct llava_session *session,
                               const char *text,
                               size_t size,
                               const struct llava_image *const *images,
                               size_t n_images,
                               llava_text_callback on_text,
                               void *user_data,
                               struct llava_answer **answer);

/**
 * The log-likelihood of each of `n_choices` texts as the answer to a question, written to `scores`, `n_choices` of them. The
 * conversation is left as it was.
 */
LLAVA_API
llava_status llava_session_score(struct llava_session *session,
                                 const char *text,
                                 size_t size,
                                 const struct llava_image *const *images,
                                 size_t n_images,
                                 const struct llava_text *choices,
                                 size_t n_choices,
                                 struct llava_score *scores);

/**
 * Positions of the context that are computed and kept.
 */
LLAVA_API llava_status llava_session_position(const struct llava_session *session, size_t *position);

/**
 * Frees an answer. NULL and answers that were freed already are ignored.
 */
LLAVA_API void llava_answer_free(struct llava_answer *answer);

/**
 * An empty batch for sessions of `model`.
 */
LLAVA_API llava_status llava_batch_new(const struct llava_model *model, struct llava_batch **batch);

/**
 * Ends the handle. If it has not run, its sessions can be used again, the questions forgotten unless they were answered. NULL
 * and handles that were freed already are ignored.
 */
LLAVA_API
void llava_batch_free(struct llava_batch *batch);

/**
 * From now on `on_progress` hears how far the images and prompts of llava_batch_push() are, and can cancel the batch; NULL for
 * nobody.
 */
LLAVA_API
llava_status llava_batch_set_progress(struct llava_batch *batch,
                                      llava_progress_callback on_progress,
                                      void *user_data);

/**
 * Adds a question, as in llava_session_ask(). Its images are encoded and its prompt is run now; what goes wrong with those is
 * in the answer that llava_batch_run() gives in its place. The session belongs to the batch until that has run.
 */
LLAVA_API
llava_status llava_batch_push(struct llava_batch *batch,
                              struct llava_session *session,
                              const char *text,
                              size_t size,
                              const struct llava_image *const *images,
                              size_t n_images);

/**
 * Cancels the whole batch, from any thread or callback: answers end with what there is.
 */
LLAVA_API void llava_batch_cancel(const struct llava_batch *batch);

/**
 * Generates all answers, and writes them to `answers` in the order in which they were added; `n` must be their number. Each
 * has a status of its own, and is freed with llava_answer_free(). The sessions can be used again; the batch cannot.
 */
LLAVA_API
llava_status llava_batch_run(struct llava_batch *batch,
                             struct llava_answer **answers,
                             size_t n);

/**
 * The layout of every struct in this header: `n` fields. Static.
 */
LLAVA_API llava_status llava_struct_layout(const struct llava_field **fields, size_t *n);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LLAVA_H */
