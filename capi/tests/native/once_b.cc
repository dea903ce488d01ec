#include <llava.hpp>
#include <llava.hpp>
#include <llava.h>

const char *version_of_b();
const char *version_of_b() {
    llava::Generation g;
    return g.max_tokens == 512 ? llava_version() : nullptr;
}
