// Every function with NULL, with handles that are none, and with values out of range: each returns its status, writes
// nothing, and leaves everything usable.
#include "check.h"

#include <limits.h>
#include <math.h>

static llava_model *model, *text_only, *freed_model;
static llava_image *image, *freed_image;
static llava_embedding *embedding, *freed_embedding;
static llava_session *session, *freed_session;
static llava_batch *batch, *freed_batch;

static char nowhere[64]; // an address that is no handle

// For out-parameters: must not change.
static void *const UNTOUCHED = nowhere + 1;

#define UNCHANGED(pointer) CHECK((void *)(pointer) == UNTOUCHED)

// Pointers that are no handle of the type whose freed one is given.
static void *garbage(int i, void *freed, void *other) {
    void *const all[] = {NULL, freed, other, nowhere, (void *)1, (void *)16, (void *)UINTPTR_MAX};
    return all[i];
}
#define GARBAGE 7

static bool stop(int32_t stage, size_t done, size_t total, void *user_data) {
    (void)stage, (void)done, (void)total, (void)user_data;
    return false;
}

static void functions_without_a_status(void) {
    CHECK(llava_abi_version() == LLAVA_ABI_VERSION);
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", LLAVA_VERSION_MAJOR, LLAVA_VERSION_MINOR, LLAVA_VERSION_PATCH);
    CHECK(strcmp(llava_version(), version) == 0);
    CHECK(strcmp(llava_status_name(LLAVA_STATUS_POISONED), "LLAVA_STATUS_POISONED") == 0);
    CHECK(strcmp(llava_status_name(INT_MIN), "LLAVA_STATUS_UNKNOWN") == 0);
    for (int i = 0; i < GARBAGE; i++) {
        llava_model_free(garbage(i, freed_model, image));
        llava_image_free(garbage(i, freed_image, model));
        llava_embedding_free(garbage(i, freed_embedding, image));
        llava_session_free(garbage(i, freed_session, batch));
        llava_batch_free(garbage(i, freed_batch, session));
        llava_answer_free(garbage(i, freed_model, image));
        llava_session_cancel(garbage(i, freed_session, batch));
        llava_batch_cancel(garbage(i, freed_batch, session));
    }
}

static void handles_that_are_none(void) {
    llava_model *m = UNTOUCHED;
    llava_embedding *e = UNTOUCHED;
    llava_session *s = UNTOUCHED;
    llava_batch *b = UNTOUCHED;
    llava_answer *a = UNTOUCHED;
    const float *values = UNTOUCHED;
    size_t n = 77, n2 = 77;
    uint32_t width = 77, height = 77;
    uint32_t ids[4] = {1, 2, 3, 4};
    float logits[1];
    llava_score score;
    llava_model_info info;
    llava_text yes = {"yes", NUL};
    for (int i = 0; i < GARBAGE; i++) {
        const int32_t none = LLAVA_STATUS_INVALID_HANDLE;
        const llava_model *gm = garbage(i, freed_model, image);
        EXPECT(none, llava_model_get_info(gm, &info, sizeof info));
        EXPECT(none, llava_model_image_tokens(gm, 10, 10, &n));
        EXPECT(none, llava_model_describe(gm, image, &a));
        EXPECT(none, llava_model_encode(gm, image, NULL, NULL, &e));
        EXPECT(none, llava_model_tokenize(gm, "a", 1, 0, ids, 4, &n));
        EXPECT(none, llava_model_detokenize(gm, ids, 4, NULL, 0, &n));
        EXPECT(none, llava_model_logits(gm, &(llava_input){NULL, 1}, 1, 1, NULL, NULL, logits, 1));
        EXPECT(none, llava_model_generate(gm, &(llava_input){NULL, 1}, 1, NULL, NULL, NULL, NULL, &a));
        EXPECT(none, llava_session_new(gm, NULL, &s));
        EXPECT(none, llava_batch_new(gm, &b));

        const llava_image *gi = garbage(i, freed_image, model);
        EXPECT(none, llava_image_size(gi, &width, &height));
        EXPECT(none, llava_model_describe(model, gi, &a));
        EXPECT(none, llava_model_encode(model, gi, NULL, NULL, &e));
        EXPECT(none, llava_session_prefill(session, &gi, 1));
        EXPECT(none, llava_session_ask(session, "a", 1, &gi, 1, NULL, NULL, &a));
        EXPECT(none, llava_session_score(session, "a", 1, &gi, 1, &yes, 1, &score));
        EXPECT(none, llava_batch_push(batch, session, "a", 1, &gi, 1));

        const llava_embedding *ge = garbage(i, freed_embedding, model);
        EXPECT(none, llava_embedding_values(ge, &values, &n, &n2));
        EXPECT(none, llava_embedding_save(ge, "/nowhere/at/all.npy"));
        EXPECT(none, llava_session_attach(session, ge));
        if (ge) { // NULL says that the input is a token
            EXPECT(none, llava_model_generate(model, &(llava_input){ge, 1}, 1, NULL, NULL, NULL, NULL, &a));
            EXPECT(none, llava_model_logits(model, &(llava_input){ge, 1}, 1, 0, NULL, NULL, logits, 1));
        }

        llava_session *gs = garbage(i, freed_session, batch);
        EXPECT(none, llava_session_set_generation(gs, NULL));
        EXPECT(none, llava_session_set_system(gs, "a", 1));
        EXPECT(none, llava_session_set_template(gs, "plain"));
        EXPECT(none, llava_session_set_progress(gs, NULL, NULL));
        EXPECT(none, llava_session_reset(gs));
        EXPECT(none, llava_session_fork(gs, &s));
        EXPECT(none, llava_session_attach(gs, embedding));
        EXPECT(none, llava_session_detach(gs));
        EXPECT(none, llava_session_prefill(gs, NULL, 0));
        EXPECT(none, llava_session_ask(gs, "a", 1, NULL, 0, NULL, NULL, &a));
        EXPECT(none, llava_session_score(gs, "a", 1, NULL, 0, &yes, 1, &score));
        EXPECT(none, llava_session_position(gs, &n));
        EXPECT(none, llava_batch_push(batch, gs, "a", 1, NULL, 0));

        llava_batch *gb = garbage(i, freed_batch, session);
        EXPECT(none, llava_batch_push(gb, session, "a", 1, NULL, 0));
        EXPECT(none, llava_batch_set_progress(gb, NULL, NULL));
        EXPECT(none, llava_batch_run(gb, NULL, 0));
    }
    UNCHANGED(m);
    UNCHANGED(e);
    UNCHANGED(s);
    UNCHANGED(b);
    UNCHANGED(a);
    UNCHANGED(values);
    CHECK(n == 77 && n2 == 77 && width == 77 && height == 77 && ids[0] == 1);
}

static void null_where_something_is_needed(void) {
    const int32_t bad = LLAVA_STATUS_INVALID_ARGUMENT;
    llava_model *m = UNTOUCHED;
    llava_image *im = UNTOUCHED;
    llava_embedding *e = UNTOUCHED;
    llava_answer *a = UNTOUCHED;
    const float *values = UNTOUCHED;
    const llava_field *fields = UNTOUCHED;
    size_t n = 77;
    uint32_t width = 77;
    EXPECT(bad, llava_model_options_init(NULL, sizeof(llava_model_options)));
    EXPECT(bad, llava_generation_options_init(NULL, sizeof(llava_generation_options)));
    EXPECT(bad, llava_model_open("x", NULL, NULL));
    EXPECT(bad, llava_model_open_memory(NULL, 5, NULL, 0, NULL, &m));
    EXPECT(bad, llava_model_open_memory("GGUF", 4, NULL, 5, NULL, &m));
    EXPECT(bad, llava_model_open_memory("GGUF", 4, NULL, 0, NULL, NULL));
    EXPECT(bad, llava_model_get_info(model, NULL, sizeof(llava_model_info)));
    EXPECT(bad, llava_model_image_tokens(model, 10, 10, NULL));
    EXPECT(bad, llava_model_describe(model, image, NULL));
    EXPECT(bad, llava_model_encode(model, image, NULL, NULL, NULL));
    EXPECT(bad, llava_model_tokenize(model, NULL, 1, 0, NULL, 0, &n));
    EXPECT(bad, llava_model_tokenize(model, NULL, NUL, 0, NULL, 0, &n));
    EXPECT(bad, llava_model_tokenize(model, "a", 1, 0, NULL, 0, NULL));
    EXPECT(bad, llava_model_detokenize(model, NULL, 1, NULL, 0, &n));
    EXPECT(bad, llava_model_detokenize(model, NULL, 0, NULL, 0, NULL));
    EXPECT(bad, llava_model_logits(model, NULL, 1, 1, NULL, NULL, (float[1]){0}, 1));
    EXPECT(bad, llava_model_logits(model, &(llava_input){NULL, 1}, 1, 1, NULL, NULL, NULL, 1000000));
    EXPECT(bad, llava_model_generate(model, NULL, 1, NULL, NULL, NULL, NULL, &a));
    EXPECT(bad, llava_model_generate(model, &(llava_input){NULL, 1}, 1, NULL, NULL, NULL, NULL, NULL));
    EXPECT(bad, llava_image_open(NULL, &im));
    EXPECT(bad, llava_image_open("x", NULL));
    EXPECT(bad, llava_image_decode(NULL, 4, &im));
    EXPECT(bad, llava_image_decode("x", 1, NULL));
    EXPECT(bad, llava_image_from_pixels(NULL, 3, 1, 1, 3, LLAVA_PIXEL_FORMAT_RGB, &im));
    EXPECT(bad, llava_image_from_pixels("abc", 3, 1, 1, 3, LLAVA_PIXEL_FORMAT_RGB, NULL));
    EXPECT(bad, llava_image_size(image, NULL, &width));
    EXPECT(bad, llava_image_size(image, &width, NULL));
    EXPECT(bad, llava_embedding_new(NULL, 1, 1, &e));
    EXPECT(bad, llava_embedding_new(&(float){1}, 1, 1, NULL));
    EXPECT(bad, llava_embedding_load(NULL, &e));
    EXPECT(bad, llava_embedding_load("x", NULL));
    EXPECT(bad, llava_embedding_save(embedding, NULL));
    EXPECT(bad, llava_embedding_values(embedding, NULL, &n, &n));
    EXPECT(bad, llava_embedding_values(embedding, &values, NULL, &n));
    EXPECT(bad, llava_embedding_values(embedding, &values, &n, NULL));
    EXPECT(bad, llava_session_new(model, NULL, NULL));
    EXPECT(bad, llava_session_set_system(session, NULL, 3));
    EXPECT(bad, llava_session_set_template(session, NULL));
    EXPECT(bad, llava_session_fork(session, NULL));
    EXPECT(bad, llava_session_prefill(session, NULL, 2));
    EXPECT(bad, llava_session_ask(session, NULL, 2, NULL, 0, NULL, NULL, &a));
    EXPECT(bad, llava_session_ask(session, "a", 1, NULL, 2, NULL, NULL, &a));
    EXPECT(bad, llava_session_ask(session, "a", 1, NULL, 0, NULL, NULL, NULL));
    EXPECT(bad, llava_session_score(session, NULL, 2, NULL, 0, NULL, 0, NULL));
    EXPECT(bad, llava_session_score(session, "a", 1, NULL, 0, NULL, 1, &(llava_score){0, 0}));
    EXPECT(bad, llava_session_score(session, "a", 1, NULL, 0, &(llava_text){"yes", 3}, 1, NULL));
    EXPECT(bad, llava_session_score(session, "a", 1, NULL, 0, &(llava_text){NULL, 3}, 1, &(llava_score){0, 0}));
    EXPECT(bad, llava_session_position(session, NULL));
    EXPECT(bad, llava_batch_new(model, NULL));
    EXPECT(bad, llava_batch_push(batch, session, NULL, 1, NULL, 0));
    EXPECT(bad, llava_batch_push(batch, session, "a", 1, NULL, 1));
    EXPECT(bad, llava_batch_run(batch, NULL, 3));
    EXPECT(bad, llava_struct_layout(NULL, &n));
    EXPECT(bad, llava_struct_layout(&fields, NULL));
    UNCHANGED(m);
    UNCHANGED(im);
    UNCHANGED(e);
    UNCHANGED(a);
    UNCHANGED(values);
    UNCHANGED(fields);
    CHECK(n == 77 && width == 77);
}

static void values_out_of_range(const char *lm) {
    const int32_t bad = LLAVA_STATUS_INVALID_ARGUMENT;
    llava_model *m = UNTOUCHED;
    llava_image *im = UNTOUCHED;
    llava_embedding *e = UNTOUCHED;
    llava_session *s = UNTOUCHED;
    llava_answer *a = UNTOUCHED;
    size_t n = 77;

    // Files.
    EXPECT(LLAVA_STATUS_IO, llava_model_open("/nowhere/at/all", NULL, &m));
    EXPECT(LLAVA_STATUS_IO, llava_image_open("/nowhere/at/all", &im));
    EXPECT(LLAVA_STATUS_IO, llava_embedding_load("/nowhere/at/all", &e));
    EXPECT(LLAVA_STATUS_IO, llava_embedding_save(embedding, "/nowhere/at/all"));
    EXPECT(LLAVA_STATUS_INVALID_MODEL, llava_model_open_memory("garbage", 7, NULL, 0, NULL, &m));
    EXPECT(LLAVA_STATUS_INVALID_MODEL, llava_model_open_memory("", 0, NULL, 0, NULL, &m));
    EXPECT(LLAVA_STATUS_INVALID_IMAGE, llava_image_decode("garbage", 7, &im));
    EXPECT(LLAVA_STATUS_INVALID_IMAGE, llava_image_decode("", 0, &im));
    EXPECT(bad, llava_image_open("\xff\xfe", &im));
    EXPECT(LLAVA_STATUS_MODEL_NOT_FOUND, llava_model_describe(text_only, image, &a));
    EXPECT(LLAVA_STATUS_MODEL_NOT_FOUND, llava_model_image_tokens(text_only, 1, 1, &n));

    // Options of models.
    llava_model_options o;
#define MODEL(field, value)                                                                                            \
    OK(llava_model_options_init(&o, sizeof o));                                                                        \
    o.field = value;                                                                                                   \
    EXPECT(bad, llava_model_open(lm, &o, &m))
    MODEL(struct_size, 0);
    MODEL(struct_size, 3);
    MODEL(struct_size, SIZE_MAX);
    MODEL(context, SIZE_MAX);
    MODEL(kv_type, 99);
    MODEL(kv_type, -1);
    MODEL(exact, 2);
    MODEL(template_name, "\xff");
    MODEL(kernels, "no such kernels");
    MODEL(mmproj, "\xff");
    OK(llava_model_options_init(&o, sizeof o));
    o.template_name = "no such style";
    EXPECT(LLAVA_STATUS_TEMPLATE, llava_model_open(lm, &o, &m));
    OK(llava_model_options_init(&o, sizeof o));
    o.on_progress = stop;
    EXPECT(LLAVA_STATUS_CANCELLED, llava_model_open(lm, &o, &m));
    OK(llava_model_options_init(&o, sizeof o));
    o.mmproj = lm;
    EXPECT(bad, llava_model_open_memory("GGUF", 4, NULL, 0, &o, &m));

    // Options of answers.
    llava_generation_options g;
#define GENERATION(field, value)                                                                                       \
    OK(llava_generation_options_init(&g, sizeof g));                                                                   \
    g.field = value;                                                                                                   \
    EXPECT(bad, llava_session_new(model, &g, &s));                                                                     \
    EXPECT(bad, llava_session_set_generation(session, &g));                                                            \
    EXPECT(bad, llava_model_generate(model, &(llava_input){NULL, 1}, 1, &g, NULL, NULL, NULL, &a))
    GENERATION(struct_size, 1);
    GENERATION(temperature, -1);
    GENERATION(temperature, (float)NAN);
    GENERATION(temperature, (float)INFINITY);
    GENERATION(top_p, 1.5f);
    GENERATION(top_p, -1);
    GENERATION(top_p, (float)NAN);
    GENERATION(min_p, 1);
    GENERATION(repeat_penalty, -2);
    GENERATION(has_seed, 7);
    GENERATION(logprobs, -1);
    GENERATION(top_logprobs, 5); // without logprobs
    GENERATION(n_stop, 1);
    GENERATION(n_stop, SIZE_MAX);
    GENERATION(n_stop_tokens, 1);
    GENERATION(n_logit_bias, 1);
    llava_logit_bias endless = {1, (float)INFINITY};
    OK(llava_generation_options_init(&g, sizeof g));
    g.logit_bias = &endless, g.n_logit_bias = 1;
    EXPECT(bad, llava_session_new(model, &g, &s));
    llava_text broken = {"\xff", 1};
    OK(llava_generation_options_init(&g, sizeof g));
    g.stop = &broken, g.n_stop = 1;
    EXPECT(bad, llava_session_new(model, &g, &s));

    // Structs of other versions: shorter ones work, longer ones if what is unknown is zero.
    struct {
        llava_generation_options options;
        uint64_t later;
    } newer;
    memset(&newer, 0, sizeof newer);
    newer.options.struct_size = sizeof newer;
    OK(llava_session_set_generation(session, &newer.options));
    newer.later = 1;
    EXPECT(bad, llava_session_set_generation(session, &newer.options));
    struct {
        size_t struct_size;
        size_t max_tokens;
    } *older = malloc(sizeof *older); // on the heap, so that valgrind sees what is read behind it
    CHECK(older != NULL);
    OK(llava_generation_options_init((llava_generation_options *)older, sizeof *older));
    CHECK(older->struct_size == sizeof *older && older->max_tokens == 512);
    older->max_tokens = 3;
    llava_session *short_answers = NULL;
    OK(llava_session_new(model, (llava_generation_options *)older, &short_answers));
    llava_answer *three = NULL;
    OK(llava_session_ask(short_answers, "What?", NUL, NULL, 0, NULL, NULL, &three));
    CHECK(three->n_tokens <= 3);
    llava_answer_free(three);
    llava_session_free(short_answers);
    EXPECT(bad, llava_generation_options_init((llava_generation_options *)older, 2));
    free(older);
    size_t info = 0;
    OK(llava_model_get_info(model, (llava_model_info *)&info, sizeof info));
    CHECK(info == sizeof info);
    EXPECT(bad, llava_model_get_info(model, (llava_model_info *)&info, 3));

    // Pixels.
    const char pixels[12] = {0};
    const int32_t rgb = LLAVA_PIXEL_FORMAT_RGB, image_fault = LLAVA_STATUS_INVALID_IMAGE;
    EXPECT(bad, llava_image_from_pixels(pixels, 12, 2, 2, 6, 0, &im));
    EXPECT(bad, llava_image_from_pixels(pixels, 12, 2, 2, 6, 6, &im));
    EXPECT(image_fault, llava_image_from_pixels(pixels, 12, 0, 2, 6, rgb, &im));
    EXPECT(image_fault, llava_image_from_pixels(pixels, 12, UINT32_MAX, UINT32_MAX, SIZE_MAX, rgb, &im));
    EXPECT(image_fault, llava_image_from_pixels(pixels, 11, 2, 2, 6, rgb, &im));
    EXPECT(image_fault, llava_image_from_pixels(pixels, 12, 2, 2, 5, rgb, &im));
    EXPECT(image_fault, llava_image_from_pixels(pixels, 12, 2, 2, SIZE_MAX, rgb, &im));
    EXPECT(image_fault, llava_image_from_pixels(NULL, 0, 2, 2, 6, rgb, &im));

    // Embeddings, tokens, texts.
    EXPECT(bad, llava_embedding_new(&(float){1}, 0, 1, &e));
    EXPECT(bad, llava_embedding_new(&(float){1}, 1, 0, &e));
    EXPECT(bad, llava_embedding_new(&(float){1}, SIZE_MAX, 2, &e));
    EXPECT(bad, llava_embedding_new(&(float){1}, SIZE_MAX, 1, &e));
    EXPECT(bad, llava_embedding_new((const float *)(nowhere + 1), 1, 1, &e)); // not aligned
    llava_embedding *narrow = NULL;
    OK(llava_embedding_new((float[3]){1, 2, 3}, 1, 3, &narrow));
    EXPECT(bad, llava_session_attach(session, narrow));
    llava_embedding_free(narrow);
    EXPECT(bad, llava_model_tokenize(model, "a\xff", 2, 0, NULL, 0, &n));
    EXPECT(bad, llava_model_tokenize(model, "a", SIZE_MAX - 1, 0, NULL, 0, &n));
    EXPECT(bad, llava_model_tokenize(model, "a", 1, 5, NULL, 0, &n));
    llava_input none = {NULL, UINT32_MAX};
    EXPECT(bad, llava_model_generate(model, &none, 1, NULL, NULL, NULL, NULL, &a));
    EXPECT(bad, llava_model_generate(model, NULL, 0, NULL, NULL, NULL, NULL, &a));
    llava_model_info i;
    OK(llava_model_get_info(model, &i, sizeof i));
    float *logits = malloc(i.vocab_size * sizeof *logits);
    CHECK(logits != NULL);
    EXPECT(bad, llava_model_logits(model, &none, 1, 1, NULL, NULL, logits, i.vocab_size));
    none.token = 1;
    EXPECT(bad, llava_model_logits(model, &none, 1, 0, NULL, NULL, logits, i.vocab_size));
    EXPECT(bad, llava_model_logits(model, &none, 1, 2, NULL, NULL, logits, i.vocab_size));
    EXPECT(bad, llava_model_logits(model, &none, 1, SIZE_MAX, NULL, NULL, logits, i.vocab_size));
    EXPECT(bad, llava_model_logits(model, &none, 1, 1, NULL, NULL, logits, i.vocab_size - 1));
    OK(llava_model_logits(model, &none, 1, 1, NULL, NULL, logits, i.vocab_size));
    free(logits);

    // Sessions and batches.
    EXPECT(bad, llava_session_ask(session, "", 0, NULL, 0, NULL, NULL, &a));
    EXPECT(bad, llava_session_ask(session, "\xff", 1, NULL, 0, NULL, NULL, &a));
    EXPECT(LLAVA_STATUS_TEMPLATE, llava_session_set_template(session, "no such style"));
    EXPECT(bad, llava_session_score(session, "a", 1, NULL, 0, &(llava_text){"", 0}, 1, &(llava_score){0, 0}));
    OK(llava_session_score(session, "a", 1, NULL, 0, NULL, 0, NULL));
    llava_session *stranger = NULL;
    OK(llava_session_new(text_only, NULL, &stranger));
    EXPECT(bad, llava_batch_push(batch, stranger, "a", 1, NULL, 0));
    OK(llava_session_reset(stranger)); // and it is not lost
    llava_session_free(stranger);
    EXPECT(bad, llava_batch_run(batch, &a, 1)); // holds none
    EXPECT(bad, llava_set_log(-1, NULL, NULL));
    EXPECT(bad, llava_set_log(5, NULL, NULL));

    UNCHANGED(m);
    UNCHANGED(im);
    UNCHANGED(e);
    UNCHANGED(s);
    UNCHANGED(a);
    CHECK(n == 77);
}

static void messages_name_what_is_wrong(void) {
    llava_image *im = NULL;
    EXPECT(LLAVA_STATUS_IO, llava_image_open("/nowhere/at/all", &im));
    CHECK(strstr(llava_error_message(), "/nowhere/at/all"));
    EXPECT(LLAVA_STATUS_INVALID_HANDLE, llava_session_reset((llava_session *)nowhere));
    CHECK(strstr(llava_error_message(), "llava_session"));
    EXPECT(LLAVA_STATUS_INVALID_ARGUMENT, llava_image_open(NULL, &im));
    CHECK(strstr(llava_error_message(), "path"));
}

// arguments LM TEXT_ONLY IMAGE
int main(int argc, char **argv) {
    CHECK(argc == 4);
    CHECK(llava_error_message()[0] == '\0');
    OK(llava_model_open(argv[1], NULL, &model));
    OK(llava_model_open(argv[2], NULL, &text_only));
    OK(llava_image_open(argv[3], &image));
    OK(llava_model_encode(model, image, NULL, NULL, &embedding));
    OK(llava_session_new(model, NULL, &session));
    OK(llava_batch_new(model, &batch));
    OK(llava_model_open(argv[1], NULL, &freed_model));
    OK(llava_image_open(argv[3], &freed_image));
    OK(llava_embedding_new(&(float){1}, 1, 1, &freed_embedding));
    OK(llava_session_new(model, NULL, &freed_session));
    OK(llava_batch_new(model, &freed_batch));
    llava_model_free(freed_model);
    llava_image_free(freed_image);
    llava_embedding_free(freed_embedding);
    llava_session_free(freed_session);
    llava_batch_free(freed_batch);

    functions_without_a_status();
    handles_that_are_none();
    null_where_something_is_needed();
    values_out_of_range(argv[1]);
    messages_name_what_is_wrong();

    // After all that, everything still works.
    llava_answer *answer = NULL;
    OK(llava_session_ask(session, "What?", NUL, (const llava_image *[]){image}, 1, NULL, NULL, &answer));
    llava_answer_free(answer);
    llava_batch_free(batch);
    llava_session_free(session);
    llava_embedding_free(embedding);
    llava_image_free(image);
    llava_model_free(text_only);
    llava_model_free(model);
    return 0;
}
