/* Describes images, writing the words as they come.
 *
 *     cargo xtask install --prefix "$HOME/.local"
 *     cc examples/describe.c $(pkg-config --cflags --libs llava) -o describe
 *     ./describe models/llava-v1.5-7b cat.jpg dog.jpg
 */
#include <llava.h>

#include <stdio.h>
#include <stdlib.h>

static bool print(const char *text, size_t size, void *user_data) {
    (void)user_data;
    /* Nobody reads any more: stop. */
    return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0;
}

static int fail(const char *name) {
    fprintf(stderr, "%s: %s\n", name, llava_error_message());
    return EXIT_FAILURE;
}

static int describe(const llava_model *model, const char *path) {
    llava_image *image = NULL;
    llava_session *session = NULL;
    llava_answer *answer = NULL;
    int result = EXIT_SUCCESS;
    if (llava_image_open(path, &image) != LLAVA_STATUS_OK || llava_session_new(model, NULL, &session) != LLAVA_STATUS_OK ||
        llava_session_ask(session, "Describe the image.", LLAVA_NUL_TERMINATED, (const llava_image *[]){image}, 1,
                          print, NULL, &answer) != LLAVA_STATUS_OK) {
        result = fail(path);
    } else {
        printf("\n");
        fprintf(stderr, "%zu tokens in %.1f s, the first after %.1f s\n", answer->n_tokens, answer->total_ms / 1000,
                answer->first_token_ms / 1000);
    }
    llava_answer_free(answer);
    llava_session_free(session);
    llava_image_free(image);
    return result;
}

int main(int argc, char **argv) {
    llava_model *model = NULL;
    int result = EXIT_SUCCESS;
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL IMAGE...\n", argv[0]);
        return 2;
    }
    if (llava_model_open(argv[1], NULL, &model) != LLAVA_STATUS_OK) {
        return fail(argv[1]);
    }
    for (int i = 2; i < argc; i++) {
        if (describe(model, argv[i]) != EXIT_SUCCESS) {
            result = EXIT_FAILURE;
        }
    }
    llava_model_free(model);
    return result;
}
