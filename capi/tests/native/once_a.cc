// The headers, twice in each of two units that are linked together.
#include <llava.h>
#include <llava.h>
#include <llava.hpp>
#include <llava.hpp>

const char *version_of_b();

int main() { return version_of_b() == llava_version() ? 0 : 1; }
