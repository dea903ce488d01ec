// Handles freed in every order and from within callbacks; callbacks that say stop at every point; calls from callbacks.
#include "check.h"

static const char *lm, *picture;

enum { MODEL, IMAGE, EMBEDDING, SESSION, FORK, BATCH, KINDS };

struct all {
    llava_model *model;
    llava_image *image;
    llava_embedding *embedding;
    llava_session *session, *fork;
    llava_batch *batch;
};

static void free_one(struct all *h, int kind) {
    switch (kind) {
    case MODEL: llava_model_free(h->model); break;
    case IMAGE: llava_image_free(h->image); break;
    case EMBEDDING: llava_embedding_free(h->embedding); break;
    case SESSION: llava_session_free(h->session); break;
    case FORK: llava_session_free(h->fork); break;
    case BATCH: llava_batch_free(h->batch); break;
    }
}

static llava_generation_options eight_tokens(void) {
    llava_generation_options g;
    OK(llava_generation_options_init(&g, sizeof g));
    g.max_tokens = 8;
    return g;
}

// All orders of six handles that use each other.
static void freed_in_every_order(void) {
    llava_generation_options g = eight_tokens();
    llava_model *model = NULL;
    OK(llava_model_open(lm, NULL, &model));
    int order[KINDS] = {0, 1, 2, 3, 4, 5}, count[KINDS] = {0};
    for (int i = 0, n = 0; i < KINDS;) {
        struct all h = {NULL, NULL, NULL, NULL, NULL, NULL};
        // Opening is slow; a model of its own for some orders, another handle's in the others.
        llava_model *of = model;
        if (n % 120 == 0) {
            OK(llava_model_open(lm, NULL, &h.model));
            of = h.model;
        }
        n++;
        OK(llava_image_from_pixels((char[3]){0}, 3, 1, 1, 3, LLAVA_PIXEL_FORMAT_RGB, &h.image));
        OK(llava_embedding_new((float[2]){1, 2}, 1, 2, &h.embedding));
        OK(llava_session_new(of, &g, &h.session));
        OK(llava_session_fork(h.session, &h.fork));
        OK(llava_batch_new(of, &h.batch));
        if (n % 120 == 1) {
            OK(llava_batch_push(h.batch, h.fork, "What?", NUL, (const llava_image *[]){h.image}, 1));
        }
        for (int k = 0; k < KINDS; k++) {
            free_one(&h, order[k]);
        }
        for (int k = 0; k < KINDS; k++) {
            free_one(&h, k); // all are gone: ignored
        }
        // The next order, by Heap's method.
        while (i < KINDS && count[i] >= i) {
            count[i++] = 0;
        }
        if (i < KINDS) {
            int *swap = &order[i % 2 ? count[i] : 0], held = *swap;
            *swap = order[i];
            order[i] = held;
            count[i]++;
            i = 1;
        } else {
            CHECK(n == 720);
        }
    }
    llava_model_free(model);
}

struct stop {
    int at, calls;
};

static bool stop_text(const char *text, size_t size, void *user_data) {
    struct stop *s = user_data;
    CHECK(text != NULL && size > 0);
    return s->calls++ != s->at;
}

static bool stop_progress(int32_t stage, size_t done, size_t total, void *user_data) {
    struct stop *s = user_data;
    CHECK(stage >= LLAVA_STAGE_LOAD && stage <= LLAVA_STAGE_PREFILL && done <= total);
    return s->calls++ != s->at;
}

static void stopped_at_every_point(llava_model *model, llava_image *image) {
    const llava_image *images[] = {image};
    llava_generation_options g = eight_tokens();
    llava_session *session = NULL;
    OK(llava_session_new(model, &g, &session));
    llava_answer *whole = NULL;
    OK(llava_session_ask(session, "What?", NUL, images, 1, NULL, NULL, &whole));

    // The answer.
    for (struct stop s = {0, 1};; s.at++) {
        s.calls = 0;
        OK(llava_session_reset(session));
        llava_answer *answer = NULL;
        OK(llava_session_ask(session, "What?", NUL, images, 1, stop_text, &s, &answer));
        CHECK(strncmp(answer->text, whole->text, answer->text_size) == 0);
        bool stopped = s.calls > s.at;
        CHECK((answer->finish_reason == LLAVA_FINISH_REASON_CANCELLED) == stopped);
        llava_answer_free(answer);
        if (!stopped) {
            CHECK(s.at > 1);
            break;
        }
    }
    // What comes before it.
    for (struct stop s = {0, 1};; s.at++) {
        s.calls = 0;
        OK(llava_session_reset(session));
        OK(llava_session_set_progress(session, stop_progress, &s));
        llava_answer *answer = NULL;
        int32_t status = llava_session_ask(session, "What?", NUL, images, 1, NULL, NULL, &answer);
        if (status == LLAVA_STATUS_OK) {
            CHECK(s.calls == s.at && strcmp(answer->text, whole->text) == 0);
            llava_answer_free(answer);
            break;
        }
        CHECK(status == LLAVA_STATUS_CANCELLED && answer == NULL);
    }
    OK(llava_session_set_progress(session, NULL, NULL));
    // Loading and encoding.
    for (struct stop s = {0, 1};; s.at++) {
        llava_model_options o;
        OK(llava_model_options_init(&o, sizeof o));
        o.on_progress = stop_progress, o.progress_data = &s;
        s.calls = 0;
        llava_model *loaded = NULL;
        int32_t status = llava_model_open(lm, &o, &loaded);
        llava_model_free(loaded);
        if (status == LLAVA_STATUS_OK) {
            break;
        }
        CHECK(status == LLAVA_STATUS_CANCELLED && loaded == NULL);
    }
    for (struct stop s = {0, 1};; s.at++) {
        s.calls = 0;
        llava_embedding *embedding = NULL;
        int32_t status = llava_model_encode(model, image, stop_progress, &s, &embedding);
        llava_embedding_free(embedding);
        if (status == LLAVA_STATUS_OK) {
            break;
        }
        CHECK(status == LLAVA_STATUS_CANCELLED && embedding == NULL);
    }
    // The prompts of a batch.
    for (struct stop s = {0, 1};; s.at++) {
        s.calls = 0;
        OK(llava_session_reset(session));
        llava_batch *batch = NULL;
        OK(llava_batch_new(model, &batch));
        OK(llava_batch_set_progress(batch, stop_progress, &s));
        OK(llava_batch_push(batch, session, "What?", NUL, images, 1));
        llava_answer *answer = NULL;
        OK(llava_batch_run(batch, &answer, 1));
        llava_batch_free(batch);
        bool stopped = answer->status == LLAVA_STATUS_CANCELLED;
        CHECK(stopped ? strcmp(answer->error, "cancelled") == 0 && answer->n_tokens == 0
                      : strcmp(answer->text, whole->text) == 0 && answer->error[0] == '\0');
        llava_answer_free(answer);
        if (!stopped) {
            break;
        }
    }
    llava_answer_free(whole);
    llava_session_free(session);
}

struct inner {
    llava_model *model;
    llava_session *session;
    llava_image *image;
    int calls;
};

// In the middle of a computation nothing can be called but cancel and free.
static bool call_from_progress(int32_t stage, size_t done, size_t total, void *user_data) {
    (void)stage, (void)done, (void)total;
    struct inner *in = user_data;
    in->calls++;
    llava_answer *answer = NULL;
    size_t n;
    EXPECT(LLAVA_STATUS_BUSY, llava_session_ask(in->session, "a", 1, NULL, 0, NULL, NULL, &answer));
    EXPECT(LLAVA_STATUS_BUSY, llava_model_describe(in->model, in->image, &answer));
    EXPECT(LLAVA_STATUS_BUSY, llava_session_position(in->session, &n));
    CHECK(strstr(llava_error_message(), "callback"));
    return true;
}

// Between two tokens other sessions can work; this one is busy.
static bool call_from_text(const char *text, size_t size, void *user_data) {
    (void)text, (void)size;
    struct inner *in = user_data;
    llava_answer *answer = NULL;
    EXPECT(LLAVA_STATUS_BUSY, llava_session_ask(in->session, "a", 1, NULL, 0, NULL, NULL, &answer));
    EXPECT(LLAVA_STATUS_BUSY, llava_session_reset(in->session));
    if (in->calls++ == 0) {
        llava_session *other = NULL;
        llava_generation_options g = eight_tokens();
        OK(llava_session_new(in->model, &g, &other));
        OK(llava_session_ask(other, "a", 1, NULL, 0, NULL, NULL, &answer));
        llava_answer_free(answer);
        llava_session_free(other);
    }
    return true;
}

// All that a call uses may be freed while it runs: it goes on to its end.
static bool free_from_text(const char *text, size_t size, void *user_data) {
    (void)text, (void)size;
    struct inner *in = user_data;
    if (in->calls++ == 0) {
        llava_session_free(in->session);
        llava_image_free(in->image);
        llava_model_free(in->model);
    }
    return true;
}

static void called_from_callbacks(void) {
    struct inner in = {NULL, NULL, NULL, 0};
    llava_generation_options g = eight_tokens();
    llava_answer *answer = NULL;
    OK(llava_model_open(lm, NULL, &in.model));
    OK(llava_image_open(picture, &in.image));
    OK(llava_session_new(in.model, &g, &in.session));
    OK(llava_session_set_progress(in.session, call_from_progress, &in));
    const llava_image *images[] = {in.image};
    OK(llava_session_ask(in.session, "What?", NUL, images, 1, NULL, NULL, &answer));
    CHECK(in.calls > 2);
    llava_answer_free(answer);

    OK(llava_session_set_progress(in.session, NULL, NULL));
    OK(llava_session_reset(in.session));
    in.calls = 0;
    OK(llava_session_ask(in.session, "What?", NUL, images, 1, call_from_text, &in, &answer));
    llava_answer_free(answer);

    OK(llava_session_reset(in.session));
    in.calls = 0;
    OK(llava_session_ask(in.session, "What?", NUL, images, 1, free_from_text, &in, &answer));
    CHECK(in.calls > 1 && answer->n_tokens > 1);
    llava_answer_free(answer);
    EXPECT(LLAVA_STATUS_INVALID_HANDLE, llava_session_reset(in.session));
}

static int lines;

static void count_line(int32_t level, const char *text, size_t size, void *user_data) {
    CHECK(level >= LLAVA_LOG_LEVEL_ERROR && level <= LLAVA_LOG_LEVEL_DEBUG && text != NULL && size > 0);
    CHECK(user_data == &lines);
    lines++;
    EXPECT(LLAVA_STATUS_BUSY, llava_set_log(LLAVA_LOG_LEVEL_OFF, NULL, NULL));
}

static void logged(void) {
    llava_model *model = NULL;
    OK(llava_set_log(LLAVA_LOG_LEVEL_DEBUG, count_line, &lines));
    OK(llava_model_open(lm, NULL, &model));
    llava_model_free(model);
    CHECK(lines > 0);
    OK(llava_set_log(LLAVA_LOG_LEVEL_DEBUG, NULL, NULL));
    int before = lines;
    OK(llava_model_open(lm, NULL, &model));
    llava_model_free(model);
    CHECK(lines == before);
}

static void batches_give_sessions_back(llava_model *model) {
    llava_session *session = NULL;
    llava_batch *batch = NULL;
    llava_answer *answer = NULL;
    llava_generation_options g = eight_tokens();
    OK(llava_session_new(model, &g, &session));
    OK(llava_batch_new(model, &batch));
    OK(llava_batch_push(batch, session, "What?", NUL, NULL, 0));
    EXPECT(LLAVA_STATUS_BUSY, llava_session_ask(session, "a", 1, NULL, 0, NULL, NULL, &answer));
    EXPECT(LLAVA_STATUS_BUSY, llava_batch_push(batch, session, "What?", NUL, NULL, 0));
    EXPECT(LLAVA_STATUS_INVALID_ARGUMENT, llava_batch_run(batch, NULL, 0));
    OK(llava_batch_run(batch, &answer, 1));
    CHECK(answer->n_tokens == 8);
    llava_answer_free(answer);
    EXPECT(LLAVA_STATUS_INVALID_ARGUMENT, llava_batch_push(batch, session, "What?", NUL, NULL, 0));
    EXPECT(LLAVA_STATUS_INVALID_ARGUMENT, llava_batch_run(batch, &answer, 1));
    llava_batch_free(batch);
    OK(llava_session_ask(session, "And?", NUL, NULL, 0, NULL, NULL, &answer));
    llava_answer_free(answer);
    // One that is freed without having run.
    OK(llava_batch_new(model, &batch));
    OK(llava_batch_push(batch, session, "What?", NUL, NULL, 0));
    llava_batch_free(batch);
    OK(llava_session_ask(session, "And?", NUL, NULL, 0, NULL, NULL, &answer));
    llava_answer_free(answer);
    llava_session_free(session);
}

// lifetimes LM IMAGE
int main(int argc, char **argv) {
    CHECK(argc == 3);
    lm = argv[1], picture = argv[2];
    llava_model *model = NULL;
    llava_image *image = NULL;
    OK(llava_model_open(lm, NULL, &model));
    OK(llava_image_open(picture, &image));
    freed_in_every_order();
    stopped_at_every_point(model, image);
    batches_give_sessions_back(model);
    called_from_callbacks();
    logged();
    llava_image_free(image);
    llava_model_free(model);
    return 0;
}
