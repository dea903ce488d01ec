// Two sessions on two threads, cancelling from a second thread, and the error message of each thread.
#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

static llava_model *model;
static llava_image *image;

static void *questions(void *expected) {
    const llava_image *images[] = {image};
    llava_generation_options g;
    OK(llava_generation_options_init(&g, sizeof g));
    g.max_tokens = 8;
    for (int i = 0; i < 5; i++) {
        llava_session *session = NULL;
        llava_answer *answer = NULL;
        OK(llava_session_new(model, &g, &session));
        OK(llava_session_ask(session, "What?", NUL, images, 1, NULL, NULL, &answer));
        CHECK(strcmp(answer->text, expected) == 0);
        llava_answer_free(answer);
        llava_session_free(session);
    }
    return NULL;
}

static void *fail(void *unused) {
    (void)unused;
    CHECK(llava_error_message()[0] == '\0');
    EXPECT(LLAVA_STATUS_IO, llava_image_open("/of/the/second/thread", &(llava_image *){NULL}));
    CHECK(strstr(llava_error_message(), "second"));
    return NULL;
}

struct job {
    llava_session *session;
    llava_batch *batch;
    atomic_bool begun, ended;
};

static bool go_on(const char *text, size_t size, void *user_data) {
    (void)text, (void)size;
    struct job *job = user_data;
    atomic_store(&job->begun, true);
    while (!atomic_load(&job->ended)) {
        sched_yield();
    }
    return true;
}

static void *cancel(void *user_data) {
    struct job *job = user_data;
    llava_answer *answer = NULL;
    while (!atomic_load(&job->begun)) {
        sched_yield();
    }
    EXPECT(LLAVA_STATUS_BUSY, llava_session_ask(job->session, "a", 1, NULL, 0, NULL, NULL, &answer));
    llava_session_cancel(job->session);
    atomic_store(&job->ended, true);
    return NULL;
}

// Cancels over and over: before, in and after the batch.
static void *cancel_batch(void *user_data) {
    struct job *job = user_data;
    while (!atomic_load(&job->ended)) {
        llava_batch_cancel(job->batch);
        sched_yield();
    }
    return NULL;
}

static llava_generation_options endless(void) {
    llava_generation_options g;
    OK(llava_generation_options_init(&g, sizeof g));
    g.max_tokens = SIZE_MAX;
    g.temperature = 1, g.has_seed = 1, g.seed = 1; // does not repeat itself, nor end soon
    return g;
}

// threads LM IMAGE
int main(int argc, char **argv) {
    CHECK(argc == 3);
    pthread_t a, b;
    llava_answer *answer = NULL;
    OK(llava_model_open(argv[1], NULL, &model));
    OK(llava_image_open(argv[2], &image));
    const llava_image *images[] = {image};

    llava_generation_options g;
    OK(llava_generation_options_init(&g, sizeof g));
    g.max_tokens = 8;
    llava_session *session = NULL;
    OK(llava_session_new(model, &g, &session));
    OK(llava_session_ask(session, "What?", NUL, images, 1, NULL, NULL, &answer));
    llava_session_free(session);
    CHECK(pthread_create(&a, NULL, questions, (void *)answer->text) == 0);
    CHECK(pthread_create(&b, NULL, questions, (void *)answer->text) == 0);
    CHECK(pthread_join(a, NULL) == 0 && pthread_join(b, NULL) == 0);
    llava_answer_free(answer);

    EXPECT(LLAVA_STATUS_IO, llava_image_open("/of/the/first/thread", &(llava_image *){NULL}));
    CHECK(pthread_create(&a, NULL, fail, NULL) == 0);
    CHECK(pthread_join(a, NULL) == 0);
    CHECK(strstr(llava_error_message(), "first"));

    // An answer that would go on until the context is full. It waits for the cancelling after its first piece.
    g = endless();
    struct job job;
    memset(&job, 0, sizeof job);
    OK(llava_session_new(model, &g, &job.session));
    CHECK(pthread_create(&a, NULL, cancel, &job) == 0);
    OK(llava_session_ask(job.session, "What?", NUL, images, 1, go_on, &job, &answer));
    CHECK(pthread_join(a, NULL) == 0);
    CHECK(answer->finish_reason == LLAVA_FINISH_REASON_CANCELLED);
    llava_answer_free(answer);
    OK(llava_session_reset(job.session));

    atomic_store(&job.ended, false);
    OK(llava_batch_new(model, &job.batch));
    CHECK(pthread_create(&a, NULL, cancel_batch, &job) == 0);
    OK(llava_batch_push(job.batch, job.session, "What?", NUL, images, 1));
    OK(llava_batch_run(job.batch, &answer, 1));
    CHECK(answer->status == LLAVA_STATUS_CANCELLED || answer->finish_reason == LLAVA_FINISH_REASON_CANCELLED);
    atomic_store(&job.ended, true);
    CHECK(pthread_join(a, NULL) == 0);
    llava_answer_free(answer);
    llava_batch_free(job.batch);
    llava_session_free(job.session);
    llava_image_free(image);
    llava_model_free(model);
    return 0;
}
