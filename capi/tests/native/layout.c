// Prints the library's table of struct layouts, a field a line.
#include "check.h"

int main(void) {
    const llava_field *fields = NULL;
    size_t n = 0;
    OK(llava_struct_layout(&fields, &n));
    for (size_t i = 0; i < n; i++) {
        printf("%s.%s %zu %zu\n", fields[i].structure, fields[i].field, fields[i].offset, fields[i].size);
    }
    return 0;
}
