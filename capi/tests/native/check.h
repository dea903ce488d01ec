// What the test programs share: checks that end the program with the line and the library's message.
#ifndef CHECK_H
#define CHECK_H

#include <llava.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n  last message: %s\n", __FILE__, __LINE__, #condition, llava_error_message()); \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define OK(call) EXPECT(LLAVA_STATUS_OK, call)

#define EXPECT(expected, call)                                                                                         \
    do {                                                                                                               \
        int32_t status_ = (call);                                                                                      \
        if (status_ != (expected)) {                                                                                   \
            fprintf(stderr, "%s:%d: %s\n  is %s, expected %s\n  last message: %s\n", __FILE__, __LINE__, #call,        \
                    llava_status_name(status_), llava_status_name(expected), llava_error_message());                   \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

// The size of a text that ends in NUL.
#define NUL LLAVA_NUL_TERMINATED

#endif
