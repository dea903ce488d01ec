// 200 times load, describe, free: the resident memory stays where it was.
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <unistd.h>

static long resident_kib(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f != NULL && fscanf(f, "%*d %ld", &pages) == 1);
    fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void cycle(const char *lm, const char *picture) {
    llava_model *model = NULL;
    llava_image *image = NULL;
    llava_answer *answer = NULL;
    llava_model_options o;
    OK(llava_model_options_init(&o, sizeof o));
    o.threads = 2;
    OK(llava_model_open(lm, &o, &model));
    OK(llava_image_open(picture, &image));
    OK(llava_model_describe(model, image, &answer));
    llava_answer_free(answer);
    llava_image_free(image);
    llava_model_free(model);
}

// leak LM IMAGE CYCLES
int main(int argc, char **argv) {
    CHECK(argc == 4);
    int cycles = atoi(argv[3]);
    // The first ones fill the allocator's pools.
    for (int i = 0; i < cycles / 10; i++) {
        cycle(argv[1], argv[2]);
    }
    long before = resident_kib();
    for (int i = 0; i < cycles; i++) {
        cycle(argv[1], argv[2]);
    }
    long after = resident_kib();
    printf("%ld KiB before, %ld KiB after %d cycles\n", before, after, cycles);
    // A leak of a session's smallest part, 10 KiB a cycle, would show.
    CHECK(after - before < 10L * cycles);
    return 0;
}
